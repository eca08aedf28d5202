//! Deploy markers: which version of a service began to run when, as its tenant told it or as its telemetry shows.
//!
//! What was told and what is asked for in, checked markers, questions and pages out. What may fail: a text or a time out of
//! bounds, which is named.

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;

use super::query::answer::Time;
use super::query::time::{HOUR, TimeRange, format_rfc3339};
use super::query::{Asked, BadParameter};
use super::query::{params::Params, request::Page};

/// Most bytes of a name in a marker.
pub const MAX_TEXT: usize = 256;
/// Days that markers are kept.
pub const KEEP_DAYS: u32 = 400;

const MS: i64 = 1_000_000;
const DAY: i64 = 24 * HOUR;
/// Time range of the list when `start` is absent: deploys are rare.
const LIST_RANGE: i64 = 7 * DAY;
/// How far a marker may be ahead of this machine's clock.
const MOST_AHEAD: i64 = HOUR;

/// A version of a service began to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deploy {
    /// Service, as in the telemetry.
    pub service: Arc<str>,
    /// Version, such as a tag or a commit.
    pub version: Arc<str>,
    /// When, Unix milliseconds.
    pub at_ms: u64,
    /// Who told it; empty where nobody did, and the telemetry of the service changed its `service.version`.
    pub who: Arc<str>,
}

/// Which markers are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeployQuery {
    /// Of this service; of all where it is `None`.
    pub service: Option<Arc<str>>,
    /// From this time on, Unix milliseconds.
    pub from_ms: u64,
    /// Before this time.
    pub until_ms: u64,
    /// Those behind this one, in the order of the list.
    pub after: Option<Deploy>,
    /// At most so many, the newest.
    pub most: u32,
}

impl Deploy {
    /// What is wrong with it at `now_ns`, for whoever sent it.
    ///
    /// # Errors
    /// The first field at fault and its rule.
    pub fn check(&self, now_ns: i64) -> Result<(), BadParameter> {
        for (name, text) in [("service", &self.service), ("version", &self.version), ("by", &self.who)] {
            if !is_name(text) {
                let rule = format!("must have 1 to {MAX_TEXT} bytes and no control characters");
                return Err(BadParameter::new(name, rule));
            }
        }
        let at_ns = i64::try_from(self.at_ms).unwrap_or(i64::MAX).saturating_mul(MS);
        let refuse = |why: String| Err(BadParameter::new("at", format!("{}: {why}", format_rfc3339(at_ns))));
        if at_ns > now_ns.saturating_add(MOST_AHEAD) {
            return refuse(
                "more than an hour ahead of the clock here, tell a deploy when it happens".to_owned(),
            );
        }
        if at_ns < now_ns.saturating_sub(i64::from(KEEP_DAYS) * DAY) {
            return refuse(format!("markers are kept for {KEEP_DAYS} days, this would be gone at once"));
        }
        Ok(())
    }
}

/// Whether a text can name a service or a version.
pub fn is_name(text: &str) -> bool {
    (1..=MAX_TEXT).contains(&text.len()) && !text.chars().any(char::is_control)
}

// === the list ===

/// `GET /deploys`, typed.
#[derive(Debug, Clone, PartialEq)]
pub struct DeployList {
    service: Option<String>,
    page: Page,
    after: Option<Deploy>,
}

/// A marker as it is answered.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct DeployMarker {
    /// Service, as in the telemetry.
    #[schema(example = "cart")]
    pub service: String,
    /// The version that began to run.
    #[schema(example = "1.4.2")]
    pub version: String,
    /// When.
    #[serde(flatten)]
    pub time: Time,
    /// `told` by somebody, or `seen` in the telemetry: its `service.version` changed.
    #[schema(example = "told")]
    pub source: &'static str,
    /// Who told it; null for what was seen.
    #[schema(required)]
    pub by: Option<String>,
}

/// One page of markers, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct DeployPage {
    /// The markers.
    pub items: Vec<DeployMarker>,
    /// Pass it as `cursor` for the next page; null on the last one.
    #[schema(required)]
    pub next_cursor: Option<String>,
}

impl DeployList {
    /// `service`, `start`, `end`, `limit` and `cursor`.
    ///
    /// # Errors
    /// [`BadParameter`] for the first parameter that cannot be used.
    pub fn parse(pairs: Vec<(String, String)>, asked: Asked) -> Result<Self, BadParameter> {
        let params = Params::new(pairs, &["service", "start", "end", "limit", "cursor"], false)?;
        let service = params.text("service");
        let page = Page::parse(&params, asked, Some(LIST_RANGE), &("deploys", &service))?;
        let after = page.after.as_ref().map(|after| read_key(after.ts_ns, &after.key)).transpose()?;
        Ok(Self { service, page, after })
    }

    /// The question to the store: one more than the page holds, to know whether there is another page.
    pub fn query(&self) -> DeployQuery {
        let TimeRange { start_ns, end_ns } = self.page.range;
        DeployQuery {
            service: self.service.as_deref().map(Arc::from),
            from_ms: ms_from(start_ns),
            until_ms: ms_from(end_ns),
            after: self.after.clone(),
            most: self.page.limit.saturating_add(1),
        }
    }

    /// The page, of what the store found.
    pub fn answer(&self, mut found: Vec<Deploy>) -> DeployPage {
        let limit = self.page.limit as usize;
        let more = found.len() > limit;
        found.truncate(limit);
        let last = found.last().filter(|_| more);
        let next_cursor = last.map(|last| {
            let (ts_ns, key) = (ns_of(last.at_ms), key_of(last));
            self.page.next_cursor(super::query::cursor::Position { ts_ns, key, skip: 0 })
        });
        DeployPage { items: found.iter().map(DeployMarker::of).collect(), next_cursor }
    }
}

impl DeployMarker {
    /// The answer for a marker.
    pub fn of(deploy: &Deploy) -> Self {
        let by = Some(deploy.who.to_string()).filter(|who| !who.is_empty());
        Self {
            service: deploy.service.to_string(),
            version: deploy.version.to_string(),
            time: Time::new(ns_of(deploy.at_ms)),
            source: if by.is_some() { "told" } else { "seen" },
            by,
        }
    }
}

/// The first whole millisecond that is not before `ns`.
fn ms_from(ns: i64) -> u64 {
    u64::try_from(ns).unwrap_or(0).div_ceil(MS.unsigned_abs())
}

fn ns_of(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX).saturating_mul(MS)
}

/// What tells markers of one time apart. Names have no control characters, so none has the one between them.
fn key_of(deploy: &Deploy) -> Vec<u8> {
    [&*deploy.service, &*deploy.version, &*deploy.who].join("\0").into_bytes()
}

fn read_key(ts_ns: i64, key: &[u8]) -> Result<Deploy, BadParameter> {
    let parts: Vec<&str> = std::str::from_utf8(key).unwrap_or_default().split('\0').collect();
    let [service, version, who] = parts[..] else {
        return Err(BadParameter::new(
            "cursor",
            "is not a cursor of this list: pass next_cursor as it was given",
        ));
    };
    let at_ms = u64::try_from(ts_ns / MS).unwrap_or(0);
    Ok(Deploy { service: service.into(), version: version.into(), at_ms, who: who.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    use super::super::query::time::SECOND;

    const NOW: i64 = 1_800_000_000 * SECOND;

    fn marker() -> Deploy {
        let at_ms = u64::try_from(NOW / MS).unwrap();
        Deploy { service: "cart".into(), version: "1.2".into(), at_ms, who: "key ci".into() }
    }

    fn at_fault(deploy: &Deploy) -> Option<String> {
        deploy.check(NOW).err().map(|bad| bad.parameter)
    }

    #[test]
    fn names_and_times_are_bounded() {
        assert_eq!(marker().check(NOW), Ok(()));
        for bad in ["", "a\nb", &"x".repeat(MAX_TEXT + 1)] {
            assert_eq!(at_fault(&Deploy { service: bad.into(), ..marker() }).as_deref(), Some("service"));
            assert_eq!(at_fault(&Deploy { version: bad.into(), ..marker() }).as_deref(), Some("version"));
            assert_eq!(at_fault(&Deploy { who: bad.into(), ..marker() }).as_deref(), Some("by"));
        }
        let hour = 3_600_000;
        for (at_ms, good) in [
            (marker().at_ms + hour, true),
            (marker().at_ms + hour + 1, false),
            (marker().at_ms - 24 * hour * u64::from(KEEP_DAYS), true),
            (marker().at_ms - 24 * hour * u64::from(KEEP_DAYS) - 1, false),
            (u64::MAX, false),
        ] {
            let fault = at_fault(&Deploy { at_ms, ..marker() });
            assert_eq!(fault.as_deref(), (!good).then_some("at"), "{at_ms}");
        }
    }

    fn list(pairs: &[(&str, &str)]) -> Result<DeployList, BadParameter> {
        let pairs = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        DeployList::parse(pairs, NOW.into())
    }

    #[test]
    fn a_list_asks_for_whole_milliseconds_and_a_week() {
        let now_ms = marker().at_ms;
        let query = list(&[]).unwrap().query();
        assert_eq!((query.from_ms, query.until_ms), (now_ms - 7 * 86_400_000, now_ms));
        let between = [("start", "1700000000000000001"), ("end", "1700000000001000001"), ("service", "cart")];
        let query = list(&between).unwrap().query();
        assert_eq!(
            (query.from_ms, query.until_ms),
            (1_700_000_000_001, 1_700_000_000_002),
            "as for all times"
        );
        assert_eq!((query.service.as_deref(), query.most), (Some("cart"), 101));
        for (name, value) in [("servce", "x"), ("limit", "0"), ("start", "soon"), ("cursor", "00")] {
            assert_eq!(list(&[(name, value)]).unwrap_err().parameter, name);
        }
    }

    #[test]
    fn a_page_that_is_not_the_last_leads_to_what_comes_behind_it() {
        let first = list(&[("limit", "1")]).unwrap();
        let older = Deploy { version: "1.1".into(), who: "".into(), ..marker() };
        let page = first.answer(vec![marker(), older.clone()]);
        assert_eq!((page.items.len(), &*page.items[0].version, page.items[0].source), (1, "1.2", "told"));
        let cursor = page.next_cursor.unwrap();
        let second = list(&[("limit", "1"), ("cursor", &cursor)]).unwrap();
        assert_eq!(second.query(), DeployQuery { after: Some(marker()), ..first.query() });
        let page = second.answer(vec![older]);
        assert_eq!((page.items[0].source, &page.items[0].by, page.next_cursor), ("seen", &None, None));
        let other = list(&[("service", "cart"), ("cursor", &cursor)]).unwrap_err();
        assert_eq!(other.parameter, "cursor", "a cursor belongs to its list");
    }
}
