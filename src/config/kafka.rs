//! `[stream.kafka]`: the event log on Kafka or Redpanda, where several processes share it.

use std::path::PathBuf;
use std::time::Duration;

use super::reader::{Leaf, Reader};
use super::schema::{Validate, config_enum, config_struct, leaf_setting};
use super::secret::Secret;
use super::units::ByteSize;

config_enum! {
    /// Where the event log is.
    pub enum LogBackend {
        /// Files in the data folder, of this process alone.
        Embedded = "embedded",
        /// Brokers of Kafka or Redpanda, shared by all processes that name the same.
        Kafka = "kafka",
    }
}

config_enum! {
    /// How the processes of a group agree on who reads what.
    pub enum KafkaGroupProtocol {
        /// Among themselves, cooperatively. Every broker has it.
        Classic = "classic",
        /// The broker says (KIP-848). Kafka 4.
        Consumer = "consumer",
    }
}

config_enum! {
    /// How a login is proven to the brokers.
    pub enum SaslMechanism {
        /// No login.
        None = "none",
        /// The password itself; over TLS only, if you can.
        Plain = "PLAIN",
        /// Challenge and response with SHA-256.
        Scram256 = "SCRAM-SHA-256",
        /// Challenge and response with SHA-512.
        Scram512 = "SCRAM-SHA-512",
    }
}

config_struct! {
    /// The brokers, and what the log is like there. Holds with `stream.backend = "kafka"`.
    pub struct KafkaConfig {
        /// Some brokers by `host:port`; the others are found by them.
        brokers: Vec<Broker> = Vec::new(),
        /// Stands before the name of each topic and group, to share brokers with another Obtrace.
        prefix: String = String::new(),
        /// Makes missing topics at the start. Where that is `obtrace migrate`'s to do: false.
        create_topics: bool = true,
        /// Copies of each partition, for topics that are made. 3 brokers or more: 3. A broker acknowledges before it has
        /// synced: with 1, a power loss of that machine may cost acknowledged records.
        replication_factor: u32 = 1,
        /// Copies that must have a record before it is acknowledged. With 3 copies: 2, so that one broker may be away.
        min_insync_replicas: u32 = 1,
        /// How long an append is tried. A client hears by ingest.ack_timeout that its batch is not known to be durable; if it
        /// sends it again meanwhile, it joins this one.
        delivery_timeout: Duration = Duration::from_secs(30),
        /// Bytes fetched ahead for each partition that is read.
        fetch_bytes: ByteSize = ByteSize::mib(16),
        /// Bytes before a partition's position that are read again when this process takes it over, to know repeats. The
        /// window of stream.dedup ends there. The same for all processes.
        dedup_bytes: ByteSize = ByteSize::mib(64),
        /// How processes share partitions out: "classic" or "consumer".
        group_protocol: KafkaGroupProtocol = KafkaGroupProtocol::Classic,
        /// A process that is silent for so long loses its partitions. With group_protocol = "consumer" the broker says.
        session_timeout: Duration = Duration::from_secs(10),
        /// How long a consumer may finish its block when its partition goes to another process.
        revoke_timeout: Duration = Duration::from_secs(10),
        /// TLS to the brokers.
        tls: KafkaTlsConfig = KafkaTlsConfig::default(),
        /// A login at the brokers.
        sasl: KafkaSaslConfig = KafkaSaslConfig::default(),
    }
}

config_struct! {
    /// TLS to the brokers, with a certificate of our own where they ask for one.
    pub struct KafkaTlsConfig {
        /// Speak TLS. A broker's name must stand in its certificate.
        enabled: bool = false,
        /// PEM file of the authorities that are trusted. Unset: the system's.
        ca: Option<PathBuf> = None,
        /// PEM file of our certificate; with tls.key.
        certificate: Option<PathBuf> = None,
        /// PEM file of our key.
        key: Option<PathBuf> = None,
        /// Password of the key. Better given as OBTRACE__STREAM__KAFKA__TLS__KEY_PASSWORD than in a file.
        key_password: Secret = Secret::default(),
    }
}

config_struct! {
    /// A login at the brokers.
    pub struct KafkaSaslConfig {
        /// "none", "PLAIN", "SCRAM-SHA-256" or "SCRAM-SHA-512".
        mechanism: SaslMechanism = SaslMechanism::None,
        /// User.
        user: String = String::new(),
        /// Password. Better given as OBTRACE__STREAM__KAFKA__SASL__PASSWORD than in a file.
        password: Secret = Secret::default(),
    }
}

/// A broker, `host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker(String);

impl Broker {
    /// As written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Leaf for Broker {
    const EXPECTED: &'static str = "a broker such as \"kafka-1:9092\"";

    fn from_text(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let Some((host, port)) = text.rsplit_once(':') else { return Err("it names no port".into()) };
        if host.is_empty() || host.contains(['/', '@', ' ', ',']) {
            return Err("it must be host:port and no more".into());
        }
        match port.parse::<u16>() {
            Ok(port) if port > 0 => Ok(Self(text.to_owned())),
            _ => Err(format!("{port:?} is no port")),
        }
    }

    fn render(&self) -> String {
        super::schema::toml_text(&self.0)
    }
}

leaf_setting!(Broker);

impl Validate for KafkaConfig {
    fn validate(&self, at: &mut Reader) {
        let plain = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        if self.prefix.len() > 100 || !self.prefix.chars().all(plain) {
            at.refuse(&["prefix"], "must be at most 100 of a-z, A-Z, 0-9, '.', '-' and '_'");
        }
        if !(1..=32).contains(&self.replication_factor) {
            at.refuse(&["replication_factor"], "must be from 1 to 32");
        }
        if self.min_insync_replicas == 0 || self.min_insync_replicas > self.replication_factor {
            at.refuse(
                &["min_insync_replicas", "replication_factor"],
                "does not fit: min_insync_replicas must be from 1 to replication_factor",
            );
        }
        let spans = [
            ("delivery_timeout", self.delivery_timeout, 1, 600),
            ("session_timeout", self.session_timeout, 1, 300),
            ("revoke_timeout", self.revoke_timeout, 1, 45),
        ];
        for (key, value, least, most) in spans {
            if !(Duration::from_secs(least)..=Duration::from_secs(most)).contains(&value) {
                at.refuse(&[key], &format!("must be from {least}s to {most}s"));
            }
        }
        for (key, value) in [("fetch_bytes", self.fetch_bytes), ("dedup_bytes", self.dedup_bytes)] {
            if value < ByteSize::mib(1) || value > ByteSize::gib(1) {
                at.refuse(&[key], "must be from 1MiB to 1GiB");
            }
        }
    }
}

impl Validate for KafkaTlsConfig {
    fn validate(&self, at: &mut Reader) {
        if self.certificate.is_some() != self.key.is_some() {
            at.refuse(&["certificate", "key"], "does not fit: certificate and key go together");
        }
        if !self.enabled && (self.ca.is_some() || self.certificate.is_some()) {
            at.refuse(
                &["enabled", "ca", "certificate"],
                "does not fit: certificates are named, but tls is off",
            );
        }
    }
}

impl Validate for KafkaSaslConfig {
    fn validate(&self, at: &mut Reader) {
        let wanted = self.mechanism != SaslMechanism::None;
        if wanted && (self.user.is_empty() || self.password.is_empty()) {
            at.refuse(&["mechanism", "user", "password"], "does not fit: a login needs user and password");
        }
        if !wanted && !self.user.is_empty() {
            at.refuse(&["mechanism", "user"], "does not fit: a user is named, but mechanism is \"none\"");
        }
    }
}
