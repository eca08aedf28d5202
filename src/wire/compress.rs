//! Content encodings: compressed body → plain body, never more of it than the caller allows. Fails on damage and bombs.

use std::io::{self, Read};

use bytes::Bytes;
use flate2::Compression;
use flate2::bufread::MultiGzDecoder;

use super::WireError;

/// Output up to this many bytes is never refused for its ratio: small repetitive bodies shrink a lot, honestly.
pub const RATIO_FREE_BYTES: usize = 4 << 20;

/// Default for `max_ratio`. Honest OTLP stays below 100; gzip cannot exceed 1032, zstd can reach millions.
pub const DEFAULT_MAX_RATIO: usize = 250;

/// Largest zstd window, as a power of two: 8 MiB, what RFC 8878 asks every decoder to support and no more.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// Bytes decompressed between two looks at the limits.
const STEP: usize = 64 << 10;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Encoding {
    /// Not at all.
    #[default]
    Identity,
    /// gzip (RFC 1952), also of several members.
    Gzip,
    /// zstd (RFC 8878), also of several frames.
    Zstd,
}

impl Encoding {
    /// The encoding of a `content-encoding` or `grpc-encoding` header; `None` or an empty value is identity.
    ///
    /// # Errors
    /// [`WireError::Encoding`] for any other one, lists of encodings included.
    pub fn from_header(value: Option<&str>) -> Result<Self, WireError> {
        let value = value.unwrap_or_default().trim();
        let is = |name: &str| value.eq_ignore_ascii_case(name);
        if value.is_empty() || is("identity") || is("none") {
            Ok(Self::Identity)
        } else if is("gzip") || is("x-gzip") {
            Ok(Self::Gzip)
        } else if is("zstd") {
            Ok(Self::Zstd)
        } else {
            Err(WireError::Encoding { found: value.chars().take(64).collect() })
        }
    }

    /// The header value: `identity`, `gzip`, `zstd`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// Undoes `encoding`. Stops as soon as the output passes `max_out` bytes, or `max_ratio` times the input once it is
/// over [`RATIO_FREE_BYTES`]; memory stays below `max_out` plus the decoder's window (at most 8 MiB).
///
/// # Errors
/// [`WireError::BodyTooLarge`] or [`WireError::Ratio`] for a limit, [`WireError::Damaged`] for input that is cut off,
/// has a wrong checksum or is followed by something else.
pub fn decompress(
    encoding: Encoding,
    body: &Bytes,
    max_out: usize,
    max_ratio: usize,
) -> Result<Bytes, WireError> {
    let damaged = |e: io::Error| WireError::Damaged { encoding: encoding.as_str(), what: e.to_string() };
    let limits = OutputLimits { encoding, input: body.len(), max_out, max_ratio };
    if encoding == Encoding::Identity || body.is_empty() {
        limits.check(body.len())?;
        return Ok(body.clone());
    }
    if encoding == Encoding::Gzip {
        return drain(MultiGzDecoder::new(body.as_ref()), &limits);
    }
    let mut decoder = zstd::stream::read::Decoder::with_buffer(body.as_ref()).map_err(damaged)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(damaged)?;
    drain(decoder, &limits)
}

/// Applies `encoding`, at the speed-over-size level that clients of a telemetry backend use.
///
/// # Errors
/// [`WireError::Damaged`] when the encoder cannot be set up (out of memory).
pub fn compress(encoding: Encoding, body: &[u8]) -> Result<Vec<u8>, WireError> {
    let packed = match encoding {
        Encoding::Identity => Ok(body.to_vec()),
        Encoding::Gzip => {
            let mut out = Vec::with_capacity(body.len() / 4);
            flate2::bufread::GzEncoder::new(body, Compression::fast()).read_to_end(&mut out).map(|_| out)
        }
        Encoding::Zstd => zstd::stream::encode_all(body, 1),
    };
    packed.map_err(|e| WireError::Damaged { encoding: encoding.as_str(), what: e.to_string() })
}

struct OutputLimits {
    encoding: Encoding,
    input: usize,
    max_out: usize,
    max_ratio: usize,
}

impl OutputLimits {
    fn check(&self, out: usize) -> Result<(), WireError> {
        if out > self.max_out {
            return Err(WireError::BodyTooLarge { limit: self.max_out });
        }
        if out > RATIO_FREE_BYTES && out / self.max_ratio.max(1) > self.input {
            return Err(WireError::Ratio { encoding: self.encoding.as_str(), limit: self.max_ratio });
        }
        Ok(())
    }
}

/// Reads step by step, so that a bomb is noticed one step past the limit and not when memory is gone.
fn drain(mut source: impl Read, limits: &OutputLimits) -> Result<Bytes, WireError> {
    let mut out = Vec::with_capacity(limits.input.saturating_mul(4).min(limits.max_out));
    loop {
        let read = source
            .by_ref()
            .take(STEP as u64)
            .read_to_end(&mut out)
            .map_err(|e| WireError::Damaged { encoding: limits.encoding.as_str(), what: e.to_string() })?;
        limits.check(out.len())?;
        if read == 0 {
            return Ok(Bytes::from(out));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [Encoding; 2] = [Encoding::Gzip, Encoding::Zstd];

    fn packed(encoding: Encoding, body: &[u8]) -> Bytes {
        Bytes::from(compress(encoding, body).unwrap())
    }

    #[test]
    fn header_values_map_to_encodings() {
        assert_eq!(Encoding::from_header(None).unwrap(), Encoding::Identity);
        assert_eq!(Encoding::from_header(Some("identity")).unwrap(), Encoding::Identity);
        assert_eq!(Encoding::from_header(Some(" GZIP ")).unwrap(), Encoding::Gzip);
        assert_eq!(Encoding::from_header(Some("zstd")).unwrap(), Encoding::Zstd);
        for bad in ["br", "gzip, gzip", "deflate"] {
            assert!(Encoding::from_header(Some(bad)).unwrap_err().to_string().contains(bad));
        }
    }

    #[test]
    fn what_was_compressed_comes_back_also_in_several_members() {
        let body: Vec<u8> = (0..200_000u32).flat_map(|i| (i * 7 % 251).to_le_bytes()).collect();
        for encoding in BOTH {
            let one = packed(encoding, &body);
            assert_eq!(decompress(encoding, &one, body.len(), 250).unwrap(), body);
            let two = Bytes::from([one.as_ref(), one.as_ref()].concat());
            assert_eq!(decompress(encoding, &two, 2 * body.len(), 250).unwrap(), body.repeat(2));
        }
        let plain = Bytes::from_static(b"plain");
        assert_eq!(decompress(Encoding::Identity, &plain, 5, 1).unwrap(), plain);
        assert!(matches!(
            decompress(Encoding::Identity, &plain, 4, 1),
            Err(WireError::BodyTooLarge { limit: 4 })
        ));
    }

    #[test]
    fn an_empty_body_is_empty_whatever_its_encoding() {
        for encoding in BOTH {
            assert!(decompress(encoding, &Bytes::new(), 10, 250).unwrap().is_empty());
        }
    }

    #[test]
    fn the_limit_is_exact() {
        for encoding in BOTH {
            let body = packed(encoding, &[7; 100_000]);
            assert!(decompress(encoding, &body, 100_000, 250).is_ok());
            let result = decompress(encoding, &body, 99_999, 250).map(|out| out.len());
            assert!(matches!(result, Err(WireError::BodyTooLarge { limit: 99_999 })), "{result:?}");
        }
    }

    #[test]
    fn bombs_are_refused_for_their_ratio_before_their_size() {
        for encoding in BOTH {
            let bomb = packed(encoding, &vec![0; 64 << 20]);
            assert!(bomb.len() < 1 << 20);
            let result = decompress(encoding, &bomb, usize::MAX, 100).map(|out| out.len());
            assert!(matches!(result, Err(WireError::Ratio { .. })), "{encoding:?}: {result:?}");
        }
    }

    /// 1 GiB of zeros as 8192 run-length blocks of four bytes: were the output not stopped at the cap, this test would
    /// need the gigabyte. gzip cannot do worse than 1032 to 1.
    #[test]
    fn a_gigabyte_stops_at_the_cap() {
        // Magic, descriptor (no checksum, a window descriptor follows), window of 128 KiB, blocks of 128 KiB.
        let mut bomb = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 7 << 3];
        let run = |last: u32| (((128u32 << 10) << 3) | (1 << 1) | last).to_le_bytes();
        for block in 0..8192u32 {
            bomb.extend_from_slice(&run(u32::from(block == 8191))[..3]);
            bomb.push(0);
        }
        let zipped = packed(Encoding::Gzip, &vec![0; 64 << 20]);
        for (encoding, body) in [(Encoding::Zstd, Bytes::from(bomb)), (Encoding::Gzip, zipped)] {
            let result = decompress(encoding, &body, 20 << 20, usize::MAX).map(|out| out.len());
            assert!(matches!(result, Err(WireError::BodyTooLarge { .. })), "{encoding:?}: {result:?}");
        }
    }

    #[test]
    fn a_huge_zstd_window_is_refused() {
        // Window descriptor exponent 21: 2^31 bytes of window for a frame of one byte.
        let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 0x09, 0x00, 0x00, b'x'];
        let result = decompress(Encoding::Zstd, &Bytes::copy_from_slice(&frame), 1 << 20, 250);
        assert!(result.unwrap_err().to_string().contains("memory"));
    }

    #[test]
    fn cut_off_and_trailing_bytes_are_errors() {
        for encoding in BOTH {
            let whole = packed(encoding, b"some text that is long enough to be cut somewhere in the middle");
            for cut in 1..whole.len() {
                let result = decompress(encoding, &whole.slice(..cut), 1 << 20, 250);
                assert!(matches!(result, Err(WireError::Damaged { .. })), "{encoding:?} cut at {cut}");
            }
            let trailing = Bytes::from([whole.as_ref(), b"garbage"].concat());
            assert!(decompress(encoding, &trailing, 1 << 20, 250).is_err(), "{encoding:?}");
        }
    }
}
