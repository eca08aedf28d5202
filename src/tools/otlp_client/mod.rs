//! A tiny OTLP exporter: takes an encoded export request, sends it once over gRPC or HTTP, says what became of it.
//!
//! It never retries and never hides an outcome: whoever sends decides, and the load generator has to know whether a batch
//! was refused, stored, or lost its answer on the way.

mod grpc;
mod http;
#[cfg(test)]
pub(crate) mod sink;

use std::time::Duration;

use bytes::Bytes;

use super::error::ToolError;
use crate::domain::signal::Signal;

/// How to speak to the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Protocol {
    /// OTLP/gRPC, usually port 4317.
    Grpc,
    /// OTLP/HTTP, usually port 4318.
    Http,
}

/// Encoding of the bodies given to [`OtlpClient::export`]. gRPC knows protobuf only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Default)]
pub enum Encoding {
    /// `application/x-protobuf`.
    #[default]
    Protobuf,
    /// `application/json`, OTLP/JSON.
    Json,
}

/// Compression of request bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Default)]
pub enum Compression {
    /// As it is.
    #[default]
    None,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
}

/// Where and how to send.
#[derive(Debug, Clone)]
pub struct OtlpTarget {
    /// `http://HOST:PORT`, without a path.
    pub endpoint: String,
    /// gRPC or HTTP.
    pub protocol: Protocol,
    /// Encoding of the bodies that will be given.
    pub encoding: Encoding,
    /// Compression of request bodies.
    pub compression: Compression,
    /// Sent as `authorization: Bearer …`.
    pub api_key: Option<String>,
    /// Deadline of one export, connecting included.
    pub timeout: Duration,
}

/// What became of one export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The server took all of it.
    Accepted,
    /// The server took the request but refused some records of it (`partial_success`).
    Rejected {
        /// Records refused.
        records: u64,
        /// The server's words.
        message: String,
    },
    /// The server did not take it and says, or lets one conclude, that the same bytes may be sent again.
    Retryable {
        /// How long the server asks to wait, if it says so.
        after: Option<Duration>,
        /// gRPC code, HTTP status or `connect`.
        code: String,
        /// The server's words.
        message: String,
    },
    /// The server will never take these bytes.
    Permanent {
        /// gRPC code or HTTP status.
        code: String,
        /// The server's words.
        message: String,
    },
    /// The request went out and no answer came back: it may or may not be stored.
    Unknown {
        /// `connection lost` or `deadline`.
        code: String,
        /// What is known of it.
        message: String,
    },
}

/// One connection to an OTLP endpoint (gRPC: one HTTP/2 connection; HTTP: a small pool). Cheap to clone.
#[derive(Debug, Clone)]
pub struct OtlpClient {
    wire: Wire,
    timeout: Duration,
}

#[derive(Debug, Clone)]
enum Wire {
    Grpc(grpc::GrpcExporter),
    Http(http::HttpExporter),
}

impl OtlpClient {
    /// Prepares a client. Connects on first use, so the server may still be down.
    ///
    /// # Errors
    /// [`ToolError::Endpoint`] where the endpoint is no usable URL, [`ToolError::Usage`] for JSON over gRPC.
    pub fn new(target: &OtlpTarget) -> Result<Self, ToolError> {
        let wire = match target.protocol {
            Protocol::Grpc => Wire::Grpc(grpc::GrpcExporter::new(target)?),
            Protocol::Http => Wire::Http(http::HttpExporter::new(target)?),
        };
        Ok(Self { wire, timeout: target.timeout })
    }

    /// Sends one encoded `Export…ServiceRequest` once, within the target's deadline.
    pub async fn export(&self, signal: Signal, body: Bytes) -> Outcome {
        let sent = async {
            match &self.wire {
                Wire::Grpc(exporter) => exporter.export(signal, body).await,
                Wire::Http(exporter) => exporter.export(signal, body).await,
            }
        };
        tokio::time::timeout(self.timeout, sent).await.unwrap_or_else(|_| Outcome::Unknown {
            code: "deadline".to_owned(),
            message: format!("no answer within {} ms", self.timeout.as_millis()),
        })
    }
}

/// Turns the two numbers every `partial_success` has into an outcome; all signals share field numbers.
fn accepted_or_partial(response: &PartialResponse) -> Outcome {
    match &response.partial_success {
        Some(partial) if partial.rejected > 0 => Outcome::Rejected {
            records: u64::try_from(partial.rejected).unwrap_or(0),
            message: partial.message.clone(),
        },
        _ => Outcome::Accepted,
    }
}

/// `Export{Trace,Logs,Metrics}ServiceResponse`: the three have the same shape on the wire.
#[derive(Clone, PartialEq, prost::Message)]
struct PartialResponse {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected: i64,
    #[prost(string, tag = "2")]
    message: String,
}

/// `google.rpc.Status`, which both protocols use to explain a refusal.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<RpcDetail>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcDetail {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.RetryInfo` holding a `google.protobuf.Duration`.
#[derive(Clone, PartialEq, prost::Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    delay: Option<RetryDelay>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RetryDelay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// The wait a server asks for in the details of its status, if any.
fn retry_delay(status: &RpcStatus) -> Option<Duration> {
    let detail = status.details.iter().find(|d| d.type_url.ends_with("google.rpc.RetryInfo"))?;
    let delay = <RetryInfo as prost::Message>::decode(detail.value.as_slice()).ok()?.delay?;
    Some(Duration::new(u64::try_from(delay.seconds).ok()?, u32::try_from(delay.nanos).ok()?.min(999_999_999)))
}

/// An error with its causes: the clients' own texts stop before the one that says why.
pub(crate) fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let reason = inner.to_string();
        if !text.ends_with(&reason) {
            text.push_str(": ");
            text.push_str(&reason);
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn reads_the_wait_a_server_asks_for() {
        let info = RetryInfo { delay: Some(RetryDelay { seconds: 1, nanos: 500_000_000 }) };
        let detail = RpcDetail {
            type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
            value: info.encode_to_vec(),
        };
        let status = RpcStatus { code: 8, message: "full".to_owned(), details: vec![detail] };
        assert_eq!(retry_delay(&status), Some(Duration::from_millis(1500)));
        assert_eq!(retry_delay(&RpcStatus::default()), None);
    }

    /// Sends to a server that does `what` with the connection it accepts.
    async fn sent_to(protocol: Protocol, what: impl AsyncFn(tokio::net::TcpStream)) -> Outcome {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = OtlpClient::new(&OtlpTarget {
            endpoint: format!("http://{}", listener.local_addr().unwrap()),
            protocol,
            encoding: Encoding::Protobuf,
            compression: Compression::None,
            api_key: None,
            timeout: Duration::from_millis(500),
        });
        let client = client.unwrap();
        let server = async {
            loop {
                what(listener.accept().await.unwrap().0).await;
            }
        };
        tokio::select! {
            outcome = client.export(Signal::Traces, Bytes::from(vec![0; 300_000])) => outcome,
            () = server => unreachable!("it serves for ever"),
        }
    }

    #[tokio::test]
    async fn a_connection_lost_before_the_answer_leaves_the_fate_unknown() {
        for protocol in [Protocol::Grpc, Protocol::Http] {
            let lost = sent_to(protocol, async |mut stream: tokio::net::TcpStream| {
                let mut some = [0; 1000];
                tokio::io::AsyncReadExt::read_exact(&mut stream, &mut some).await.ok();
            });
            assert!(matches!(lost.await, Outcome::Unknown { .. }), "{protocol:?}");
            let silent = sent_to(protocol, async |stream| {
                tokio::time::sleep(Duration::from_secs(60)).await;
                drop(stream);
            });
            let silent = silent.await;
            assert!(matches!(&silent, Outcome::Unknown { code, .. } if code == "deadline"), "{silent:?}");
        }
    }

    #[test]
    fn a_partial_success_with_only_a_warning_is_accepted() {
        let warn = PartialSuccess { rejected: 0, message: "be gentle".to_owned() };
        assert_eq!(accepted_or_partial(&PartialResponse { partial_success: Some(warn) }), Outcome::Accepted);
        let partial = PartialSuccess { rejected: 3, message: "too old".to_owned() };
        let outcome = accepted_or_partial(&PartialResponse { partial_success: Some(partial) });
        assert_eq!(outcome, Outcome::Rejected { records: 3, message: "too old".to_owned() });
    }

    #[test]
    fn refuses_json_over_grpc_and_endpoints_that_are_no_urls() {
        let target = |endpoint: &str, protocol, encoding| OtlpTarget {
            endpoint: endpoint.to_owned(),
            protocol,
            encoding,
            compression: Compression::None,
            api_key: None,
            timeout: Duration::from_secs(1),
        };
        let json = OtlpClient::new(&target("http://127.0.0.1:1", Protocol::Grpc, Encoding::Json));
        assert!(matches!(json, Err(ToolError::Usage { .. })));
        for protocol in [Protocol::Grpc, Protocol::Http] {
            for bad in ["", "127.0.0.1:4317", "https://x", "http://"] {
                let made = OtlpClient::new(&target(bad, protocol, Encoding::Protobuf));
                assert!(matches!(made, Err(ToolError::Endpoint { .. })), "{protocol:?} {bad}");
            }
        }
    }
}
