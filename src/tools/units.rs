//! What the tools' flags are written in: durations (`10s`, `1m30s`, `250ms`, `0`) and rates (`500`, `500/s`, `20k/s`).

use std::time::Duration;

/// Reads a duration; a bare `0` is none.
///
/// # Errors
/// A sentence saying what was expected, for clap to print beside the flag.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    if text.trim() == "0" {
        return Ok(Duration::ZERO);
    }
    let wanted = || format!("{text:?} is no duration; write it as 250ms, 10s, 1m30s or 2h");
    let signed: jiff::SignedDuration = text.trim().parse().map_err(|_| wanted())?;
    Duration::try_from(signed).map_err(|_| wanted())
}

/// Reads a rate per second; always above zero.
///
/// # Errors
/// A sentence saying what was expected, for clap to print beside the flag.
pub fn parse_rate(text: &str) -> Result<f64, String> {
    let wanted = || format!("{text:?} is no rate; write it as 500/s, 20k/s or 0.5/s");
    let number = text.trim().strip_suffix("/s").unwrap_or(text.trim());
    let (digits, factor) = match number.as_bytes().last() {
        Some(b'k' | b'K') => (&number[..number.len() - 1], 1e3),
        Some(b'M' | b'm') => (&number[..number.len() - 1], 1e6),
        _ => (number, 1.0),
    };
    let rate = digits.parse::<f64>().map_err(|_| wanted())? * factor;
    if rate.is_finite() && rate > 0.0 { Ok(rate) } else { Err(wanted()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_durations_and_rates_and_refuses_the_rest() {
        for (text, millis) in
            [("0", 0), ("250ms", 250), ("10s", 10_000), ("1m30s", 90_000), ("2h", 7_200_000)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "10", "-5s", "fast"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        for (text, rate) in
            [("500", 500.0), ("500/s", 500.0), ("20k/s", 20_000.0), ("0.5/s", 0.5), ("1M", 1e6)]
        {
            assert_eq!(parse_rate(text), Ok(rate), "{text}");
        }
        for bad in ["", "0", "-1/s", "k", "1/m", "inf"] {
            assert!(parse_rate(bad).is_err(), "{bad}");
        }
    }
}
