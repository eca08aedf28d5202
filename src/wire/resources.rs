//! Which version of which service sent a request: a decoded request in, the pairs of its resources out. Cannot fail: a resource
//! without the one or the other, or without records, says nothing.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::resource::v1::Resource;

use super::{Payload, data_points};

/// Pairs that are looked at in one request: one has a resource or a few, and a gateway some more.
const MOST: usize = 64;

/// `service.name` and `service.version` of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceVersion {
    /// The service.
    pub service: String,
    /// Its version.
    pub version: String,
}

impl Payload {
    /// The versions of services that have records in it, each once, the first 64.
    pub fn versions(&self) -> Vec<ServiceVersion> {
        let mut found = Vec::new();
        match self {
            Self::Traces(request) => {
                for of in &request.resource_spans {
                    add(&mut found, of.resource.as_ref(), || {
                        of.scope_spans.iter().any(|s| !s.spans.is_empty())
                    });
                }
            }
            Self::Logs(request) => {
                for of in &request.resource_logs {
                    let sends = || of.scope_logs.iter().any(|s| !s.log_records.is_empty());
                    add(&mut found, of.resource.as_ref(), sends);
                }
            }
            Self::Metrics(request) => {
                for of in &request.resource_metrics {
                    let mut metrics = of.scope_metrics.iter().flat_map(|s| &s.metrics);
                    add(&mut found, of.resource.as_ref(), || metrics.any(|metric| data_points(metric) > 0));
                }
            }
        }
        found
    }
}

fn add(found: &mut Vec<ServiceVersion>, resource: Option<&Resource>, sends: impl FnOnce() -> bool) {
    if found.len() == MOST {
        return;
    }
    let Some((service, version)) = resource.and_then(pair) else { return };
    let is_new = !found.iter().any(|known| known.service == service && known.version == version);
    if is_new && sends() {
        found.push(ServiceVersion { service: service.to_owned(), version: version.to_owned() });
    }
}

fn pair(resource: &Resource) -> Option<(&str, &str)> {
    Some((text(resource, "service.name")?, text(resource, "service.version")?))
}

/// The text of an attribute, the first of its key where there are several.
fn text<'r>(resource: &'r Resource, key: &str) -> Option<&'r str> {
    let found = resource.attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::envelope::WireFormat;
    use crate::domain::signal::Signal;
    use crate::wire::limits::OtlpLimits;

    fn versions(signal: Signal, json: &str) -> Vec<(String, String)> {
        let payload = Payload::decode(signal, WireFormat::Json, json.as_bytes(), &OtlpLimits::default());
        payload.unwrap().versions().into_iter().map(|v| (v.service, v.version)).collect()
    }

    fn resource(service: &str, version: &str) -> String {
        let attribute =
            |key: &str, value: &str| format!(r#"{{"key":"{key}","value":{{"stringValue":"{value}"}}}}"#);
        format!(
            r#""resource":{{"attributes":[{},{}]}}"#,
            attribute("service.name", service),
            attribute("service.version", version)
        )
    }

    fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
        of.iter().map(|(service, version)| ((*service).to_owned(), (*version).to_owned())).collect()
    }

    #[test]
    fn every_signal_names_versions_each_once() {
        let (cart, pay) = (resource("cart", "1"), resource("pay", "2"));
        let logs = r#""scopeLogs":[{"logRecords":[{}]}]"#;
        let json = format!(r#"{{"resourceLogs":[{{{cart},{logs}}},{{{pay},{logs}}},{{{cart},{logs}}}]}}"#);
        assert_eq!(versions(Signal::Logs, &json), pairs(&[("cart", "1"), ("pay", "2")]));
        let json = format!(r#"{{"resourceSpans":[{{{cart},"scopeSpans":[{{"spans":[{{}}]}}]}}]}}"#);
        assert_eq!(versions(Signal::Traces, &json), pairs(&[("cart", "1")]));
        let point = r#"{"name":"m","gauge":{"dataPoints":[{"asInt":"1"}]}}"#;
        let json = format!(r#"{{"resourceMetrics":[{{{cart},"scopeMetrics":[{{"metrics":[{point}]}}]}}]}}"#);
        assert_eq!(versions(Signal::Metrics, &json), pairs(&[("cart", "1")]));
    }

    #[test]
    fn who_sends_nothing_or_says_no_version_is_not_named() {
        let cart = resource("cart", "1");
        let unnamed = r#""resource":{"attributes":[{"key":"service.version","value":{"stringValue":"3"}}]}"#;
        let number = r#""resource":{"attributes":[{"key":"service.name","value":{"stringValue":"a"}},{"key":"service.version","value":{"intValue":"3"}}]}"#;
        let logs = r#""scopeLogs":[{"logRecords":[{}]}]"#;
        let json = format!(
            r#"{{"resourceLogs":[{{{cart},"scopeLogs":[{{"logRecords":[]}}]}},{{{unnamed},{logs}}},{{{number},{logs}}},{{{logs}}}]}}"#
        );
        assert_eq!(versions(Signal::Logs, &json), []);
        let many: Vec<String> =
            (0..MOST + 3).map(|n| format!("{{{},{logs}}}", resource("cart", &n.to_string()))).collect();
        let json = format!(r#"{{"resourceLogs":[{}]}}"#, many.join(","));
        assert_eq!(versions(Signal::Logs, &json).len(), MOST);
    }
}
