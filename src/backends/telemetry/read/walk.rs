//! Newest first with an early stop: a time range in → slices from its end backwards, growing as little is found; it cannot fail.

use crate::domain::query::time::{MINUTE, TimeRange};

/// Width of the newest slice: a common value fills a page from it, and one that is not there costs a few ms (1M spans an hour).
const FIRST_WIDTH: i64 = MINUTE;
/// Growth of the next slice when nothing was found.
const GROWTH: i64 = 8;
/// The same where the key or an index leads to the rows, so that a wide slice costs little more than a narrow one.
const NARROW_GROWTH: i64 = 64;

/// The slices of a range, newest first.
#[derive(Debug)]
pub struct SliceWalk {
    start_ns: i64,
    end_ns: i64,
    width: i64,
    growth: i64,
}

impl SliceWalk {
    /// Starts at the end of `range`.
    pub fn new(range: TimeRange) -> Self {
        Self { start_ns: range.start_ns, end_ns: range.end_ns, width: FIRST_WIDTH, growth: GROWTH }
    }

    /// The same for a filter that an index leads to: an hour takes two slices.
    pub fn indexed(range: TimeRange) -> Self {
        Self { growth: NARROW_GROWTH, ..Self::new(range) }
    }

    /// The same for rows that are read in the order of the table and only as far as needed: the first slice is an hour, since
    /// its width costs nothing where it is full and a statement more where its newest minute is empty.
    pub fn in_order(range: TimeRange) -> Self {
        Self { width: NARROW_GROWTH * FIRST_WIDTH, ..Self::indexed(range) }
    }

    /// The next older slice; `None` when the range is used up. The last slice takes a small rest along.
    pub fn next_slice(&mut self) -> Option<TimeRange> {
        if self.start_ns >= self.end_ns {
            return None;
        }
        let mut from = self.end_ns.saturating_sub(self.width).max(self.start_ns);
        if from.saturating_sub(self.start_ns) < self.width / 2 {
            from = self.start_ns;
        }
        let slice = TimeRange { start_ns: from, end_ns: self.end_ns };
        self.end_ns = from;
        Some(slice)
    }

    /// Sets the width of the next slice from what the last one held: twice what should be enough, within bounds.
    pub fn found(&mut self, found: usize, still_needed: usize) {
        let growth = match i64::try_from(2 * still_needed / found.max(1)) {
            _ if found == 0 => self.growth,
            Ok(growth) => growth.clamp(1, GROWTH * GROWTH),
            Err(_) => self.growth,
        };
        self.width = self.width.saturating_mul(growth);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(range: TimeRange, found: usize) -> Vec<TimeRange> {
        slices(SliceWalk::new(range), found)
    }

    fn slices(mut walk: SliceWalk, found: usize) -> Vec<TimeRange> {
        let mut slices = Vec::new();
        while let Some(slice) = walk.next_slice() {
            slices.push(slice);
            walk.found(found, 100);
        }
        slices
    }

    #[test]
    fn slices_cover_the_range_without_gap_or_overlap() {
        for (start_ns, end_ns) in
            [(0, 1), (0, 61 * MINUTE), (7, 400 * 24 * 60 * MINUTE), (i64::MIN, i64::MAX)]
        {
            for found in [0, 1, 60] {
                let slices = walk(TimeRange { start_ns, end_ns }, found);
                assert_eq!(slices[0].end_ns, end_ns);
                assert_eq!(slices.last().unwrap().start_ns, start_ns);
                assert!(slices.windows(2).all(|pair| pair[0].start_ns == pair[1].end_ns));
                assert!(slices.iter().all(|slice| slice.start_ns < slice.end_ns));
            }
        }
    }

    #[test]
    fn an_empty_year_takes_a_handful_of_slices() {
        let year = TimeRange { start_ns: 0, end_ns: 365 * 24 * 60 * MINUTE };
        assert!(walk(year, 0).len() <= 8, "{:?}", walk(year, 0).len());
    }

    #[test]
    fn an_empty_hour_takes_fewer_slices_where_an_index_or_the_order_helps() {
        let hour = TimeRange { start_ns: 0, end_ns: 60 * MINUTE };
        assert_eq!(slices(SliceWalk::in_order(hour), 0).len(), 1);
        assert_eq!(slices(SliceWalk::indexed(hour), 0).len(), 2);
        assert_eq!(walk(hour, 0).len(), 3);
    }

    #[test]
    fn the_next_slice_fits_what_was_found() {
        let mut walk = SliceWalk::new(TimeRange { start_ns: 0, end_ns: 1000 * MINUTE });
        assert_eq!(walk.next_slice().unwrap().width(), FIRST_WIDTH);
        walk.found(50, 50);
        assert_eq!(walk.next_slice().unwrap().width(), 2 * FIRST_WIDTH);
    }
}
