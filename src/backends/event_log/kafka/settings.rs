//! Settings of a [`KafkaLog`](super::KafkaLog), and what becomes of them: configurations of librdkafka's clients.

use std::path::PathBuf;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use crate::backends::event_log::dedup::DedupWindow;

/// Room for key, headers and framing beside a payload of the largest size.
const FRAMING: usize = 64 * 1024;
/// How long records wait for company before a batch is sent.
const LINGER_MS: &str = "2";
/// Longest wait between two polls of a member of a group. The poll thread polls all the time; this is also how long the
/// broker waits for a member to give partitions back.
const MAX_POLL: Duration = Duration::from_secs(60);

/// Settings of the log.
#[derive(Debug, Clone)]
pub struct KafkaLogConfig {
    /// How the brokers are reached.
    pub connection: Connection,
    /// The topics, by their names in the port.
    pub topics: Vec<KafkaTopic>,
    /// What stands before each topic's and group's name at the broker.
    pub prefix: String,
    /// What new topics are made with.
    pub replication: Replication,
    /// Makes topics that are missing once the broker is there.
    pub create_topics: bool,
    /// Largest record (key, headers and payload); larger ones are refused.
    pub max_record_bytes: usize,
    /// Bytes that may wait for the broker; beyond it appends get [`LogError::Full`](super::super::LogError::Full).
    pub queue_bytes: usize,
    /// Bytes fetched ahead for each partition that is read.
    pub fetch_bytes: usize,
    /// LZ4 for batches.
    pub compression: bool,
    /// How far back repeated appends are recognised, by who appends and by who reads.
    pub dedup_window: DedupWindow,
    /// The window of who reads holds no more than so many bytes of records: they are read again when a partition is taken
    /// over.
    pub dedup_bytes: usize,
    /// How long an append is tried. Whether it was written is not known then.
    pub delivery_timeout: Duration,
    /// How group membership is agreed on.
    pub group: GroupSettings,
}

/// How the brokers are reached.
#[derive(Debug, Clone, Default)]
pub struct Connection {
    /// `host:port` of some brokers, the others are found by them.
    pub brokers: Vec<String>,
    /// TLS, where the brokers want it.
    pub tls: Option<Tls>,
    /// A login, where the brokers want one.
    pub sasl: Option<Sasl>,
}

/// TLS to the brokers.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// Certificates that are trusted, PEM; the system's where it is not set.
    pub ca: Option<PathBuf>,
    /// Our certificate and key, PEM, where the brokers ask for one.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Password of the key.
    pub key_password: String,
}

/// A login at the brokers.
#[derive(Clone)]
pub struct Sasl {
    /// `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`.
    pub mechanism: &'static str,
    /// User.
    pub user: String,
    /// Password.
    pub password: String,
}

/// What new topics are made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replication {
    /// Copies of each partition.
    pub factor: u32,
    /// Copies that must have a record before it counts as written.
    pub min_insync: u32,
}

/// Which protocol groups speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupProtocol {
    /// Members agree among themselves, cooperatively; any broker has it.
    Classic,
    /// The broker decides (KIP-848); Kafka 4.
    Broker,
}

/// How group membership is agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupSettings {
    /// The protocol.
    pub protocol: GroupProtocol,
    /// How long a member may be silent before its partitions go to others (classic protocol; else the broker says).
    pub session_timeout: Duration,
    /// How long a consumer may finish what it has in hand when its partition goes to another process.
    pub revoke_timeout: Duration,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaTopic {
    /// Name in the port.
    pub name: String,
    /// Number of partitions.
    pub partitions: u32,
    /// Read by consumer groups: its partitions are shared out among processes, and repeats are left out in reading.
    pub consumed: bool,
    /// How long records are kept.
    pub retention_age: Option<Duration>,
    /// Bytes that a partition keeps.
    pub retention_bytes: Option<u64>,
}

impl std::fmt::Debug for Sasl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sasl({} {})", self.mechanism, self.user)
    }
}

impl KafkaLogConfig {
    /// The default settings for `topics` at `brokers`.
    pub fn new(brokers: Vec<String>, topics: Vec<KafkaTopic>) -> Self {
        Self {
            connection: Connection { brokers, ..Connection::default() },
            topics,
            prefix: String::new(),
            replication: Replication { factor: 1, min_insync: 1 },
            create_topics: true,
            max_record_bytes: 32 << 20,
            queue_bytes: 64 << 20,
            fetch_bytes: 16 << 20,
            compression: true,
            dedup_window: DedupWindow::default(),
            dedup_bytes: 64 << 20,
            delivery_timeout: Duration::from_secs(30),
            group: GroupSettings {
                protocol: GroupProtocol::Classic,
                session_timeout: Duration::from_secs(10),
                revoke_timeout: Duration::from_secs(10),
            },
        }
    }

    /// What a client that only asks has, and every other too.
    pub(super) fn client(&self) -> ClientConfig {
        let Connection { brokers, tls, sasl } = &self.connection;
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", brokers.join(","))
            .set("client.id", "obtrace")
            .set("reconnect.backoff.ms", "100")
            .set("reconnect.backoff.max.ms", "2000")
            .set("socket.connection.setup.timeout.ms", "10000")
            // A broker that says nothing any more, as one behind a cut cable: what it was asked is asked elsewhere by then.
            .set("socket.timeout.ms", "10000")
            .set("security.protocol", protocol(tls.is_some(), sasl.is_some()))
            .set_log_level(RDKafkaLogLevel::Warning);
        if let Some(Tls { ca, identity, key_password }) = tls {
            if let Some(ca) = ca {
                config.set("ssl.ca.location", ca.display().to_string());
            }
            if let Some((certificate, key)) = identity {
                config.set("ssl.certificate.location", certificate.display().to_string());
                config.set("ssl.key.location", key.display().to_string());
            }
            if !key_password.is_empty() {
                config.set("ssl.key.password", key_password);
            }
        }
        if let Some(Sasl { mechanism, user, password }) = sasl {
            config.set("sasl.mechanism", *mechanism);
            config.set("sasl.username", user).set("sasl.password", password);
        }
        config
    }

    /// A producer whose acknowledgement means "on all replicas in sync", and that writes nothing twice by itself.
    pub(super) fn producer(&self) -> ClientConfig {
        let mut config = self.client();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // Who leads is looked up anew also where no error tells that somebody else does.
            .set("topic.metadata.refresh.interval.ms", "10000")
            .set("compression.type", if self.compression { "lz4" } else { "none" })
            .set("linger.ms", LINGER_MS)
            // A topic that is not there is told soon; one that was just made is there by then.
            .set("topic.metadata.propagation.max.ms", "5000")
            .set("delivery.timeout.ms", self.delivery_timeout.as_millis().to_string())
            .set("message.max.bytes", (self.max_record_bytes + FRAMING).to_string())
            .set("queue.buffering.max.messages", "0")
            .set("queue.buffering.max.kbytes", self.queue_kbytes().to_string());
        config
    }

    /// A consumer that reads what it is told to, from where it is told to.
    pub(super) fn reader(&self) -> ClientConfig {
        let mut config = self.client();
        config
            // Without a group no client may be given partitions; it never joins.
            .set("group.id", self.group_id("reader"))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("enable.partition.eof", "true")
            .set("fetch.wait.max.ms", "200")
            .set("fetch.error.backoff.ms", "100")
            .set("queued.max.messages.kbytes", (self.fetch_bytes / 1024).max(1).to_string())
            .set("max.partition.fetch.bytes", (4 << 20).to_string())
            .set("fetch.max.bytes", (self.max_record_bytes + FRAMING).max(16 << 20).to_string())
            .set("receive.message.max.bytes", (2 * self.max_record_bytes + (64 << 20)).to_string());
        config
    }

    /// A member of `group`, which holds partitions and commits, and fetches nothing.
    pub(super) fn member(&self, group: &str) -> ClientConfig {
        let mut config = self.client();
        config
            .set("group.id", self.group_id(group))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "latest")
            .set("topic.metadata.refresh.interval.ms", "10000")
            .set("max.poll.interval.ms", MAX_POLL.max(self.group.session_timeout).as_millis().to_string());
        match self.group.protocol {
            GroupProtocol::Classic => {
                let session = self.group.session_timeout;
                config
                    .set("partition.assignment.strategy", "cooperative-sticky")
                    .set("session.timeout.ms", session.as_millis().to_string())
                    .set("heartbeat.interval.ms", (session / 6).as_millis().max(100).to_string());
            }
            GroupProtocol::Broker => {
                config.set("group.protocol", "consumer");
            }
        }
        config
    }

    /// Name of a topic at the broker.
    pub(super) fn topic_name(&self, topic: &str) -> String {
        format!("{}{topic}", self.prefix)
    }

    /// Largest batch a topic must take.
    pub(super) fn max_batch_bytes(&self) -> usize {
        self.max_record_bytes + FRAMING
    }

    fn group_id(&self, group: &str) -> String {
        format!("{}{group}", self.prefix)
    }

    fn queue_kbytes(&self) -> usize {
        (2 * self.queue_bytes / 1024).clamp(1, 2_097_151)
    }
}

fn protocol(tls: bool, sasl: bool) -> &'static str {
    match (tls, sasl) {
        (false, false) => "plaintext",
        (true, false) => "ssl",
        (false, true) => "sasl_plaintext",
        (true, true) => "sasl_ssl",
    }
}
