//! Finds how far a text goes without a character that JSON escapes, eight bytes at a time.

const ONES: u64 = u64::from_ne_bytes([1; 8]);
const HIGH: u64 = ONES << 7;

/// Length of the prefix of `bytes` without `"`, `\` and control characters below 0x20.
#[inline]
pub(super) fn plain_len(bytes: &[u8]) -> usize {
    let (words, tail) = bytes.as_chunks::<8>();
    for (place, word) in words.iter().enumerate() {
        let special = special_bytes(u64::from_le_bytes(*word));
        if special != 0 {
            return place * 8 + special.trailing_zeros() as usize / 8;
        }
    }
    let is_special = |b: &u8| *b < 0x20 || *b == b'"' || *b == b'\\';
    bytes.len() - tail.len() + tail.iter().position(is_special).unwrap_or(tail.len())
}

/// Marks the high bit of special bytes. A borrow may also mark bytes above the lowest special one: only that counts.
#[inline]
fn special_bytes(word: u64) -> u64 {
    let below = |x: u64, limit: u64| x.wrapping_sub(ONES * limit) & !x;
    let quote = word ^ (ONES * 0x22);
    let backslash = word ^ (ONES * 0x5c);
    (below(word, 0x20) | below(quote, 1) | below(backslash, 1)) & HIGH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_looking_at_each_byte() {
        for special in 0..=255u8 {
            let is_special = special < 0x20 || special == b'"' || special == b'\\';
            for place in 0..20 {
                let mut bytes = [b'x'; 20];
                bytes[place] = special;
                assert_eq!(plain_len(&bytes), if is_special { place } else { 20 }, "{special} at {place}");
                bytes[place..].fill(special);
                assert_eq!(plain_len(&bytes), if is_special { place } else { 20 }, "{special} from {place}");
            }
        }
    }
}
