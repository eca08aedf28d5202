//! Writes JSON tokens into a byte buffer: no tree in between, nothing that can fail.
//!
//! Members and elements end with a comma; closing a list or object turns the last comma into the bracket.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::scan::plain_len;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Ends an object or list: the comma after its last element becomes the bracket.
#[inline]
pub(crate) fn close(out: &mut Vec<u8>, bracket: u8) {
    match out.last_mut() {
        Some(last) if *last == b',' => *last = bracket,
        _ => out.push(bracket),
    }
}

/// A quoted text. `text` must be UTF-8, which is not checked here.
#[inline]
pub(crate) fn text(out: &mut Vec<u8>, text: &[u8]) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    let mut rest = text;
    loop {
        let (plain, special) = rest.split_at(plain_len(rest));
        out.extend_from_slice(plain);
        let Some((&byte, after)) = special.split_first() else { break };
        escape(out, byte);
        rest = after;
    }
    out.push(b'"');
}

fn escape(out: &mut Vec<u8>, byte: u8) {
    let short = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        _ => {
            out.extend_from_slice(b"\\u00");
            return hex_digits(out, &[byte]);
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// Quoted lower-case hex.
#[inline]
pub(crate) fn hex(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    hex_digits(out, bytes);
    out.push(b'"');
}

fn hex_digits(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(bytes.iter().flat_map(|b| [HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]));
}

/// Quoted standard base64 with padding.
pub(crate) fn base64(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
    out.push(b'"');
}

/// An integer as a number.
#[inline]
pub(crate) fn integer(out: &mut Vec<u8>, value: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// An integer as a text: what the proto3 mapping does with 64 bits, which JavaScript numbers do not hold.
#[inline]
pub(crate) fn quoted_integer(out: &mut Vec<u8>, value: impl itoa::Integer) {
    out.push(b'"');
    integer(out, value);
    out.push(b'"');
}

/// A double: the shortest number that reads back to the same bits, or one of the three texts of the proto3 mapping.
#[inline]
pub(crate) fn double(out: &mut Vec<u8>, value: f64) {
    if value.is_finite() {
        return out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
    }
    let name: &[u8] = match value {
        _ if value.is_nan() => b"\"NaN\"",
        _ if value > 0.0 => b"\"Infinity\"",
        _ => b"\"-Infinity\"",
    };
    out.extend_from_slice(name);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn texts_are_escaped_as_serde_json_escapes_them() {
        for sample in [
            "",
            "plain",
            "a\"b\\c",
            "tab\tnl\ncr\r\u{0}\u{1f}\u{7f}",
            "ünïcödé 🦀 \u{2028}",
            &"x\"".repeat(99),
        ] {
            let ours = written(|out| text(out, sample.as_bytes()));
            assert_eq!(serde_json::from_str::<String>(&ours).unwrap(), sample);
        }
    }

    #[test]
    fn doubles_keep_their_bits() {
        for value in [0.0, -0.0, 1.0, 0.1, 1e300, 5e-324, f64::MAX, -123_456_789.25] {
            let back: f64 = written(|out| double(out, value)).parse().unwrap();
            assert_eq!(back.to_bits(), value.to_bits(), "{value}");
        }
        assert_eq!(written(|out| double(out, f64::NEG_INFINITY)), "\"-Infinity\"");
        assert_eq!(written(|out| double(out, -f64::NAN)), "\"NaN\"");
    }

    #[test]
    fn the_last_comma_becomes_the_bracket() {
        let mut out = b"[1,".to_vec();
        close(&mut out, b']');
        assert_eq!(out, b"[1]");
        let mut out = b"{".to_vec();
        close(&mut out, b'}');
        assert_eq!(out, b"{}");
    }
}
