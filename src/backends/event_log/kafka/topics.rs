//! The topics at the brokers: what is configured against what is there; makes what is missing.
//!
//! In: the log's settings. Out: a plan for people and programs, and topics. What differs is told and not changed, apart
//! from partitions that a topic lacks: an operator may have had reasons. What may fail: the brokers.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewPartitions, NewTopic, OwnedResourceSpecifier,
    ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::util::Timeout;

use super::errors::{log_error, of_code};
use super::{KafkaLogConfig, KafkaTopic};
use crate::backends::event_log::LogError;

/// What stands between the settings and the brokers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TopicPlan {
    /// One step a topic or setting, in the order of the settings.
    pub steps: Vec<Step>,
    /// How many partitions each topic that is there has, by its name in the port.
    pub partitions: BTreeMap<String, u32>,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The topic is not there.
    Make {
        /// Its name at the broker.
        topic: String,
        /// Partitions it gets.
        partitions: u32,
        /// Its settings.
        settings: Vec<(String, String)>,
    },
    /// The topic has too few partitions.
    Grow {
        /// Its name at the broker.
        topic: String,
        /// Partitions it has.
        from: u32,
        /// Partitions it gets.
        to: u32,
    },
    /// A setting is another than is configured. It is left as it is.
    Differs {
        /// The topic's name at the broker.
        topic: String,
        /// The setting.
        setting: String,
        /// Its value there.
        there: String,
        /// The value that is configured.
        wanted: String,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Make { topic, partitions, settings } => {
                let settings: Vec<String> = settings.iter().map(|(k, v)| format!("{k}={v}")).collect();
                write!(f, "make topic {topic} with {partitions} partitions ({})", settings.join(" "))
            }
            Self::Grow { topic, from, to } => write!(f, "grow topic {topic} from {from} to {to} partitions"),
            Self::Differs { topic, setting, there, wanted } => {
                write!(f, "topic {topic} has {setting}={there}, configured is {wanted}: left as it is")
            }
        }
    }
}

impl TopicPlan {
    /// True when nothing is to be made or grown.
    pub fn is_done(&self) -> bool {
        self.missing().next().is_none()
    }

    /// What is to be made or grown.
    pub fn missing(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(|step| !matches!(step, Step::Differs { .. }))
    }

    /// What differs and is left as it is.
    pub fn differences(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(|step| matches!(step, Step::Differs { .. }))
    }
}

/// What is missing at the brokers and what differs. Changes nothing.
///
/// # Errors
/// [`LogError::Away`], [`LogError::Settings`].
pub async fn plan_topics(config: &KafkaLogConfig, within: Duration) -> Result<TopicPlan, LogError> {
    let config = config.clone();
    super::ask(move || plan_now(&config, within)).await?
}

/// Makes what is missing, and returns what was found before that.
///
/// # Errors
/// [`LogError::Away`], [`LogError::Settings`]; what was made before stays.
pub async fn ensure_topics(config: &KafkaLogConfig, within: Duration) -> Result<TopicPlan, LogError> {
    let config = config.clone();
    super::ask(move || {
        let plan = plan_now(&config, within)?;
        make_missing_now(&config, &plan, within)?;
        Ok(plan)
    })
    .await?
}

type Admin = AdminClient<DefaultClientContext>;

fn admin(config: &KafkaLogConfig) -> Result<Admin, LogError> {
    let made = config.client().create();
    made.map_err(|error| LogError::Settings(format!("a client cannot be made: {error}")))
}

fn options(within: Duration) -> AdminOptions {
    let within = Some(Timeout::After(within));
    AdminOptions::new().request_timeout(within).operation_timeout(within)
}

/// [`plan_topics`], blocking.
pub(super) fn plan_now(config: &KafkaLogConfig, within: Duration) -> Result<TopicPlan, LogError> {
    let admin = admin(config)?;
    let found = admin.inner().fetch_metadata(None, within);
    let found = found.map_err(|error| log_error("asking for the topics", &error))?;
    let there: BTreeMap<&str, u32> = found
        .topics()
        .iter()
        .filter(|topic| topic.error().is_none())
        .map(|topic| (topic.name(), u32::try_from(topic.partitions().len()).unwrap_or(u32::MAX)))
        .collect();
    let mut plan = TopicPlan::default();
    for topic in &config.topics {
        let name = config.topic_name(&topic.name);
        match there.get(name.as_str()) {
            None => plan.steps.push(Step::Make {
                topic: name,
                partitions: topic.partitions,
                settings: settings(config, topic),
            }),
            Some(&from) => {
                if from < topic.partitions {
                    plan.steps.push(Step::Grow { topic: name.clone(), from, to: topic.partitions });
                }
                plan.partitions.insert(topic.name.clone(), from.max(topic.partitions));
                plan.steps.extend(differences(&admin, config, topic, &name, within)?);
            }
        }
    }
    Ok(plan)
}

/// Makes what `plan` says is missing.
pub(super) fn make_missing_now(
    config: &KafkaLogConfig,
    plan: &TopicPlan,
    within: Duration,
) -> Result<(), LogError> {
    let admin = admin(config)?;
    let factor = i32::try_from(config.replication.factor).unwrap_or(i32::MAX);
    for step in plan.missing() {
        tracing::info!("{step}");
        let made = match step {
            Step::Make { topic, partitions, settings } => {
                let count = i32::try_from(*partitions).unwrap_or(i32::MAX);
                let mut fresh = NewTopic::new(topic, count, TopicReplication::Fixed(factor));
                fresh = settings.iter().fold(fresh, |topic, (key, value)| topic.set(key, value));
                wait(admin.create_topics([&fresh], &options(within)))
            }
            Step::Grow { topic, to, .. } => {
                let more = NewPartitions::new(topic, *to as usize);
                wait(admin.create_partitions([&more], &options(within)))
            }
            Step::Differs { .. } => continue,
        };
        for one in made?.map_err(|error| log_error("making topics", &error))? {
            match one {
                // Another process was as quick.
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => return Err(of_code(&format!("making topic {topic}"), code)),
            }
        }
    }
    Ok(())
}

/// The settings that a topic gets.
fn settings(config: &KafkaLogConfig, topic: &KafkaTopic) -> Vec<(String, String)> {
    let whole = |bytes: Option<u64>| bytes.map_or_else(|| "-1".to_owned(), |bytes| bytes.to_string());
    let age = topic.retention_age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
    [
        ("cleanup.policy", "delete".to_owned()),
        // The window of repeats and retention go by one clock, the broker's.
        ("message.timestamp.type", "LogAppendTime".to_owned()),
        ("max.message.bytes", config.max_batch_bytes().to_string()),
        ("min.insync.replicas", config.replication.min_insync.to_string()),
        ("retention.bytes", whole(topic.retention_bytes)),
        ("retention.ms", whole(age)),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

fn differences(
    admin: &Admin,
    config: &KafkaLogConfig,
    topic: &KafkaTopic,
    name: &str,
    within: Duration,
) -> Result<Vec<Step>, LogError> {
    let asked = [ResourceSpecifier::Topic(name)];
    let described = wait(admin.describe_configs(&asked, &options(within)))?;
    let described = described.map_err(|error| log_error("asking for settings of topics", &error))?;
    let is_it =
        |found: &ConfigResource| matches!(&found.specifier, OwnedResourceSpecifier::Topic(t) if t == name);
    let Some(found) = described.iter().flatten().find(|found| is_it(found)) else { return Ok(Vec::new()) };
    let step = |(setting, wanted): (String, String)| {
        let there = found.get(&setting)?.value.clone()?;
        (there != wanted).then(|| Step::Differs { topic: name.to_owned(), setting, there, wanted })
    };
    Ok(settings(config, topic).into_iter().filter_map(step).collect())
}

/// Waits for an answer of the admin client, which has a deadline of its own and needs no runtime.
fn wait<T>(answer: impl Future<Output = T>) -> Result<T, LogError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    Ok(runtime.block_on(answer))
}
