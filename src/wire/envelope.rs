//! The envelope ⇄ a record of the event log: header ⇄ record headers (texts, readable by any tool), payload as it is.
//! Fails on records that Obtrace did not write, and on those of a newer version.

use bytes::Bytes;
use uuid::Uuid;

use super::limits::OtlpLimits;
use super::{Payload, WireError};
use crate::domain::envelope::{Envelope, Header, SCHEMA_VERSION, WireFormat};
use crate::domain::scope::Scope;
use crate::domain::signal::Signal;

/// Names of the record headers. Whoever reads Obtrace's topics may rely on them.
pub mod names {
    /// Version of the header.
    pub const SCHEMA_VERSION: &str = "obtrace-schema-version";
    /// Encoding of the payload: `json`, `otlp` or `avro`.
    pub const FORMAT: &str = "obtrace-format";
    /// Tenant.
    pub const TENANT: &str = "obtrace-tenant";
    /// Project.
    pub const PROJECT: &str = "obtrace-project";
    /// Application; left out when empty.
    pub const APP: &str = "obtrace-app";
    /// Environment; left out when empty.
    pub const ENV: &str = "obtrace-env";
    /// `traces`, `logs` or `metrics`.
    pub const SIGNAL: &str = "obtrace-signal";
    /// Retention in days.
    pub const RETENTION_DAYS: &str = "obtrace-retention-days";
    /// When the edge took the batch, Unix nanoseconds.
    pub const RECEIVED_AT: &str = "obtrace-received-at-ns";
    /// UUIDv7 of the batch, hyphenated.
    pub const BATCH_ID: &str = "obtrace-batch-id";
    /// Hash of the request, 32 hex digits.
    pub const CONTENT_HASH: &str = "obtrace-content-hash";
    /// Records in the payload.
    pub const RECORD_COUNT: &str = "obtrace-record-count";
    /// Bytes of the payload.
    pub const BYTE_COUNT: &str = "obtrace-byte-count";
    /// Deliveries tried before; left out when 0.
    pub const ATTEMPTS: &str = "obtrace-attempts";
    /// Why the last one failed.
    pub const LAST_ERROR: &str = "obtrace-last-error";
    /// W3C `traceparent` of the request.
    pub const TRACE_CONTEXT: &str = "traceparent";
}

/// Errors longer than this are cut when written: a header is for routing, not for dumps.
pub const MAX_LAST_ERROR: usize = 1024;

/// The record headers of a header, in a fixed order.
pub fn to_record_headers(header: &Header) -> Vec<(String, Bytes)> {
    let mut headers = Vec::with_capacity(16);
    let mut put = |name: &str, value: String| headers.push((name.to_owned(), Bytes::from(value)));
    put(names::SCHEMA_VERSION, header.schema_version.to_string());
    put(names::FORMAT, header.format.as_str().to_owned());
    put(names::TENANT, header.scope.tenant.to_string());
    put(names::PROJECT, header.scope.project.to_string());
    for (name, part) in [(names::APP, &header.scope.app), (names::ENV, &header.scope.env)] {
        if !part.is_empty() {
            put(name, part.to_string());
        }
    }
    put(names::SIGNAL, header.signal.as_str().to_owned());
    put(names::RETENTION_DAYS, header.retention_days.to_string());
    put(names::RECEIVED_AT, header.received_at_ns.to_string());
    put(names::BATCH_ID, header.batch_id.hyphenated().to_string());
    put(names::CONTENT_HASH, format!("{:032x}", header.content_hash));
    put(names::RECORD_COUNT, header.record_count.to_string());
    put(names::BYTE_COUNT, header.byte_count.to_string());
    if header.attempts > 0 {
        put(names::ATTEMPTS, header.attempts.to_string());
    }
    if let Some(error) = &header.last_error {
        put(names::LAST_ERROR, cut(error, MAX_LAST_ERROR).to_owned());
    }
    if let Some(context) = &header.trace_context {
        put(names::TRACE_CONTEXT, context.clone());
    }
    headers
}

/// The header of record headers. Unknown ones are ignored; of repeated ones the last stands.
///
/// # Errors
/// [`WireError::Header`] naming the first header that is missing or malformed, [`WireError::SchemaVersion`] for a
/// version above [`SCHEMA_VERSION`].
pub fn from_record_headers(headers: &[(String, Bytes)]) -> Result<Header, WireError> {
    let found = Found(headers);
    let schema_version = found.number(names::SCHEMA_VERSION)?;
    if schema_version > SCHEMA_VERSION {
        return Err(WireError::SchemaVersion { found: schema_version, supported: SCHEMA_VERSION });
    }
    let bad_scope = |e: crate::domain::scope::InvalidScope| WireError::Header {
        name: match e.part {
            "tenant" => names::TENANT,
            "project" => names::PROJECT,
            "app" => names::APP,
            _ => names::ENV,
        },
        what: e.to_string(),
    };
    let app = found.optional(names::APP)?.unwrap_or_default();
    let env = found.optional(names::ENV)?.unwrap_or_default();
    Ok(Header {
        schema_version,
        format: found.parsed(names::FORMAT, "json, otlp or avro", parse_format)?,
        scope: Scope::new(found.required(names::TENANT)?, found.required(names::PROJECT)?, app, env)
            .map_err(bad_scope)?,
        signal: found.parsed(names::SIGNAL, "traces, logs or metrics", Signal::parse)?,
        retention_days: found.number(names::RETENTION_DAYS)?,
        received_at_ns: found.number(names::RECEIVED_AT)?,
        batch_id: found.parsed(names::BATCH_ID, "a uuid", |v| Uuid::try_parse(v).ok())?,
        content_hash: found.parsed(names::CONTENT_HASH, "32 hex digits", parse_hash)?,
        record_count: found.number(names::RECORD_COUNT)?,
        byte_count: found.number(names::BYTE_COUNT)?,
        attempts: match found.bytes(names::ATTEMPTS) {
            Some(_) => found.number(names::ATTEMPTS)?,
            None => 0,
        },
        last_error: found.bytes(names::LAST_ERROR).map(|v| String::from_utf8_lossy(v).into_owned()),
        trace_context: found.optional(names::TRACE_CONTEXT)?.map(str::to_owned),
    })
}

/// Records that the headers announce, without reading the others; 0 where that cannot be read.
pub fn record_count(headers: &[(String, Bytes)]) -> u32 {
    Found(headers).number(names::RECORD_COUNT).unwrap_or(0)
}

/// Decodes the payload of an envelope by the format in its header.
///
/// # Errors
/// [`WireError::Json`], [`WireError::Protobuf`] or [`WireError::Limit`].
pub fn decode_payload(envelope: &Envelope, limits: &OtlpLimits) -> Result<Payload, WireError> {
    let header = &envelope.header;
    Payload::decode(header.signal, header.format, &envelope.payload, limits)
}

/// The longest prefix of at most `max` bytes that ends between two characters.
pub(super) fn cut(text: &str, max: usize) -> &str {
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn parse_format(name: &str) -> Option<WireFormat> {
    [WireFormat::Json, WireFormat::Otlp, WireFormat::Avro].into_iter().find(|format| format.as_str() == name)
}

fn parse_hash(digits: &str) -> Option<u128> {
    let is_hash = digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    if is_hash { u128::from_str_radix(digits, 16).ok() } else { None }
}

/// Looks headers up by name.
struct Found<'a>(&'a [(String, Bytes)]);

impl<'a> Found<'a> {
    fn bytes(&self, name: &str) -> Option<&'a Bytes> {
        self.0.iter().rev().find(|(n, _)| n == name).map(|(_, value)| value)
    }

    fn optional(&self, name: &'static str) -> Result<Option<&'a str>, WireError> {
        let text = |value: &'a Bytes| {
            std::str::from_utf8(value).map_err(|_| WireError::Header { name, what: "not utf-8".to_owned() })
        };
        self.bytes(name).map(text).transpose()
    }

    fn required(&self, name: &'static str) -> Result<&'a str, WireError> {
        let missing = || WireError::Header {
            name,
            what: "missing: the record was not written by obtrace, or its headers were stripped on the way"
                .to_owned(),
        };
        self.optional(name)?.ok_or_else(missing)
    }

    fn parsed<T>(
        &self,
        name: &'static str,
        wanted: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, WireError> {
        let value = self.required(name)?;
        parse(value).ok_or_else(|| WireError::Header {
            name,
            what: format!("expected {wanted}, found {:?}", super::fault::shorten(value)),
        })
    }

    fn number<T: std::str::FromStr>(&self, name: &'static str) -> Result<T, WireError> {
        self.parsed(name, "a number in range", |v| v.parse().ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            schema_version: SCHEMA_VERSION,
            format: WireFormat::Otlp,
            scope: Scope::new("acme", "shop", "", "prod").unwrap(),
            signal: Signal::Logs,
            retention_days: 30,
            received_at_ns: 1_700_000_000_123_456_789,
            batch_id: Uuid::from_u128(0x0192_3f0c_7a1b_7c3d_8e4f_0123_4567_89ab),
            content_hash: 42,
            record_count: 512,
            byte_count: 70_000,
            attempts: 2,
            last_error: Some("timeout after 5 s".to_owned()),
            trace_context: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        }
    }

    fn value_of<'a>(headers: &'a [(String, Bytes)], name: &str) -> &'a [u8] {
        &headers.iter().find(|(n, _)| n == name).unwrap().1
    }

    #[test]
    fn comes_back_as_it_went_out() {
        let plain = Header { attempts: 0, last_error: None, trace_context: None, ..header() };
        for header in [header(), plain] {
            assert_eq!(from_record_headers(&to_record_headers(&header)).unwrap(), header);
        }
    }

    #[test]
    fn values_are_texts_that_a_person_can_read() {
        let headers = to_record_headers(&header());
        assert_eq!(value_of(&headers, "obtrace-batch-id"), b"01923f0c-7a1b-7c3d-8e4f-0123456789ab");
        assert_eq!(value_of(&headers, "obtrace-content-hash"), format!("{:032x}", 42).as_bytes());
        assert_eq!(value_of(&headers, "obtrace-received-at-ns"), b"1700000000123456789");
    }

    #[test]
    fn unknown_headers_are_ignored_and_repeated_ones_replaced() {
        let mut headers = to_record_headers(&header());
        headers.push(("other".to_owned(), Bytes::from_static(&[0xff])));
        headers.push((names::ATTEMPTS.to_owned(), Bytes::from_static(b"7")));
        assert_eq!(from_record_headers(&headers).unwrap(), Header { attempts: 7, ..header() });
    }

    #[test]
    fn each_missing_header_is_named() {
        let optional = [names::APP, names::ENV, names::ATTEMPTS, names::LAST_ERROR, names::TRACE_CONTEXT];
        let all = to_record_headers(&header());
        for (name, _) in &all {
            let without: Vec<_> = all.iter().filter(|(n, _)| n != name).cloned().collect();
            let result = from_record_headers(&without);
            if optional.contains(&name.as_str()) {
                assert!(result.is_ok(), "{name}");
            } else {
                assert!(result.unwrap_err().to_string().contains(&format!("{name}: missing")), "{name}");
            }
        }
    }

    #[test]
    fn malformed_values_are_named_with_what_was_expected() {
        let cases: [(&'static str, &'static [u8], &str); 8] = [
            (names::FORMAT, b"xml", "expected json, otlp or avro, found \"xml\""),
            (names::TENANT, b"a/b", "is not a valid name"),
            (names::TENANT, b"\xff", "not utf-8"),
            (names::SIGNAL, b"Traces", "traces, logs or metrics"),
            (names::RETENTION_DAYS, b"70000", "number in range"),
            (names::BATCH_ID, b"1", "a uuid"),
            (names::CONTENT_HASH, b"+000000000000000000000000000002a", "32 hex digits"),
            (names::RECORD_COUNT, b"-1", "number in range"),
        ];
        for (name, value, part) in cases {
            let mut headers = to_record_headers(&header());
            headers.push((name.to_owned(), Bytes::from_static(value)));
            let text = from_record_headers(&headers).unwrap_err().to_string();
            assert!(text.contains(name) && text.contains(part), "{text}");
        }
    }

    #[test]
    fn a_newer_version_says_what_to_do() {
        let headers = to_record_headers(&Header { schema_version: SCHEMA_VERSION + 1, ..header() });
        let text = from_record_headers(&headers).unwrap_err().to_string();
        assert!(text.contains("upgrade this process"), "{text}");
    }

    #[test]
    fn long_errors_are_cut_between_characters() {
        let headers = to_record_headers(&Header { last_error: Some("ä".repeat(2000)), ..header() });
        let kept = from_record_headers(&headers).unwrap().last_error.unwrap();
        assert_eq!(kept, "ä".repeat(MAX_LAST_ERROR / 2));
    }
}
