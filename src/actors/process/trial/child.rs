//! `obtrace trial`: the process in which a suspect block is tried. Whatever an item does here, it does to this process.
//!
//! In: an order on stdin. Out: marks on stdout. Started by a worker only; it ends with its parent.

use std::io::{self, BufReader, Write};
use std::process::ExitCode;

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;

use super::super::transform::{build, build_alone, guarded, open};
use super::codec::{self, Mark, Order, Steps};
use crate::backends::event_log::StoredRecord;
use crate::domain::offence::{Cause, Item, Offence, Verdict};
use crate::supervisors::kernel::panics;

/// Stack of the trial: less than a worker's thread has, so that what passes here passes there.
const STACK: usize = 1 << 20;

/// Reads one order from stdin, carries it out and tells on stdout.
pub fn main() -> ExitCode {
    // The first to go when memory runs out, no core dump of telemetry, and no life after the parent.
    std::fs::write("/proc/self/oom_score_adj", "1000").ok();
    setrlimit(Resource::RLIMIT_CORE, 0, 0).ok();
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).ok();
    panics::install_hook();
    let trial = std::thread::Builder::new().name("trial".into()).stack_size(STACK).spawn(|| {
        let (order, records) = codec::read(&mut BufReader::new(io::stdin().lock()))?;
        carry_out(&order, &records, &mut |mark| {
            let mut line = serde_json::to_vec(mark)?;
            line.push(b'\n');
            let mut out = io::stdout().lock();
            out.write_all(&line)?;
            out.flush()
        })
    });
    let ended = trial.and_then(|thread| thread.join().unwrap_or_else(|_| Err(io::Error::other("panicked"))));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("obtrace trial: {error}; this command is for Obtrace's own use");
            ExitCode::FAILURE
        }
    }
}

/// Takes the steps of `order`; each is told before it is taken.
pub(super) fn carry_out(
    order: &Order,
    records: &[StoredRecord],
    tell: &mut impl FnMut(&Mark) -> io::Result<()>,
) -> io::Result<()> {
    tell(&Mark::Begun)?;
    match order.steps {
        Steps::Rehearse if order.verdict.apart => {
            for record in records {
                rehearse(Some(record.offset), std::slice::from_ref(record), &order.verdict, tell)?;
            }
        }
        Steps::Rehearse => rehearse(None, records, &order.verdict, tell)?,
        Steps::Alone { after } => {
            for record in records {
                alone(record, &order.verdict, after, tell)?;
            }
        }
    }
    tell(&Mark::Done)
}

fn rehearse(
    at: Option<u64>,
    records: &[StoredRecord],
    verdict: &Verdict,
    tell: &mut impl FnMut(&Mark) -> io::Result<()>,
) -> io::Result<()> {
    tell(&Mark::Rehearse(at))?;
    match guarded(|| build(records.iter(), verdict)) {
        Ok(_) => Ok(()),
        Err(panic) => tell(&Mark::Failed(panic)),
    }
}

/// Tries the items of one record, each alone: first the reading of the record, then item by item.
fn alone(
    record: &StoredRecord,
    verdict: &Verdict,
    after: Option<Item>,
    tell: &mut impl FnMut(&Mark) -> io::Result<()>,
) -> io::Result<()> {
    let whole = Item::whole(record.offset);
    let Some(dead) = verdict.dead_in(record.offset) else { return Ok(()) };
    if after.is_some_and(|after| after.offset > record.offset) {
        return Ok(());
    }
    tell(&Mark::Try(whole))?;
    let (header, payload) = match guarded(|| open(record)) {
        Ok(Ok(opened)) => opened,
        // That it cannot be read is found out when the block is built, without a trial.
        Ok(Err(_)) => return Ok(()),
        Err(panic) => {
            return tell(&Mark::Bad(Offence { item: whole, cause: Cause::Panic, reason: panic }));
        }
    };
    let (mut index, mut told) = (0, Ok(()));
    payload.for_each_item(&mut |one| {
        let item = Item::at(record.offset, index);
        let skip = dead.contains(&index) || after.is_some_and(|after| item <= after);
        index += 1;
        if skip || told.is_err() {
            return;
        }
        told = tell(&Mark::Try(item)).and_then(|()| match guarded(|| build_alone(&header, &one)) {
            Ok(()) => Ok(()),
            Err(panic) => tell(&Mark::Bad(Offence { item, cause: Cause::Panic, reason: panic })),
        });
    });
    told
}
