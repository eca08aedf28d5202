//! The ingest stage (`ingest-edge`): listeners for OTLP over gRPC and HTTP, and the receivers that take batches in.

pub mod accept;
pub mod door;
pub mod grpc;
pub mod http;
pub mod receiver;
pub mod session;
pub mod wire;
