//! One frame of `top`: the model and a size in, exactly that many lines out. Pure.

use serde_json::Value;

use super::model::{Model, Row, Sort};
use super::pressure::{self, Mark};
use crate::cli::look::figures::{bar, brokers, bytes_of, count, fill_style, latency, losses, span};
use crate::cli::look::nodes::{Lane, Node};
use crate::cli::look::text::{Line, Style};
use crate::cli::tree::mark;

/// From this width on there is room for a column of words.
const WIDE: usize = 130;

/// The frame, `height` lines.
pub(crate) fn frame(model: &Model, width: usize, height: usize) -> Vec<Line> {
    let marks = pressure::path(&model.now.root);
    let mut lines = header(model, width);
    match pressure::sentence(&marks) {
        Some(path) => lines.push(said(&format!("pressure  {path}"), Style::Bad)),
        None => lines.push(said("pressure  none: every lane has room", Style::Dim)),
    }
    lines.push(titles(width));
    let events = if model.events_shown { (height / 4).clamp(3, 12) } else { 0 };
    let below = events + 2;
    let room = height.saturating_sub(lines.len() + below).max(1);
    let rows = model.rows();
    let cursor = model.cursor(&rows);
    // The window follows the cursor.
    let first = (cursor + 1).saturating_sub(room);
    for (n, row) in rows.iter().enumerate().skip(first).take(room) {
        let line = row_of(model, row, pressure::mark_of(&marks, &row.node.path), width);
        lines.push(if n == cursor { line.all(Style::Picked) } else { line });
    }
    lines.resize_with(height.saturating_sub(below).max(lines.len()), Line::new);
    lines.push(about(rows.get(cursor).map(|row| row.node), model.now.wall_ns));
    lines.extend(pane(model, events));
    lines.push(footer(model, rows.len(), first + room < rows.len()));
    lines.truncate(height);
    lines
}

fn said(text: &str, style: Style) -> Line {
    let mut line = Line::new();
    line.push(text, style);
    line
}

fn header(model: &Model, width: usize) -> Vec<Line> {
    let root = &model.now.root;
    let mut first = Line::new();
    first.push("obtrace top  ", Style::Bold).push(&model.api, Style::Plain);
    match &model.trouble {
        Some(why) => drop(first.push(format!("  ✖ {why}"), Style::Bad)),
        None if root.state.is_empty() => drop(first.push("  looking …", Style::Dim)),
        None => {
            let down: Vec<String> =
                ["degraded", "backing_off", "quarantined", "starting", "draining", "drained", "paused"]
                    .into_iter()
                    .map(|state| (state, root.count_of(state)))
                    .filter(|(_, n)| *n > 0)
                    .map(|(state, n)| format!("{n} {}", state.replace('_', " ")))
                    .collect();
            let (word, style) = match down.is_empty() {
                true => ("● all at work".to_owned(), Style::Good),
                false => (format!("◐ {}", down.join(" · ")), Style::Warn),
            };
            first.push("  ", Style::Plain).push(word, style);
            first.push(format!("  up {}", span(root.since_s)), Style::Dim);
        }
    }
    let clock = format!("{}Z", clock(model.now.wall_ns));
    if first.width() + clock.len() + 2 <= width {
        first.fill(width - clock.len()).push(clock, Style::Dim);
    }
    let rate = |reading: fn(&super::model::Look) -> f64| {
        model.per_second(reading).map_or("–".to_owned(), |rate| format!("{}/s", count(rate)))
    };
    let mut second = Line::new();
    second.push("ingest ", Style::Dim).push(rate(|look| look.readings.ingested), Style::Bold);
    second.push("  stored ", Style::Dim).push(rate(|look| look.readings.stored), Style::Bold);
    let p99 = model.ack_p99().map_or("–".to_owned(), |p99| match p99.is_finite() {
        true => format!("≤{}", latency(p99)),
        false => "over all bounds".to_owned(),
    });
    second.push("  acks p99 ", Style::Dim).push(p99, Style::Bold);
    let lag = root.walk().iter().filter_map(|node| node.gauges.get("lag")).sum::<f64>();
    second.push("  lag ", Style::Dim).push(count(lag), Style::Bold);
    let restarts = root.total_restarts();
    let style = if restarts > 0 { Style::Warn } else { Style::Bold };
    second.push("  restarts ", Style::Dim).push(restarts.to_string(), style);
    let dead = model.now.readings.dead;
    let style = if dead > 0.0 { Style::Warn } else { Style::Bold };
    second.push("  dead letters ", Style::Dim).push(count(dead), style);
    if let Some(words) = root.walk().into_iter().find_map(brokers) {
        second.push(format!("  {words}"), Style::Plain);
    }
    if model.paused {
        second.push("  STANDING STILL (p)", Style::Note);
    }
    vec![first, second]
}

/// Widths of the columns at `width`; what is left over goes to the words.
struct Columns {
    name: usize,
    bar: usize,
    words: usize,
}

/// Cells of everything but the name, the bars and the words.
const FIXED: usize = 2 + 2 + 12 + 4 + 10 + 12 + 8 + 6 + 5 + 7;

impl Columns {
    fn of(width: usize) -> Self {
        let bar = if width >= 116 { 8 } else { 3 };
        let left = width.saturating_sub(FIXED + 2 * bar);
        let name = left.clamp(20, 34);
        let words = if width >= WIDE { left.saturating_sub(name) } else { 0 };
        Self { name, bar, words }
    }
}

fn titles(width: usize) -> Line {
    let columns = Columns::of(width);
    let mut line = Line::new();
    line.push("  ", Style::Dim).cell("NODE", columns.name, Style::Dim).push("  ", Style::Dim);
    line.cell("STATE", 12, Style::Dim).right("GEN", 4, Style::Dim);
    line.push(" ", Style::Dim).cell("MESSAGES", columns.bar + 9, Style::Dim);
    line.push(" ", Style::Dim).cell("BYTES", columns.bar + 11, Style::Dim);
    line.right("HANDLED", 8, Style::Dim).right("BUSY", 6, Style::Dim).right("RST", 5, Style::Dim);
    line.right("LAG", 7, Style::Dim);
    if columns.words > 0 {
        line.push("  WHY", Style::Dim);
    }
    line
}

fn row_of(model: &Model, row: &Row<'_>, pressure: Option<Mark>, width: usize) -> Line {
    let (node, columns) = (row.node, Columns::of(width));
    let mut line = Line::new();
    match pressure {
        Some(Mark::Full) => line.push("▲ ", Style::Bad),
        Some(Mark::Waits) => line.push("│ ", Style::Bad),
        Some(Mark::Spared) => line.push("┊ ", Style::Dim),
        None => line.push("  ", Style::Plain),
    };
    let sign = match (row.closed, node.children.is_empty()) {
        (true, _) => "▸ ",
        (false, false) => "▾ ",
        (false, true) => "  ",
    };
    let name = if model.sort == Sort::Tree || node.path.is_empty() { &node.name } else { &node.path };
    let members = if row.closed { format!(" ×{}", node.members()) } else { String::new() };
    let title = format!("{}{sign}{name}{members}", "  ".repeat(row.depth));
    line.cell(title, columns.name, if node.children.is_empty() { Style::Plain } else { Style::Bold });
    let state = if row.closed { node.worst() } else { node.shown_state() };
    let (sign, style) = mark(state);
    line.push(format!(" {sign}"), style).cell(state.replace('_', " "), 12, style);
    line.right(node.generation.to_string(), 4, Style::Dim);
    let lanes = if row.closed { node.own_lanes() } else { node.lanes.iter().collect() };
    lane_of(&mut line, lanes.into_iter().max_by(|a, b| a.fill().total_cmp(&b.fill())), columns.bar);
    let works = row.closed || node.children.is_empty();
    let rate = model.rate(&node.path).filter(|_| works).map(|rate| format!("{}/s", count(rate)));
    line.right(rate.unwrap_or_default(), 8, Style::Plain);
    let busy = node.busy().filter(|_| works);
    let style = if busy.is_some_and(|busy| busy >= 0.9) { Style::Warn } else { Style::Plain };
    line.right(busy.map(|busy| format!("{:.0}%", busy * 100.0)).unwrap_or_default(), 6, style);
    let restarts = if row.closed { node.total_restarts() } else { node.restarts };
    let style = if restarts > 0 { Style::Warn } else { Style::Dim };
    line.right(restarts.to_string(), 5, style);
    line.right(node.gauge("lag").map(count).unwrap_or_default(), 7, Style::Plain);
    if columns.words > 0 {
        line.push("  ", Style::Plain).push(why(node), Style::Warn);
    }
    line
}

fn lane_of(line: &mut Line, lane: Option<&Lane>, bars: usize) {
    let Some(lane) = lane else {
        line.push(" ".repeat(bars * 2 + 9 + 11 + 2), Style::Plain);
        return;
    };
    let (messages, bytes) = (lane.fill_messages(), lane.fill_bytes());
    line.push(" ", Style::Plain).push(bar(messages, bars), fill_style(messages));
    line.cell(format!(" {}/{}", lane.resident(), lane.capacity), 9, fill_style(messages));
    line.push(" ", Style::Plain).push(bar(bytes, bars), fill_style(bytes));
    line.cell(format!(" {}", bytes_of(lane.bytes, lane.capacity_bytes)), 11, fill_style(bytes));
}

/// What an operator wants to know of a node that is not simply well, in a few words.
fn why(node: &Node) -> String {
    let members = node.walk();
    let mut words: Vec<String> = Vec::new();
    words.extend(node.open_breaker().map(|state| format!("breaker {state}")));
    words.extend(members.iter().find_map(|node| node.degraded.clone()));
    let left = members.iter().find_map(|node| node.quarantine_left_s);
    words.extend(left.map(|left| format!("probe in {}", span(left.ceil() as u64))));
    if words.is_empty() && node.children.is_empty() {
        words.extend(node.last_failure.clone().map(|why| format!("last: {why}")));
    }
    words.join(", ")
}

/// The row under the cursor in full.
fn about(node: Option<&Node>, now_ns: u64) -> Line {
    let mut line = Line::new();
    let Some(node) = node else { return line };
    let path = if node.path.is_empty() { "root" } else { &node.path };
    line.push(path, Style::Bold);
    if !node.strategy.is_empty() {
        line.push(format!("  {}", node.strategy), Style::Dim);
    }
    if let Some(window) = node.window {
        let period = span(window.period_s.round() as u64);
        line.push(format!("  window {}/{} in {period}", window.spent, window.intensity), Style::Dim);
    }
    line.push(format!("  {} for {}", node.shown_state().replace('_', " "), span(node.since_s)), Style::Dim);
    for (name, value) in &node.gauges {
        line.push(format!("  {name} {}", count(*value)), Style::Dim);
    }
    node.lanes.iter().for_each(|lane| losses(&mut line, lane));
    if let Some(cause) = &node.degraded {
        line.push(format!("  cause: {cause}"), Style::Warn);
    }
    if let Some(failure) = &node.last_failure {
        let ago = node
            .last_failure_at
            .map(|at| format!(" {} ago", span(now_ns.saturating_sub(at) / 1_000_000_000)));
        line.push(format!("  last failure{}: {failure}", ago.unwrap_or_default()), Style::Warn);
    }
    line
}

fn pane(model: &Model, height: usize) -> Vec<Line> {
    let newest = model.events.iter().rev().take(height).collect::<Vec<_>>();
    let mut lines: Vec<Line> = newest.into_iter().rev().map(event_line).collect();
    if height > 0 && lines.is_empty() {
        lines.push(said("no events yet", Style::Dim));
    }
    lines.resize_with(height, Line::new);
    lines
}

/// One event: when, who, what, and whatever else it carries.
pub(crate) fn event_line(event: &Value) -> Line {
    let what = event["event"].as_str().unwrap_or("?");
    let style = match what {
        "launched" | "ready" | "recovered" | "resumed" | "probing" => Style::Good,
        "exited" | "escalated" | "quarantined" | "stalled" | "condemned" | "forced" | "poisoned"
        | "dropped" => Style::Bad,
        "degraded" | "restart_planned" | "breaker" | "paused" => Style::Warn,
        _ => Style::Note,
    };
    let path = event["path"].as_str().filter(|path| !path.is_empty()).unwrap_or("root");
    let mut line = Line::new();
    line.push(clock(event["at_unix_ns"].as_u64().unwrap_or_default()), Style::Dim);
    line.push(format!(" {what:<15} "), style).push(path, Style::Plain);
    line.push(format!(" gen {}", event["generation"]), Style::Dim);
    let known = ["seq", "at_unix_ns", "path", "generation", "event"];
    let more = event.as_object().into_iter().flatten().filter(|(key, value)| {
        !known.contains(&key.as_str()) && !value.is_null() && value.as_str() != Some("")
    });
    for (key, value) in more {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        line.push(format!("  {}: {value}", key.replace('_', " ")), Style::Plain);
    }
    line
}

fn footer(model: &Model, rows: usize, more: bool) -> Line {
    let mut line = Line::new();
    let below = if more { "  ↓ more below" } else { "" };
    line.push(
        format!(
            "q quit  ↑↓ move  ←→ close, open  s sort: {}  p pause  e events   {rows} rows{below}",
            model.sort.name()
        ),
        Style::Dim,
    );
    line
}

/// Hours, minutes and seconds of a wall time, UTC.
fn clock(unix_ns: u64) -> String {
    let seconds = unix_ns / 1_000_000_000 % 86_400;
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::top::model::{Key, Look};
    use crate::cli::top::readings::Readings;
    use serde_json::json;
    use std::time::Duration;

    fn model(queued: u64) -> Model {
        let lane = json!({"name": "store.writer", "queued": queued, "capacity": 64, "bytes": 212 << 20,
            "capacity_bytes": 256 << 20});
        let member = |n: u64| {
            json!({"path": format!("store.writer.{n}"), "name": n.to_string(), "kind": "worker",
            "state": if n == 2 { "backing_off" } else { "running" }, "generation": n, "handled": 10 * n,
            "busy_ratio": 0.5, "restarts": n - 1, "lanes": [lane], "last_failure": if n == 2 { "panicked at x" } else { "" }})
        };
        let root = json!({"path": "", "name": "root", "kind": "supervisor", "state": "running", "since_s": 90,
            "children": [
                {"path": "store", "name": "store", "kind": "supervisor", "state": "running", "children": [
                    {"path": "store.writer", "name": "writer", "kind": "supervisor", "state": "running",
                     "strategy": "one_for_one", "generation": 1, "children": [member(1), member(2)]}]},
                {"path": "process", "name": "process", "kind": "supervisor", "state": "running", "children": [
                    {"path": "process.otlp", "name": "otlp", "kind": "worker", "state": "running", "generation": 1}]}]});
        let mut model = Model::new("http://127.0.0.1:8080");
        for (at, ingested) in [(1_u64, 0.0), (2, 12_300.0)] {
            model.seen(Look {
                at: Duration::from_secs(at),
                wall_ns: (86_400 + 3_600 + 5) * 1_000_000_000 + at,
                root: serde_json::from_value(root.clone()).unwrap(),
                readings: Readings { ingested, ..Readings::default() },
            });
        }
        let event = json!({"seq": 1, "at_unix_ns": 0, "path": "store.writer.2", "generation": 2, "event": "exited",
            "reason": "panicked", "class": null, "detail": "at x"});
        model.happened(&json!({"events": [event]}));
        model
    }

    fn drawn(model: &Model, width: usize, height: usize) -> Vec<String> {
        frame(model, width, height).iter().map(|line| line.render(width, false)).collect()
    }

    #[test]
    fn a_frame_is_as_large_as_the_terminal_whatever_that_is() {
        for (width, height) in [(100, 30), (160, 45), (80, 24), (20, 5), (1, 1), (300, 100)] {
            for events in [true, false] {
                let mut model = model(61);
                model.events_shown = events;
                let lines = frame(&model, width, height);
                assert_eq!(lines.len(), height, "{width}x{height}");
                assert!(lines.iter().all(|line| line.render(width, false).chars().count() <= width));
            }
        }
        assert_eq!(frame(&Model::new("http://x"), 100, 30).len(), 30);
    }

    #[test]
    fn at_100_cells_nothing_that_counts_is_cut() {
        let lines = drawn(&model(61), 100, 30);
        let all = lines.join("\n");
        for part in [
            "ingest 12.3k/s",
            "◐ 1 backing off",
            "up 1m30s",
            "01:00:05Z",
            "61/64",
            "212/256MiB",
            "restarts 1",
        ] {
            assert!(all.contains(part), "{part} in\n{all}");
        }
        let row = lines.iter().find(|line| line.contains("writer ×2")).unwrap();
        assert!(row.starts_with('▲') && row.contains("backing off") && row.contains("50%"), "{row}");
        assert!(!row.contains('…'), "{row}");
        assert!(all.contains("store.writer FULL ← process.otlp waits"), "{all}");
        let waits = lines.iter().find(|line| line.contains("otlp") && line.starts_with('│'));
        assert!(waits.is_some(), "{all}");
        assert!(
            all.contains("exited          store.writer.2 gen 2  detail: at x  reason: panicked"),
            "{all}"
        );
        assert!(drawn(&model(5), 100, 30).join("\n").contains("pressure  none"));
    }

    #[test]
    fn a_log_at_brokers_has_its_figures_above() {
        let mut model = model(5);
        let keeper = json!({"path": "broker_out.retention", "name": "retention", "kind": "worker",
            "state": "running", "gauges": {"queued_bytes": 2048, "rebalances": 4}});
        model.now.root.children.push(serde_json::from_value(keeper).unwrap());
        assert!(drawn(&model, 160, 45)[1].contains("brokers 2KiB queued · 4 rebalances"));
    }

    #[test]
    fn a_wide_frame_says_why_and_the_cursor_tells_all_of_its_row() {
        let mut model = model(61);
        (0..2).for_each(|_| assert!(model.press(Key::Down)));
        model.press(Key::Open);
        (0..2).for_each(|_| assert!(model.press(Key::Down)));
        let lines = drawn(&model, 160, 45);
        assert!(lines.iter().any(|line| line.contains("last: panicked at x")), "{lines:#?}");
        assert!(lines.iter().any(|line| line.starts_with("store.writer.2  backing off for")), "{lines:#?}");
    }

    #[test]
    fn members_that_are_not_listed_are_seen_where_they_are_not_well() {
        let mut model = model(5);
        let crowd = json!({"members": 900, "shown": 1, "states": {"running": 897, "quarantined": 3}});
        let group = json!({"path": "ingest.sessions", "name": "sessions", "kind": "group", "state": "running",
            "crowd": crowd, "children": [{"path": "ingest.sessions.a", "name": "a", "kind": "worker", "state": "running"}]});
        model.now.root.children.push(serde_json::from_value(group).unwrap());
        let lines = drawn(&model, 120, 45);
        assert!(lines[0].contains("◐ 1 backing off · 3 quarantined"), "{}", lines[0]);
        let row = lines.iter().find(|line| line.contains("sessions ×900")).unwrap();
        assert!(row.contains("✖quarantined"), "{row}");
    }

    #[test]
    fn what_was_dropped_is_told_of_a_lane_and_stands_out_among_the_events() {
        let mut model = model(5);
        model.now.root.children[1].children[0].lanes =
            serde_json::from_value(json!([{"name": "l", "poisoned": 3, "dropped": 2}])).unwrap();
        model.picked = "process.otlp".into();
        let lines = drawn(&model, 160, 45);
        let about = lines.iter().find(|line| line.starts_with("process.otlp  running")).unwrap();
        assert!(about.contains("  poisoned 3  dropped 2"), "{about}");
        let styled = |event: &str| event_line(&json!({"event": event, "generation": 1})).render(200, true);
        for event in ["poisoned", "dropped"] {
            assert!(styled(event).contains(&format!("\x1b[1;31m {event} ")), "{}", styled(event));
        }
    }

    #[test]
    fn the_window_follows_the_cursor() {
        let mut model = model(61);
        model.events_shown = false;
        (0..4).for_each(|_| assert!(model.press(Key::Down)));
        let lines = drawn(&model, 100, 9);
        assert!(lines.iter().any(|line| line.contains("otlp") && line.contains("running")), "{lines:#?}");
        assert!(!lines.iter().any(|line| line.contains("▾ root")), "{lines:#?}");
    }
}
