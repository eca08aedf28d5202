//! Named fault points. Without the feature `chaos` they are nothing at all.
//!
//! With it, `OBTRACE_CHAOS` plants faults: `point=panic@N` panics at every Nth pass of a point, `point=panic@N*M` at
//! most M times, `point=stall@N` blocks the thread for 30 s, `stall5s` for so long, and says so in the log; where a point is awaited, `hang` waits
//! for ever and `wait250ms` for so long. Several are joined by commas; they hold only while the file `OBTRACE_CHAOS_WHILE`
//! exists, where that is set. Every worker has the points `PATH.factory`, `PATH.started` and `PATH.stopped`.
//! `OBTRACE_CHAOS_POISON` makes telemetry poison that holds a certain text: `text=KIND`, also several, where KIND is
//! `panic`, `hang` (the thread sleeps), `pending` (a future never resolves), `abort` or `overflow` (of the stack); a text
//! alone panics. It is poison only while the file `OBTRACE_CHAOS_POISON_WHILE` exists, where that is set.

#[cfg(not(feature = "chaos"))]
/// A place where a fault may be planted; does nothing in this build.
#[inline(always)]
pub fn point(_name: &str) {}

#[cfg(not(feature = "chaos"))]
/// A step in the life of the worker at a path where a fault may be planted; does nothing in this build.
#[inline(always)]
pub fn step(_path: &str, _step: &str) {}

#[cfg(not(feature = "chaos"))]
/// A place where a fault may be planted that is waited for; does nothing in this build.
#[inline(always)]
pub async fn pause(_name: &str) {}

#[cfg(not(feature = "chaos"))]
/// A place where telemetry may be poison; does nothing in this build.
#[inline(always)]
pub fn poison(_bytes: impl FnOnce() -> Vec<u8>) {}

#[cfg(not(feature = "chaos"))]
/// A place where waiting for telemetry may never end; does nothing in this build.
#[inline(always)]
pub async fn poison_wait<'a>(_payloads: impl Iterator<Item = &'a [u8]>) {}

#[cfg(feature = "chaos")]
pub use planted::{pause, point, poison, poison_wait, step};

#[cfg(feature = "chaos")]
mod planted {
    use std::collections::HashMap;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Kind {
        /// Panics.
        Panic,
        /// Blocks the thread.
        Stall(Duration),
        /// Waits; for ever where it says nothing.
        Wait(Option<Duration>),
    }

    struct Fault {
        kind: Kind,
        every: u64,
        most: u64,
        passes: AtomicU64,
        done: AtomicU64,
    }

    type File = OnceLock<Option<std::path::PathBuf>>;

    static PLAN: OnceLock<HashMap<String, Fault>> = OnceLock::new();
    static WHILE: File = OnceLock::new();
    static POISON_WHILE: File = OnceLock::new();

    /// A place where a fault may be planted.
    pub fn point(name: &str) {
        suffer(name, due(name));
    }

    /// A step in the life of the worker at a path where a fault may be planted.
    pub fn step(path: &str, step: &str) {
        if !plan().is_empty() {
            point(&format!("{path}.{step}"));
        }
    }

    /// A place where a fault may be planted that is waited for.
    pub async fn pause(name: &str) {
        match due(name) {
            Some((Kind::Wait(Some(time)), _)) => tokio::time::sleep(time).await,
            Some((Kind::Wait(None), _)) => std::future::pending().await,
            other => suffer(name, other),
        }
    }

    #[allow(clippy::panic, clippy::disallowed_methods, reason = "planting faults is what this is for")]
    fn suffer(name: &str, fault: Option<(Kind, u64)>) {
        match fault {
            Some((Kind::Panic, pass)) => panic!("planted fault at {name}, pass {pass}"),
            Some((Kind::Stall(time), pass)) => {
                tracing::warn!(?time, "planted stall at {name}, pass {pass}");
                std::thread::sleep(time);
            }
            Some((Kind::Wait(_), _)) | None => {}
        }
    }

    /// The fault that is due at this pass of a point.
    fn due(name: &str) -> Option<(Kind, u64)> {
        let fault = plan().get(name).filter(|_| holds("OBTRACE_CHAOS_WHILE", &WHILE))?;
        let pass = fault.passes.fetch_add(1, Ordering::Relaxed) + 1;
        let due = pass % fault.every == 0 && fault.done.fetch_add(1, Ordering::Relaxed) < fault.most;
        due.then_some((fault.kind, pass))
    }

    fn plan() -> &'static HashMap<String, Fault> {
        PLAN.get_or_init(|| parse(&std::env::var("OBTRACE_CHAOS").unwrap_or_default()))
    }

    /// A place where telemetry may be poison: does what is planted for the first text that the bytes hold.
    #[allow(clippy::panic, clippy::disallowed_methods, reason = "planting faults is what this is for")]
    pub fn poison(bytes: impl FnOnce() -> Vec<u8>) {
        let poisons = poisons();
        if poisons.is_empty() || !is_active() {
            return;
        }
        match kind_in(poisons, &bytes()) {
            None => {}
            Some("abort") => std::process::abort(),
            Some("overflow") => drop(overflow(&[0; 4096])),
            // In a trial nothing is waited for, so a wait that never ends is played by a thread that sleeps.
            Some("hang" | "pending") => loop {
                std::thread::sleep(Duration::from_secs(3600));
            },
            Some(_) => panic!("planted poison"),
        }
    }

    /// A place where waiting for telemetry may never end.
    pub async fn poison_wait<'a>(mut payloads: impl Iterator<Item = &'a [u8]>) {
        let poisons = poisons();
        if !poisons.is_empty() && is_active() && payloads.any(|p| kind_in(poisons, p) == Some("pending")) {
            std::future::pending::<()>().await;
        }
    }

    fn poisons() -> &'static [(String, String)] {
        static POISONS: OnceLock<Vec<(String, String)>> = OnceLock::new();
        POISONS.get_or_init(|| {
            let plan = std::env::var("OBTRACE_CHAOS_POISON").unwrap_or_default();
            let parts = plan.split(',').map(str::trim).filter(|part| !part.is_empty());
            parts
                .map(|part| part.split_once('=').unwrap_or((part, "panic")))
                .map(|(text, kind)| (text.to_owned(), kind.to_owned()))
                .collect()
        })
    }

    fn is_active() -> bool {
        holds("OBTRACE_CHAOS_POISON_WHILE", &POISON_WHILE)
    }

    /// True where the variable is not set, or names a file that is there.
    fn holds(variable: &str, file: &File) -> bool {
        let file = file.get_or_init(|| std::env::var_os(variable).map(Into::into));
        file.as_ref().is_none_or(|file| file.exists())
    }

    fn kind_in<'a>(poisons: &'a [(String, String)], bytes: &[u8]) -> Option<&'a str> {
        let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        poisons.iter().find(|(text, _)| holds(text)).map(|(_, kind)| kind.as_str())
    }

    #[allow(unconditional_recursion, reason = "planting faults is what this is for")]
    fn overflow(above: &[u8; 4096]) -> u8 {
        let mut here = [0_u8; 4096];
        here[usize::from(above[0])] = std::hint::black_box(above[1]);
        overflow(std::hint::black_box(&here)).wrapping_add(here[7])
    }

    fn parse(plan: &str) -> HashMap<String, Fault> {
        plan.split(',').filter_map(|part| fault(part.trim())).collect()
    }

    fn fault(part: &str) -> Option<(String, Fault)> {
        let (name, what) = part.split_once('=')?;
        let (kind, times) = what.split_once('@')?;
        let (every, most) = times.split_once('*').unwrap_or((times, "18446744073709551615"));
        let fault = Fault {
            kind: kind_of(kind)?,
            every: every.parse().ok().filter(|n| *n > 0)?,
            most: most.parse().ok()?,
            passes: AtomicU64::new(0),
            done: AtomicU64::new(0),
        };
        Some((name.to_owned(), fault))
    }

    fn kind_of(kind: &str) -> Option<Kind> {
        let time = |text: &str| match text.strip_suffix("ms") {
            Some(ms) => ms.parse().ok().map(Duration::from_millis),
            None => text.strip_suffix('s')?.parse().ok().map(Duration::from_secs),
        };
        match kind {
            "panic" => Some(Kind::Panic),
            "hang" => Some(Kind::Wait(None)),
            "stall" => Some(Kind::Stall(Duration::from_secs(30))),
            _ => match kind.strip_prefix("stall") {
                Some(rest) => time(rest).map(Kind::Stall),
                None => time(kind.strip_prefix("wait")?).map(|time| Kind::Wait(Some(time))),
            },
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn plans_are_read() {
            let plan =
                parse("a=panic@3*2, b=stall@1,nonsense,c=panic@0,d=stall5s@1,e=wait250ms@1,f=hang@1,g=x@1");
            assert_eq!(plan.len(), 5);
            assert_eq!((plan["a"].every, plan["a"].most, plan["a"].kind), (3, 2, Kind::Panic));
            assert_eq!(plan["b"].kind, Kind::Stall(Duration::from_secs(30)));
            assert_eq!(plan["d"].kind, Kind::Stall(Duration::from_secs(5)));
            assert_eq!(plan["e"].kind, Kind::Wait(Some(Duration::from_millis(250))));
            assert_eq!(plan["f"].kind, Kind::Wait(None));
        }
    }
}
