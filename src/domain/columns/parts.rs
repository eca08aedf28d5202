//! The column builders everything is made of: text, dictionary, map and fixed-size bytes, filled without an allocation
//! per record.
//!
//! In: borrowed values. Out: Arrow arrays. Nothing here can fail: the owner bounds the bytes of a block
//! ([`MAX_COLUMN_BYTES`](super::MAX_COLUMN_BYTES)) far below what a 32-bit Arrow offset holds.

use std::sync::Arc;

use arrow_array::types::Int32Type;
use arrow_array::{
    Array, ArrayRef, DictionaryArray, FixedSizeBinaryArray, Int32Array, ListArray, MapArray, StringArray,
    StructArray,
};
use arrow_buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{DataType, Field, Fields};
use hashbrown::HashTable;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::value::{self, Kind};

/// A column of strings.
pub(super) struct Text {
    offsets: Vec<i32>,
    bytes: Vec<u8>,
}

/// A column of strings that repeat: each distinct one is kept once.
pub(super) struct Dict {
    keys: Vec<i32>,
    words: Text,
    hashes: Vec<u64>,
    table: HashTable<i32>,
    last: i32,
}

/// A column of attribute lists, as `Map(LowCardinality(String), String)`.
pub(super) struct Map {
    offsets: Vec<i32>,
    keys: Dict,
    values: Text,
}

/// Attributes encoded once to be repeated in many rows (a resource's, a scope's).
#[derive(Default)]
pub(super) struct Entries {
    keys: Vec<i32>,
    ends: Vec<usize>,
    bytes: Vec<u8>,
    types: String,
    sum: u64,
}

/// A column of byte strings of `N` bytes each.
pub(super) struct Fixed<const N: usize> {
    bytes: Vec<u8>,
}

/// Where the lists of a list column begin; its items are columns of their own.
pub(super) struct Lists {
    offsets: Vec<i32>,
}

/// An Arrow offset. Blocks are bounded to a fraction of `i32::MAX`, so this never saturates.
fn offset(len: usize) -> i32 {
    i32::try_from(len).unwrap_or(i32::MAX)
}

fn offsets_of(offsets: Vec<i32>) -> OffsetBuffer<i32> {
    OffsetBuffer::new(ScalarBuffer::from(offsets))
}

// === impl Text ===

impl Text {
    pub(super) fn new() -> Self {
        Self { offsets: vec![0], bytes: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Bytes of text so far.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn push(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
        self.offsets.push(offset(self.bytes.len()));
    }

    /// Pushes the text of a value and says what kind of value it was.
    pub(super) fn push_value(&mut self, value: Option<&value::Any>) -> Kind {
        let kind = value::write_text(&mut self.bytes, value);
        self.offsets.push(offset(self.bytes.len()));
        kind
    }

    fn get(&self, index: usize) -> &[u8] {
        &self.bytes[self.offsets[index] as usize..self.offsets[index + 1] as usize]
    }

    fn last(&self) -> &[u8] {
        self.get(self.len() - 1)
    }

    pub(super) fn finish(&mut self) -> StringArray {
        let whole = std::mem::replace(self, Self::new());
        StringArray::new(offsets_of(whole.offsets), Buffer::from(whole.bytes), None)
    }
}

// === impl Dict ===

impl Dict {
    pub(super) fn new() -> Self {
        Self { keys: Vec::new(), words: Text::new(), hashes: Vec::new(), table: HashTable::new(), last: -1 }
    }

    /// The number of a word, new or known. Numbers hold until the column is finished.
    pub(super) fn intern(&mut self, word: &str) -> i32 {
        // Neighbours repeat more often than not: one comparison instead of a hash.
        if self.last >= 0 && self.words.get(self.last as usize) == word.as_bytes() {
            return self.last;
        }
        let hash = xxh3_64(word.as_bytes());
        let words = &self.words;
        let known = self.table.find(hash, |&id| words.get(id as usize) == word.as_bytes()).copied();
        self.last = known.unwrap_or_else(|| self.add(word, hash));
        self.last
    }

    fn add(&mut self, word: &str, hash: u64) -> i32 {
        let id = offset(self.words.len());
        self.words.push(word);
        self.hashes.push(hash);
        let hashes = &self.hashes;
        self.table.insert_unique(hash, id, |&id| hashes[id as usize]);
        id
    }

    pub(super) fn push(&mut self, word: &str) {
        let id = self.intern(word);
        self.keys.push(id);
    }

    pub(super) fn push_id(&mut self, id: i32) {
        self.keys.push(id);
    }

    pub(super) fn finish(&mut self) -> ArrayRef {
        let mut whole = std::mem::replace(self, Self::new());
        let keys = Int32Array::new(ScalarBuffer::from(whole.keys), None);
        Arc::new(DictionaryArray::<Int32Type>::new(keys, Arc::new(whole.words.finish())))
    }
}

// === impl Map ===

impl Map {
    pub(super) fn new() -> Self {
        Self { offsets: vec![0], keys: Dict::new(), values: Text::new() }
    }

    /// Bytes of values so far; keys count with 4 bytes each.
    pub(super) fn bytes(&self) -> usize {
        self.values.bytes() + self.keys.keys.len() * 4
    }

    /// Pushes one row of attributes in their order, duplicates included, and writes one type letter each into `types`,
    /// which is left empty where all are strings. Returns a hash of the set of entries, whatever their order.
    pub(super) fn push(&mut self, attributes: &[KeyValue], types: &mut String) -> u64 {
        types.clear();
        let mut plain = true;
        let mut sum = 0u64;
        for attribute in attributes {
            let key = self.keys.intern(&attribute.key);
            self.keys.push_id(key);
            let kind = self.values.push_value(attribute.value.as_ref());
            types.push(kind.letter());
            plain &= kind == Kind::String;
            let seed = self.keys.hashes[key as usize] ^ u64::from(kind.letter() as u32);
            sum = sum.wrapping_add(xxh3_64_with_seed(self.values.last(), seed));
        }
        if plain {
            types.clear();
        }
        self.offsets.push(offset(self.values.len()));
        sum
    }

    /// Encodes attributes to be pushed many times with [`Map::push_entries`], until this column is finished.
    pub(super) fn encode(&mut self, attributes: &[KeyValue], into: &mut Entries) {
        into.clear();
        let mut plain = true;
        for attribute in attributes {
            let key = self.keys.intern(&attribute.key);
            let start = into.bytes.len();
            let kind = value::write_text(&mut into.bytes, attribute.value.as_ref());
            into.keys.push(key);
            into.ends.push(into.bytes.len());
            into.types.push(kind.letter());
            plain &= kind == Kind::String;
            let seed = self.keys.hashes[key as usize] ^ u64::from(kind.letter() as u32);
            into.sum = into.sum.wrapping_add(xxh3_64_with_seed(&into.bytes[start..], seed));
        }
        if plain {
            into.types.clear();
        }
    }

    /// Pushes one row of attributes encoded before.
    pub(super) fn push_entries(&mut self, entries: &Entries) {
        let base = self.values.bytes.len();
        self.keys.keys.extend_from_slice(&entries.keys);
        self.values.bytes.extend_from_slice(&entries.bytes);
        self.values.offsets.extend(entries.ends.iter().map(|end| offset(base + end)));
        self.offsets.push(offset(self.values.len()));
    }

    pub(super) fn finish(&mut self) -> ArrayRef {
        let mut whole = std::mem::replace(self, Self::new());
        let (keys, values) = (whole.keys.finish(), whole.values.finish());
        let fields = Fields::from(vec![
            Field::new("keys", keys.data_type().clone(), false),
            Field::new("values", DataType::Utf8, false),
        ]);
        let entries = StructArray::new(fields, vec![keys, Arc::new(values)], None);
        let field = Arc::new(Field::new("entries", entries.data_type().clone(), false));
        Arc::new(MapArray::new(field, offsets_of(whole.offsets), entries, None, false))
    }
}

// === impl Entries ===

impl Entries {
    fn clear(&mut self) {
        self.keys.clear();
        self.ends.clear();
        self.bytes.clear();
        self.types.clear();
        self.sum = 0;
    }

    /// Type letters, empty where all are strings.
    pub(super) fn types(&self) -> &str {
        &self.types
    }

    /// Hash of the set of entries, whatever their order.
    pub(super) fn sum(&self) -> u64 {
        self.sum
    }

    /// Bytes one more row of these costs.
    pub(super) fn row_bytes(&self) -> usize {
        self.bytes.len() + self.keys.len() * 8
    }
}

// === impl Fixed ===

impl<const N: usize> Fixed<N> {
    pub(super) fn new() -> Self {
        Self { bytes: Vec::new() }
    }

    /// Pushes `N` bytes, or zeros for an empty slice. Other lengths were refused by [`Fixed::fits`] before.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let whole: [u8; N] = bytes.try_into().unwrap_or([0; N]);
        self.bytes.extend_from_slice(&whole);
    }

    /// Whether the bytes can be kept as they are: of the right length, or none at all.
    pub(super) fn fits(bytes: &[u8]) -> bool {
        bytes.is_empty() || bytes.len() == N
    }

    pub(super) fn finish(&mut self) -> ArrayRef {
        let bytes = Buffer::from(std::mem::take(&mut self.bytes));
        Arc::new(FixedSizeBinaryArray::new(offset(N), bytes, None))
    }
}

// === impl Lists ===

impl Lists {
    pub(super) fn new() -> Self {
        Self { offsets: vec![0] }
    }

    /// Ends the list of this row after `count` more items.
    pub(super) fn push(&mut self, count: usize) {
        let end = self.offsets[self.offsets.len() - 1] as usize + count;
        self.offsets.push(offset(end));
    }

    /// The offsets, for [`list`]; several list columns may share them.
    pub(super) fn finish(&mut self) -> OffsetBuffer<i32> {
        offsets_of(std::mem::replace(&mut self.offsets, vec![0]))
    }
}

/// A list column out of its offsets and items. Whether items may be null belongs to the column, not to the batch: batches
/// of one insert share a schema.
pub(super) fn list(offsets: &OffsetBuffer<i32>, items: ArrayRef, nullable: bool) -> ArrayRef {
    let field = Arc::new(Field::new("item", items.data_type().clone(), nullable));
    Arc::new(ListArray::new(field, offsets.clone(), items, None))
}
