//! SQL over log records: search in two steps (which times, then whole rows).

use super::spans::{COMMON, Within, newest_first};
use crate::backends::telemetry::sql::{Select, Statement, Table};
use crate::domain::query::cursor::Position;
use crate::domain::query::hex;
use crate::domain::query::logs_lang::{LEVELS, LogFilter, LogTest};
use crate::domain::query::time::TimeRange;
use crate::domain::scope::Scope;

/// Tells log records of one time apart. Records that are equal in all of this are equal for a reader, too.
const TIE: &str = "cityHash64(batch_id, trace_id, span_id, service, severity_number, severity_text, event_name, body, attributes, \
     resource_attributes)";

/// Times of the newest matching records of a slice, newest first: column `ts_ns`. Reads the filter columns only.
pub fn probe(scope: &Scope, filter: &LogFilter, slice: TimeRange, need: usize) -> Statement {
    let mut select = Select::from(scope, Table::Logs);
    select.column("toUnixTimestamp64Nano(ts) AS ts_ns").between(slice.start_ns, slice.end_ns);
    matching(&mut select, filter);
    select.tail(format!("ORDER BY ts_bucket DESC, ts DESC LIMIT {need}"));
    select.build()
}

/// Matching records of a range, whole, newest first, from `after` on (that position itself included).
pub fn rows(
    scope: &Scope,
    filter: &LogFilter,
    range: TimeRange,
    after: Option<&Position>,
    need: usize,
) -> Statement {
    let mut select = Select::from(scope, Table::Logs);
    select
        .column(COMMON)
        .column("toUnixTimestamp64Nano(observed_ts) AS observed_ns")
        .column("severity_number, severity_text, body, body_type, event_name")
        .column(format!("{TIE} AS tie"))
        .between(range.start_ns, range.end_ns);
    matching(&mut select, filter);
    let within = Within::of(filter.names_a_service(), filter.terms.len() == 1);
    newest_first(&mut select, TIE, after, need, within);
    select.build()
}

fn matching(select: &mut Select, filter: &LogFilter) {
    for term in &filter.terms {
        let predicate = test(select, &term.test);
        select.filter(if term.negated { format!("NOT ({predicate})") } else { predicate });
    }
}

fn test(select: &mut Select, test: &LogTest) -> String {
    match test {
        LogTest::Text(text) => text_predicate(select, text),
        LogTest::Service(service) => format!("service = {}", select.bind("String", service)),
        LogTest::Severity { from, to } => severity_predicate(select, *from, *to),
        LogTest::Attribute { key, value } => select.attr_predicate(key, value),
        LogTest::Trace(id) => {
            format!("trace_id = toFixedString(unhex({}), 16)", select.bind("String", hex::encode(id)))
        }
    }
}

/// The one place that knows how text is indexed: whole ASCII words, letter case ignored. A single word is exactly that; a phrase must also
/// stand in the body as written, and text with other letters is looked for without the index.
///
/// The words are compared over `lower(body)`, not left to a preprocessor of the index: where the store decides against the index (a part
/// without it, a newest-first read) it would compare `body` as it stands and miss what differs in case (seen with 26.7.3).
fn text_predicate(select: &mut Select, text: &str) -> String {
    let phrase = |select: &mut Select| {
        format!("positionCaseInsensitiveUTF8(body, {}) > 0", select.bind("String", text))
    };
    if !text.is_ascii() || !text.bytes().any(|b| b.is_ascii_alphanumeric()) {
        return phrase(select);
    }
    let words = format!("hasAllTokens(lower(body), {})", select.bind("String", text.to_ascii_lowercase()));
    if text.bytes().all(|b| b.is_ascii_alphanumeric()) {
        words
    } else {
        format!("({words} AND {})", phrase(select))
    }
}

/// Records of a severity range. Sources that give a severity text without a number are judged by the text.
fn severity_predicate(select: &mut Select, from: u8, to: u8) -> String {
    let names: Vec<String> = LEVELS
        .iter()
        .filter(|(_, low)| (from..=to).contains(low))
        .flat_map(|(name, _)| {
            if *name == "warn" {
                vec![format!("'{name}'"), "'warning'".into()]
            } else {
                vec![format!("'{name}'")]
            }
        })
        .collect();
    let (from, to) = (select.bind("UInt8", from), select.bind("UInt8", to));
    let by_text = format!("(severity_number = 0 AND lower(severity_text) IN ({}))", names.join(", "));
    format!("(severity_number BETWEEN {from} AND {to} OR {by_text})")
}
