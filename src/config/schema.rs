//! One definition a section: `config_struct!` makes the struct, its defaults, its reader and its manual from one text.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::effect::Effect;
use super::node::{Node, Raw, Table};
use super::reader::{Leaf, Reader, quoted, read_leaf};
use super::reference::Reference;
use super::secret::Secret;
use super::units::{ByteSize, format_duration, parse_duration};

/// Anything that can stand at a key: a single value, a list, or a section with keys of its own.
pub trait Setting: Clone {
    /// True for sections: the manual lists them behind the plain keys, under a header.
    const TABLE: bool = false;

    /// Reads the value at the reader's place; what is missing or wrong keeps `default`.
    fn read(node: Option<&Node>, default: Self, at: &mut Reader) -> Self;

    /// Writes the key, its documentation and this value as default into the manual.
    fn describe(&self, key: &str, docs: &[&str], out: &mut Reference);

    /// These values where they may replace `running` ones without a new process, else those; `effect` is what the
    /// surrounding section says of its keys.
    #[must_use]
    fn pin(self, running: &Self, effect: Option<Effect>) -> Self {
        if effect == Some(Effect::Process) { running.clone() } else { self }
    }
}

/// Rules between the values of a section. Called once the section is read.
pub trait Validate {
    /// Reports what does not fit together by [`Reader::refuse`].
    fn validate(&self, _at: &mut Reader) {}
}

/// Defines a section: struct, `Default`, reader with unknown-key check, manual, and how a change takes effect, which
/// stands behind the default (`=> Live`); a key without it has that of its section.
macro_rules! config_struct {
    (
        $(#[doc = $doc:literal])+
        pub struct $name:ident {
            $( $(#[doc = $field_doc:literal])+ $field:ident : $ty:ty = $default:expr $(=> $effect:expr)? ),+ $(,)?
        }
    ) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name {
            $( $(#[doc = $field_doc])+ pub $field: $ty, )+
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $field: $default, )+ }
            }
        }

        impl $name {
            /// The keys of this section, in the order of the manual.
            pub const KEYS: &'static [&'static str] = &[$( stringify!($field) ),+];
        }

        impl $crate::config::schema::Setting for $name {
            const TABLE: bool = true;

            fn read(
                node: Option<&$crate::config::node::Node>,
                default: Self,
                at: &mut $crate::config::reader::Reader,
            ) -> Self {
                let table = at.table(node, Self::KEYS);
                let value = Self {
                    $( $field: $crate::config::schema::read_key(table, stringify!($field), default.$field, at), )+
                };
                $crate::config::schema::Validate::validate(&value, at);
                value
            }

            fn describe(&self, key: &str, docs: &[&str], out: &mut $crate::config::reference::Reference) {
                out.table(key, docs, |out| {
                    $( if !<$ty as $crate::config::schema::Setting>::TABLE {
                        out.effective(&[$($effect)?], |out| {
                            self.$field.describe(stringify!($field), &[$($field_doc),+], out);
                        });
                    } )+
                    $( if <$ty as $crate::config::schema::Setting>::TABLE {
                        out.effective(&[$($effect)?], |out| {
                            self.$field.describe(stringify!($field), &[$($field_doc),+], out);
                        });
                    } )+
                });
            }

            fn pin(self, running: &Self, effect: Option<$crate::config::effect::Effect>) -> Self {
                let of = |own: &[$crate::config::effect::Effect]| own.first().copied().or(effect);
                Self { $( $field: self.$field.pin(&running.$field, of(&[$($effect)?])), )+ }
            }
        }
    };
}

/// Defines a choice between words.
macro_rules! config_enum {
    (
        $(#[doc = $doc:literal])+
        pub enum $name:ident {
            $( $(#[doc = $variant_doc:literal])+ $variant:ident = $word:literal ),+ $(,)?
        }
    ) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $( $(#[doc = $variant_doc])+ $variant, )+
        }

        impl $name {
            /// The word that stands for it in the configuration.
            pub fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $word, )+ }
            }
        }

        impl $crate::config::reader::Leaf for $name {
            const EXPECTED: &'static str = concat!("one of" $(, " \"", $word, "\"")+);

            fn from_text(text: &str) -> Result<Self, String> {
                match text {
                    $( $word => Ok(Self::$variant), )+
                    other => Err($crate::config::error::suggest(other, [$( $word ),+])
                        .map_or_else(String::new, |meant| format!("did you mean {meant:?}?"))),
                }
            }

            fn render(&self) -> String {
                format!("{:?}", self.as_str())
            }
        }

        $crate::config::schema::leaf_setting!($name);
    };
}

/// Makes a [`Leaf`] usable as a key of a section, by itself and as an optional one.
macro_rules! leaf_setting {
    ($($ty:ty),+ $(,)?) => { $(
        impl $crate::config::schema::Setting for $ty {
            fn read(
                node: Option<&$crate::config::node::Node>,
                default: Self,
                at: &mut $crate::config::reader::Reader,
            ) -> Self {
                $crate::config::reader::read_leaf(node, default, at)
            }

            fn describe(&self, key: &str, docs: &[&str], out: &mut $crate::config::reference::Reference) {
                out.key(key, docs, &$crate::config::reader::Leaf::render(self));
            }
        }
    )+ };
}

pub(crate) use {config_enum, config_struct, leaf_setting};

/// Reads one key of a section.
pub fn read_key<T: Setting>(table: Option<&Table>, key: &str, default: T, at: &mut Reader) -> T {
    at.within(key, |at| T::read(table.and_then(|table| table.get(key)), default, at))
}

impl<T: Leaf + Clone> Setting for Option<T> {
    fn read(node: Option<&Node>, default: Self, at: &mut Reader) -> Self {
        // Empty text unsets: the only way an environment variable can take a file's value back.
        match (node, default) {
            (Some(node), _) if node.raw == Raw::Text(String::new()) => {
                at.note_set("unset".into(), &node.source);
                None
            }
            (None, None) => {
                at.note_unset("unset".into());
                None
            }
            (node, Some(default)) => Some(read_leaf(node, default, at)),
            (Some(node), None) => match T::from_raw(&node.raw, node.source.is_text()) {
                Ok(value) => {
                    at.note_set(value.render(), &node.source);
                    Some(value)
                }
                Err(why) => {
                    at.wrong(&node.source, T::EXPECTED, &quoted::<T>(&node.raw), &why);
                    None
                }
            },
        }
    }

    fn describe(&self, key: &str, docs: &[&str], out: &mut Reference) {
        match self {
            Some(value) => out.key(key, docs, &value.render()),
            None => out.unset(key, docs, T::EXPECTED),
        }
    }
}

impl<T: Leaf + Clone> Setting for Vec<T> {
    fn read(node: Option<&Node>, default: Self, at: &mut Reader) -> Self {
        let Some(node) = node else {
            at.note_unset(render_list(&default));
            return default;
        };
        let Some(items) = list_items(node) else {
            at.wrong(&node.source, &format!("a list, each {}", T::EXPECTED), &node.raw.to_string(), "");
            return default;
        };
        let mut values = Vec::with_capacity(items.len());
        for item in &items {
            match T::from_raw(&item.raw, item.source.is_text()) {
                Ok(value) => values.push(value),
                Err(why) => at.wrong(&item.source, T::EXPECTED, &quoted::<T>(&item.raw), &why),
            }
        }
        if values.len() < items.len() {
            return default;
        }
        at.note_set(render_list(&values), &node.source);
        values
    }

    fn describe(&self, key: &str, docs: &[&str], out: &mut Reference) {
        out.key(key, docs, &render_list(self));
    }
}

/// The items of a list. In an environment variable or flag it is written as TOML, `["a", "b"]`, or as `a, b`.
pub fn list_items(node: &Node) -> Option<Vec<Node>> {
    match &node.raw {
        Raw::List(items) => Some(items.clone()),
        Raw::Text(text) if node.source.is_text() => {
            if text.trim_start().starts_with('[') {
                let value = Node::parse_value(text, &node.source)?;
                return list_items(&value);
            }
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            Some(parts.map(|p| Node { raw: Raw::Text(p.to_owned()), source: node.source.clone() }).collect())
        }
        _ => None,
    }
}

fn render_list<T: Leaf>(values: &[T]) -> String {
    format!("[{}]", values.iter().map(Leaf::render).collect::<Vec<_>>().join(", "))
}

// === the leaves ===

/// Whole numbers from 0; the type bounds them above.
macro_rules! whole_number {
    ($($ty:ty => $expected:literal),+ $(,)?) => { $(
        impl Leaf for $ty {
            const EXPECTED: &'static str = $expected;

            fn from_text(text: &str) -> Result<Self, String> {
                // Underscores as in TOML: 50_000.
                text.trim().replace('_', "").parse().map_err(|_| String::new())
            }

            fn from_raw(raw: &Raw, text: bool) -> Result<Self, String> {
                match raw {
                    Raw::Integer(n) => Self::try_from(*n).map_err(|_| String::new()),
                    Raw::Text(value) if text => Self::from_text(value),
                    _ => Err(String::new()),
                }
            }

            fn render(&self) -> String {
                self.to_string()
            }
        }
        leaf_setting!($ty);
    )+ };
}

whole_number! {
    u16 => "a whole number from 0 to 65535",
    u32 => "a whole number from 0 to 4294967295",
    u64 => "a whole number from 0",
    usize => "a whole number from 0",
}

impl Leaf for f64 {
    const EXPECTED: &'static str = "a number";

    fn from_text(text: &str) -> Result<Self, String> {
        text.trim().parse().ok().filter(|n: &f64| n.is_finite()).ok_or_else(String::new)
    }

    fn from_raw(raw: &Raw, text: bool) -> Result<Self, String> {
        match raw {
            Raw::Float(n) if n.is_finite() => Ok(*n),
            Raw::Integer(n) => Ok(*n as f64),
            Raw::Text(value) if text => Self::from_text(value),
            _ => Err(String::new()),
        }
    }

    fn render(&self) -> String {
        format!("{self:?}")
    }
}

impl Leaf for bool {
    const EXPECTED: &'static str = "true or false";

    fn from_text(text: &str) -> Result<Self, String> {
        text.trim().parse().map_err(|_| String::new())
    }

    fn from_raw(raw: &Raw, text: bool) -> Result<Self, String> {
        match raw {
            Raw::Bool(b) => Ok(*b),
            Raw::Text(value) if text => Self::from_text(value),
            _ => Err(String::new()),
        }
    }

    fn render(&self) -> String {
        self.to_string()
    }
}

impl Leaf for String {
    const EXPECTED: &'static str = "text in quotes";

    fn from_text(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }

    fn render(&self) -> String {
        toml_text(self)
    }
}

impl Leaf for Secret {
    const EXPECTED: &'static str = "text in quotes";
    const SECRET: bool = true;

    fn from_text(text: &str) -> Result<Self, String> {
        Ok(Self::new(text))
    }

    fn render(&self) -> String {
        toml_text(&self.to_string())
    }

    fn fingerprint(&self) -> u64 {
        Self::fingerprint(self)
    }
}

impl Leaf for PathBuf {
    const EXPECTED: &'static str = "a path in quotes";

    fn from_text(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("it is empty".into()) } else { Ok(Self::from(text)) }
    }

    fn render(&self) -> String {
        toml_text(&self.display().to_string())
    }
}

impl Leaf for SocketAddr {
    const EXPECTED: &'static str = "an address with port such as \"127.0.0.1:4317\" or \"[::]:4317\"";

    fn from_text(text: &str) -> Result<Self, String> {
        let hint = if text.starts_with("localhost") { "write 127.0.0.1 for localhost" } else { "" };
        text.trim().parse().map_err(|_| hint.to_owned())
    }

    fn render(&self) -> String {
        format!("\"{self}\"")
    }
}

impl Leaf for Duration {
    const EXPECTED: &'static str = "a duration such as \"200ms\", \"1m30s\" or \"7d\"";

    fn from_text(text: &str) -> Result<Self, String> {
        parse_duration(text)
    }

    fn from_raw(raw: &Raw, _text: bool) -> Result<Self, String> {
        match raw {
            Raw::Text(value) => Self::from_text(value),
            Raw::Integer(n) => Err(format!("it needs quotes and a unit: \"{n}s\" or \"{n}ms\"")),
            _ => Err(String::new()),
        }
    }

    fn render(&self) -> String {
        format!("\"{}\"", format_duration(*self))
    }
}

impl Leaf for ByteSize {
    const EXPECTED: &'static str = "a size such as \"64MiB\"";

    fn from_text(text: &str) -> Result<Self, String> {
        Self::parse(text)
    }

    fn from_raw(raw: &Raw, _text: bool) -> Result<Self, String> {
        match raw {
            Raw::Text(value) => Self::from_text(value),
            Raw::Integer(n) => u64::try_from(*n).map(Self::bytes).map_err(|_| String::new()),
            _ => Err(String::new()),
        }
    }

    fn render(&self) -> String {
        format!("\"{self}\"")
    }
}

leaf_setting!(f64, bool, String, Secret, PathBuf, SocketAddr, Duration, ByteSize);

/// `text` as a TOML string.
pub fn toml_text(text: &str) -> String {
    toml_edit::Value::from(text).to_string()
}
