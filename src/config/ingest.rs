//! `[ingest]`: where OTLP comes in, how much of it at a time, and how it is stamped.

use std::net::SocketAddr;
use std::time::Duration;

use super::effect::Effect::{Live, Restarts};
use super::reader::{Leaf, Reader};
use super::schema::{Validate, config_struct, leaf_setting};
use super::units::ByteSize;
use crate::domain::envelope::WireFormat;

config_struct! {
    /// The edge: listeners, limits and defaults of what is taken in.
    pub struct IngestConfig {
        /// Address of OTLP over gRPC. Port 0 takes a free one.
        otlp_grpc: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 4317)) => Restarts(&["ingest.grpc"]),
        /// Address of OTLP over HTTP (POST /v1/traces, /v1/logs, /v1/metrics). Port 0 takes a free one.
        otlp_http: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 4318)) => Restarts(&["ingest.http"]),
        /// Largest HTTP body as sent, compressed or not. A larger one is refused with 413, which clients do not retry.
        max_body: ByteSize = ByteSize::mib(20) => Live,
        /// Largest body after decompression, HTTP and gRPC. Bounds what a compression bomb can cost.
        max_decompressed: ByteSize = ByteSize::mib(64) => Live,
        /// Largest gRPC message. A larger one is refused with RESOURCE_EXHAUSTED, which clients do not retry.
        grpc_max_message: ByteSize = ByteSize::mib(16) => Live,
        /// Bytes of all requests being worked on at once. Above it clients are told to come back (429, UNAVAILABLE).
        max_in_flight: ByteSize = ByteSize::mib(128) => Live,
        /// Longest wait for the log to have a request on disk. Then the client is told to retry.
        ack_timeout: Duration = Duration::from_secs(10) => Live,
        /// A connection without a request for so long is closed, and its session ends.
        session_idle: Duration = Duration::from_secs(300) => Restarts(&["ingest.http"]),
        /// Encoding of payloads in the log: "json" (OTLP/JSON, readable by any tool), "otlp" (protobuf as sent, the fast
        /// path) or "avro" (container files, for tools that want a schema, which each brings along). Readers take it from each
        /// record, so it may change at any time.
        wire_format: WireFormat = WireFormat::Json => Live,
        /// Web origins that may send from a browser, such as "https://shop.example". "http://localhost:*" allows every
        /// port of a host, "*" every origin there is.
        cors_origins: Vec<String> = Vec::new() => Live,
        /// Days that records are kept where the API key names no other number.
        retention_days: u16 = 30 => Live,
        /// Records with a time further ahead of the clock than this are refused (partial success).
        accept_future: Duration = Duration::from_secs(3600) => Live,
        /// Records older than this are refused (partial success): retention would soon delete them.
        accept_past: Duration = Duration::from_secs(30 * 86_400) => Live,
        /// A client on the same machine needs no key and lands in tenant "default". For development: behind a
        /// reverse proxy on the same machine, every client looks like one.
        dev_loopback: bool = false => Live,
    }
}

impl IngestConfig {
    /// Whether a browser's `Origin` may send.
    pub fn allows_origin(&self, origin: &str) -> bool {
        self.cors_origins.iter().any(|allowed| match allowed.strip_suffix(":*") {
            Some(host) => origin.strip_prefix(host).is_some_and(|rest| match rest.strip_prefix(':') {
                Some(port) => port.parse::<u16>().is_ok(),
                None => rest.is_empty(),
            }),
            None => allowed == "*" || allowed == origin,
        })
    }
}

impl Validate for IngestConfig {
    fn validate(&self, at: &mut Reader) {
        if self.max_body < ByteSize::kib(1) {
            at.refuse(&["max_body"], "must be at least 1KiB");
        }
        if self.max_decompressed < self.max_body {
            at.refuse(
                &["max_decompressed", "max_body"],
                &format!(
                    "does not fit: max_decompressed ({}) must be at least max_body ({})",
                    self.max_decompressed, self.max_body
                ),
            );
        }
        if self.max_decompressed < self.grpc_max_message {
            at.refuse(
                &["grpc_max_message", "max_decompressed"],
                &format!(
                    "does not fit: max_decompressed ({}) must be at least grpc_max_message ({})",
                    self.max_decompressed, self.grpc_max_message
                ),
            );
        }
        if self.grpc_max_message < ByteSize::kib(1) {
            at.refuse(&["grpc_max_message"], "must be at least 1KiB");
        }
        if self.max_in_flight < self.max_decompressed {
            at.refuse(
                &["max_in_flight", "max_decompressed"],
                &format!(
                    "does not fit: max_in_flight ({}) must hold one request of max_decompressed ({})",
                    self.max_in_flight, self.max_decompressed
                ),
            );
        }
        if self.retention_days == 0 {
            at.refuse(&["retention_days"], "must be at least 1");
        }
        for (key, value) in [("ack_timeout", self.ack_timeout), ("session_idle", self.session_idle)] {
            if value.is_zero() {
                at.refuse(&[key], "must be more than 0");
            }
        }
    }
}

impl Leaf for WireFormat {
    const EXPECTED: &'static str = "one of \"json\" \"otlp\" \"avro\"";

    fn from_text(text: &str) -> Result<Self, String> {
        match text.trim().to_ascii_lowercase().as_str() {
            "json" => Ok(Self::Json),
            "otlp" => Ok(Self::Otlp),
            "avro" => Ok(Self::Avro),
            _ => Err(String::new()),
        }
    }

    fn render(&self) -> String {
        format!("{:?}", self.as_str())
    }
}

leaf_setting!(WireFormat);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_allowed_as_a_whole() {
        let config = |origins: &[&str]| IngestConfig {
            cors_origins: origins.iter().map(ToString::to_string).collect(),
            ..IngestConfig::default()
        };
        let local = config(&["http://localhost:*", "https://shop.example"]);
        for good in ["http://localhost", "http://localhost:5173", "https://shop.example"] {
            assert!(local.allows_origin(good), "{good}");
        }
        let hostile = [
            "https://localhost:1",
            "http://localhost.evil.example",
            "http://localhost:1.evil",
            "https://shop.example.evil",
            "null",
        ];
        for bad in hostile {
            assert!(!local.allows_origin(bad), "{bad}");
        }
        assert!(config(&["*"]).allows_origin("https://anything.example"));
        assert!(!config(&[]).allows_origin("http://localhost"));
    }
}
