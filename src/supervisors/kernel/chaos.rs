//! Named fault points. Without the feature `chaos` they are nothing at all.
//!
//! With it, `OBTRACE_CHAOS` plants faults: `point=panic@N` panics at every Nth pass of a point, `point=panic@N*M` at
//! most M times, `point=stall@N` blocks the thread for 30 s; several are joined by commas. `OBTRACE_CHAOS_POISON` makes
//! telemetry poison that holds a certain text: `text=KIND`, also several, where KIND is `panic`, `hang` (the thread sleeps),
//! `pending` (a future never resolves), `abort` or `overflow` (of the stack); a text alone panics. It is poison only
//! while the file `OBTRACE_CHAOS_POISON_WHILE` exists, where that is set.

#[cfg(not(feature = "chaos"))]
/// A place where a fault may be planted; does nothing in this build.
#[inline(always)]
pub fn point(_name: &str) {}

#[cfg(not(feature = "chaos"))]
/// A place where telemetry may be poison; does nothing in this build.
#[inline(always)]
pub fn poison(_bytes: impl FnOnce() -> Vec<u8>) {}

#[cfg(not(feature = "chaos"))]
/// A place where waiting for telemetry may never end; does nothing in this build.
#[inline(always)]
pub async fn poison_wait<'a>(_payloads: impl Iterator<Item = &'a [u8]>) {}

#[cfg(feature = "chaos")]
pub use planted::{point, poison, poison_wait};

#[cfg(feature = "chaos")]
mod planted {
    use std::collections::HashMap;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    struct Fault {
        stall: bool,
        every: u64,
        most: u64,
        passes: AtomicU64,
        done: AtomicU64,
    }

    static PLAN: OnceLock<HashMap<String, Fault>> = OnceLock::new();

    /// A place where a fault may be planted.
    #[allow(clippy::panic, clippy::disallowed_methods, reason = "planting faults is what this is for")]
    pub fn point(name: &str) {
        let plan = PLAN.get_or_init(|| parse(&std::env::var("OBTRACE_CHAOS").unwrap_or_default()));
        let Some(fault) = plan.get(name) else { return };
        let pass = fault.passes.fetch_add(1, Ordering::Relaxed) + 1;
        if pass % fault.every == 0 && fault.done.fetch_add(1, Ordering::Relaxed) < fault.most {
            if fault.stall {
                std::thread::sleep(Duration::from_secs(30));
            } else {
                panic!("planted fault at {name}, pass {pass}");
            }
        }
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
        static WHILE: OnceLock<Option<std::path::PathBuf>> = OnceLock::new();
        let file = WHILE.get_or_init(|| std::env::var_os("OBTRACE_CHAOS_POISON_WHILE").map(Into::into));
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
            stall: kind == "stall",
            every: every.parse().ok().filter(|n| *n > 0)?,
            most: most.parse().ok()?,
            passes: AtomicU64::new(0),
            done: AtomicU64::new(0),
        };
        Some((name.to_owned(), fault))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn plans_are_read() {
            let plan = parse("a=panic@3*2, b=stall@1,nonsense,c=panic@0");
            assert_eq!(plan.len(), 2);
            assert_eq!((plan["a"].every, plan["a"].most, plan["a"].stall), (3, 2, false));
            assert!(plan["b"].stall);
        }
    }
}
