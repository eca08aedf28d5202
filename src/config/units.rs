//! Sizes and durations as people write them: text such as "64MiB" or "1m30s" in, exact numbers out. Fails in words.

use std::fmt;
use std::time::Duration;

/// A number of bytes, written as `"64MiB"`, `"1.5 GB"` or a plain number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(u64);

/// Unit names (lower case) and what one of them is worth in bytes. Binary ones first: they are what is printed.
const SIZE_UNITS: [(&str, u64); 13] = [
    ("tib", 1 << 40),
    ("gib", 1 << 30),
    ("mib", 1 << 20),
    ("kib", 1 << 10),
    ("tb", 1_000_000_000_000),
    ("gb", 1_000_000_000),
    ("mb", 1_000_000),
    ("kb", 1_000),
    ("t", 1 << 40),
    ("g", 1 << 30),
    ("m", 1 << 20),
    ("k", 1 << 10),
    ("b", 1),
];

/// Duration units from large to small, with their worth in nanoseconds.
const TIME_UNITS: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

impl ByteSize {
    /// A size of `n` bytes.
    pub const fn bytes(n: u64) -> Self {
        Self(n)
    }

    /// A size of `n` KiB (1024 bytes).
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }

    /// A size of `n` MiB.
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    /// A size of `n` GiB.
    pub const fn gib(n: u64) -> Self {
        Self(n << 30)
    }

    /// The size in bytes.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The size in bytes for in-memory bounds; saturates where `usize` is smaller.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// Reads `"64MiB"`, `"1.5 GB"`, `"512"`. Units know no case; `KiB`/`K` are 1024, `kB` is 1000.
    ///
    /// # Errors
    /// What is wrong with the text, to be put behind "expected a size such as …, found …".
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (number, unit) = split_number(text)?;
        let unit = unit.trim().to_ascii_lowercase();
        let worth = if unit.is_empty() {
            1
        } else {
            SIZE_UNITS
                .iter()
                .find(|(name, _)| *name == unit)
                .map(|(_, worth)| *worth)
                .ok_or_else(|| format!("unknown unit {unit:?}, use B, KiB, MiB, GiB or TiB"))?
        };
        scale(number, worth).map(Self)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, name) in [(1u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
            if self.0 >= unit && self.0.is_multiple_of(unit) {
                return write!(f, "{}{name}", self.0 / unit);
            }
        }
        write!(f, "{}B", self.0)
    }
}

/// Reads `"200ms"`, `"1.5s"`, `"1m30s"`, `"30d"`. A bare number is refused (only `"0"` needs no unit).
///
/// # Errors
/// What is wrong with the text, to be put behind "expected a duration such as …, found …".
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err("it is empty".into());
    }
    let mut nanos = 0u64;
    while !rest.is_empty() {
        let (number, tail) = split_number(rest)?;
        let tail = tail.trim_start();
        let end = tail.find(|c: char| !c.is_alphabetic()).unwrap_or(tail.len());
        let (unit, after) = tail.split_at(end);
        let part = scale(number, worth_of(unit)?)?;
        nanos = nanos.checked_add(part).ok_or("it is too long")?;
        rest = after.trim_start();
    }
    Ok(Duration::from_nanos(nanos))
}

fn worth_of(unit: &str) -> Result<u64, String> {
    let unit = if unit == "µs" { "us" } else { unit };
    match TIME_UNITS.iter().find(|(name, _)| *name == unit) {
        Some((_, worth)) => Ok(*worth),
        None if unit.is_empty() => Err("it needs a unit: ns, us, ms, s, m, h or d".into()),
        None => Err(format!("unknown unit {unit:?}, use ns, us, ms, s, m, h or d")),
    }
}

/// Writes a duration so that [`parse_duration`] reads the same one back: `1m30s`, `200ms`, `30d`.
pub fn format_duration(duration: Duration) -> String {
    let mut left = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    if left == 0 {
        return "0s".into();
    }
    let mut out = String::new();
    for (name, worth) in TIME_UNITS {
        if left >= worth {
            out.push_str(&format!("{}{name}", left / worth));
            left %= worth;
        }
    }
    out
}

fn split_number(text: &str) -> Result<(&str, &str), String> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    if end == 0 { Err("it does not begin with a number".into()) } else { Ok(text.split_at(end)) }
}

/// `number × worth`, exact for whole numbers; a fraction is rounded to the nearest unit.
fn scale(number: &str, worth: u64) -> Result<u64, String> {
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(worth).ok_or_else(|| "it is too large".into());
    }
    let value = number.parse::<f64>().map_err(|_| format!("{number:?} is not a number"))? * worth as f64;
    // Above 2^63 an f64 no longer tells a valid bound from an overflow; no setting comes near it.
    if value < 9.2e18 { Ok(value.round() as u64) } else { Err("it is too large".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_people_write_them() {
        let cases: &[(&str, u64)] = &[
            ("0", 0),
            ("512", 512),
            ("64MiB", 64 << 20),
            ("1.5 KiB", 1536),
            ("20 MB", 20_000_000),
            ("2g", 2 << 30),
        ];
        for (text, bytes) in cases {
            assert_eq!(ByteSize::parse(text).unwrap().as_u64(), *bytes, "{text}");
        }
    }

    #[test]
    fn bad_sizes_say_what_is_wrong() {
        let cases = [
            ("", "does not begin with a number"),
            ("-1", "does not begin with a number"),
            ("64 apples", "unknown unit \"apples\""),
            ("1.2.3MiB", "not a number"),
            ("99999999999TiB", "too large"),
            ("99999999999.5TiB", "too large"),
        ];
        for (text, why) in cases {
            let found = ByteSize::parse(text).unwrap_err();
            assert!(found.contains(why), "{text:?}: {found}");
        }
    }

    #[test]
    fn durations_read_as_people_write_them() {
        let cases: &[(&str, u64)] = &[
            ("0", 0),
            ("0s", 0),
            ("200ms", 200_000_000),
            ("1.5s", 1_500_000_000),
            ("1m30s", 90_000_000_000),
            ("1h 5m", 3_900_000_000_000),
            ("30d", 30 * 86_400_000_000_000),
            ("7µs", 7_000),
        ];
        for (text, nanos) in cases {
            assert_eq!(parse_duration(text).unwrap(), Duration::from_nanos(*nanos), "{text}");
        }
    }

    #[test]
    fn bad_durations_say_what_is_wrong() {
        let cases = [
            ("", "empty"),
            ("5", "needs a unit"),
            ("5 parsecs", "unknown unit \"parsecs\""),
            ("s", "does not begin with a number"),
            ("-5s", "does not begin with a number"),
            ("999999999d", "too large"),
        ];
        for (text, why) in cases {
            let found = parse_duration(text).unwrap_err();
            assert!(found.contains(why), "{text:?}: {found}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_printed_reads_back(bytes: u64, nanos: u64) {
            assert_eq!(ByteSize::parse(&ByteSize(bytes).to_string()).unwrap(), ByteSize(bytes));
            let duration = Duration::from_nanos(nanos);
            assert_eq!(parse_duration(&format_duration(duration)).unwrap(), duration);
        }
    }
}
