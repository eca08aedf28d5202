//! What cannot be stored: which item of a block, why, and the verdict by which a block is stored without it.
//!
//! A verdict is committed beside the block's intent before rows are stored by it, so that the block's id names the same
//! rows however often the block is processed, and by whichever process (ARCHITECTURE.md, "Exactly once").

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A span, log record or data point of a block, or a whole record of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Item {
    /// Offset of its record in the block's partition.
    pub offset: u64,
    /// Its number in the record, from 0 in the order of the request; `None` is the record as a whole.
    pub index: Option<u32>,
}

impl Item {
    /// One item of the record at `offset`.
    pub fn at(offset: u64, index: u32) -> Self {
        Self { offset, index: Some(index) }
    }

    /// The record at `offset` as a whole.
    pub fn whole(offset: u64) -> Self {
        Self { offset, index: None }
    }
}

/// Why an item cannot be stored. A closed set: it labels metrics and dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Its record cannot be read.
    Unreadable,
    /// The table's columns cannot hold it.
    Unfit,
    /// The store refuses it.
    Refused,
    /// The code panics on it.
    Panic,
    /// The process that tried it ended.
    Killed,
    /// The process that tried it did not come back.
    Hang,
}

impl Cause {
    /// All causes, in the order in which they are listed.
    pub const ALL: [Self; 6] =
        [Self::Unreadable, Self::Unfit, Self::Refused, Self::Panic, Self::Killed, Self::Hang];

    /// Lower-case name, as in metrics and headers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::Unfit => "unfit",
            Self::Refused => "refused",
            Self::Panic => "panic",
            Self::Killed => "killed",
            Self::Hang => "hang",
        }
    }

    /// The cause of a name given by [`Cause::as_str`].
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.as_str() == name)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An item that cannot be stored, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offence {
    /// Which item.
    pub item: Item,
    /// What kind of failure.
    pub cause: Cause,
    /// What happened and where: the place of a panic, the store's code and text.
    pub reason: String,
}

/// What was found out about a block that could not be stored as it came.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Verdict {
    /// The block is stored in parts, each under a token of its own: as a whole it was refused or could not be built.
    pub apart: bool,
    /// Items that are left out: each has its letter.
    pub dead: BTreeSet<Item>,
}

impl Verdict {
    /// True when nothing is held against the block.
    pub fn is_clean(&self) -> bool {
        !self.apart && self.dead.is_empty()
    }

    /// Items of the record at `offset` that are left out; `None` when the record is left out as a whole.
    pub fn dead_in(&self, offset: u64) -> Option<BTreeSet<u32>> {
        let mut dead = BTreeSet::new();
        for item in self.dead.range(Item::whole(offset)..=Item::at(offset, u32::MAX)) {
            dead.insert(item.index?);
        }
        Some(dead)
    }

    /// The verdict as text of at most about `room` bytes: `apart`, and `dead=` with `offset:index`, `offset:first-last`
    /// and `offset`. What does not fit is left out; it is found again by whoever takes the block over.
    pub fn to_text(&self, room: usize) -> String {
        let mut text = String::from(if self.apart { " apart" } else { "" });
        let mut separator = " dead=";
        for (offset, span) in self.runs() {
            let part = match span {
                None => format!("{separator}{offset}"),
                Some((first, last)) if first == last => format!("{separator}{offset}:{first}"),
                Some((first, last)) => format!("{separator}{offset}:{first}-{last}"),
            };
            if text.len() + part.len() > room {
                break;
            }
            text.push_str(&part);
            separator = ",";
        }
        text
    }

    /// Reads what [`Verdict::to_text`] wrote, from words; other words are not looked at.
    pub fn from_words<'a>(words: impl Iterator<Item = &'a str>) -> Self {
        let mut verdict = Self::default();
        for word in words {
            if word == "apart" {
                verdict.apart = true;
            } else if let Some(list) = word.strip_prefix("dead=") {
                verdict.dead.extend(list.split(',').filter_map(parse_run).flatten());
            }
        }
        verdict
    }

    /// Neighbours in one record as runs.
    fn runs(&self) -> Vec<(u64, Option<(u32, u32)>)> {
        let mut runs: Vec<(u64, Option<(u32, u32)>)> = Vec::new();
        for item in &self.dead {
            match (runs.last_mut(), item.index) {
                (Some((offset, Some((_, last)))), Some(index))
                    if *offset == item.offset && *last + 1 == index =>
                {
                    *last = index;
                }
                _ => runs.push((item.offset, item.index.map(|index| (index, index)))),
            }
        }
        runs
    }
}

fn parse_run(text: &str) -> Option<Vec<Item>> {
    let Some((offset, indexes)) = text.split_once(':') else {
        return Some(vec![Item::whole(text.parse().ok()?)]);
    };
    let offset = offset.parse().ok()?;
    let (first, last) = indexes.split_once('-').unwrap_or((indexes, indexes));
    let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
    Some((first..=last).map(|index| Item::at(offset, index)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(apart: bool, dead: &[Item]) -> Verdict {
        Verdict { apart, dead: dead.iter().copied().collect() }
    }

    #[test]
    fn a_verdict_comes_back_from_its_text() {
        let dead = [Item::whole(3), Item::at(5, 0), Item::at(5, 1), Item::at(5, 2), Item::at(5, 9)];
        for verdict in [verdict(true, &dead), verdict(false, &dead), verdict(true, &[]), Verdict::default()] {
            let text = verdict.to_text(1000);
            assert_eq!(Verdict::from_words(text.split(' ')), verdict, "{text}");
        }
        assert_eq!(verdict(true, &dead).to_text(1000), " apart dead=3,5:0-2,5:9");
    }

    #[test]
    fn a_verdict_without_room_keeps_what_fits() {
        let dead: Vec<Item> = (0..100).map(|n| Item::at(n, 7)).collect();
        let text = verdict(true, &dead).to_text(60);
        assert!(text.len() <= 60, "{text}");
        let kept = Verdict::from_words(text.split(' '));
        assert!(kept.apart && !kept.dead.is_empty() && kept.dead.iter().all(|item| dead.contains(item)));
    }

    #[test]
    fn nonsense_is_no_verdict() {
        let words = ["dead=x", "dead=1:y", "dead=", "dead=3:2-1", "apartment"];
        assert!(Verdict::from_words(words.into_iter()).is_clean());
    }

    #[test]
    fn what_is_dead_in_a_record_is_told() {
        let verdict = verdict(false, &[Item::whole(3), Item::at(5, 0), Item::at(5, 9), Item::at(6, 1)]);
        assert_eq!(verdict.dead_in(3), None);
        assert_eq!(verdict.dead_in(4), Some(BTreeSet::new()));
        assert_eq!(verdict.dead_in(5), Some([0, 9].into()));
    }
}
