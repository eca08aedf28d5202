//! The two questions the verifier asks the API: rows by page, and point counts by attribute. JSON in, what is counted out.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::tools::error::ToolError;
use crate::tools::otlp_client::error_chain;

/// Deadline of one question.
const DEADLINE: Duration = Duration::from_secs(60);
/// Longest part of an answer that is quoted, characters.
const MAX_QUOTE: usize = 300;

/// A page of spans or log records, cut down to what is counted.
#[derive(Debug, Deserialize)]
pub(super) struct RowPage {
    pub(super) items: Vec<Row>,
    #[serde(default)]
    pub(super) next_cursor: Option<String>,
}

/// One row, cut down to what is counted.
#[derive(Debug, Deserialize)]
pub(super) struct Row {
    #[serde(default)]
    pub(super) trace_id: Option<String>,
    #[serde(default)]
    attributes: Marks,
}

/// Only the sequence of all attributes is kept: a page holds 10,000 rows.
#[derive(Debug, Default, Deserialize)]
struct Marks {
    #[serde(default, rename = "obtrace.load.seq")]
    seq: Option<Value>,
}

impl Row {
    pub(super) fn seq(&self) -> Option<u64> {
        self.attributes.seq.as_ref().and_then(whole)
    }
}

#[derive(Debug, Deserialize)]
struct SeriesPage {
    items: Vec<Series>,
    /// The answer holds fewer series than there are.
    #[serde(default)]
    truncated: bool,
}

#[derive(Debug, Deserialize)]
struct Series {
    group: BTreeMap<String, Value>,
    points: Vec<Sample>,
}

#[derive(Debug, Deserialize)]
struct Sample {
    value: Value,
}

impl Series {
    /// Value of `key` and the sum over all steps; `None` where one of them is no whole number.
    fn count(&self, key: &str) -> Option<(u64, u64)> {
        let counts: Option<Vec<u64>> = self.points.iter().map(|sample| whole(&sample.value)).collect();
        Some((self.group.get(key).and_then(whole)?, counts?.into_iter().sum()))
    }
}

/// The API of one Obtrace.
#[derive(Debug, Clone)]
pub(super) struct Api {
    client: reqwest::Client,
    base: String,
    api_key: Option<String>,
}

impl Api {
    pub(super) fn new(base: &str, api_key: Option<&str>) -> Result<Self, ToolError> {
        let client = reqwest::Client::builder().no_proxy().timeout(DEADLINE).build();
        let client =
            client.map_err(|e| ToolError::Endpoint { endpoint: base.to_owned(), reason: e.to_string() })?;
        Ok(Self { client, base: base.trim_end_matches('/').to_owned(), api_key: api_key.map(str::to_owned) })
    }

    /// One page of `/api/v1/{path}`.
    pub(super) async fn rows(
        &self,
        path: &str,
        query: &[(String, String)],
        cursor: Option<&str>,
    ) -> Result<RowPage, ToolError> {
        let mut query = query.to_vec();
        query.extend(cursor.map(|c| ("cursor".to_owned(), c.to_owned())));
        self.ask(path, &query).await
    }

    /// Points per value of `key`, summed over the steps of the answer. An answer that was cut off is an error: it would
    /// look like missing points.
    pub(super) async fn counts_by(
        &self,
        key: &str,
        query: &[(String, String)],
    ) -> Result<Vec<(u64, u64)>, ToolError> {
        let page: SeriesPage = self.ask("metrics/query", query).await?;
        let unclear =
            |reason: &str| ToolError::Api { url: self.url("metrics/query"), reason: reason.to_owned() };
        if page.truncated {
            return Err(unclear("the answer does not hold all series; send fewer batches a second"));
        }
        let counts: Option<Vec<_>> = page.items.iter().map(|series| series.count(key)).collect();
        counts.ok_or_else(|| unclear(&format!("a series has no whole number for {key:?} or for a count")))
    }

    fn url(&self, path: &str) -> String {
        format!("{}/api/v1/{path}", self.base)
    }

    async fn ask<T: DeserializeOwned>(&self, path: &str, query: &[(String, String)]) -> Result<T, ToolError> {
        let url = self.url(path);
        let fail = |reason: String| ToolError::Api { url: url.clone(), reason };
        let mut request = self.client.get(&url).query(query);
        if let Some(key) = &self.api_key {
            request = request.bearer_auth(key);
        }
        let response = request.send().await.map_err(|e| fail(error_chain(&e.without_url())))?;
        let status = response.status();
        let body = response.bytes().await.map_err(|e| fail(e.to_string()))?;
        if !status.is_success() {
            let quote: String = String::from_utf8_lossy(&body).chars().take(MAX_QUOTE).collect();
            return Err(fail(format!("answered {status}: {quote}")));
        }
        serde_json::from_slice(&body).map_err(|e| fail(format!("answered something else: {e}")))
    }
}

/// A whole number written as number, float or text.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(value: &Value) -> Option<u64> {
    match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number
            .as_u64()
            .or_else(|| number.as_f64().filter(|f| *f >= 0.0 && f.fract() == 0.0).map(|f| f as u64)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::payload::SEQ_KEY;
    use super::*;

    #[test]
    fn rows_are_read_by_their_sequence_however_it_is_written() {
        let page = json!({"items": [
            {"trace_id": "00", "attributes": {SEQ_KEY: 7, "x": {"y": 1}}, "name": "n"},
            {"attributes": {SEQ_KEY: "8"}},
            {"attributes": {}}, {}
        ], "next_cursor": null, "stats": {}});
        let page: RowPage = serde_json::from_value(page).unwrap();
        let seqs: Vec<_> = page.items.iter().map(Row::seq).collect();
        assert_eq!(seqs, [Some(7), Some(8), None, None]);
    }

    #[test]
    fn series_are_counted_over_their_steps_and_nonsense_is_not_zero() {
        let read = |series| serde_json::from_value::<Series>(series).unwrap().count("b");
        let steps = json!([{"unix_seconds": 1.0, "value": 2.0}, {"unix_seconds": 2.0, "value": 5}]);
        assert_eq!(read(json!({"group": {"b": "3"}, "points": steps})), Some((3, 7)));
        assert_eq!(read(json!({"group": {"b": "3"}, "points": [{"value": null}]})), None);
        assert_eq!(read(json!({"group": {"b": ""}, "points": steps})), None);
        assert_eq!(read(json!({"group": {}, "points": steps})), None);
    }
}
