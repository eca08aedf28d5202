//! Which ids a record of a run has: run id and sequence in, trace and span id out, the same in the sender and the verifier.

use xxhash_rust::xxh3::xxh3_64;

/// Spans of one trace; the first is the root and the parent of the others.
pub const SPANS_PER_TRACE: u64 = 8;

/// Derives all ids of one run. Two runs share none, in practice.
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    run: u64,
}

impl Identity {
    /// Ids of the run of this name and seed.
    pub fn new(run: &str, seed: u64) -> Self {
        Self { run: mix(xxh3_64(run.as_bytes()) ^ mix(seed)) }
    }

    /// Trace id of the record with this sequence number.
    pub fn trace_id(self, seq: u64) -> [u8; 16] {
        let trace = seq / SPANS_PER_TRACE;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.hash(trace.wrapping_mul(2)).to_be_bytes());
        id[8..].copy_from_slice(&(self.hash(trace.wrapping_mul(2) + 1) | 1).to_be_bytes());
        id
    }

    /// Span id of the record with this sequence number, never zero.
    pub fn span_id(self, seq: u64) -> [u8; 8] {
        (self.hash(seq ^ (1 << 63)) | 1).to_be_bytes()
    }

    /// Parent span id: the first span of the trace, none for that one itself.
    pub fn parent_span_id(self, seq: u64) -> Option<[u8; 8]> {
        let root = seq - seq % SPANS_PER_TRACE;
        (root != seq).then(|| self.span_id(root))
    }

    /// A number that looks random and depends on run and sequence only.
    pub fn hash(self, seq: u64) -> u64 {
        mix(self.run.wrapping_add(mix(seq)))
    }
}

/// Lower-case hex, as the API writes ids.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The finaliser of splitmix64: a bijection that spreads neighbouring numbers.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_unique_within_and_between_runs_and_stable() {
        let (a, b) = (Identity::new("a", 1), Identity::new("b", 1));
        let spans: HashSet<_> = (0..50_000).flat_map(|seq| [a.span_id(seq), b.span_id(seq)]).collect();
        assert_eq!(spans.len(), 100_000);
        let traces: HashSet<_> = (0..8_000).flat_map(|seq| [a.trace_id(seq), b.trace_id(seq)]).collect();
        assert_eq!(traces.len(), 2_000);
        assert_eq!(Identity::new("a", 1).trace_id(77), a.trace_id(77));
        assert_ne!(Identity::new("a", 2).trace_id(77), a.trace_id(77));
    }

    #[test]
    fn the_first_span_of_a_trace_is_the_parent_of_the_others() {
        let ids = Identity::new("r", 0);
        assert_eq!(ids.parent_span_id(16), None);
        assert_eq!(ids.parent_span_id(23), Some(ids.span_id(16)));
        assert_eq!(hex(&[0, 0xab]), "00ab");
    }
}
