//! OTLP as Avro: requests ⇄ object container files of one object, which any Avro tool reads.
//!
//! The file carries the schema it was written by (`proto/avro/*.avsc`), so that neither side needs a registry: a reader
//! whose schema is another resolves the difference by Avro's own rules: members that he does not know fall away, those that
//! are missing get their defaults. Files by the schema of this build are read straight into the request, by the tables of
//! `schema` and within the limits of all readers; the schemas do not recurse: what an AnyValue nests is OTLP/JSON text in
//! them. Fails on bytes that are no such file, or whose schema cannot be resolved.

use std::sync::LazyLock;

use apache_avro::{Reader, Schema};

pub(crate) use self::kind::{Kind, many, one, opt};
pub(crate) use self::read::Input;
use super::fault::{Cause, Fault, shorten};
use super::limits::{Budget, OtlpLimits};
use super::table::Table;
use super::{Payload, WireError};
use crate::domain::signal::Signal;

mod kind;
mod read;
mod write;

#[cfg(test)]
mod tests;

/// What a container file begins with.
const MAGIC: &[u8; 4] = b"Obj\x01";

/// The format of one signal.
struct Format {
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
    fn of(signal: Signal) -> Result<&'static Self, Fault> {
        let formats = FORMATS.as_ref().map_err(Fault::malformed)?;
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
        Ok(Self { schema, head, sync })
    }

    /// The object's bytes in a file by this very schema.
    fn object<'a>(&self, file: &'a [u8], limits: &'a OtlpLimits) -> Option<Result<&'a [u8], Fault>> {
        let mut rest = Input::new(file.strip_prefix(self.head.as_slice())?, Budget::new(limits));
        let mut block = || {
            if rest.long()? != 1 {
                return Err(Fault::malformed("not one object"));
            }
            let object = rest.bytes()?;
            match rest.rest() == self.sync {
                true => Ok(object),
                false => Err(Fault::malformed("the object does not end where it should")),
            }
        };
        Some(block())
    }

    /// The object of a file by another schema, as one by this.
    fn resolved(&self, file: &[u8]) -> Result<Vec<u8>, Fault> {
        let text = |error: apache_avro::Error| Fault::malformed(shorten(&error.to_string()));
        // Not by the reader's own schema: it would take named types of the file for those of the same name here.
        let mut reader = Reader::new(file).map_err(text)?;
        let value = reader.next().ok_or_else(|| Fault::malformed("an empty file"))?.map_err(text)?;
        let value = value.resolve(&self.schema).map_err(text)?;
        if reader.next().is_some() {
            return Err(Fault::malformed("not one object"));
        }
        let writer =
            apache_avro::writer::datum::GenericDatumWriter::builder(&self.schema).build().map_err(text)?;
        writer.write_value_to_vec(value).map_err(text)
    }

    /// A file of one object.
    fn file(&self, object: &[u8]) -> Vec<u8> {
        let mut file = Vec::with_capacity(self.head.len() + object.len() + 32);
        file.extend_from_slice(&self.head);
        write::long(1, &mut file);
        write::bytes(object, &mut file);
        file.extend_from_slice(&self.sync);
        file
    }
}

/// Encodes an export request.
pub fn encode(payload: &Payload) -> Vec<u8> {
    // The schemas are part of the build, and a test reads them.
    let Ok(format) = Format::of(payload.signal()) else { return Vec::new() };
    let mut object = Vec::with_capacity(16 << 10);
    match payload {
        Payload::Traces(request) => request.encode_avro(&mut object),
        Payload::Logs(request) => request.encode_avro(&mut object),
        Payload::Metrics(request) => request.encode_avro(&mut object),
    }
    format.file(&object)
}

/// Decodes an export request of `signal`.
///
/// # Errors
/// [`WireError::Avro`] with the path of what is malformed; [`WireError::Limit`] for a request over `limits`.
pub fn decode(signal: Signal, file: &[u8], limits: &OtlpLimits) -> Result<Payload, WireError> {
    read(signal, file, limits).map_err(|fault| match fault.cause() {
        Cause::Limit => WireError::Limit { what: fault.text() },
        Cause::Malformed | Cause::OutOfOrder => {
            WireError::Avro { message: signal.as_str(), what: fault.text() }
        }
    })
}

fn read(signal: Signal, file: &[u8], limits: &OtlpLimits) -> Result<Payload, Fault> {
    let format = Format::of(signal)?;
    match format.object(file, limits) {
        Some(object) => request(signal, object?, limits),
        None => request(signal, &format.resolved(file)?, limits),
    }
}

fn request(signal: Signal, object: &[u8], limits: &OtlpLimits) -> Result<Payload, Fault> {
    let mut input = Input::new(object, Budget::new(limits));
    let payload = match signal {
        Signal::Traces => Payload::Traces(Table::decode_avro(&mut input)?),
        Signal::Logs => Payload::Logs(Table::decode_avro(&mut input)?),
        Signal::Metrics => Payload::Metrics(Table::decode_avro(&mut input)?),
    };
    if input.rest().is_empty() { Ok(payload) } else { Err(Fault::malformed("bytes behind the object")) }
}
