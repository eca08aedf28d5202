//! Figures for people: bytes, counts, rates and times in, a few characters out.

use super::nodes::{Lane, Node};
use super::text::{Line, Style};

/// Units of bytes, each 1024 of the one before.
const BYTES: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];

/// From here on a lane counts as full.
pub(crate) const FULL: f64 = 0.9;

/// How a lane that is full to `share` of 1 looks.
pub(crate) fn fill_style(share: f64) -> Style {
    match share {
        share if share >= FULL => Style::Bad,
        share if share >= 0.5 => Style::Warn,
        _ => Style::Plain,
    }
}

/// Adds what did not go through a lane: `  poisoned 2  dropped 1`.
pub(crate) fn losses(line: &mut Line, lane: &Lane) {
    for (n, what) in [(lane.poisoned, "poisoned"), (lane.dropped, "dropped"), (lane.shed, "shed")] {
        if n > 0 {
            line.push(format!("  {what} {n}"), Style::Warn);
        }
    }
}

fn unit(bytes: u64) -> (u64, &'static str) {
    let step = (0..BYTES.len() - 1).take_while(|n| bytes >> (10 * (n + 1)) > 0).count();
    (1 << (10 * step), BYTES[step])
}

/// `212/256MiB`: both in the unit of the larger one.
pub(crate) fn bytes_of(bytes: u64, capacity: u64) -> String {
    let (scale, name) = unit(capacity.max(bytes));
    format!("{}/{}{name}", scaled(bytes, scale), scaled(capacity, scale))
}

/// `1.5GiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    let (scale, name) = unit(bytes);
    format!("{}{name}", scaled(bytes, scale))
}

/// At most one digit behind the point, and none where it says nothing.
fn scaled(n: u64, scale: u64) -> String {
    let value = n as f64 / scale as f64;
    if value >= 10.0 || n.is_multiple_of(scale) { format!("{value:.0}") } else { format!("{value:.1}") }
}

/// `950`, `12.3k`, `4.0M`.
pub(crate) fn count(n: f64) -> String {
    let (value, name) = match n.abs() {
        n if n >= 1e9 => (1e9, "G"),
        n if n >= 1e6 => (1e6, "M"),
        n if n >= 1e4 => (1e3, "k"),
        _ => (1.0, ""),
    };
    let scaled = n / value;
    if name.is_empty() && (scaled >= 10.0 || scaled.fract() == 0.0) {
        format!("{scaled:.0}")
    } else {
        format!("{scaled:.1}{name}")
    }
}

/// `brokers 2MiB queued · 3 not delivered`: of a log that is elsewhere, by the node that shows its figures.
pub(crate) fn brokers(node: &Node) -> Option<String> {
    let queued = node.gauges.get("queued_bytes")?;
    let mut words = format!("brokers {} queued", bytes(*queued as u64));
    let told = [("delivery_errors", "not delivered"), ("rebalances", "rebalances"), ("fenced", "fenced")];
    for (name, what) in told {
        if let Some(n) = node.gauges.get(name).filter(|n| **n > 0.0) {
            words.push_str(&format!(" · {} {what}", count(*n)));
        }
    }
    Some(words)
}

/// `3d04h`, `2h05m`, `2m10s`, `12s`.
pub(crate) fn span(seconds: u64) -> String {
    let (days, hours, minutes, rest) =
        (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{rest}s"),
        (0, 0, _) if rest == 0 => format!("{minutes}m"),
        (0, 0, _) => format!("{minutes}m{rest:02}s"),
        (0, _, _) => format!("{hours}h{minutes:02}m"),
        _ => format!("{days}d{hours:02}h"),
    }
}

/// `840µs`, `3.7ms`, `1.20s`.
pub(crate) fn latency(seconds: f64) -> String {
    match seconds {
        s if s >= 1.0 => format!("{s:.2}s"),
        s if s >= 0.1 => format!("{:.0}ms", s * 1e3),
        s if s >= 0.001 => format!("{:.1}ms", s * 1e3),
        s => format!("{:.0}µs", s * 1e6),
    }
}

/// A bar of `width` cells, filled to `share` of 1.
pub(crate) fn bar(share: f64, width: usize) -> String {
    const EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    let eighths = (share.clamp(0.0, 1.0) * width as f64 * 8.0).round() as usize;
    // What is not nothing is seen.
    let eighths = if share > 0.0 { eighths.max(1) } else { 0 };
    let mut bar: String = "█".repeat(eighths / 8);
    if !eighths.is_multiple_of(8) {
        bar.push(EIGHTHS[eighths % 8]);
    }
    let cells = eighths.div_ceil(8);
    bar.push_str(&"·".repeat(width - cells));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_scaled_to_the_larger_of_a_pair() {
        assert_eq!(bytes_of(212 << 20, 256 << 20), "212/256MiB");
        assert_eq!(bytes_of(0, 64 << 20), "0/64MiB");
        assert_eq!(bytes_of(1536 << 10, 8 << 20), "1.5/8MiB");
        assert_eq!(bytes_of(300, 900), "300/900B");
        assert_eq!(bytes(3 << 29), "1.5GiB");
        assert_eq!(bytes(u64::MAX), "16777216TiB");
    }

    #[test]
    fn counts_and_times_are_short() {
        assert_eq!(
            ["0", "7", "9999", "12.3k", "4.0M", "2.5G"].map(String::from),
            [count(0.0), count(7.0), count(9999.0), count(12_340.0), count(4e6), count(2.5e9)]
        );
        assert_eq!(count(0.25), "0.2");
        assert_eq!(
            ["12s", "2m", "2m10s", "2h05m", "3d04h"].map(String::from),
            [span(12), span(120), span(130), span(7_530), span(3 * 86_400 + 4 * 3600 + 59)]
        );
        assert_eq!(
            [latency(0.00084), latency(0.0037), latency(0.25), latency(1.2)],
            ["840µs", "3.7ms", "250ms", "1.20s"]
        );
    }

    #[test]
    fn a_bar_keeps_its_width_and_shows_the_least_there_is() {
        for share in [0.0, 0.001, 0.3, 0.5, 0.99, 1.0, 7.0, f64::NAN] {
            assert_eq!(bar(share, 8).chars().count(), 8, "{share}");
        }
        assert_eq!((bar(0.0, 3), bar(1.0, 3), bar(0.5, 4)), ("···".into(), "███".into(), "██··".into()));
        assert!(bar(0.0001, 8).starts_with('▏'));
    }
}
