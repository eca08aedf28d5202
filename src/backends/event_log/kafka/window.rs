//! The window of who appends: a dedup key in, and whether its record is to be written, is on its way, or is there already.
//!
//! A key counts as seen once its record was acknowledged. One whose fate is not known (the delivery timed out) is
//! forgotten: it is written again, and whoever reads leaves the second copy out ([`filter`](super::filter)).

use std::collections::HashMap;

use tokio::sync::oneshot;

use crate::backends::event_log::dedup::{DedupWindow, Seen};
use crate::backends::event_log::{Appended, LogError, Offset};

/// Where the answer to an append goes.
pub(super) type AppendReply = oneshot::Sender<Result<Appended, LogError>>;

/// The keys of one partition.
pub(super) struct Window {
    seen: Seen,
    /// Repeats that wait for the first copy to arrive.
    under_way: HashMap<u128, Vec<AppendReply>>,
}

/// What to do with a record.
pub(super) enum Entry {
    /// Write it, and say what came of it by [`Window::settle`].
    First(AppendReply),
    /// It was answered, or will be with its first copy.
    Repeat,
}

impl Window {
    pub(super) fn new(window: DedupWindow) -> Self {
        Self { seen: Seen::new(window), under_way: HashMap::new() }
    }

    /// Looks a key up, and notes it as under way where it is new.
    pub(super) fn enter(&mut self, key: u128, now_ns: u64, reply: AppendReply) -> Entry {
        if let Some(offset) = self.seen.find(key, now_ns) {
            answer(reply, Ok(Appended { offset, duplicate: true }));
            return Entry::Repeat;
        }
        if let Some(waiting) = self.under_way.get_mut(&key) {
            waiting.push(reply);
            return Entry::Repeat;
        }
        self.under_way.insert(key, Vec::new());
        Entry::First(reply)
    }

    /// What became of the first copy; tells it to the repeats as well.
    pub(super) fn settle(&mut self, key: u128, now_ns: u64, result: &Result<Offset, LogError>) {
        if let Ok(offset) = result {
            self.seen.insert(key, *offset, now_ns);
        }
        for reply in self.under_way.remove(&key).into_iter().flatten() {
            answer(reply, result.clone().map(|offset| Appended { offset, duplicate: true }));
        }
    }
}

/// Answers one append; who asked may have given up waiting.
pub(super) fn answer(reply: AppendReply, result: Result<Appended, LogError>) {
    let _ = reply.send(result);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(window: &mut Window, key: u128) -> (bool, oneshot::Receiver<Result<Appended, LogError>>) {
        let (reply, answer) = oneshot::channel();
        (matches!(window.enter(key, 0, reply), Entry::First(_)), answer)
    }

    #[test]
    fn a_repeat_hears_what_became_of_the_first_copy() {
        let mut window = Window::new(DedupWindow::default());
        assert!(enter(&mut window, 7).0);
        let (first, mut waiting) = enter(&mut window, 7);
        assert!(!first && waiting.try_recv().is_err(), "nothing is known yet");
        window.settle(7, 0, &Ok(5));
        assert_eq!(waiting.try_recv().unwrap().unwrap(), Appended { offset: 5, duplicate: true });
        let mut late = enter(&mut window, 7).1;
        assert_eq!(late.try_recv().unwrap().unwrap(), Appended { offset: 5, duplicate: true });
    }

    #[test]
    fn a_record_whose_fate_is_not_known_is_no_first_copy() {
        let mut window = Window::new(DedupWindow::default());
        enter(&mut window, 7);
        let (_, mut waiting) = enter(&mut window, 7);
        window.settle(7, 0, &Err(LogError::Away("timed out".into())));
        assert!(matches!(waiting.try_recv().unwrap(), Err(LogError::Away(_))));
        assert!(enter(&mut window, 7).0, "it is written again");
    }
}
