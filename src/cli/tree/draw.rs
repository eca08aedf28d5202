//! The tree as lines: nodes in, one line a node out, the long words last so that a narrow terminal cuts only these.

use crate::cli::look::figures::{brokers, bytes_of, count, fill_style, losses, span};
use crate::cli::look::nodes::{Lane, Node};
use crate::cli::look::text::{Line, Paper, Style};

/// Members of a crowd that are named when they do not simply run.
const NAMED: usize = 3;

/// The whole tree.
pub(super) fn draw(root: &Node, all: bool, now_ns: u64, paper: Paper) -> String {
    let mut rows = Vec::new();
    collect(&mut rows, "", "", root, all);
    let width = rows.iter().map(|row| row.title.chars().count()).max().unwrap_or_default();
    rows.iter().map(|row| row.line(width, all, now_ns).render(paper.width, paper.colour) + "\n").collect()
}

struct Row<'t> {
    title: String,
    node: &'t Node,
}

fn collect<'t>(rows: &mut Vec<Row<'t>>, indent: &str, branch: &str, node: &'t Node, all: bool) {
    let crowd = node.is_crowd() && !all;
    let replicas =
        if crowd && node.kind != "group" { format!(" ×{}", node.members()) } else { String::new() };
    rows.push(Row { title: format!("{indent}{branch}{}{replicas}", node.name), node });
    if crowd {
        return;
    }
    let below = match branch {
        "" => String::new(),
        "└─ " => format!("{indent}   "),
        _ => format!("{indent}│  "),
    };
    for (n, child) in node.children.iter().enumerate() {
        let branch = if n + 1 == node.children.len() { "└─ " } else { "├─ " };
        collect(rows, &below, branch, child, all);
    }
}

/// Mark and style of a state.
pub(in crate::cli) fn mark(state: &str) -> (&'static str, Style) {
    match state {
        "running" => ("●", Style::Good),
        "degraded" => ("◐", Style::Warn),
        "paused" => ("‖", Style::Note),
        "starting" => ("◌", Style::Note),
        "draining" => ("▽", Style::Note),
        "drained" => ("▽", Style::Warn),
        "backing_off" => ("↻", Style::Bad),
        "quarantined" => ("✖", Style::Bad),
        _ => ("○", Style::Dim),
    }
}

impl Row<'_> {
    fn line(&self, width: usize, all: bool, now_ns: u64) -> Line {
        let node = self.node;
        let crowd = node.is_crowd() && !all;
        let mut line = Line::new();
        line.cell(&self.title, width + 2, if node.children.is_empty() { Style::Plain } else { Style::Bold });
        let state = if crowd { node.worst() } else { node.shown_state() };
        let (sign, style) = mark(state);
        line.push(sign, style).push(" ", Style::Plain);
        let words = if (crowd || node.crowd.is_some()) && !node.children.is_empty() {
            node.census()
        } else {
            state.replace('_', " ")
        };
        line.cell(&words, words.chars().count().max(11), style);
        if !node.path.is_empty() {
            line.push(format!("  gen {:<3}", node.generation), Style::Dim);
        }
        figures(&mut line, node, crowd);
        if crowd {
            strays(&mut line, node);
        }
        reasons(&mut line, node, crowd, now_ns);
        line
    }
}

fn figures(line: &mut Line, node: &Node, crowd: bool) {
    if !node.strategy.is_empty() {
        line.push(format!("  {}", node.strategy), Style::Dim);
        if let Some(window) = node.window {
            let period = span(window.period_s.round() as u64);
            let style = if window.spent > 0 { Style::Warn } else { Style::Dim };
            line.push(format!("  {}/{} in {period}", window.spent, window.intensity), style);
        }
    }
    if node.path.is_empty() {
        line.push(format!("  up {}", span(node.since_s)), Style::Dim);
    }
    let restarts = if crowd { node.total_restarts() } else { node.restarts };
    if restarts > 0 {
        line.push(format!("  restarts {restarts}"), Style::Warn);
    }
    let lanes = if crowd { node.own_lanes() } else { node.lanes.iter().collect() };
    for lane in lanes {
        lane_of(line, lane);
    }
    if let Some(lag) = node.gauge("lag").filter(|lag| *lag > 0.0) {
        line.push(format!("  lag {}", count(lag)), Style::Note);
    }
    if node.children.is_empty()
        && let Some(words) = brokers(node)
    {
        line.push(format!("  {words}"), Style::Plain);
    }
    if let Some(breaker) = node.open_breaker().filter(|_| crowd || node.children.is_empty()) {
        line.push(format!("  breaker {breaker}"), Style::Bad);
    }
}

fn lane_of(line: &mut Line, lane: &Lane) {
    let bytes = bytes_of(lane.bytes, lane.capacity_bytes);
    line.push(format!("  lane {}/{} {bytes}", lane.resident(), lane.capacity), fill_style(lane.fill()));
    losses(line, lane);
}

/// Members of a crowd that do not simply run, the first few of them by name.
fn strays(line: &mut Line, node: &Node) {
    let strays: Vec<&Node> = node
        .children
        .iter()
        .filter(|child| !["running", "degraded"].contains(&child.shown_state()))
        .collect();
    if strays.is_empty() {
        return;
    }
    let mut words: Vec<String> = strays.iter().take(NAMED).map(|stray| about(stray)).collect();
    if strays.len() > NAMED {
        words.push(format!("{} more: --all", strays.len() - NAMED));
    }
    line.push(format!("  ({})", words.join("; ")), Style::Bad);
}

fn about(stray: &Node) -> String {
    let mut words = vec![stray.name.clone()];
    if stray.state == "quarantined" {
        let left = stray.quarantine_left_s.map(|left| format!("probe in {}", span(left.ceil() as u64)));
        words.extend(left);
    } else {
        words.push(stray.shown_state().replace('_', " "));
    }
    words.extend(stray.last_failure.clone());
    words.join(", ")
}

/// The words: why it is degraded, why it failed last and when.
fn reasons(line: &mut Line, node: &Node, crowd: bool, now_ns: u64) {
    if let Some(left) = node.quarantine_left_s {
        line.push(format!("  probe in {}", span(left.ceil() as u64)), Style::Bad);
    }
    let members = if crowd { node.children.as_slice() } else { &[] };
    let cause = std::iter::once(node).chain(members).find_map(|node| node.degraded.as_ref());
    if let Some(cause) = cause {
        line.push(format!("  cause: {cause}"), Style::Warn);
    }
    let failed = std::iter::once(node).chain(members).filter(|node| node.last_failure.is_some());
    if let Some(last) = failed.max_by_key(|node| node.last_failure_at) {
        let when = last
            .last_failure_at
            .map(|at| format!(" {} ago", span(now_ns.saturating_sub(at) / 1_000_000_000)));
        let why = last.last_failure.as_deref().unwrap_or_default();
        line.push(format!("  last failure{}: {why}", when.unwrap_or_default()), Style::Dim);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::look::nodes::{SNAPSHOT_VERSION, read};
    use serde_json::{Value, json};

    fn worker(path: &str, more: Value) -> Value {
        let name = path.rsplit('.').next().unwrap();
        let mut node =
            json!({"path": path, "name": name, "kind": "worker", "state": "running", "generation": 1});
        more.as_object().unwrap().iter().for_each(|(key, value)| node[key] = value.clone());
        node
    }

    fn lane(name: &str, queued: u64, capacity: u64) -> Value {
        json!({"name": name, "queued": queued, "leased": 0, "capacity": capacity, "bytes": 212 << 20,
            "capacity_bytes": 256 << 20})
    }

    fn tree() -> Node {
        let broken = json!({"state": "degraded", "lanes": [lane("store.writer", 61, 64)], "degraded": "timeout",
            "breaker": "open", "last_failure": "panicked at x", "last_failure_at": 40_000_000_000_u64, "restarts": 2});
        let writers = json!({"path": "store.writer", "name": "writer", "kind": "supervisor", "state": "running",
            "generation": 1, "strategy": "one_for_one", "children":
                [worker("store.writer.1", broken), worker("store.writer.2", json!({"lanes": [lane("store.writer", 61, 64)]}))]});
        let mut members: Vec<Value> =
            (0..48).map(|n| worker(&format!("consumers.t-{n}"), json!({"gauges": {"lag": 100}}))).collect();
        members.push(worker(
            "consumers.t-48",
            json!({"state": "quarantined", "quarantine_left_s": 129.5,
            "last_failure": "poison"}),
        ));
        let root = json!({"path": "", "name": "root", "kind": "supervisor", "state": "running", "generation": 1,
            "since_s": 273_600, "strategy": "rest_for_one", "window": {"spent": 0, "intensity": 3, "period_s": 300.0},
            "children": [writers, {"path": "consumers", "name": "consumers", "kind": "group", "state": "running",
                "generation": 1, "strategy": "one_for_one", "children": members}]});
        read(&json!({"version": SNAPSHOT_VERSION, "root": root})).unwrap()
    }

    fn drawn(all: bool, width: usize) -> Vec<String> {
        let paper = Paper { width, colour: false };
        draw(&tree(), all, 52_000_000_000, paper).lines().map(str::to_owned).collect()
    }

    #[test]
    fn crowds_take_one_line_that_names_who_is_not_well() {
        let rows = drawn(false, usize::MAX);
        assert_eq!(rows.len(), 3, "{rows:#?}");
        assert!(
            rows[0].starts_with("root ") && rows[0].contains("rest_for_one  0/3 in 5m  up 3d04h"),
            "{}",
            rows[0]
        );
        let parts = [
            "├─ writer ×2  ◐ 1 degraded · 1 running",
            "lane 61/64 212/256MiB",
            "breaker open",
            "restarts 2",
            "cause: timeout",
            "last failure 12s ago: panicked at x",
        ];
        for part in parts {
            assert!(rows[1].contains(part), "{part} in {}", rows[1]);
        }
        assert_eq!(rows[1].matches("lane ").count(), 1, "a shared lane is shown once: {}", rows[1]);
        for part in
            ["└─ consumers", "48 running · 1 quarantined", "(t-48, probe in 2m10s, poison)", "lag 4800"]
        {
            assert!(rows[2].contains(part), "{part} in {}", rows[2]);
        }
    }

    #[test]
    fn a_log_at_brokers_tells_what_is_on_its_way_and_what_went_wrong() {
        let gauges = json!({"gauges": {"queued_bytes": 2 << 20, "delivery_errors": 3, "rebalances": 0}});
        let node: Node = serde_json::from_value(worker("broker_out.retention", gauges)).unwrap();
        assert_eq!(brokers(&node).unwrap(), "brokers 2MiB queued · 3 not delivered");
        assert_eq!(brokers(&tree()), None);
    }

    #[test]
    fn all_shows_every_member_and_a_narrow_terminal_cuts_only_the_words() {
        let rows = drawn(true, 72);
        assert_eq!(rows.len(), 3 + 2 + 49);
        assert!(rows.iter().all(|row| row.chars().count() <= 72));
        assert!(rows[2].starts_with("│  ├─ 1") && rows[2].ends_with('…'), "{}", rows[2]);
        assert!(rows[2].contains("lane 61/64"), "{}", rows[2]);
    }

    #[test]
    fn a_group_of_thousands_is_told_in_figures() {
        let shown: Vec<Value> =
            (0..20).map(|n| worker(&format!("ingest.sessions.http-{n}"), json!({}))).collect();
        let crowd = json!({"members": 12_347, "shown": 20, "left_out": 12_327, "handled": 5, "restarts": 0,
            "states": {"running": 12_345, "draining": 2}, "lane": lane("", 3, 1000), "gauges": {"requests": 7.0}});
        let node = json!({"path": "ingest.sessions", "name": "sessions", "kind": "group", "state": "running",
            "generation": 1, "strategy": "one_for_one", "crowd": crowd, "children": shown});
        let mut root = read(&json!({"version": SNAPSHOT_VERSION, "root": node})).unwrap();
        let paper = Paper { width: usize::MAX, colour: false };
        let text = draw(&root, false, 0, paper);
        assert!(text.contains("12,345 running · 2 draining (first 20 shown)"), "{text}");
        assert!(text.contains("lane 3/1000"), "{text}");
        assert!(text.contains("▽ 12,345"), "the two that drain are not listed, and are seen: {text}");
        assert_eq!((root.total_handled(), root.gauge("requests"), root.members()), (5, Some(7.0), 12_347));
        let all = draw(&root, true, 0, paper);
        assert!(all.lines().count() == 21 && all.contains("(first 20 shown)"), "{all}");
        root.crowd.as_mut().unwrap().lane.as_mut().unwrap().dropped = 4;
        assert!(draw(&root, false, 0, paper).contains("lane 3/1000 212/256MiB  dropped 4"));
    }

    #[test]
    fn another_version_is_refused_with_what_to_do() {
        let error = read(&json!({"version": 99, "root": {}})).unwrap_err();
        assert!(error.contains("version 99") && error.contains("--json"), "{error}");
    }
}
