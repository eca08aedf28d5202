//! Times and durations as callers write them: text in → Unix nanoseconds out; anything else is refused, naming the parameter.
//!
//! A time is RFC 3339, a Unix number (seconds, ms, µs or ns by its magnitude), `now`, or `now` minus/plus a duration such as `now-1h30m`.

use jiff::Timestamp;

use super::failure::BadParameter;

/// Nanoseconds in one second.
pub const SECOND: i64 = 1_000_000_000;
/// Nanoseconds in one minute.
pub const MINUTE: i64 = 60 * SECOND;
/// Nanoseconds in one hour.
pub const HOUR: i64 = 60 * MINUTE;

const TIME_HINT: &str =
    "use RFC 3339 such as 2026-01-31T12:00:00Z, Unix seconds, milliseconds or nanoseconds, now, or now-15m";
const DURATION_HINT: &str =
    "use a number with a unit (ns, us, ms, s, m, h, d, w) such as 1.5s, 250ms or 1h30m";

/// Half-open range of time: `start_ns` is in, `end_ns` is not. Unix nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TimeRange {
    /// First nanosecond of the range.
    pub start_ns: i64,
    /// First nanosecond after the range.
    pub end_ns: i64,
}

impl TimeRange {
    /// Reads `start` and `end`; what is absent becomes `end - default_width` and `now`.
    ///
    /// # Errors
    /// [`BadParameter`] for a text that is no time, and for a start that is not before the end.
    pub fn parse(
        start: Option<&str>,
        end: Option<&str>,
        now_ns: i64,
        default_width: i64,
    ) -> Result<Self, BadParameter> {
        let end_ns = end.map_or(Ok(now_ns), |text| parse_instant("end", text, now_ns))?;
        let start_ns = match start {
            Some(text) => parse_instant("start", text, now_ns)?,
            None => end_ns.saturating_sub(default_width),
        };
        if start_ns >= end_ns {
            let detail =
                format!("{} is not before the end {}", format_rfc3339(start_ns), format_rfc3339(end_ns));
            return Err(BadParameter::new("start", detail));
        }
        Ok(Self { start_ns, end_ns })
    }

    /// Width in nanoseconds.
    pub fn width(&self) -> i64 {
        self.end_ns.saturating_sub(self.start_ns)
    }
}

/// Reads a point in time as Unix nanoseconds.
///
/// # Errors
/// [`BadParameter`] naming `parameter` when the text is no time or lies outside what nanoseconds in 64 bits can hold (1677 to 2262).
pub fn parse_instant(parameter: &str, text: &str, now_ns: i64) -> Result<i64, BadParameter> {
    let refuse = |why: &str| BadParameter::new(parameter, format!("{why} {text:?}: {TIME_HINT}"));
    let trimmed = text.trim();
    if let Some(rest) = trimmed.strip_prefix("now") {
        return relative(parameter, rest, now_ns).map_err(|_| refuse("cannot read the relative time"));
    }
    if trimmed.bytes().all(|b| b.is_ascii_digit() || b == b'.' || b == b'-')
        && !trimmed[trimmed.len().min(1)..].contains('-')
    {
        return unix(trimmed).ok_or_else(|| refuse("cannot read the Unix time"));
    }
    // A `+` in a query string that was not percent-encoded arrives as a blank: `…T12:00:00 02:00`.
    let repaired = match trimmed.rsplit_once(' ') {
        Some((head, zone)) if head.contains(['T', 't']) && zone.len() == 5 => format!("{head}+{zone}"),
        _ => trimmed.to_owned(),
    };
    let stamp: Timestamp = repaired.parse().map_err(|_| refuse("cannot read the time"))?;
    i64::try_from(stamp.as_nanosecond()).map_err(|_| refuse("the time lies outside 1677 to 2262:"))
}

/// The part after `now`: empty, or a sign and a duration.
fn relative(parameter: &str, rest: &str, now_ns: i64) -> Result<i64, BadParameter> {
    let bad = || BadParameter::new(parameter, TIME_HINT);
    if rest.is_empty() {
        return Ok(now_ns);
    }
    // An unencoded `+` arrives as a blank here as well.
    let (sign, amount) = match rest.as_bytes()[0] {
        b'-' => (-1, &rest[1..]),
        b'+' | b' ' => (1, &rest[1..]),
        _ => return Err(bad()),
    };
    let nanos = i64::try_from(parse_duration(parameter, amount)?).map_err(|_| bad())?;
    now_ns.checked_add(sign * nanos).ok_or_else(bad)
}

/// A Unix number whose unit follows from its magnitude: below 10^11 seconds, 10^14 ms, 10^17 µs, else ns.
fn unix(text: &str) -> Option<i64> {
    if text.contains('.') {
        let seconds: f64 = text.parse().ok()?;
        return (seconds.abs() < 1e11).then(|| decimal_seconds(text)).flatten();
    }
    let number: i64 = text.parse().ok()?;
    let unit = match number.unsigned_abs() {
        0..100_000_000_000 => SECOND,
        100_000_000_000..100_000_000_000_000 => 1_000_000,
        100_000_000_000_000..100_000_000_000_000_000 => 1_000,
        _ => 1,
    };
    number.checked_mul(unit)
}

/// `1700000000.25` without the rounding of a float.
fn decimal_seconds(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.')?;
    let digits = format!("{:0<9.9}", fraction);
    let nanos: i64 = digits.parse().ok()?;
    let seconds: i64 = if whole.is_empty() || whole == "-" { 0 } else { whole.parse().ok()? };
    let signed = if text.starts_with('-') { -nanos } else { nanos };
    seconds.checked_mul(SECOND)?.checked_add(signed)
}

/// Reads a duration as nanoseconds: `250ms`, `1.5s`, `100us`, `1h30m`. A bare `0` is a duration too.
///
/// # Errors
/// [`BadParameter`] naming `parameter` when a number has no unit, a unit is unknown, or the sum leaves 64 bits.
pub fn parse_duration(parameter: &str, text: &str) -> Result<u64, BadParameter> {
    let refuse =
        || BadParameter::new(parameter, format!("cannot read the duration {text:?}: {DURATION_HINT}"));
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(refuse());
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(refuse)?;
        let unit_len =
            rest[number_end..].find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len() - number_end);
        let (number, unit) = (&rest[..number_end], &rest[number_end..number_end + unit_len]);
        let nanos = amount(number, unit).ok_or_else(refuse)?;
        total = total.checked_add(nanos).ok_or_else(refuse)?;
        rest = &rest[number_end + unit_len..];
    }
    Ok(total)
}

fn amount(number: &str, unit: &str) -> Option<u64> {
    let unit_ns: u64 = match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "d" => 86_400_000_000_000,
        "w" => 604_800_000_000_000,
        _ => return None,
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(unit_ns);
    }
    let nanos = number.parse::<f64>().ok()? * unit_ns as f64;
    (nanos.is_finite() && nanos < i64::MAX as f64).then(|| nanos.round() as u64)
}

/// RFC 3339 in UTC with nine digits of a second, the form every answer uses.
pub fn format_rfc3339(unix_ns: i64) -> String {
    match Timestamp::from_nanosecond(i128::from(unix_ns)) {
        Ok(stamp) => format!("{stamp:.9}"),
        Err(_) => unix_ns.to_string(),
    }
}

/// A duration in the largest unit that leaves no fraction, such as `15s` or `250ms`.
pub fn format_duration(nanos: u64) -> String {
    const UNITS: [(u64, &str); 6] = [
        (3_600_000_000_000, "h"),
        (60_000_000_000, "m"),
        (1_000_000_000, "s"),
        (1_000_000, "ms"),
        (1_000, "us"),
        (1, "ns"),
    ];
    match UNITS.iter().find(|(unit, _)| nanos != 0 && nanos.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", nanos / unit),
        None => "0s".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000_000_000_000;

    #[test]
    fn reads_every_documented_form_of_a_time() {
        for (text, want) in [
            ("now", NOW),
            ("now-15m", NOW - 15 * MINUTE),
            ("now-1h30m", NOW - 90 * MINUTE),
            ("now+1s", NOW + SECOND),
            ("now 1s", NOW + SECOND),
            ("1700000000", 1_700_000_000 * SECOND),
            ("1700000000.25", 1_700_000_000 * SECOND + 250_000_000),
            ("-1.5", -1_500_000_000),
            ("1700000000123", 1_700_000_000_123_000_000),
            ("1700000000123456", 1_700_000_000_123_456_000),
            ("1700000000123456789", 1_700_000_000_123_456_789),
            ("0", 0),
            ("2023-11-14T22:13:20Z", 1_700_000_000 * SECOND),
            ("2023-11-14T22:13:20.000000001Z", 1_700_000_000 * SECOND + 1),
            ("2023-11-15T00:13:20+02:00", 1_700_000_000 * SECOND),
            ("2023-11-15T00:13:20 02:00", 1_700_000_000 * SECOND),
        ] {
            assert_eq!(parse_instant("start", text, NOW), Ok(want), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_time_and_names_the_parameter() {
        for text in [
            "",
            "yesterday",
            "now-",
            "now-5",
            "now*2",
            "2023-11-14",
            "2023-13-01T00:00:00Z",
            "1..2",
            "--1",
            "-",
        ] {
            let err = parse_instant("end", text, NOW).expect_err(text);
            assert_eq!(err.parameter, "end");
            assert!(err.detail.contains("now-15m"), "{}", err.detail);
        }
    }

    #[test]
    fn reads_durations() {
        for (text, want) in [
            ("250ms", 250_000_000),
            ("1.5s", 1_500_000_000),
            ("100us", 100_000),
            ("100µs", 100_000),
            ("7ns", 7),
            ("1h30m", 5_400_000_000_000),
            ("2d", 172_800_000_000_000),
            ("0", 0),
        ] {
            assert_eq!(parse_duration("min_duration", text), Ok(want), "{text}");
        }
        for text in ["", "5", "s", "1x", "1.2.3s", "-1s", "99999999999999w", "1s2"] {
            assert_eq!(parse_duration("min_duration", text).expect_err(text).parameter, "min_duration");
        }
    }

    #[test]
    fn a_range_defaults_to_the_width_before_now_and_refuses_an_inverted_one() {
        let range = TimeRange::parse(None, None, NOW, HOUR).unwrap();
        assert_eq!(range, TimeRange { start_ns: NOW - HOUR, end_ns: NOW });
        assert_eq!(TimeRange::parse(Some("now"), Some("now-1h"), NOW, HOUR).unwrap_err().parameter, "start");
        let past = TimeRange::parse(None, Some("now-1d"), NOW, HOUR).unwrap();
        assert_eq!(past.width(), HOUR);
    }

    #[test]
    fn formats_times_and_durations() {
        assert_eq!(format_rfc3339(1_700_000_000 * SECOND + 5), "2023-11-14T22:13:20.000000005Z");
        for (ns, text) in
            [(0, "0s"), (15_000_000_000, "15s"), (250_000_000, "250ms"), (5_400_000_000_000, "90m")]
        {
            assert_eq!(format_duration(ns), text);
        }
    }
}
