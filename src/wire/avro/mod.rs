//! OTLP as Avro: requests ⇄ object container files of one object, which any Avro tool reads.
//!
//! The file carries the schema it was written by (`proto/avro/*.avsc`), so that neither side needs a registry: a reader
//! whose schema is another resolves the difference by Avro's own rules: members that he does not know fall away, those that
//! are missing get their defaults. Files by the schema of this build take a short way. Both ways end in OTLP/JSON, whose
//! reader holds the limits. Fails on bytes that are no such file, or whose schema cannot be resolved.

use std::sync::LazyLock;

use apache_avro::{Reader, Schema};

use self::read::Input;
use self::shape::Shape;
use super::limits::OtlpLimits;
use super::{Payload, WireError, json};
use crate::domain::signal::Signal;

mod read;
mod shape;
mod write;

#[cfg(test)]
mod tests;

/// What a container file begins with.
const MAGIC: &[u8; 4] = b"Obj\x01";

/// The format of one signal.
struct Format {
    shape: Shape,
    schema: Schema,
    /// Magic, metadata and sync marker of the files that this build writes.
    head: Vec<u8>,
    sync: [u8; 16],
}

static FORMATS: LazyLock<Result<[Format; 3], String>> = LazyLock::new(|| {
    Ok([
        Format::new(include_str!("../../../proto/avro/traces.avsc"))?,
        Format::new(include_str!("../../../proto/avro/logs.avsc"))?,
        Format::new(include_str!("../../../proto/avro/metrics.avsc"))?,
    ])
});

impl Format {
    fn of(signal: Signal) -> Result<&'static Self, String> {
        let formats = FORMATS.as_ref().map_err(Clone::clone)?;
        Ok(&formats[match signal {
            Signal::Traces => 0,
            Signal::Logs => 1,
            Signal::Metrics => 2,
        }])
    }

    fn new(text: &str) -> Result<Self, String> {
        let schema = Schema::parse_str(text).map_err(|error| error.to_string())?;
        // The same for all files of a schema: same request, same bytes.
        let sync = xxhash_rust::xxh3::xxh3_128(text.as_bytes()).to_le_bytes();
        let mut head = MAGIC.to_vec();
        write::long(2, &mut head);
        for (key, value) in [("avro.codec", "null"), ("avro.schema", text.trim())] {
            write::bytes(key.as_bytes(), &mut head);
            write::bytes(value.as_bytes(), &mut head);
        }
        write::long(0, &mut head);
        head.extend_from_slice(&sync);
        Ok(Self { shape: shape::parse(text)?, schema, head, sync })
    }

    /// The object's bytes in a file by this very schema.
    fn object<'a>(&self, file: &'a [u8]) -> Option<Result<&'a [u8], String>> {
        let mut rest = Input::new(file.strip_prefix(self.head.as_slice())?);
        let mut block = || {
            if rest.long()? != 1 {
                return Err("not one object".to_owned());
            }
            let object = rest.bytes()?;
            match rest.rest() == self.sync {
                true => Ok(object),
                false => Err("the object does not end where it should".into()),
            }
        };
        Some(block())
    }

    /// The object of a file by another schema, as one by this.
    fn resolved(&self, file: &[u8]) -> Result<Vec<u8>, String> {
        let text = |error: apache_avro::Error| error.to_string();
        // Not by the reader's own schema: it would take named types of the file for those of the same name here.
        let mut reader = Reader::new(file).map_err(text)?;
        let value = reader.next().ok_or("an empty file")?.map_err(text)?;
        let value = value.resolve(&self.schema).map_err(text)?;
        if reader.next().is_some() {
            return Err("not one object".into());
        }
        let writer =
            apache_avro::writer::datum::GenericDatumWriter::builder(&self.schema).build().map_err(text)?;
        writer.write_value_to_vec(value).map_err(text)
    }

    fn to_json(&self, object: &[u8]) -> Result<Vec<u8>, String> {
        let (mut input, mut out) = (Input::new(object), Vec::with_capacity(object.len().saturating_mul(2)));
        read::value(&self.shape, &mut input, &mut out)?;
        if input.rest().is_empty() { Ok(out) } else { Err("bytes behind the object".into()) }
    }
}

/// Encodes an export request.
pub fn encode(payload: &Payload) -> Vec<u8> {
    // The schemas are part of the build, and a test reads them.
    let Ok(format) = Format::of(payload.signal()) else { return Vec::new() };
    let json = json::encode(payload);
    let mut object = Vec::with_capacity(json.len());
    write::value(&format.shape, std::str::from_utf8(&json).ok(), &mut object);
    let mut file = Vec::with_capacity(format.head.len() + object.len() + 32);
    file.extend_from_slice(&format.head);
    write::long(1, &mut file);
    write::bytes(&object, &mut file);
    file.extend_from_slice(&format.sync);
    file
}

/// Decodes an export request of `signal`.
///
/// # Errors
/// [`WireError::Avro`] with what is malformed; [`WireError::Limit`] for a request over `limits`.
pub fn decode(signal: Signal, file: &[u8], limits: &OtlpLimits) -> Result<Payload, WireError> {
    let text = as_json(signal, file)
        .map_err(|what| WireError::Avro { message: signal.as_str(), what: super::fault::shorten(&what) })?;
    json::decode(signal, &text, limits)
}

fn as_json(signal: Signal, file: &[u8]) -> Result<Vec<u8>, String> {
    let format = Format::of(signal)?;
    match format.object(file) {
        Some(object) => format.to_json(object?),
        None => format.to_json(&format.resolved(file)?),
    }
}
