//! Lists page by page: spans, logs and traces newest first, services and operations and metrics by name; and a trace by id.

use std::collections::{HashMap, HashSet};

use super::cells::{DecodeError, Row, decode_all};
use super::walk::SliceWalk;
use super::{QueryError, Session, records};
use crate::backends::telemetry::queries::{logs, metrics, services, spans};
use crate::backends::telemetry::sql::Statement;
use crate::domain::query::answer::{
    List, LogRecord, MetricInfo, OperationSummary, ServiceSummary, Span, TraceAnswer, TraceSummary,
};
use crate::domain::query::cursor::Position;
use crate::domain::query::hex;
use crate::domain::query::request::{
    LogQuery, MetricListQuery, OperationQuery, Page, ServiceQuery, SpanQuery, TraceByIdQuery, TraceQuery,
};
use crate::domain::query::time::TimeRange;

/// Trace ids in one statement: they travel as a parameter, and that in a URL.
const IDS_PER_STATEMENT: usize = 500;

type TraceId = [u8; 16];

impl Session<'_> {
    /// A trace by id: its time range from the index first, then its spans from there.
    pub(super) async fn trace(&mut self, query: &TraceByIdQuery) -> Result<TraceAnswer, QueryError> {
        let id = query.trace_id;
        let unknown = || QueryError::NotFound(format!("no spans of trace {} are stored", hex::encode(&id)));
        let range = self.trace_range(&[id]).await?.ok_or_else(unknown)?;
        let batches = self.run(spans::trace(self.scope, id, range)).await?;
        let mut found = decode_all(&batches, records::span)?;
        if found.is_empty() {
            return Err(unknown());
        }
        let truncated = found.len() > spans::MAX_TRACE_SPANS;
        found.truncate(spans::MAX_TRACE_SPANS);
        Ok(TraceAnswer { trace_id: hex::encode(&id), spans: found, truncated, stats: self.stats })
    }

    pub(super) async fn spans(&mut self, query: &SpanQuery) -> Result<List<Span>, QueryError> {
        let scope = self.scope;
        let (filter, page) = (&query.filter, &query.page);
        let probe = |slice, need| spans::probe(scope, filter, slice, need);
        let rows = |range, need| spans::rows(scope, filter, range, page.after.as_ref(), need);
        if spans::is_narrow(filter) {
            let walk = if filter.service.is_some() { SliceWalk::in_order } else { SliceWalk::indexed };
            return self.newest_narrow(page, walk, rows, records::span).await;
        }
        self.newest(page, probe, rows, records::span).await
    }

    pub(super) async fn logs(&mut self, query: &LogQuery) -> Result<List<LogRecord>, QueryError> {
        let scope = self.scope;
        let (filter, page) = (&query.filter, &query.page);
        let probe = |slice, need| logs::probe(scope, filter, slice, need);
        let rows = |range, need| logs::rows(scope, filter, range, page.after.as_ref(), need);
        if filter.names_a_service() {
            return self.newest_narrow(page, SliceWalk::in_order, rows, records::log).await;
        }
        self.newest(page, probe, rows, records::log).await
    }

    /// Finds out how far back the page reaches by reading times only, then reads the whole rows of that stretch.
    async fn newest<T>(
        &mut self,
        page: &Page,
        probe: impl Fn(TimeRange, usize) -> Statement,
        rows: impl Fn(TimeRange, usize) -> Statement,
        decode: impl Fn(&Row<'_>) -> Result<T, DecodeError>,
    ) -> Result<List<T>, QueryError> {
        let need = page.limit as usize + 1;
        let older =
            TimeRange { end_ns: page.after.as_ref().map_or(page.range.end_ns, |a| a.ts_ns), ..page.range };
        let reached = self.reach(older, need, probe).await?;
        let (from, to, skipped) = match (&page.after, reached) {
            (None, None) => return Ok(List { items: vec![], next_cursor: None, stats: self.stats }),
            (None, Some(from)) => (from, page.range.end_ns, 0),
            (Some(after), reached) => {
                (reached.unwrap_or(after.ts_ns), after.ts_ns.saturating_add(1), after.skip as usize)
            }
        };
        let batches = self.run(rows(TimeRange { start_ns: from, end_ns: to }, need + skipped)).await?;
        Ok(self.cut(page, decode_all(&batches, |row| keyed(row, &decode))?))
    }

    /// Reads whole rows at once, slice by slice. For filters that the key or an index leads to: few rows are looked at that do not
    /// belong to the page, so that a statement more to look at times alone costs more than it saves. Mostly the first slice is all.
    async fn newest_narrow<T>(
        &mut self,
        page: &Page,
        walk: impl Fn(TimeRange) -> SliceWalk,
        rows: impl Fn(TimeRange, usize) -> Statement,
        decode: impl Fn(&Row<'_>) -> Result<T, DecodeError>,
    ) -> Result<List<T>, QueryError> {
        let skipped = page.after.as_ref().map_or(0, |after| after.skip as usize);
        let need = page.limit as usize + 1 + skipped;
        let end_ns = page.after.as_ref().map_or(page.range.end_ns, |after| after.ts_ns.saturating_add(1));
        let mut walk = walk(TimeRange { end_ns, ..page.range });
        let mut found = Vec::new();
        while let Some(slice) = walk.next_slice() {
            let batches = self.run(rows(slice, need - found.len())).await?;
            let before = found.len();
            found.extend(decode_all(&batches, |row| keyed(row, &decode))?);
            if found.len() >= need {
                break;
            }
            walk.found(found.len() - before, need - found.len());
        }
        Ok(self.cut(page, found))
    }

    /// Time of the oldest row that a page of `need` rows reaches to; `None` when nothing matches.
    async fn reach(
        &mut self,
        range: TimeRange,
        need: usize,
        probe: impl Fn(TimeRange, usize) -> Statement,
    ) -> Result<Option<i64>, QueryError> {
        let mut walk = SliceWalk::new(range);
        let (mut oldest, mut left) = (None, need);
        while let Some(slice) = walk.next_slice() {
            let batches = self.run(probe(slice, left)).await?;
            let times: Vec<i64> = decode_all(&batches, |row| row.int("ts_ns"))?;
            oldest = times.last().copied().or(oldest);
            left = left.saturating_sub(times.len());
            if left == 0 {
                break;
            }
            walk.found(times.len(), left);
        }
        Ok(oldest)
    }

    /// Drops what the page before has shown, keeps the page, and makes the cursor of the next one.
    fn cut<T>(&self, page: &Page, rows: Vec<((i64, Vec<u8>), T)>) -> List<T> {
        let shown =
            |key: &(i64, Vec<u8>)| page.after.as_ref().is_some_and(|a| a.ts_ns == key.0 && a.key == key.1);
        let skip = page.after.as_ref().map_or(0, |a| a.skip as usize);
        let repeated = rows.iter().take(skip).take_while(|(key, _)| shown(key)).count();
        let mut rest: Vec<((i64, Vec<u8>), T)> = rows.into_iter().skip(repeated).collect();
        let more = rest.len() > page.limit as usize;
        rest.truncate(page.limit as usize);
        let next_cursor = rest.last().filter(|_| more).map(|(last, _)| {
            let equal = rest.iter().rev().take_while(|(key, _)| key == last).count();
            // A page of nothing but rows equal to the last one shown goes on counting.
            let before = if shown(last) { repeated } else { 0 };
            let skip = u32::try_from(equal + before).unwrap_or(u32::MAX);
            page.next_cursor(Position { ts_ns: last.0, key: last.1.clone(), skip })
        });
        List { items: rest.into_iter().map(|(_, item)| item).collect(), next_cursor, stats: self.stats }
    }

    /// Traces by their newest matching span. A trace stands in the list once, on the page where that span lies.
    pub(super) async fn traces(&mut self, query: &TraceQuery) -> Result<List<TraceSummary>, QueryError> {
        let page = &query.page;
        let need = page.limit as usize + 1;
        let end_ns = page.after.as_ref().map_or(page.range.end_ns, |a| a.ts_ns.saturating_add(1));
        let mut walk = SliceWalk::new(TimeRange { end_ns, ..page.range });
        let (mut found, mut seen): (Vec<(i64, TraceId)>, HashSet<TraceId>) = Default::default();
        while let Some(slice) = walk.next_slice() {
            let mut wanted = need - found.len() + seen.len();
            // Traces that earlier pages showed fill the statement's limit; ask for more until the slice is used up.
            let fresh = loop {
                let (fresh, all) = self.traces_of_slice(query, slice, wanted, &seen).await?;
                if found.len() + fresh.len() >= need || all < wanted {
                    break fresh;
                }
                wanted = wanted.saturating_mul(4);
            };
            let count = fresh.len();
            seen.extend(fresh.iter().map(|(_, id)| *id));
            found.extend(fresh);
            if found.len() >= need {
                break;
            }
            walk.found(count, need - found.len());
        }
        found.truncate(need);
        let next_cursor = (found.len() == need).then(|| {
            found.pop();
            found
                .last()
                .map(|(ts_ns, id)| page.next_cursor(Position { ts_ns: *ts_ns, key: id.to_vec(), skip: 0 }))
        });
        let ids: Vec<TraceId> = found.iter().map(|(_, id)| *id).collect();
        Ok(List { items: self.summaries(&ids).await?, next_cursor: next_cursor.flatten(), stats: self.stats })
    }

    /// Matching traces of a slice that neither this page nor an earlier one has, and how many the statement returned.
    async fn traces_of_slice(
        &mut self,
        query: &TraceQuery,
        slice: TimeRange,
        wanted: usize,
        seen: &HashSet<TraceId>,
    ) -> Result<(Vec<(i64, TraceId)>, usize), QueryError> {
        let page = &query.page;
        let batches =
            self.run(spans::traces(self.scope, &query.filter, slice, page.after.as_ref(), wanted)).await?;
        let decode = |row: &Row<'_>| Ok((row.int::<i64>("newest_ns")?, row.fixed::<16>("trace_id")?));
        let mut traces: Vec<(i64, TraceId)> = decode_all(&batches, decode)?;
        let all = traces.len();
        traces.retain(|(_, id)| !seen.contains(id));
        if let Some(after) = &page.after {
            let ids: Vec<TraceId> = traces.iter().map(|(_, id)| *id).collect();
            let mut shown = HashSet::new();
            for ids in ids.chunks(IDS_PER_STATEMENT) {
                let statement = spans::traces_shown(self.scope, &query.filter, page.range, after, ids);
                shown.extend(decode_all(&self.run(statement).await?, |row| row.fixed::<16>("trace_id"))?);
            }
            traces.retain(|(_, id)| !shown.contains(id));
        }
        Ok((traces, all))
    }

    /// Where in time some traces lie, from the index; `None` when it knows none of them.
    async fn trace_range(&mut self, ids: &[TraceId]) -> Result<Option<TimeRange>, QueryError> {
        let batches = self.run(spans::trace_times(self.scope, ids)).await?;
        let decode = |row: &Row<'_>| {
            Ok((row.int::<u64>("found")?, row.int::<i64>("min_ns")?, row.int::<i64>("max_ns")?))
        };
        let times = decode_all(&batches, decode)?;
        let known = times.into_iter().find(|(found, _, _)| *found > 0);
        Ok(known.map(|(_, min, max)| TimeRange { start_ns: min, end_ns: max.saturating_add(1) }))
    }

    /// Summaries of traces in the order of `ids`.
    async fn summaries(&mut self, ids: &[TraceId]) -> Result<Vec<TraceSummary>, QueryError> {
        let mut found: HashMap<TraceId, TraceSummary> = HashMap::with_capacity(ids.len());
        for ids in ids.chunks(IDS_PER_STATEMENT) {
            let Some(range) = self.trace_range(ids).await? else { continue };
            let batches = self.run(spans::summaries(self.scope, ids, range)).await?;
            found.extend(decode_all(&batches, records::trace_summary)?);
        }
        Ok(ids.iter().filter_map(|id| found.remove(id)).collect())
    }

    pub(super) async fn services(
        &mut self,
        query: &ServiceQuery,
    ) -> Result<List<ServiceSummary>, QueryError> {
        let seconds = seconds(query.page.range);
        let statement = services::services(self.scope, query);
        self.named(&query.page, statement, |row| records::service(row, seconds)).await
    }

    pub(super) async fn operations(
        &mut self,
        query: &OperationQuery,
    ) -> Result<List<OperationSummary>, QueryError> {
        let seconds = seconds(query.page.range);
        let statement = services::operations(self.scope, query);
        self.named(&query.page, statement, |row| records::operation(row, seconds)).await
    }

    pub(super) async fn metric_list(
        &mut self,
        query: &MetricListQuery,
    ) -> Result<List<MetricInfo>, QueryError> {
        self.named(&query.page, metrics::list(self.scope, query), records::metric).await
    }

    /// A list in the order of its names.
    async fn named<T>(
        &mut self,
        page: &Page,
        statement: Statement,
        decode: impl Fn(&Row<'_>) -> Result<T, DecodeError>,
    ) -> Result<List<T>, QueryError> {
        let batches = self.run(statement).await?;
        let rows = decode_all(&batches, |row| Ok(((0, row.text("item")?.into_bytes()), decode(row)?)))?;
        Ok(self.cut(page, rows))
    }
}

/// A row with its place in the order of the list.
fn keyed<T>(
    row: &Row<'_>,
    decode: impl Fn(&Row<'_>) -> Result<T, DecodeError>,
) -> Result<((i64, Vec<u8>), T), DecodeError> {
    let key = (row.int::<i64>("ts_ns")?, row.int::<u64>("tie")?.to_be_bytes().to_vec());
    Ok((key, decode(row)?))
}

fn seconds(range: TimeRange) -> f64 {
    range.width() as f64 / 1e9
}
