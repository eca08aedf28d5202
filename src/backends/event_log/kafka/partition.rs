//! What this process knows of one partition: its bounds, the window of who appends, and its reader.

use parking_lot::Mutex;

use super::KafkaLogConfig;
use super::filter::Reach;
use super::reader::Reader;
use super::window::Window;
use crate::backends::event_log::Offset;

/// A partition.
pub(super) struct Partition {
    pub topic: String,
    pub number: u32,
    marks: Mutex<Marks>,
    pub window: Mutex<Window>,
    pub reader: Reader,
}

/// First offset still there and the one past the last, as far as is known.
#[derive(Debug, Clone, Copy, Default)]
struct Marks {
    /// What the broker said last.
    first: Option<Offset>,
    end: Offset,
}

impl Partition {
    pub(super) fn new(config: &KafkaLogConfig, topic: &str, number: u32, consumed: bool) -> Self {
        let filters = consumed && config.dedup_window.records > 0;
        let reach = filters.then(|| Reach::new(config.dedup_window, config.dedup_bytes));
        Self {
            topic: topic.to_owned(),
            number,
            marks: Mutex::default(),
            window: Mutex::new(Window::new(config.dedup_window)),
            reader: Reader::new(config.topic_name(topic), number, reach),
        }
    }

    /// First offset and end; `None` until a broker has said so.
    pub(super) fn bounds(&self) -> Option<(Offset, Offset)> {
        let marks = *self.marks.lock();
        marks.first.map(|first| (first, marks.end))
    }

    /// The end as far as is known.
    pub(super) fn end(&self) -> Offset {
        self.marks.lock().end
    }

    /// What a broker said. The end only grows: what was acknowledged since is past it.
    pub(super) fn learn(&self, first: Offset, end: Offset) {
        let mut marks = self.marks.lock();
        let grown = end > marks.end;
        *marks = Marks { first: Some(first), end: marks.end.max(end) };
        drop(marks);
        if grown {
            self.reader.wake();
        }
    }

    /// A record stands at `offset`.
    pub(super) fn saw(&self, offset: Offset) {
        let mut marks = self.marks.lock();
        let grown = offset >= marks.end;
        marks.end = marks.end.max(offset + 1);
        drop(marks);
        if grown {
            self.reader.wake();
        }
    }
}
