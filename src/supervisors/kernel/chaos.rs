//! Named fault points. Without the feature `chaos` they are nothing at all.
//!
//! With it, `OBTRACE_CHAOS` plants faults: `point=panic@N` panics at every Nth pass of a point, `point=panic@N*M` at
//! most M times, `point=stall@N` blocks the thread for 30 s; several are joined by commas.

#[cfg(not(feature = "chaos"))]
/// A place where a fault may be planted; does nothing in this build.
#[inline(always)]
pub fn point(_name: &str) {}

#[cfg(not(feature = "chaos"))]
/// A place where bytes may be poison; does nothing in this build.
#[inline(always)]
pub fn poison(_bytes: &[u8]) {}

#[cfg(feature = "chaos")]
pub use planted::{point, poison};

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

    /// A place where bytes may be poison: panics at every payload that holds the text of `OBTRACE_CHAOS_POISON`.
    #[allow(clippy::panic, reason = "planting faults is what this is for")]
    pub fn poison(bytes: &[u8]) {
        static MARK: OnceLock<String> = OnceLock::new();
        let mark = MARK.get_or_init(|| std::env::var("OBTRACE_CHAOS_POISON").unwrap_or_default()).as_bytes();
        if !mark.is_empty() && bytes.windows(mark.len()).any(|window| window == mark) {
            panic!("planted poison");
        }
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
