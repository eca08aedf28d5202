//! Own traces at the grain of a batch: a block that was settled or a query that was answered in, spans of OTLP out.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};

use super::{Pocket, number, resource, scope, text};

/// Traces that wait for the next round.
const MOST: usize = 64;
/// `SPAN_KIND_INTERNAL`, `SPAN_KIND_SERVER` and `SPAN_KIND_CONSUMER` of OTLP.
const INTERNAL: i32 = 1;
const SERVER: i32 = 2;
const CONSUMER: i32 = 5;

/// Traces on their way.
pub static TRACES: Pocket<Vec<Span>> = Pocket::new(MOST);

/// When what happened to a block, Unix nanoseconds.
#[derive(Debug, Clone)]
pub struct BlockTimes {
    /// Which block.
    pub block: String,
    /// Records in it, and their bytes.
    pub size: (u64, u64),
    /// When the edge took its oldest batch.
    pub received: u64,
    /// When a worker took it up.
    pub taken: u64,
    /// When its rows were made.
    pub transformed: u64,
    /// When it was settled.
    pub settled: u64,
    /// Rows stored and records in the dead letters; or why it was not settled.
    pub outcome: Result<(u64, u64), String>,
}

/// The trace of a block: from the edge over the log, the transformation and the insert.
pub fn block(times: &BlockTimes) -> Vec<Span> {
    let trace: [u8; 16] = rand::random();
    let mut root = span(trace, None, "block", CONSUMER, times.received.min(times.taken), times.settled);
    root.attributes = vec![
        text("obtrace.block", &times.block),
        number("obtrace.records", times.size.0),
        number("obtrace.bytes", times.size.1),
    ];
    match &times.outcome {
        Ok((rows, dead)) => {
            root.attributes.extend([number("obtrace.rows", *rows), number("obtrace.dead_letters", *dead)]);
        }
        Err(why) => root.status = failed(why),
    }
    let below = Some(root.span_id.clone());
    let steps = [
        ("log", times.received.min(times.taken), times.taken),
        ("transform", times.taken, times.transformed),
        ("insert", times.transformed, times.settled),
    ];
    let steps = steps.map(|(name, from, to)| span(trace, below.clone(), name, INTERNAL, from, to));
    std::iter::once(root).chain(steps).collect()
}

/// The trace of a query.
pub fn query(what: &str, from: u64, to: u64, error: Option<&str>) -> Vec<Span> {
    let mut span = span(rand::random(), None, &format!("query {what}"), SERVER, from, to);
    span.attributes = vec![text("obtrace.query", what)];
    if let Some(why) = error {
        span.status = failed(why);
    }
    vec![span]
}

fn failed(why: &str) -> Option<Status> {
    Some(Status { message: why.chars().take(512).collect(), code: StatusCode::Error.into() })
}

fn span(trace: [u8; 16], parent: Option<Vec<u8>>, name: &str, kind: i32, from: u64, to: u64) -> Span {
    let id: [u8; 8] = rand::random();
    Span {
        trace_id: trace.to_vec(),
        span_id: id.to_vec(),
        parent_span_id: parent.unwrap_or_default(),
        name: name.to_owned(),
        kind,
        start_time_unix_nano: from,
        end_time_unix_nano: to.max(from),
        attributes: Vec::<KeyValue>::new(),
        ..Span::default()
    }
}

/// The traces as an export request.
pub fn request(traces: Vec<Vec<Span>>) -> ExportTraceServiceRequest {
    let spans = traces.into_iter().flatten().collect();
    let scope_spans = vec![ScopeSpans { scope: Some(scope()), spans, ..ScopeSpans::default() }];
    let resource = Some(resource());
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_one_trace_whose_steps_fill_it() {
        let times = BlockTimes {
            block: "t-0-1-2".into(),
            size: (1, 10),
            received: 100,
            taken: 200,
            transformed: 250,
            settled: 400,
            outcome: Ok((7, 1)),
        };
        let spans = block(&times);
        let names: Vec<(&str, u64, u64)> =
            spans.iter().map(|s| (s.name.as_str(), s.start_time_unix_nano, s.end_time_unix_nano)).collect();
        assert_eq!(
            names,
            [("block", 100, 400), ("log", 100, 200), ("transform", 200, 250), ("insert", 250, 400)]
        );
        assert!(
            spans[1..]
                .iter()
                .all(|s| s.parent_span_id == spans[0].span_id && s.trace_id == spans[0].trace_id)
        );
        let failed =
            block(&BlockTimes { outcome: Err("the store is away".into()), received: u64::MAX, ..times });
        assert_eq!(failed[0].status.as_ref().unwrap().message, "the store is away");
        assert_eq!(
            failed[0].start_time_unix_nano, 200,
            "a clock of the edge that is ahead makes no span end before it starts"
        );
    }
}
