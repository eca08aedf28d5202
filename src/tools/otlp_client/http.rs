//! OTLP over HTTP: encoded request in, [`Outcome`] out; bodies are compressed here, protobuf and JSON alike.

use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use prost::Message;
use serde::Deserialize;

use super::{
    Compression, Encoding, OtlpTarget, Outcome, PartialResponse, RpcStatus, accepted_or_partial, error_chain,
};
use crate::domain::signal::Signal;
use crate::tools::error::ToolError;

/// Longest part of an answer that is quoted, bytes.
const MAX_QUOTE: usize = 300;

#[derive(Debug, Clone)]
pub(super) struct HttpExporter {
    client: reqwest::Client,
    base: String,
    encoding: Encoding,
    compression: Compression,
    api_key: Option<String>,
}

impl HttpExporter {
    pub(super) fn new(target: &OtlpTarget) -> Result<Self, ToolError> {
        check_endpoint(&target.endpoint)?;
        let client =
            reqwest::Client::builder().no_proxy().tcp_nodelay(true).timeout(target.timeout).build().map_err(
                |e| ToolError::Endpoint { endpoint: target.endpoint.clone(), reason: e.to_string() },
            )?;
        Ok(Self {
            client,
            base: target.endpoint.trim_end_matches('/').to_owned(),
            encoding: target.encoding,
            compression: target.compression,
            api_key: target.api_key.clone(),
        })
    }

    pub(super) async fn export(&self, signal: Signal, body: Bytes) -> Outcome {
        let (body, content_encoding) = match compress(body, self.compression) {
            Ok(packed) => packed,
            Err(e) => return Outcome::Permanent { code: "compress".to_owned(), message: e.to_string() },
        };
        let mut request = self
            .client
            .post(format!("{}/v1/{}", self.base, signal.as_str()))
            .header("content-type", content_type(self.encoding))
            .body(body);
        if let Some(name) = content_encoding {
            request = request.header("content-encoding", name);
        }
        if let Some(key) = &self.api_key {
            request = request.bearer_auth(key);
        }
        match request.send().await {
            Ok(response) => self.read(response).await,
            Err(error) => of_error(&error),
        }
    }

    async fn read(&self, response: reqwest::Response) -> Outcome {
        let (status, headers) = (response.status(), response.headers().clone());
        let body = match response.bytes().await {
            Ok(body) => body,
            Err(error) => return of_error(&error),
        };
        if status.is_success() {
            return self.success(&body);
        }
        let (code, message) = (status.as_u16().to_string(), self.explanation(&body));
        match status.as_u16() {
            429 | 502 | 503 | 504 => Outcome::Retryable { after: retry_after(&headers), code, message },
            _ => Outcome::Permanent { code, message },
        }
    }

    fn success(&self, body: &Bytes) -> Outcome {
        let response = match self.encoding {
            Encoding::Protobuf => PartialResponse::decode(body.clone()).map_err(|e| e.to_string()),
            Encoding::Json => serde_json::from_slice::<JsonResponse>(body)
                .map(JsonResponse::into_partial)
                .map_err(|e| e.to_string()),
        };
        match response {
            Ok(response) => accepted_or_partial(&response),
            Err(message) => Outcome::Unknown { code: "bad answer".to_owned(), message },
        }
    }

    /// The message of the `Status` in an error body, or the start of the body where it is none.
    fn explanation(&self, body: &Bytes) -> String {
        let message = match self.encoding {
            Encoding::Protobuf => RpcStatus::decode(body.clone()).ok().map(|s| s.message),
            Encoding::Json => serde_json::from_slice::<JsonStatus>(body).ok().map(|s| s.message),
        };
        message.filter(|m| !m.is_empty()).unwrap_or_else(|| {
            let start = body.get(..body.len().min(MAX_QUOTE)).unwrap_or_default();
            String::from_utf8_lossy(start).into_owned()
        })
    }
}

/// Refuses what is not `http://HOST…`: the tools speak plain HTTP, and a missing scheme is the usual slip.
pub(super) fn check_endpoint(endpoint: &str) -> Result<(), ToolError> {
    let refuse =
        |reason: &str| ToolError::Endpoint { endpoint: endpoint.to_owned(), reason: reason.to_owned() };
    let uri: http::Uri = endpoint.parse().map_err(|e: http::uri::InvalidUri| refuse(&e.to_string()))?;
    match uri.scheme_str() {
        Some("http") if uri.host().is_some_and(|h| !h.is_empty()) => Ok(()),
        Some("https") => Err(refuse("TLS is not spoken by this tool")),
        _ => Err(refuse("it names no scheme and host")),
    }
}

fn content_type(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Protobuf => "application/x-protobuf",
        Encoding::Json => "application/json",
    }
}

fn compress(body: Bytes, compression: Compression) -> std::io::Result<(Bytes, Option<&'static str>)> {
    match compression {
        Compression::None => Ok((body, None)),
        Compression::Gzip => {
            let out = Vec::with_capacity(body.len() / 4);
            let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::fast());
            encoder.write_all(&body)?;
            Ok((encoder.finish()?.into(), Some("gzip")))
        }
        Compression::Zstd => Ok((zstd::bulk::compress(&body, 1)?.into(), Some("zstd"))),
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get("retry-after")?.to_str().ok()?.trim().parse::<u64>().ok()?;
    Some(Duration::from_secs(seconds))
}

/// A connection that was never made carried nothing; any other failure leaves the fate open.
fn of_error(error: &reqwest::Error) -> Outcome {
    let message = error_chain(error);
    if error.is_connect() {
        return Outcome::Retryable { after: None, code: "connect".to_owned(), message };
    }
    let code = if error.is_timeout() { "deadline" } else { "connection lost" };
    Outcome::Unknown { code: code.to_owned(), message }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonResponse {
    #[serde(default)]
    partial_success: Option<JsonPartial>,
}

/// int64 travels as a string in OTLP/JSON, though senders of plain numbers exist.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonPartial {
    #[serde(default, alias = "rejectedSpans", alias = "rejectedLogRecords", alias = "rejectedDataPoints")]
    rejected: serde_json::Value,
    #[serde(default)]
    error_message: String,
}

#[derive(Deserialize)]
struct JsonStatus {
    #[serde(default)]
    message: String,
}

impl JsonResponse {
    fn into_partial(self) -> PartialResponse {
        let partial_success = self.partial_success.map(|partial| super::PartialSuccess {
            rejected: match &partial.rejected {
                serde_json::Value::String(text) => text.parse().unwrap_or(0),
                other => other.as_i64().unwrap_or(0),
            },
            message: partial.error_message,
        });
        PartialResponse { partial_success }
    }
}
