//! The terminal of `top`: frames in, keys out. It is put back as it was on every way out, a panic and a signal included.

use std::io::{IsTerminal, Read, Write};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::sync::mpsc;

use super::model::Key;
use crate::cli::look::text::Line;

/// Keys that may wait to be worked off; more than anybody types between two frames.
const KEYS: usize = 32;

/// The terminal, taken over.
pub(super) struct Screen {
    before: Termios,
    colour: bool,
}

impl Screen {
    /// Takes it over: other screen, no cursor, keys one by one without an echo.
    pub(super) fn open(colour: bool) -> Result<Self, String> {
        let (stdin, stdout) = (std::io::stdin(), std::io::stdout());
        if !stdin.is_terminal() || !stdout.is_terminal() {
            return Err("top needs a terminal; --once prints one frame as text".to_owned());
        }
        let failed = |error| format!("the terminal cannot be set up: {error}");
        let before = tcgetattr(&stdin).map_err(failed)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw).map_err(failed)?;
        put("\x1b[?1049h\x1b[?25l\x1b[?7l");
        Ok(Self { before, colour })
    }

    /// Cells and lines of it now.
    pub(super) fn size(&self) -> (usize, usize) {
        let size = tcgetwinsize(std::io::stdout()).ok().filter(|size| size.ws_col > 0 && size.ws_row > 0);
        size.map_or((80, 24), |size| (size.ws_col.into(), size.ws_row.into()))
    }

    /// Shows a frame in the place of the one before.
    pub(super) fn show(&self, lines: &[Line]) {
        let (width, _) = self.size();
        let mut page = String::from("\x1b[H");
        for (n, line) in lines.iter().enumerate() {
            page.push_str(if n > 0 { "\r\n" } else { "" });
            page.push_str(&line.render(width, self.colour));
            page.push_str("\x1b[K");
        }
        page.push_str("\x1b[J");
        put(&page);
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        put("\x1b[?7h\x1b[?25h\x1b[?1049l");
        // There is nobody left to tell if even this fails.
        tcsetattr(std::io::stdin(), OptionalActions::Now, &self.before).ok();
    }
}

fn put(text: &str) {
    let mut stdout = std::io::stdout().lock();
    // A terminal that is gone is noticed when its keys end.
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).ok();
}

/// Keys as they are typed. A thread of its own reads them, since a terminal can only be waited for in a blocking way; it
/// ends with the process. The receiver ends when the terminal does.
pub(super) fn keys() -> mpsc::Receiver<Key> {
    let (send, receive) = mpsc::channel(KEYS);
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        let mut stdin = std::io::stdin().lock();
        while let Ok(n @ 1..) = stdin.read(&mut buffer) {
            for key in meanings(&buffer[..n]) {
                if send.blocking_send(key).is_err() {
                    return;
                }
            }
        }
    });
    receive
}

/// What typed bytes mean. An escape alone means nothing, since arrows begin with one.
fn meanings(mut bytes: &[u8]) -> Vec<Key> {
    let mut keys = Vec::new();
    while let Some((first, rest)) = bytes.split_first() {
        let (key, used) = match (first, rest) {
            (0x1b, [b'[' | b'O', code, ..]) => (arrow(*code), 3),
            (b'q' | b'Q' | 0x03 | 0x04, _) => (Some(Key::Quit), 1),
            (b'k', _) => (Some(Key::Up), 1),
            (b'j', _) => (Some(Key::Down), 1),
            (b'h', _) => (Some(Key::Close), 1),
            (b'l', _) => (Some(Key::Open), 1),
            (b' ' | b'\r' | b'\n', _) => (Some(Key::Toggle), 1),
            (b's', _) => (Some(Key::Sort), 1),
            (b'p', _) => (Some(Key::Pause), 1),
            (b'e', _) => (Some(Key::Events), 1),
            _ => (None, 1),
        };
        keys.extend(key);
        bytes = &bytes[used.min(bytes.len())..];
    }
    keys
}

fn arrow(code: u8) -> Option<Key> {
    match code {
        b'A' => Some(Key::Up),
        b'B' => Some(Key::Down),
        b'C' => Some(Key::Open),
        b'D' => Some(Key::Close),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrows_and_letters_mean_the_same() {
        assert_eq!(meanings(b"\x1b[A\x1b[B\x1b[C\x1b[D"), [Key::Up, Key::Down, Key::Open, Key::Close]);
        assert_eq!(meanings(b"kjlh"), [Key::Up, Key::Down, Key::Open, Key::Close]);
        assert_eq!(meanings(b"\x1bOA"), [Key::Up]);
        assert_eq!(meanings(b"\x03"), [Key::Quit]);
        assert_eq!(meanings(b"\x1b"), []);
        assert_eq!(meanings("ä\x1b[Zs".as_bytes()), [Key::Sort]);
    }
}
