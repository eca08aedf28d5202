//! The smallest sender: one span over OTLP/gRPC to a running Obtrace, and what became of it.
//!
//! 1. Build an OTLP request; here one span, by hand, with ids made of the time.
//! 2. Point a client at the OTLP port. In `obtrace dev` a client of the same machine needs no key.
//! 3. Export. "Accepted" is said once the batch is synced to the log, not before.
//! 4. A refusal says why, and whether to send it again; `Retry-After` and `RetryInfo` say when.
//! 5. Soon after, a consumer has cut it into a block and stored it: ask for it under the printed address.
//!
//! `cargo run --example send_otlp [http://127.0.0.1:4317]`

use std::time::Duration;

use obtrace::clock;
use obtrace::domain::signal::Signal;
use obtrace::tools::otlp_client::{Compression, Encoding, OtlpClient, OtlpTarget, Protocol};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let now = clock::unix_nanos();
    let span = Span {
        trace_id: u128::from(now).to_be_bytes().to_vec(),
        span_id: now.to_be_bytes().to_vec(),
        name: "hello".to_owned(),
        start_time_unix_nano: now,
        end_time_unix_nano: now + 1_000_000,
        ..Default::default()
    };
    let scope_spans = vec![ScopeSpans { spans: vec![span], ..Default::default() }];
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans { scope_spans, ..Default::default() }],
    };

    let client = OtlpClient::new(&OtlpTarget {
        endpoint: std::env::args().nth(1).unwrap_or_else(|| "http://127.0.0.1:4317".to_owned()),
        protocol: Protocol::Grpc,
        encoding: Encoding::Protobuf,
        compression: Compression::None,
        api_key: None,
        timeout: Duration::from_secs(5),
    })?;
    println!("{:?}", client.export(Signal::Traces, request.encode_to_vec().into()).await);
    println!("look at http://127.0.0.1:8080/api/v1/traces/{:032x}", u128::from(now));
    Ok(())
}
