//! OTLP over gRPC: encoded request in, [`Outcome`] out; the codec passes bytes through, so nothing is encoded twice.

use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use prost::Message;
use tonic::codec::{BufferSettings, Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use super::{
    Compression, Encoding, OtlpTarget, Outcome, PartialResponse, RpcStatus, accepted_or_partial, error_chain,
    retry_delay,
};
use crate::domain::signal::Signal;
use crate::tools::error::ToolError;

/// Flow-control window of a stream and of the connection, bytes: a batch of a few hundred KiB goes out at once.
const WINDOW: u32 = 4 << 20;

/// One lazily connected HTTP/2 channel.
#[derive(Debug, Clone)]
pub(super) struct GrpcExporter {
    channel: Channel,
    compression: Compression,
    authorization: Option<MetadataValue<Ascii>>,
}

impl GrpcExporter {
    pub(super) fn new(target: &OtlpTarget) -> Result<Self, ToolError> {
        if target.encoding == Encoding::Json {
            let reason = "gRPC carries protobuf only; use --protocol http for JSON".to_owned();
            return Err(ToolError::Usage { flag: "--protocol", reason });
        }
        super::http::check_endpoint(&target.endpoint)?;
        let endpoint = Endpoint::from_shared(target.endpoint.clone())
            .map_err(|e| ToolError::Endpoint { endpoint: target.endpoint.clone(), reason: e.to_string() })?
            .connect_timeout(target.timeout)
            .tcp_nodelay(true)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW);
        Ok(Self {
            channel: endpoint.connect_lazy(),
            compression: target.compression,
            authorization: target.api_key.as_deref().map(bearer).transpose()?,
        })
    }

    pub(super) async fn export(&self, signal: Signal, body: Bytes) -> Outcome {
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        client = match self.compression {
            Compression::None => client,
            Compression::Gzip => client.send_compressed(CompressionEncoding::Gzip),
            Compression::Zstd => client.send_compressed(CompressionEncoding::Zstd),
        };
        if let Err(error) = client.ready().await {
            return of_transport(&error);
        }
        let mut request = Request::new(body);
        if let Some(value) = &self.authorization {
            request.metadata_mut().insert("authorization", value.clone());
        }
        match client.unary(request, path_of(signal), RawCodec).await {
            Ok(response) => match PartialResponse::decode(response.into_inner()) {
                Ok(response) => accepted_or_partial(&response),
                Err(error) => Outcome::Unknown { code: "bad answer".to_owned(), message: error.to_string() },
            },
            Err(status) => of_status(&status),
        }
    }
}

fn bearer(key: &str) -> Result<MetadataValue<Ascii>, ToolError> {
    format!("Bearer {key}").parse().map_err(|_| ToolError::Usage {
        flag: "--api-key",
        reason: "only visible ASCII characters can travel in a header".to_owned(),
    })
}

fn path_of(signal: Signal) -> PathAndQuery {
    PathAndQuery::from_static(match signal {
        Signal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        Signal::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    })
}

/// A status with a source was made here, by the transport; one without came from the server.
fn of_status(status: &Status) -> Outcome {
    if let Some(source) = std::error::Error::source(status) {
        return of_transport(source);
    }
    let details = RpcStatus::decode(status.details()).unwrap_or_default();
    let (code, message) = (format!("{:?}", status.code()), status.message().to_owned());
    match status.code() {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss
        | Code::ResourceExhausted => Outcome::Retryable { after: retry_delay(&details), code, message },
        _ => Outcome::Permanent { code, message },
    }
}

/// A connection that was never made carried nothing; any other transport failure leaves the fate open.
fn of_transport(error: &(dyn std::error::Error + 'static)) -> Outcome {
    let message = error_chain(error);
    let mut cause = Some(error);
    while let Some(inner) = cause {
        if inner.is::<tonic::ConnectError>() {
            return Outcome::Retryable { after: None, code: "connect".to_owned(), message };
        }
        cause = inner.source();
    }
    Outcome::Unknown { code: "connection lost".to_owned(), message }
}

/// Passes bytes through in both directions.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = RawCodec;
    type Decoder = RawCodec;

    fn encoder(&mut self) -> Self::Encoder {
        RawCodec
    }

    fn decoder(&mut self) -> Self::Decoder {
        RawCodec
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, dst: &mut EncodeBuf<'_>) -> Result<(), Status> {
        dst.reserve(item.len());
        dst.put(item);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        // One allocation for a usual batch instead of growing in steps of 32 KiB.
        BufferSettings::new(512 * 1024, 512 * 1024)
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(src.copy_to_bytes(src.remaining())))
    }
}
