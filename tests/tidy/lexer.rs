//! Rust source text in, the same text with comments, string contents and test modules blanked out. Lines stay where they are.

/// Blanks comments, and the contents of strings and characters.
pub fn code_of(text: &str) -> String {
    let mut out: Vec<u8> = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let len = match rest {
            [b'/', b'/', ..] => rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len()),
            [b'/', b'*', ..] => block_comment(rest),
            [b'"', ..] => string(rest),
            [b'r' | b'b' | b'c', ..] if !follows_word(&out) => match prefixed_string(rest) {
                0 => 0,
                len => len,
            },
            [b'\'', ..] => character(rest),
            _ => 0,
        };
        if len == 0 {
            out.push(bytes[at]);
            at += 1;
        } else {
            out.extend(rest[..len].iter().map(|b| if *b == b'\n' { b'\n' } else { b' ' }));
            at += len;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn follows_word(out: &[u8]) -> bool {
    out.last().is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_')
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match &rest[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

/// Length of a string that begins with its quote.
fn string(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// Length of `r"…"`, `r#"…"#`, `b"…"`, `br#"…"#`, `c"…"`; 0 when it is none of them.
fn prefixed_string(rest: &[u8]) -> usize {
    let letters = rest.iter().take(2).take_while(|b| matches!(b, b'r' | b'b' | b'c')).count();
    let raw = rest[..letters].contains(&b'r');
    let hashes = rest[letters..].iter().take_while(|b| **b == b'#').count();
    let open = letters + hashes;
    match (raw, hashes, rest.get(open)) {
        (false, 0, Some(b'"')) => letters + string(&rest[letters..]),
        (true, _, Some(b'"')) => {
            let close = [&b"\""[..], &b"#".repeat(hashes)].concat();
            let body = &rest[open + 1..];
            let end = body.windows(close.len()).position(|window| window == close);
            end.map_or(rest.len(), |end| open + 1 + end + close.len())
        }
        _ => 0,
    }
}

/// Length of a character literal; 0 for a lifetime.
fn character(rest: &[u8]) -> usize {
    if rest.get(1) == Some(&b'\\') {
        let end = rest.iter().skip(3).position(|b| *b == b'\'');
        return end.map_or(0, |end| end + 4);
    }
    // One character of one to four bytes, then a quote.
    (2..=5).find(|end| rest.get(*end) == Some(&b'\'') && is_one_char(&rest[1..*end])).map_or(0, |end| end + 1)
}

fn is_one_char(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| text.chars().count() == 1)
}

/// Blanks the body of every `#[cfg(test)] mod … { … }`. `code` comes from [`code_of`].
pub fn without_test_modules(code: &str) -> String {
    let mut out = code.to_owned();
    let mark = "#[cfg(test)]";
    let mut from = 0;
    while let Some(found) = out[from..].find(mark) {
        let start = from + found;
        from = start + mark.len();
        let Some(open) = out[from..].find(['{', ';']).map(|i| from + i) else { break };
        let is_module = out[from..open].split_whitespace().any(|word| word == "mod");
        if is_module && out.as_bytes()[open] == b'{' {
            let end = closing_brace(&out, open);
            let blank: String =
                out[open + 1..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
            out.replace_range(open + 1..end, &blank);
        }
    }
    out
}

fn closing_brace(code: &str, open: usize) -> usize {
    let mut depth = 0usize;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => return at,
            b'}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

/// The words (identifiers) of a line.
pub fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// Every path that begins with `root` (`crate`, `std`), groups of a `use` resolved, as segments with its line from 1.
pub fn paths<'a>(code: &'a str, root: &str) -> Vec<(usize, Vec<&'a str>)> {
    let start = format!("{root}::");
    let mut out = Vec::new();
    for (at, _) in code.match_indices(&start) {
        let before = code[..at].bytes().last();
        if before.is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':') {
            continue;
        }
        let line = code[..at].matches('\n').count() + 1;
        let mut found = Vec::new();
        tree(&code[at + start.len()..], &mut Vec::new(), &mut found);
        out.extend(found.into_iter().map(|path| (line, path)));
    }
    out
}

/// Reads a use tree: `a::b`, `{a, b::{c, d}}`. Returns what is behind it.
fn tree<'a>(text: &'a str, prefix: &mut Vec<&'a str>, out: &mut Vec<Vec<&'a str>>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        while !rest.trim_start().is_empty() {
            rest = rest.trim_start();
            if let Some(behind) = rest.strip_prefix('}') {
                return behind;
            }
            let before = rest.len();
            rest = tree(rest, prefix, out).trim_start();
            rest = rest
                .strip_prefix("as ")
                .map_or(rest, |alias| alias.trim_start_matches(|c| c != ',' && c != '}'));
            rest = rest.strip_prefix(',').unwrap_or(rest);
            if rest.len() == before {
                return rest;
            }
        }
        return rest;
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '*').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    prefix.push(name);
    let behind = match rest.strip_prefix("::") {
        Some(below) => tree(below, prefix, out),
        None => {
            out.push(prefix.clone());
            rest
        }
    };
    prefix.pop();
    behind
}

#[test]
fn comments_and_strings_are_not_code() {
    let cases = [
        ("a // b\nc", "a     \nc"),
        ("a /* b /* c */ d */ e", "a                   e"),
        ("f(\"x\\\"y\") g", "f(      ) g"),
        ("f(r#\"x\"y\"#) g", "f(        ) g"),
        ("f(b\"x\", br\"y\") g", "f(    ,      ) g"),
        ("f('\"') g<'a>('\\'', 'ä')", "f(   ) g<'a>(    ,     )"),
        ("four\"x\" r#type", "four    r#type"),
    ];
    for (text, expected) in cases {
        assert_eq!(code_of(text), expected, "{text}");
    }
}

#[test]
fn test_modules_are_cut_out() {
    let code = "a\n#[cfg(test)]\nmod tests {\n  fn f() { b }\n}\nc #[cfg(test)] fn d() { e }";
    let out = without_test_modules(code);
    assert!(!out.contains('b') && out.contains("}\nc") && out.contains('e'), "{out}");
    assert_eq!(out.len(), code.len());
}

#[test]
fn use_trees_are_resolved() {
    let code = "use crate::{a::{b, c::d as e}, f::*};\nlet x = crate::g::h(1); my_crate::i::j";
    let found: Vec<_> =
        paths(code, "crate").into_iter().map(|(line, path)| (line, path.join("::"))).collect();
    let expected = [(1, "a::b"), (1, "a::c::d"), (1, "f::*"), (2, "g::h")];
    assert_eq!(found, expected.map(|(line, path)| (line, path.to_owned())));
}
