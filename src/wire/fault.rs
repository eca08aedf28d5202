//! What went wrong inside a codec, with the path to it: built while the error climbs, so that success pays nothing.

use std::fmt::Write;

/// Path members and texts taken from the input are cut to this many characters.
const MAX_SHOWN: usize = 48;

/// Why a codec stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The bytes are not what the format asks for.
    Malformed,
    /// They may be well-formed, but a limit of [`super::limits::OtlpLimits`] was passed.
    Limit,
    /// Valid protobuf in an order that the transcoder does not take (it must be decoded instead).
    OutOfOrder,
}

#[derive(Debug)]
enum Step {
    Member(String),
    Index(usize),
}

#[derive(Debug)]
struct Inner {
    cause: Cause,
    what: String,
    offset: Option<usize>,
    steps: Vec<Step>,
}

/// A codec error. One pointer wide, so that results of hot functions stay small.
#[derive(Debug)]
pub(crate) struct Fault(Box<Inner>);

impl Fault {
    #[cold]
    pub(crate) fn new(cause: Cause, what: impl Into<String>) -> Self {
        Self(Box::new(Inner { cause, what: what.into(), offset: None, steps: Vec::new() }))
    }

    #[cold]
    pub(crate) fn malformed(what: impl Into<String>) -> Self {
        Self::new(Cause::Malformed, what)
    }

    #[cold]
    pub(crate) fn limit(what: impl Into<String>) -> Self {
        Self::new(Cause::Limit, what)
    }

    /// Notes the byte offset, unless an inner place was noted already.
    #[cold]
    pub(crate) fn at(mut self, offset: usize) -> Self {
        self.0.offset.get_or_insert(offset);
        self
    }

    /// Notes that the fault is within the member `name`.
    #[cold]
    pub(crate) fn under(mut self, name: &str) -> Self {
        self.0.steps.push(Step::Member(shorten(name)));
        self
    }

    /// Notes that the fault is within the element `index` of a list.
    #[cold]
    pub(crate) fn index(mut self, index: usize) -> Self {
        self.0.steps.push(Step::Index(index));
        self
    }

    pub(crate) fn cause(&self) -> Cause {
        self.0.cause
    }

    pub(crate) fn offset(&self) -> Option<usize> {
        self.0.offset
    }

    /// The path and what is wrong there: `resourceSpans[0].scopeSpans: expected a list, found a string`.
    /// Of paths as deep as a nesting attack makes them, the middle is left out.
    pub(crate) fn text(&self) -> String {
        let steps = &self.0.steps;
        let mut path = String::new();
        for (place, step) in steps.iter().rev().enumerate() {
            match step {
                _ if place > 16 && place + 4 < steps.len() => {
                    if place == 17 {
                        path.push_str(".…");
                    }
                }
                Step::Member(name) if path.is_empty() => path.push_str(name),
                Step::Member(name) => _ = write!(path, ".{name}"),
                Step::Index(index) => _ = write!(path, "[{index}]"),
            }
        }
        if path.is_empty() { self.0.what.clone() } else { format!("{path}: {}", self.0.what) }
    }
}

/// The first characters of a text from the input, for a message: control characters escaped, the rest cut off.
pub(crate) fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(MAX_SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().nth(MAX_SHOWN).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_reads_from_the_outside_in() {
        let fault =
            Fault::malformed("expected a list").at(7).index(3).under("spans").under("scopeSpans").at(1);
        assert_eq!(fault.text(), "scopeSpans.spans[3]: expected a list");
        assert_eq!(fault.offset(), Some(7));
        assert_eq!(Fault::limit("x").text(), "x");
    }

    #[test]
    fn deep_paths_and_long_names_are_cut() {
        let mut fault = Fault::limit("too deep");
        for _ in 0..10_000 {
            fault = fault.index(0).under(&"k".repeat(500));
        }
        assert!(fault.text().len() < 21 * 60, "{}", fault.text().len());
    }
}
