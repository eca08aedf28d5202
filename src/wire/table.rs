//! How a message is read, written, checked and transcoded, given the table of its fields (`schema`): one table for JSON,
//! protobuf and Avro, so that they cannot disagree about a field.

use std::mem::size_of;

use super::avro::Input;
use super::fault::{Cause, Fault};
use super::json::reader::Reader;
use super::json::writer::close;
use super::limits::Budget;
use super::protobuf::cursor::{Cursor, Wire};

/// A message with a table. Implemented by [`table!`] only.
pub(crate) trait Table: Default {
    /// Reads the JSON value of the member `key`; false when there is no such member.
    fn read_member(&mut self, key: &str, r: &mut Reader<'_>) -> Result<bool, Fault>;
    /// Writes the members that are not default, in the order of their tags, each followed by a comma.
    fn write_members(&self, out: &mut Vec<u8>);
    /// Checks one protobuf field.
    fn walk_field(tag: u32, wire: Wire<'_>, seen: &mut Walked, budget: &mut Budget<'_>) -> Result<(), Fault>;
    /// Writes one protobuf field as a JSON member.
    fn transcode_field(tag: u32, wire: Wire<'_>, order: &mut Order, out: &mut Vec<u8>) -> Result<(), Fault>;
    /// The JSON name of a field, for error paths.
    fn name_of(tag: u32) -> &'static str;
    /// Reads the members of an Avro record: all of them, in the order of the table.
    fn decode_avro(from: &mut Input<'_>) -> Result<Self, Fault>;
    /// Writes them.
    fn encode_avro(&self, out: &mut Vec<u8>);
}

/// Reads an object.
#[inline]
pub(crate) fn read_message<M: Table>(r: &mut Reader<'_>) -> Result<M, Fault> {
    let mut message = M::default();
    if r.take_null()? {
        return Ok(message);
    }
    r.open(b'{', "an object")?;
    let mut first = true;
    while let Some(key) = r.key(&mut first)? {
        // By the proto3 mapping null is a member that is not there.
        if r.take_null()? {
            continue;
        }
        if !message.read_member(&key, r).map_err(|fault| fault.under(&key))? {
            r.skip().map_err(|fault| fault.under(&key))?;
        }
    }
    Ok(message)
}

/// Writes an object.
#[inline]
pub(crate) fn write_message<M: Table>(message: &M, out: &mut Vec<u8>) {
    out.push(b'{');
    message.write_members(out);
    close(out, b'}');
}

/// Checks a protobuf message without building it.
pub(crate) fn walk_message<M: Table>(bytes: &[u8], budget: &mut Budget<'_>) -> Result<(), Fault> {
    let mut cursor = Cursor::new(bytes);
    let mut seen = Walked::default();
    while let Some((tag, wire)) = cursor.field()? {
        M::walk_field(tag, wire, &mut seen, budget).map_err(|fault| fault.under(M::name_of(tag)))?;
    }
    Ok(())
}

/// Writes a protobuf message that was walked as an object.
pub(crate) fn transcode_message<M: Table>(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    let mut cursor = Cursor::new(bytes);
    let mut order = Order::default();
    out.push(b'{');
    while let Some((tag, wire)) = cursor.field()? {
        M::transcode_field(tag, wire, &mut order, out)?;
    }
    order.close_list(out);
    close(out, b'}');
    Ok(())
}

/// What the walk of one message has met so far.
#[derive(Debug, Default)]
pub(crate) struct Walked {
    attributes: usize,
    chosen: u32,
    records_before: u32,
}

impl Walked {
    fn attribute(&mut self, budget: &Budget<'_>) -> Result<(), Fault> {
        self.attributes += 1;
        budget.attributes(self.attributes)
    }

    /// A member of the oneof. Of several different ones the last stands: the records of the others do not count.
    pub(crate) fn choose(&mut self, tag: u32, budget: &mut Budget<'_>) {
        if self.chosen == 0 {
            self.records_before = budget.records;
        } else if self.chosen != tag {
            budget.records = self.records_before;
        }
        self.chosen = tag;
    }
}

/// What the transcoder has written of one message: it goes through the fields once, so each list must stand together
/// and each single field once. Every known SDK writes so; what does not is decoded and encoded instead.
#[derive(Debug, Default)]
pub(crate) struct Order {
    seen: u32,
    open: u32,
}

impl Order {
    /// The mark of a message's oneof; no field has this tag.
    pub(crate) const ONEOF: u32 = 0;

    /// Begins a single member.
    #[inline]
    pub(crate) fn single(&mut self, mark: u32, out: &mut Vec<u8>) -> Result<(), Fault> {
        self.close_list(out);
        self.mark(mark)
    }

    /// Begins or goes on with a list.
    #[inline]
    fn list(&mut self, tag: u32, key: &str, out: &mut Vec<u8>) -> Result<(), Fault> {
        if self.open == tag {
            return Ok(());
        }
        self.close_list(out);
        self.mark(tag)?;
        self.open = tag;
        out.extend_from_slice(key.as_bytes());
        out.push(b'[');
        Ok(())
    }

    fn mark(&mut self, mark: u32) -> Result<(), Fault> {
        if self.seen & 1 << mark != 0 {
            return Err(Fault::new(Cause::OutOfOrder, "a field stands apart from its first part"));
        }
        self.seen |= 1 << mark;
        Ok(())
    }

    #[inline]
    pub(crate) fn close_list(&mut self, out: &mut Vec<u8>) {
        if self.open != 0 {
            close(out, b']');
            out.push(b',');
            self.open = 0;
        }
    }
}

/// A field that is there once and left out when default.
pub(crate) mod one {
    use super::*;
    use crate::wire::value::Value;

    #[inline]
    pub(crate) fn read<V: Value>(r: &mut Reader<'_>) -> Result<V::Native, Fault> {
        V::read(r)
    }

    #[inline]
    pub(crate) fn write<V: Value>(key: &str, value: &V::Native, out: &mut Vec<u8>) {
        if !V::is_default(value) {
            write_set::<V>(key, value, out);
        }
    }

    /// Writes the value also when it is default.
    #[inline]
    pub(crate) fn write_set<V: Value>(key: &str, value: &V::Native, out: &mut Vec<u8>) {
        out.extend_from_slice(key.as_bytes());
        V::write(value, out);
        out.push(b',');
    }

    #[inline]
    pub(crate) fn walk<V: Value>(
        wire: Wire<'_>,
        _: &mut Walked,
        budget: &mut Budget<'_>,
    ) -> Result<(), Fault> {
        V::walk(wire, budget)
    }

    #[inline]
    pub(crate) fn transcode<V: Value>(
        (tag, key): (u32, &str),
        wire: Wire<'_>,
        order: &mut Order,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        order.single(tag, out)?;
        if V::is_default_wire(wire) { Ok(()) } else { transcode_set::<V>(key, wire, out) }
    }

    #[inline]
    pub(crate) fn transcode_set<V: Value>(key: &str, wire: Wire<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
        out.extend_from_slice(key.as_bytes());
        V::transcode(wire, out)?;
        out.push(b',');
        Ok(())
    }
}

/// A field whose presence is tracked: messages and `optional` numbers.
pub(crate) mod opt {
    use super::*;
    use crate::wire::value::Value;

    pub(crate) use super::one::walk;

    #[inline]
    pub(crate) fn read<V: Value>(r: &mut Reader<'_>) -> Result<Option<V::Native>, Fault> {
        V::read(r).map(Some)
    }

    #[inline]
    pub(crate) fn write<V: Value>(key: &str, value: &Option<V::Native>, out: &mut Vec<u8>) {
        if let Some(value) = value {
            one::write_set::<V>(key, value, out);
        }
    }

    #[inline]
    pub(crate) fn transcode<V: Value>(
        (tag, key): (u32, &str),
        wire: Wire<'_>,
        order: &mut Order,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        order.single(tag, out)?;
        one::transcode_set::<V>(key, wire, out)
    }
}

/// A list.
pub(crate) mod many {
    use super::*;
    use crate::wire::value::{Packing, Value};

    pub(crate) fn read<V: Value>(r: &mut Reader<'_>) -> Result<Vec<V::Native>, Fault> {
        let mut list = Vec::new();
        let mut first = true;
        r.open(b'[', "a list")?;
        while r.next(&mut first, b']')? {
            let charged = r.budget.charge(size_of::<V::Native>());
            r.here(charged)?;
            if V::ATTRIBUTE {
                r.here(r.budget.attributes(list.len() + 1))?;
            }
            list.push(V::read(r).map_err(|fault| fault.index(list.len()))?);
        }
        Ok(list)
    }

    #[inline]
    pub(crate) fn write<V: Value>(key: &str, list: &[V::Native], out: &mut Vec<u8>) {
        if list.is_empty() {
            return;
        }
        out.extend_from_slice(key.as_bytes());
        out.push(b'[');
        for value in list {
            V::write(value, out);
            out.push(b',');
        }
        close(out, b']');
        out.push(b',');
    }

    pub(crate) fn walk<V: Value>(
        wire: Wire<'_>,
        seen: &mut Walked,
        budget: &mut Budget<'_>,
    ) -> Result<(), Fault> {
        if let (Wire::Bytes(packed), true) = (wire, V::PACKING != Packing::None) {
            let mut cursor = Cursor::new(packed);
            while !cursor.is_empty() {
                budget.charge(size_of::<V::Native>())?;
                V::walk(V::PACKING.take(&mut cursor)?, budget)?;
            }
            return Ok(());
        }
        if V::ATTRIBUTE {
            seen.attribute(budget)?;
        }
        budget.charge(size_of::<V::Native>())?;
        V::walk(wire, budget)
    }

    pub(crate) fn transcode<V: Value>(
        (tag, key): (u32, &str),
        wire: Wire<'_>,
        order: &mut Order,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        order.list(tag, key, out)?;
        if let (Wire::Bytes(packed), true) = (wire, V::PACKING != Packing::None) {
            let mut cursor = Cursor::new(packed);
            while !cursor.is_empty() {
                V::transcode(V::PACKING.take(&mut cursor)?, out)?;
                out.push(b',');
            }
            return Ok(());
        }
        V::transcode(wire, out)?;
        out.push(b',');
        Ok(())
    }
}

/// Declares the table of a message: `<how often> <field>: <kind> = <tag>, "<JSON name>";` in the order of tags. The
/// members of its oneof come as `=> <field>: <enum> { <variant>: <kind> = <tag>, "<JSON name>", "<proto name>"; }`,
/// at the place where they are to be written; fields of higher tags stand in `then { … }`. In Avro each of a oneof's
/// members is a member that may be absent.
macro_rules! table {
    ($message:ty {
        $($card:ident $field:ident: $kind:ty = $tag:literal, $json:literal;)*
        $(=> $slot:ident: $choice:ident { $($variant:ident: $vkind:ty = $vtag:literal, $vjson:literal, $vsnake:literal;)* })?
        $(then { $($tcard:ident $tfield:ident: $tkind:ty = $ttag:literal, $tjson:literal;)* })?
    }) => {
        impl $crate::wire::table::Table for $message {
            #[inline]
            #[allow(unreachable_patterns, reason = "names of one word are the same in both spellings")]
            fn read_member(&mut self, key: &str, r: &mut Reader<'_>) -> Result<bool, Fault> {
                match key {
                    $($json | stringify!($field) => self.$field = table::$card::read::<$kind>(r)?,)*
                    $($($vjson | $vsnake => self.$slot = Some($choice::$variant(<$vkind as Value>::read(r)?)),)*)?
                    $($($tjson | stringify!($tfield) => self.$tfield = table::$tcard::read::<$tkind>(r)?,)*)?
                    _ => return Ok(false),
                }
                Ok(true)
            }

            #[inline]
            fn write_members(&self, out: &mut Vec<u8>) {
                $(table::$card::write::<$kind>(concat!("\"", $json, "\":"), &self.$field, out);)*
                $(match &self.$slot {
                    $(Some($choice::$variant(value)) => {
                        table::one::write_set::<$vkind>(concat!("\"", $vjson, "\":"), value, out);
                    })*
                    None => {}
                })?
                $($(table::$tcard::write::<$tkind>(concat!("\"", $tjson, "\":"), &self.$tfield, out);)*)?
            }

            #[inline]
            fn walk_field(
                tag: u32,
                wire: Wire<'_>,
                seen: &mut Walked,
                budget: &mut Budget<'_>,
            ) -> Result<(), Fault> {
                match tag {
                    $($tag => table::$card::walk::<$kind>(wire, seen, budget),)*
                    $($($vtag => {
                        seen.choose($vtag, budget);
                        <$vkind as Value>::walk(wire, budget)
                    })*)?
                    $($($ttag => table::$tcard::walk::<$tkind>(wire, seen, budget),)*)?
                    _ => Ok(()),
                }
            }

            #[inline]
            fn transcode_field(
                tag: u32,
                wire: Wire<'_>,
                order: &mut Order,
                out: &mut Vec<u8>,
            ) -> Result<(), Fault> {
                match tag {
                    $($tag => {
                        let key = concat!("\"", $json, "\":");
                        table::$card::transcode::<$kind>(($tag, key), wire, order, out)
                    })*
                    $($($vtag => {
                        order.single(Order::ONEOF, out)?;
                        table::one::transcode_set::<$vkind>(concat!("\"", $vjson, "\":"), wire, out)
                    })*)?
                    $($($ttag => {
                        let key = concat!("\"", $tjson, "\":");
                        table::$tcard::transcode::<$tkind>(($ttag, key), wire, order, out)
                    })*)?
                    _ => Ok(()),
                }
            }

            #[cold]
            fn name_of(tag: u32) -> &'static str {
                match tag {
                    $($tag => $json,)*
                    $($($vtag => $vjson,)*)?
                    $($($ttag => $tjson,)*)?
                    _ => "unknown",
                }
            }

            fn decode_avro(from: &mut avro::Input<'_>) -> Result<Self, Fault> {
                Ok(Self {
                    $($field: avro::$card::decode::<$kind>(from).map_err(|fault| fault.under($json))?,)*
                    $($slot: {
                        let mut chosen = None;
                        $(
                            let found = <$vkind as Kind>::decode_optional(from);
                            if let Some(value) = found.map_err(|fault| fault.under($vjson))? {
                                chosen = Some($choice::$variant(value));
                            }
                        )*
                        chosen
                    },)?
                    $($($tfield: avro::$tcard::decode::<$tkind>(from).map_err(|fault| fault.under($tjson))?,)*)?
                })
            }

            fn encode_avro(&self, out: &mut Vec<u8>) {
                $(avro::$card::encode::<$kind>(&self.$field, out);)*
                $($(
                    let value = match &self.$slot {
                        Some($choice::$variant(value)) => Some(value),
                        _ => None,
                    };
                    <$vkind as Kind>::encode_optional(value, out);
                )*)?
                $($(avro::$tcard::encode::<$tkind>(&self.$tfield, out);)*)?
            }
        }
    };
}

pub(crate) use table;
