//! What the machine gives: memory (of the cgroup where that is less) and cores. Reads `/proc` and `/sys`; what cannot be
//! read counts as without bound.

use std::fs;

/// Bounds of the machine, or of the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// Bytes of memory; `None` where nothing says so.
    pub memory: Option<u64>,
    /// Cores this process may use.
    pub cores: usize,
}

impl Machine {
    /// The machine that this process runs on.
    pub fn here() -> Self {
        let total = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total_of(&text));
        let cgroup = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
            .iter()
            .find_map(|file| fs::read_to_string(file).ok())
            .and_then(|text| text.trim().parse::<u64>().ok());
        // A cgroup without a limit says "max", or in its first version a number beyond any machine.
        let memory = [total, cgroup].into_iter().flatten().min();
        Self { memory, cores: std::thread::available_parallelism().map_or(1, usize::from) }
    }
}

fn total_of(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_as_linux_writes_it() {
        assert_eq!(total_of("MemTotal:        8028384 kB\nMemFree: 1 kB\n"), Some(8_028_384 << 10));
        assert_eq!(total_of("nothing"), None);
        assert!(Machine::here().cores >= 1);
    }
}
