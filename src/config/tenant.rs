//! `[tenant]`: the API keys and whose data each one sends and sees. Only their hashes stand in the configuration.

use std::fmt;

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::node::{Node, Raw};
use super::reader::{Leaf, Reader};
use super::reference::Reference;
use super::schema::{Setting, Validate, config_struct, leaf_setting, list_items};
use crate::domain::scope::{OWN_TENANT, Scope};

config_struct! {
    /// Tenants and their keys.
    pub struct TenantConfig {
        /// An API key: `[[tenant.keys]]`, one table a key.
        keys: Vec<KeyConfig> = Vec::new(),
    }
}

config_struct! {
    /// One API key.
    pub struct KeyConfig {
        /// Name in logs and listings, unique. Required.
        name: String = String::new(),
        /// SHA-256 of the key: printf %s "$KEY" | sha256sum. Required.
        hash: KeyHash = KeyHash::NONE,
        /// Tenant whose data the key sends and sees. Required.
        tenant: String = String::new(),
        /// Project within the tenant.
        project: String = "default".into(),
        /// Application; empty for all.
        app: String = String::new(),
        /// Environment such as "prod"; empty for all.
        env: String = String::new(),
        /// Days that its records are kept; ingest.retention_days where unset.
        retention_days: Option<u16> = None,
        /// From then on the key is refused.
        expires: Option<Expiry> = None,
    }
}

impl KeyConfig {
    /// The scope of what the key sends and sees.
    ///
    /// # Errors
    /// Never for a key that was loaded: the names have been checked then.
    pub fn scope(&self) -> Result<Scope, crate::domain::scope::InvalidScope> {
        Scope::new(&self.tenant, &self.project, &self.app, &self.env)
    }
}

/// The SHA-256 of an API key, written `sha256:` and 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// What stands where no hash is given; it is the hash of no known key and is refused.
    const NONE: Self = Self([0; 32]);

    /// The hash of a key as a client sends it.
    pub fn of(key: &str) -> Self {
        Self(Sha256::digest(key.as_bytes()).into())
    }

    /// The 32 bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyHash {
    /// The first bytes only: enough to tell keys apart in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyHash({:02x}{:02x}…)", self.0[0], self.0[1])
    }
}

impl Leaf for KeyHash {
    const EXPECTED: &'static str = "\"sha256:\" and 64 hex digits";
    // Somebody may have put the key itself here.
    const SECRET: bool = true;

    fn from_text(text: &str) -> Result<Self, String> {
        let hex = text.strip_prefix("sha256:").ok_or("make it with: printf %s \"$KEY\" | sha256sum")?;
        if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(format!("{} characters after sha256:", hex.chars().count()));
        }
        let mut out = [0; 32];
        for (byte, pair) in out.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            let digits = std::str::from_utf8(pair).map_err(|_| String::new())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| String::new())?;
        }
        Ok(Self(out))
    }

    fn render(&self) -> String {
        format!("\"{self}\"")
    }
}

/// When a key ends: an RFC 3339 time with offset, or a date (its midnight UTC).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiry(Timestamp);

impl Expiry {
    /// The time in Unix nanoseconds; a time before 1970 is 0.
    pub fn unix_nanos(self) -> u64 {
        u64::try_from(self.0.as_nanosecond()).unwrap_or(0)
    }
}

impl Leaf for Expiry {
    const EXPECTED: &'static str = "a time such as \"2030-01-31T00:00:00Z\" or a date such as \"2030-01-31\"";

    fn from_text(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let midnight = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
        midnight.parse().map(Self).map_err(|_| String::new())
    }

    fn render(&self) -> String {
        format!("\"{}\"", self.0)
    }
}

leaf_setting!(KeyHash, Expiry);

impl Validate for KeyConfig {
    fn validate(&self, at: &mut Reader) {
        if self.name.is_empty() {
            at.refuse(&["name", "hash", "tenant"], "belongs to a key without a name: give it one");
        }
        if self.hash == KeyHash::NONE {
            at.refuse(&["hash", "name"], "is missing: sha256: and the SHA-256 of the key in hex");
        }
        if let Err(invalid) = self.scope() {
            at.refuse(&[invalid.part], &format!("is wrong: {invalid}"));
        }
        if self.tenant == OWN_TENANT {
            at.refuse(
                &["tenant"],
                &format!("is reserved: {OWN_TENANT} is Obtrace's own telemetry, read by operators"),
            );
        }
        if self.retention_days == Some(0) {
            at.refuse(&["retention_days"], "must be at least 1");
        }
    }
}

impl Validate for TenantConfig {
    fn validate(&self, at: &mut Reader) {
        for (i, key) in self.keys.iter().enumerate() {
            for (j, other) in self.keys.iter().enumerate().take(i) {
                if !key.name.is_empty() && key.name == other.name {
                    at.refuse(
                        &[&format!("keys.{i}.name")],
                        &format!("is {:?} like that of keys.{j}", key.name),
                    );
                }
                if key.hash != KeyHash::NONE && key.hash == other.hash {
                    at.refuse(&[&format!("keys.{i}.hash")], &format!("is the same as that of keys.{j}"));
                }
            }
        }
    }
}

impl Setting for Vec<KeyConfig> {
    const TABLE: bool = true;

    fn read(node: Option<&Node>, default: Self, at: &mut Reader) -> Self {
        let Some(node) = node else { return default };
        // Text of "a, b" form makes no tables; each item then says so.
        let Some(items) = list_items(node) else {
            at.wrong(&node.source, "tables, [[tenant.keys]]", &node.raw.to_string(), "");
            return default;
        };
        let read = |(i, item): (usize, &Node)| match &item.raw {
            Raw::Table(_) => {
                Some(at.within(&i.to_string(), |at| KeyConfig::read(Some(item), KeyConfig::default(), at)))
            }
            _ => {
                // Not quoted: it may be a key.
                at.wrong(&item.source, "tables, [[tenant.keys]]", "something else", "");
                None
            }
        };
        items.iter().enumerate().filter_map(read).collect()
    }

    fn describe(&self, key: &str, docs: &[&str], out: &mut Reference) {
        let mut keys = Reference::default();
        KeyConfig::default().describe("", &[], &mut keys);
        let lines =
            keys.lines().map(|line| line.strip_prefix("# ").map_or_else(|| line.to_owned(), example_line));
        out.list_of(key, &keys);
        out.example(docs, &format!("[[tenant.keys]]\n{}", lines.collect::<Vec<_>>().join("\n")));
    }
}

/// A comment of the manual inside an example that is a comment itself.
fn example_line(text: &str) -> String {
    format!("# {text}")
}
