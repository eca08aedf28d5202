//! `[tenant]`: the API keys and whose data each one sends and sees, and the plans of the tenants. Of the keys, only
//! hashes stand in the configuration.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::error::suggest;
use super::node::{Node, Raw};
use super::plan::PlanTable;
use super::reader::{Leaf, Reader};
use super::reference::Reference;
use super::schema::{Setting, Validate, config_struct, leaf_setting, list_items};
use crate::domain::plan::{Plan, TenantPlan, UNLIMITED};
use crate::domain::scope::{DEFAULT_TENANT, OWN_TENANT, Scope};

config_struct! {
    /// Tenants, their keys and their plans.
    pub struct TenantConfig {
        /// Plan of every tenant whose keys name none: one of tenant.plans, or "unlimited". The tenant of dev_loopback
        /// is unlimited.
        default_plan: String = UNLIMITED.into(),
        /// Gate: holds each tenant to its plan.
        gate: GateConfig = GateConfig::default(),
        /// Plans. A table changes one of the five that are built in, or makes a new one.
        plans: PlanTable = PlanTable::default(),
        /// An API key: `[[tenant.keys]]`, one table a key.
        keys: Vec<KeyConfig> = Vec::new(),
    }
}

config_struct! {
    /// The gate. A tenant over its plan is told to come back (RESOURCE_EXHAUSTED, 429); when nothing is known of a
    /// tenant, it is let in and that is counted (obtrace_gate_fail_open).
    pub struct GateConfig {
        /// How often plans and usage are projected into the cache.
        every: Duration = Duration::from_secs(30),
        /// How often usage is written to the state store. After a kill, what came since the last write is not counted.
        flush_every: Duration = Duration::from_secs(5),
        /// Age from which on a projection counts for nothing.
        stale_after: Duration = Duration::from_secs(300),
        /// Longest that a request waits for the cache.
        deadline: Duration = Duration::from_millis(5),
        /// How long an edge keeps permits of a tenant's requests a second that it took from the cache. With the cache away
        /// each edge lets at most as many through, over the rate.
        lease: Duration = Duration::from_millis(250),
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
        /// Plan of the tenant; tenant.default_plan where no key of the tenant names one. Keys of a tenant must agree.
        plan: Option<String> = None,
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

impl TenantConfig {
    /// The plan of the tenant of a key.
    pub fn plan_of(&self, key: &KeyConfig) -> Plan {
        let of_tenant = self.keys.iter().filter(|other| other.tenant == key.tenant);
        let name = of_tenant.filter_map(|other| other.plan.as_deref()).next().unwrap_or(&self.default_plan);
        self.plan(name)
    }

    /// Every tenant with its plan; with `loopback`, the tenant of clients without a key too.
    pub fn tenant_plans(&self, loopback: bool) -> Vec<TenantPlan> {
        let mut plans: BTreeMap<&str, Plan> = BTreeMap::new();
        if loopback {
            plans.insert(DEFAULT_TENANT, self.plan(UNLIMITED));
        }
        for key in &self.keys {
            plans.entry(&key.tenant).or_insert_with(|| self.plan_of(key));
        }
        plans.into_iter().map(|(tenant, plan)| TenantPlan { tenant: Arc::from(tenant), plan }).collect()
    }

    fn plan(&self, name: &str) -> Plan {
        // Names were checked when they were loaded.
        Plan { name: Arc::from(name), limits: self.plans.limits(name).unwrap_or_default() }
    }

    fn check_plan(&self, key: &str, name: &str, at: &mut Reader) {
        if self.plans.limits(name).is_none() {
            let hint = match suggest(name, self.plans.names()) {
                Some(meant) => format!("did you mean {meant:?}?"),
                None => format!("there are {}", self.plans.names().collect::<Vec<_>>().join(", ")),
            };
            at.refuse(&[key], &format!("names no plan: {name:?}, {hint}"));
        }
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
        self.check_plan("default_plan", &self.default_plan, at);
        for (i, key) in self.keys.iter().enumerate() {
            let at_plan = format!("keys.{i}.plan");
            if let Some(plan) = &key.plan {
                self.check_plan(&at_plan, plan, at);
                let earlier = self.keys[..i].iter().filter(|other| other.tenant == key.tenant);
                if let Some(other) =
                    earlier.filter_map(|other| other.plan.as_ref()).find(|other| *other != plan)
                {
                    let tenant = &key.tenant;
                    at.refuse(
                        &[&at_plan],
                        &format!("is {plan:?}, but an earlier key of tenant {tenant} says {other:?}"),
                    );
                }
            }
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

impl Validate for GateConfig {
    fn validate(&self, at: &mut Reader) {
        let all = [
            ("every", self.every),
            ("flush_every", self.flush_every),
            ("stale_after", self.stale_after),
            ("deadline", self.deadline),
            ("lease", self.lease),
        ];
        for (key, _) in all.iter().filter(|(_, value)| value.is_zero()) {
            at.refuse(&[key], "must be more than 0");
        }
        if self.lease > Duration::from_secs(1) {
            at.refuse(&["lease"], "must be at most 1s, which is the burst of a rate");
        }
        if self.stale_after <= self.every {
            at.refuse(&["stale_after", "every"], "does not fit: stale_after must be above every");
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
