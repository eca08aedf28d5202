//! Lines with style: pieces of text in, a line cut to a width out, in colour or plain.

use std::io::IsTerminal;

/// How a piece looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Style {
    /// As the terminal has it.
    #[default]
    Plain,
    /// Said beside the point.
    Dim,
    /// Titles.
    Bold,
    /// All is well.
    Good,
    /// Look at it.
    Warn,
    /// It does not work.
    Bad,
    /// What is on the way.
    Note,
    /// The line the cursor is on.
    Picked,
}

impl Style {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Dim => "2",
            Self::Bold => "1",
            Self::Good => "32",
            Self::Warn => "33",
            Self::Bad => "1;31",
            Self::Note => "36",
            Self::Picked => "7",
        }
    }
}

/// A line of styled pieces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Line {
    pieces: Vec<(String, Style)>,
}

impl Line {
    /// An empty line.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds a piece. What comes from elsewhere may not steer the terminal: control characters become spaces.
    pub(crate) fn push(&mut self, text: impl AsRef<str>, style: Style) -> &mut Self {
        let clean = text.as_ref().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        self.pieces.push((clean, style));
        self
    }

    /// Adds a piece padded to `width` cells, cut if it is longer.
    pub(crate) fn cell(&mut self, text: impl AsRef<str>, width: usize, style: Style) -> &mut Self {
        self.push(format!("{:<width$}", cut(text.as_ref(), width)), style)
    }

    /// Adds a piece padded on its left to `width` cells.
    pub(crate) fn right(&mut self, text: impl AsRef<str>, width: usize, style: Style) -> &mut Self {
        self.push(format!("{:>width$}", cut(text.as_ref(), width)), style)
    }

    /// Cells it takes.
    pub(crate) fn width(&self) -> usize {
        self.pieces.iter().map(|(text, _)| text.chars().count()).sum()
    }

    /// Fills up to `width` cells.
    pub(crate) fn fill(&mut self, width: usize) -> &mut Self {
        let rest = width.saturating_sub(self.width());
        self.push(" ".repeat(rest), Style::Plain)
    }

    /// The line in one style, as that of a cursor.
    pub(crate) fn all(mut self, style: Style) -> Self {
        self.pieces.iter_mut().for_each(|(_, own)| *own = style);
        self
    }

    /// The line, at most `width` cells of it, with colours or without.
    pub(crate) fn render(&self, width: usize, colour: bool) -> String {
        let over = self.width() > width;
        let mut left = if over { width.saturating_sub(1) } else { width };
        let mut out = String::new();
        for (text, style) in &self.pieces {
            let shown: String = text.chars().take(left).collect();
            left -= shown.chars().count();
            if shown.is_empty() {
                continue;
            }
            if colour && *style != Style::Plain {
                out.push_str(&format!("\x1b[{}m{shown}\x1b[0m", style.code()));
            } else {
                out.push_str(&shown);
            }
        }
        if over && width > 0 {
            out.push('…');
        }
        if colour { out } else { out.trim_end().to_owned() }
    }
}

/// At most `width` characters of a text; a cut shows.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    if width > 0 {
        short.push('…');
    }
    short
}

/// How stdout wants its lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Paper {
    /// Cells of a line.
    pub(crate) width: usize,
    /// With colours.
    pub(crate) colour: bool,
}

impl Paper {
    /// What stdout is: a terminal's size and colours, or plain lines of any length.
    pub(crate) fn of_stdout(no_color: bool) -> Self {
        let stdout = std::io::stdout();
        let plain = no_color || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if !stdout.is_terminal() {
            return Self { width: usize::MAX, colour: false };
        }
        let size = rustix::termios::tcgetwinsize(stdout).ok().filter(|size| size.ws_col > 0);
        Self { width: size.map_or(100, |size| size.ws_col.into()), colour: !plain }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_by_what_is_seen_and_not_by_its_colours() {
        let mut line = Line::new();
        line.push("ab", Style::Good).push("cdef", Style::Bad);
        assert_eq!(line.render(6, true), "\x1b[32mab\x1b[0m\x1b[1;31mcdef\x1b[0m");
        assert_eq!(line.render(4, true), "\x1b[32mab\x1b[0m\x1b[1;31mc\x1b[0m…");
        assert_eq!((line.render(4, false), line.render(0, false)), ("abc…".into(), String::new()));
        assert_eq!(line.render(usize::MAX, false), "abcdef");
    }

    #[test]
    fn what_a_node_says_of_itself_cannot_steer_the_terminal() {
        let mut line = Line::new();
        line.push("a\x1b[2Jb\nc", Style::Plain);
        assert_eq!(line.render(80, true), "a [2Jb c");
    }

    #[test]
    fn cells_have_their_width() {
        let mut line = Line::new();
        line.cell("abcdef", 4, Style::Plain).right("x", 3, Style::Plain);
        assert_eq!((line.render(80, false), line.width()), ("abc…  x".into(), 7));
    }
}
