//! Reads single cells out of Arrow batches: a column of any of the types the store may choose in → text, bytes, numbers, lists and maps
//! out; a missing column or an unfit type is a [`DecodeError`].
//!
//! The store decides how it writes a type: `LowCardinality` comes plain or as a dictionary, `FixedString` as fixed or variable bytes. All are read.

use std::borrow::Cow;
use std::collections::HashMap;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use arrow_array::{Array, ArrayRef, RecordBatch, StructArray};
use arrow_schema::DataType;

/// The store's answer does not have the shape that the query asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column {column} of the answer {why}")]
pub struct DecodeError {
    /// The column.
    pub column: String,
    /// What is wrong with it.
    pub why: String,
}

/// The columns of one batch by name.
pub struct Cells<'a> {
    columns: HashMap<&'a str, &'a dyn Array>,
    rows: usize,
}

/// One row of a batch.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    cells: &'a Cells<'a>,
    at: usize,
}

impl<'a> Cells<'a> {
    /// Looks up the columns of a batch once.
    pub fn of(batch: &'a RecordBatch) -> Self {
        let schema = batch.schema_ref();
        let named = schema.fields().iter().zip(batch.columns());
        Self {
            columns: named.map(|(f, c)| (f.name().as_str(), c.as_ref())).collect(),
            rows: batch.num_rows(),
        }
    }

    /// The rows, in order.
    pub fn rows(&'a self) -> impl Iterator<Item = Row<'a>> {
        (0..self.rows).map(move |at| Row { cells: self, at })
    }
}

/// Decodes every row of some batches.
///
/// # Errors
/// The first [`DecodeError`] of `decode`.
pub fn decode_all<T>(
    batches: &[RecordBatch],
    decode: impl Fn(&Row<'_>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let mut decoded = Vec::with_capacity(batches.iter().map(RecordBatch::num_rows).sum());
    for batch in batches {
        let cells = Cells::of(batch);
        for row in cells.rows() {
            decoded.push(decode(&row)?);
        }
    }
    Ok(decoded)
}

impl<'a> Row<'a> {
    fn column(&self, name: &str) -> Result<&'a dyn Array, DecodeError> {
        let found = self.cells.columns.get(name).copied();
        found.ok_or_else(|| DecodeError { column: name.to_owned(), why: "is missing".to_owned() })
    }

    fn read<T>(
        &self,
        name: &str,
        read: impl Fn(&'a dyn Array, usize) -> Option<T>,
    ) -> Result<T, DecodeError> {
        let column = self.column(name)?;
        read(column, self.at).ok_or_else(|| DecodeError {
            column: name.to_owned(),
            why: format!("has type {} or a null, which is not expected there", column.data_type()),
        })
    }

    /// A text. Bytes that are no UTF-8 are replaced.
    pub fn text(&self, name: &str) -> Result<String, DecodeError> {
        self.read(name, text_at).map(Cow::into_owned)
    }

    /// Exactly `N` bytes.
    pub fn fixed<const N: usize>(&self, name: &str) -> Result<[u8; N], DecodeError> {
        self.read(name, |array, at| bytes_at(array, at).and_then(fixed))
    }

    /// An integer that fits `T`; also a bool, and a time in its own unit.
    pub fn int<T: TryFrom<i128>>(&self, name: &str) -> Result<T, DecodeError> {
        self.read(name, |array, at| int_at(array, at).and_then(|int| T::try_from(int).ok()))
    }

    /// A number; `None` for null and for what is not finite.
    pub fn float(&self, name: &str) -> Result<Option<f64>, DecodeError> {
        let column = self.column(name)?;
        if column.is_null(self.at) {
            return Ok(None);
        }
        self.read(name, float_at).map(|number| Some(number).filter(|n| n.is_finite()))
    }

    /// The entries of a map column, in order.
    pub fn map(&self, name: &str) -> Result<Vec<(String, String)>, DecodeError> {
        self.read(name, map_at)
    }

    /// A list, each item read by `read`.
    pub fn list<T>(
        &self,
        name: &str,
        read: impl Fn(&dyn Array, usize) -> Option<T>,
    ) -> Result<Vec<T>, DecodeError> {
        self.read(name, |array, at| {
            let items = items_at(array, at)?;
            (0..items.len()).map(|i| read(items.as_ref(), i)).collect()
        })
    }
}

/// Bytes of `N` length, if they are.
pub fn fixed<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.try_into().ok()
}

/// Text or bytes of a cell.
pub fn bytes_at(array: &dyn Array, at: usize) -> Option<&[u8]> {
    if array.is_null(at) {
        return None;
    }
    match array.data_type() {
        DataType::Utf8 => Some(array.as_string::<i32>().value(at).as_bytes()),
        DataType::LargeUtf8 => Some(array.as_string::<i64>().value(at).as_bytes()),
        DataType::Utf8View => Some(array.as_string_view().value(at).as_bytes()),
        DataType::Binary => Some(array.as_binary::<i32>().value(at)),
        DataType::LargeBinary => Some(array.as_binary::<i64>().value(at)),
        DataType::BinaryView => Some(array.as_binary_view().value(at)),
        DataType::FixedSizeBinary(_) => Some(array.as_fixed_size_binary().value(at)),
        DataType::Dictionary(_, _) => {
            let dictionary = array.as_any_dictionary_opt()?;
            let key = usize::try_from(int_at(dictionary.keys(), at)?).ok()?;
            (key < dictionary.values().len()).then(|| bytes_at(dictionary.values().as_ref(), key)).flatten()
        }
        _ => None,
    }
}

/// Text of a cell.
pub fn text_at(array: &dyn Array, at: usize) -> Option<Cow<'_, str>> {
    bytes_at(array, at).map(String::from_utf8_lossy)
}

/// An integer, bool or time of a cell.
pub fn int_at(array: &dyn Array, at: usize) -> Option<i128> {
    if array.is_null(at) {
        return None;
    }
    match array.data_type() {
        DataType::Int8 => Some(array.as_primitive::<Int8Type>().value(at).into()),
        DataType::Int16 => Some(array.as_primitive::<Int16Type>().value(at).into()),
        DataType::Int32 => Some(array.as_primitive::<Int32Type>().value(at).into()),
        DataType::Int64 => Some(array.as_primitive::<Int64Type>().value(at).into()),
        DataType::UInt8 => Some(array.as_primitive::<UInt8Type>().value(at).into()),
        DataType::UInt16 => Some(array.as_primitive::<UInt16Type>().value(at).into()),
        DataType::UInt32 => Some(array.as_primitive::<UInt32Type>().value(at).into()),
        DataType::UInt64 => Some(array.as_primitive::<UInt64Type>().value(at).into()),
        DataType::Boolean => Some(i128::from(array.as_boolean().value(at))),
        DataType::Dictionary(_, _) => {
            let dictionary = array.as_any_dictionary_opt()?;
            let key = usize::try_from(int_at(dictionary.keys(), at)?).ok()?;
            (key < dictionary.values().len()).then(|| int_at(dictionary.values().as_ref(), key)).flatten()
        }
        _ => None,
    }
}

/// A number of a cell.
pub fn float_at(array: &dyn Array, at: usize) -> Option<f64> {
    if array.is_null(at) {
        return None;
    }
    match array.data_type() {
        DataType::Float64 => Some(array.as_primitive::<Float64Type>().value(at)),
        DataType::Float32 => Some(array.as_primitive::<Float32Type>().value(at).into()),
        _ => int_at(array, at).map(|int| int as f64),
    }
}

/// The items of a list cell.
fn items_at(array: &dyn Array, at: usize) -> Option<ArrayRef> {
    if array.is_null(at) {
        return None;
    }
    match array.data_type() {
        DataType::List(_) => Some(array.as_list::<i32>().value(at)),
        DataType::LargeList(_) => Some(array.as_list::<i64>().value(at)),
        DataType::FixedSizeList(_, _) => Some(array.as_fixed_size_list().value(at)),
        _ => None,
    }
}

/// The entries of a map cell; a list of pairs is read as well.
pub fn map_at(array: &dyn Array, at: usize) -> Option<Vec<(String, String)>> {
    if array.is_null(at) {
        return None;
    }
    if let Some(map) = array.as_map_opt() {
        return pairs(&map.value(at));
    }
    pairs(items_at(array, at)?.as_struct_opt()?)
}

fn pairs(entries: &StructArray) -> Option<Vec<(String, String)>> {
    let [keys, values] = entries.columns() else { return None };
    let pair =
        |at| Some((text_at(keys.as_ref(), at)?.into_owned(), text_at(values.as_ref(), at)?.into_owned()));
    (0..entries.len()).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::builder::{ListBuilder, MapBuilder, StringBuilder, UInt64Builder};
    use arrow_array::{
        BinaryArray, BooleanArray, DictionaryArray, FixedSizeBinaryArray, Float32Array, Float64Array,
        Int64Array, LargeStringArray, StringArray, UInt64Array,
    };

    use super::*;

    fn one<T>(
        array: impl Array + 'static,
        read: impl Fn(&Row<'_>) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        let batch = RecordBatch::try_from_iter([("c", Arc::new(array) as ArrayRef)]).unwrap();
        let cells = Cells::of(&batch);
        let row = cells.rows().last().unwrap();
        read(&row)
    }

    #[test]
    fn text_comes_in_every_form() {
        let dictionary: DictionaryArray<Int32Type> = ["x", "héy"].into_iter().collect();
        assert_eq!(one(dictionary, |r| r.text("c")).unwrap(), "héy");
        assert_eq!(one(StringArray::from(vec!["héy"]), |r| r.text("c")).unwrap(), "héy");
        assert_eq!(one(LargeStringArray::from(vec!["héy"]), |r| r.text("c")).unwrap(), "héy");
        assert_eq!(one(BinaryArray::from(vec!["héy".as_bytes()]), |r| r.text("c")).unwrap(), "héy");
    }

    #[test]
    fn ids_come_fixed_or_variable() {
        let fixed = FixedSizeBinaryArray::try_from_iter([[1u8, 2]].into_iter()).unwrap();
        assert_eq!(one(fixed, |r| r.fixed::<2>("c")), Ok([1, 2]));
        assert_eq!(one(BinaryArray::from(vec![&[3u8, 4][..]]), |r| r.fixed::<2>("c")), Ok([3, 4]));
        assert!(one(BinaryArray::from(vec![&[3u8][..]]), |r| r.fixed::<2>("c")).is_err());
    }

    #[test]
    fn numbers_are_checked_not_cut() {
        assert_eq!(one(UInt64Array::from(vec![u64::MAX]), |r| r.int::<u64>("c")), Ok(u64::MAX));
        assert!(one(UInt64Array::from(vec![u64::MAX]), |r| r.int::<i64>("c")).is_err());
        assert_eq!(one(BooleanArray::from(vec![true]), |r| r.int::<u8>("c")), Ok(1));
        assert_eq!(one(Float32Array::from(vec![0.5]), |r| r.float("c")), Ok(Some(0.5)));
        assert_eq!(one(Float64Array::from(vec![f64::NAN]), |r| r.float("c")), Ok(None));
        assert_eq!(one(Float64Array::from(vec![None]), |r| r.float("c")), Ok(None));
        assert!(one(Int64Array::from(vec![None]), |r| r.int::<i64>("c")).is_err());
    }

    #[test]
    fn lists_and_maps_keep_their_order() {
        let mut list = ListBuilder::new(UInt64Builder::new());
        list.append_value([Some(7), Some(5)]);
        let read = one(list.finish(), |r| r.list("c", |a, i| u64::try_from(int_at(a, i)?).ok()));
        assert_eq!(read, Ok(vec![7, 5]));
        let mut map = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
        for (key, value) in [("b", "1"), ("a", "2"), ("b", "3")] {
            map.keys().append_value(key);
            map.values().append_value(value);
        }
        map.append(true).unwrap();
        let want = [("b", "1"), ("a", "2"), ("b", "3")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(one(map.finish(), |r| r.map("c")), Ok(want.to_vec()));
    }

    #[test]
    fn errors_name_the_column() {
        let err = one(StringArray::from(vec!["x"]), |r| r.int::<i64>("c")).unwrap_err();
        assert!(err.to_string().starts_with("column c of the answer has type Utf8"), "{err}");
        assert_eq!(one(StringArray::from(vec!["x"]), |r| r.text("d")).unwrap_err().column, "d");
    }
}
