//! `google.rpc.Status`, the body of every refused OTLP request: code, message, when to retry, what was wrong. As
//! protobuf (also for gRPC's `grpc-status-details-bin`) and as JSON; and back, for clients.

use std::time::Duration;

use prost::Message;
use serde::{Deserialize, Serialize};

use super::WireError;
use crate::domain::envelope::WireFormat;

const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";
const BAD_REQUEST: &str = "type.googleapis.com/google.rpc.BadRequest";

/// Clients never wait longer than this for a server that asks them to.
const MAX_RETRY: Duration = Duration::from_secs(24 * 3600);

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// gRPC code.
    pub code: i32,
    /// For a person to read.
    pub message: String,
    /// When the client may try again; `None` where it is not to.
    pub retry_after: Option<Duration>,
    /// What was wrong with the request, as (field, description).
    pub violations: Vec<(String, String)>,
}

impl Status {
    /// A status of a code and a message.
    pub fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), ..Self::default() }
    }

    /// The same with leave to retry after `delay`.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// The same with one more thing that was wrong.
    #[must_use]
    pub fn violation(mut self, field: impl Into<String>, description: impl Into<String>) -> Self {
        self.violations.push((field.into(), description.into()));
        self
    }

    /// The body in `format`.
    pub fn encode(&self, format: WireFormat) -> Vec<u8> {
        match format {
            WireFormat::Otlp => self.to_proto().encode_to_vec(),
            // Writing plain structs into memory does not fail; an empty body would still be a valid Status.
            WireFormat::Json | WireFormat::Avro => serde_json::to_vec(&self.to_json()).unwrap_or_default(),
        }
    }

    /// Reads a body. Unknown details are ignored.
    ///
    /// # Errors
    /// [`WireError::Json`] or [`WireError::Protobuf`] for a body that is no status.
    pub fn decode(format: WireFormat, body: &[u8]) -> Result<Self, WireError> {
        const NAME: &str = "status";
        match format {
            WireFormat::Otlp => proto::Status::decode(body)
                .and_then(Self::from_proto)
                .map_err(|e| WireError::Protobuf { message: NAME, what: e.to_string() }),
            WireFormat::Json | WireFormat::Avro => {
                serde_json::from_slice(body).map(Self::from_json).map_err(|e| WireError::Json {
                    message: NAME,
                    line: e.line(),
                    column: e.column(),
                    what: e.to_string(),
                })
            }
        }
    }

    fn to_proto(&self) -> proto::Status {
        let any = |type_url: &str, value| proto::Any { type_url: type_url.to_owned(), value };
        let mut details = Vec::new();
        if let Some(delay) = self.retry_after {
            let delay = delay.min(MAX_RETRY);
            let (seconds, nanos) = (delay.as_secs() as i64, delay.subsec_nanos() as i32);
            let info = proto::RetryInfo { retry_delay: Some(proto::Duration { seconds, nanos }) };
            details.push(any(RETRY_INFO, info.encode_to_vec()));
        }
        if !self.violations.is_empty() {
            let violation = |(field, description): &(String, String)| proto::FieldViolation {
                field: field.clone(),
                description: description.clone(),
            };
            let field_violations = self.violations.iter().map(violation).collect();
            details.push(any(BAD_REQUEST, proto::BadRequest { field_violations }.encode_to_vec()));
        }
        proto::Status { code: self.code, message: self.message.clone(), details }
    }

    fn from_proto(status: proto::Status) -> Result<Self, prost::DecodeError> {
        let mut read = Self::new(status.code, status.message);
        for detail in status.details {
            match detail.type_url.as_str() {
                RETRY_INFO => {
                    let delay = proto::RetryInfo::decode(detail.value.as_slice())?.retry_delay;
                    read.retry_after = delay.map(|d| from_parts(d.seconds, d.nanos));
                }
                BAD_REQUEST => {
                    let bad = proto::BadRequest::decode(detail.value.as_slice())?;
                    read.violations
                        .extend(bad.field_violations.into_iter().map(|v| (v.field, v.description)));
                }
                _ => {}
            }
        }
        Ok(read)
    }

    fn to_json(&self) -> StatusJson {
        let mut details = Vec::new();
        if let Some(delay) = self.retry_after {
            let text = format!("{:?}s", delay.min(MAX_RETRY).as_secs_f64());
            details.push(DetailJson {
                kind: RETRY_INFO.to_owned(),
                retry_delay: Some(text),
                ..Default::default()
            });
        }
        if !self.violations.is_empty() {
            let violation = |(field, description): &(String, String)| ViolationJson {
                field: field.clone(),
                description: description.clone(),
            };
            let field_violations = self.violations.iter().map(violation).collect();
            details.push(DetailJson { kind: BAD_REQUEST.to_owned(), field_violations, ..Default::default() });
        }
        StatusJson { code: self.code, message: self.message.clone(), details }
    }

    fn from_json(status: StatusJson) -> Self {
        let mut read = Self::new(status.code, status.message);
        for detail in status.details {
            let seconds =
                detail.retry_delay.as_deref().and_then(|d| d.strip_suffix('s')?.parse::<f64>().ok());
            if let Some(delay) = seconds.and_then(|s| Duration::try_from_secs_f64(s).ok()) {
                read.retry_after = Some(delay.min(MAX_RETRY));
            }
            read.violations.extend(detail.field_violations.into_iter().map(|v| (v.field, v.description)));
        }
        read
    }
}

/// A server's delay is a hint: negative ones are none, endless ones are cut.
fn from_parts(seconds: i64, nanos: i32) -> Duration {
    let seconds = u64::try_from(seconds).unwrap_or(0);
    let nanos = u32::try_from(nanos).unwrap_or(0).min(999_999_999);
    Duration::new(seconds, nanos).min(MAX_RETRY)
}

#[derive(Serialize, Deserialize)]
#[serde(default)]
#[derive(Default)]
struct StatusJson {
    code: i32,
    message: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    details: Vec<DetailJson>,
}

#[derive(Serialize, Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct DetailJson {
    #[serde(rename = "@type")]
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_delay: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    field_violations: Vec<ViolationJson>,
}

#[derive(Serialize, Deserialize, Default)]
#[serde(default)]
struct ViolationJson {
    field: String,
    description: String,
}

/// The few messages of `google/rpc` that OTLP uses, by hand: a crate of all of them would bring a hundred.
mod proto {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Status {
        #[prost(int32, tag = "1")]
        pub(super) code: i32,
        #[prost(string, tag = "2")]
        pub(super) message: String,
        #[prost(message, repeated, tag = "3")]
        pub(super) details: Vec<Any>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Any {
        #[prost(string, tag = "1")]
        pub(super) type_url: String,
        #[prost(bytes = "vec", tag = "2")]
        pub(super) value: Vec<u8>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct RetryInfo {
        #[prost(message, optional, tag = "1")]
        pub(super) retry_delay: Option<Duration>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Duration {
        #[prost(int64, tag = "1")]
        pub(super) seconds: i64,
        #[prost(int32, tag = "2")]
        pub(super) nanos: i32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct BadRequest {
        #[prost(message, repeated, tag = "1")]
        pub(super) field_violations: Vec<FieldViolation>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct FieldViolation {
        #[prost(string, tag = "1")]
        pub(super) field: String,
        #[prost(string, tag = "2")]
        pub(super) description: String,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Status {
        Status::new(14, "the log's write queue is full")
            .retry_after(Duration::from_millis(1500))
            .violation("resourceSpans[0]", "expected an object, found a list")
    }

    #[test]
    fn comes_back_from_both_formats() {
        for format in [WireFormat::Otlp, WireFormat::Json] {
            for status in [full(), Status::new(3, "bad"), Status::default()] {
                assert_eq!(Status::decode(format, &status.encode(format)).unwrap(), status);
            }
        }
    }

    #[test]
    fn json_is_as_the_mapping_says() {
        let json: serde_json::Value = serde_json::from_slice(&full().encode(WireFormat::Json)).unwrap();
        assert_eq!(json["code"], 14);
        assert_eq!(json["details"][0]["@type"], RETRY_INFO);
        assert_eq!(json["details"][0]["retryDelay"], "1.5s");
        assert_eq!(json["details"][1]["fieldViolations"][0]["field"], "resourceSpans[0]");
    }

    #[test]
    fn absurd_delays_and_strange_bodies_do_no_harm() {
        let endless = Status::new(14, "").retry_after(Duration::MAX);
        for format in [WireFormat::Otlp, WireFormat::Json] {
            assert_eq!(Status::decode(format, &endless.encode(format)).unwrap().retry_after, Some(MAX_RETRY));
            assert!(Status::decode(format, b"<html>").is_err());
        }
        assert_eq!(from_parts(-5, -1), Duration::ZERO);
        let odd = br#"{"details":[{"retryDelay":"-1s"},{"retryDelay":"soon"},{"@type":"x","other":1}]}"#;
        assert_eq!(Status::decode(WireFormat::Json, odd).unwrap().retry_after, None);
    }
}
