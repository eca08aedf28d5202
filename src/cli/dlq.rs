//! `obtrace dlq`: the dead letters of a running Obtrace: which there are, what is in one, and putting them back.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::look::figures::{bytes, span};
use super::look::text::{Line, Paper, Style};
use super::remote::Remote;
use crate::clock;

/// What is done with the dead letters.
#[derive(Debug, Args)]
pub(super) struct DlqArgs {
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    command: DlqCommand,
}

#[derive(Debug, Subcommand)]
enum DlqCommand {
    /// Dead letters, newest first
    List {
        #[command(flatten)]
        filter: Filter,
        /// How many
        #[arg(long, default_value_t = 50)]
        limit: usize,
        /// Go on below this id
        #[arg(long, value_name = "ID")]
        cursor: Option<u64>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// One letter: its headers, and its payload as OTLP/JSON
    Show {
        /// Id of the letter
        id: u64,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Puts letters back into their source topics, where they are processed again
    Replay {
        /// Ids of the letters
        #[arg(
            required_unless_present_any = ["all", "reason", "tenant", "signal", "class"],
            conflicts_with_all = ["all", "reason", "tenant", "signal", "class"],
        )]
        ids: Vec<u64>,
        /// All there are
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        filter: Filter,
        /// Only say which ones
        #[arg(long)]
        dry_run: bool,
    },
}

/// Which letters.
#[derive(Debug, Clone, Default, Args)]
struct Filter {
    /// Of this tenant
    #[arg(long)]
    tenant: Option<String>,
    /// Of this signal: traces, logs or metrics
    #[arg(long)]
    signal: Option<String>,
    /// Of this class: unreadable, unfit, refused, panic, killed or hang
    #[arg(long)]
    class: Option<String>,
    /// Whose reason holds this text
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

pub(super) async fn run(args: DlqArgs) -> ExitCode {
    let paper = Paper::of_stdout(false);
    let done = match args.command {
        DlqCommand::List { filter, limit, cursor, json } => {
            list(&args.remote, &filter, limit, cursor, json, paper).await
        }
        DlqCommand::Show { id, json } => show(&args.remote, id, json, paper).await,
        DlqCommand::Replay { ids, filter, dry_run, .. } => {
            replay(&args.remote, &ids, &filter, dry_run, paper).await
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("obtrace: {why}");
            ExitCode::FAILURE
        }
    }
}

impl Filter {
    fn pairs(&self) -> impl Iterator<Item = (&'static str, &String)> {
        let all = [
            ("tenant", &self.tenant),
            ("signal", &self.signal),
            ("class", &self.class),
            ("reason", &self.reason),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?)))
    }
}

async fn list(
    remote: &Remote,
    filter: &Filter,
    limit: usize,
    mut cursor: Option<u64>,
    as_json: bool,
    paper: Paper,
) -> Result<(), String> {
    let (mut items, now) = (Vec::new(), clock::unix_nanos());
    loop {
        let mut query = vec![("limit".to_owned(), (limit - items.len()).clamp(1, 1000).to_string())];
        query.extend(filter.pairs().map(|(name, value)| (name.to_owned(), value.clone())));
        query.extend(cursor.map(|cursor| ("cursor".to_owned(), cursor.to_string())));
        let page = remote.get_with("/admin/dlq", &query).await?;
        items.extend(page["items"].as_array().cloned().unwrap_or_default());
        cursor = page["next_cursor"].as_u64();
        if cursor.is_none() || items.len() >= limit {
            break;
        }
    }
    if as_json {
        println!("{:#}", json!({"items": items, "next_cursor": cursor}));
        return Ok(());
    }
    print!("{}", table(&items, now, paper));
    if let Some(cursor) = cursor {
        println!("more: obtrace dlq list --cursor {cursor}");
    }
    Ok(())
}

async fn show(remote: &Remote, id: u64, as_json: bool, paper: Paper) -> Result<(), String> {
    let letter = remote.get(&format!("/admin/dlq/{id}")).await?;
    if as_json {
        println!("{letter:#}");
    } else {
        print!("{}", page(&letter, clock::unix_nanos(), paper));
    }
    Ok(())
}

async fn replay(
    remote: &Remote,
    ids: &[u64],
    filter: &Filter,
    dry_run: bool,
    paper: Paper,
) -> Result<(), String> {
    let (mut items, mut left, mut cursor) = (Vec::new(), Vec::new(), None);
    let orders: Vec<Value> = if ids.is_empty() {
        let filter: serde_json::Map<String, Value> =
            filter.pairs().map(|(name, value)| (name.to_owned(), json!(value))).collect();
        vec![json!({"filter": filter, "dry_run": dry_run})]
    } else {
        ids.chunks(1000).map(|ids| json!({"ids": ids, "dry_run": dry_run})).collect()
    };
    for order in orders {
        loop {
            let mut order = order.clone();
            if let Some(cursor) = cursor {
                order["cursor"] = json!(cursor);
            }
            let done = remote.post("/admin/dlq/replay", &order).await?;
            items.extend(done["items"].as_array().cloned().unwrap_or_default());
            left.extend(done["not_replayed"].as_array().cloned().unwrap_or_default());
            cursor = done["next_cursor"].as_u64();
            if cursor.is_none() {
                break;
            }
        }
    }
    if !items.is_empty() {
        print!("{}", table(&items, clock::unix_nanos(), paper));
    }
    let what = if items.len() == 1 { "letter" } else { "letters" };
    if dry_run {
        println!("{} {what} would be put back; nothing was done (--dry-run)", items.len());
    } else {
        println!("{} {what} put back; one that fails again is back here in a moment", items.len());
    }
    if left.is_empty() {
        return Ok(());
    }
    let left: Vec<String> = left.iter().map(Value::to_string).collect();
    Err(format!(
        "not put back, because they are not there or do not say where they belong: {}",
        left.join(", ")
    ))
}

const COLUMNS: [(&str, usize); 8] = [
    ("ID", 8),
    ("FAILED", 9),
    ("TENANT/PROJECT", 22),
    ("SIGNAL", 9),
    ("CLASS", 12),
    ("TRIES", 7),
    ("SIZE", 10),
    ("REPLAYED", 10),
];

/// Letters as a table; the reason has the rest of the line.
fn table(items: &[Value], now_ns: u64, paper: Paper) -> String {
    if items.is_empty() {
        return String::from("no dead letters\n");
    }
    let mut head = Line::new();
    for (title, width) in COLUMNS {
        head.cell(title, width - 1, Style::Bold).push(" ", Style::Plain);
    }
    head.push("REASON", Style::Bold);
    let mut text = head.render(paper.width, paper.colour);
    text.push('\n');
    for item in items {
        let replayed = item["replayed"].as_u64().unwrap_or(0);
        let cells = [
            (number(item, "id"), Style::Plain),
            (ago(item["last_failed_ns"].as_u64(), now_ns), Style::Plain),
            (format!("{}/{}", word(item, "tenant"), word(item, "project")), Style::Plain),
            (word(item, "signal").to_owned(), Style::Plain),
            (word(item, "class").to_owned(), Style::Bad),
            (number(item, "attempts"), Style::Plain),
            (bytes(item["size"].as_u64().unwrap_or(0)), Style::Plain),
            (if replayed == 0 { String::from("-") } else { format!("{replayed}×") }, Style::Note),
        ];
        let mut line = Line::new();
        for ((cell, style), (_, width)) in cells.into_iter().zip(COLUMNS) {
            line.cell(cell, width - 1, style).push(" ", Style::Plain);
        }
        line.push(word(item, "reason"), Style::Plain);
        text.push_str(&line.render(paper.width, paper.colour));
        text.push('\n');
    }
    text
}

/// One letter on a page of its own.
fn page(letter: &Value, now_ns: u64, paper: Paper) -> String {
    let failed = |key: &str| {
        let at = letter[key].as_u64().unwrap_or(0);
        let stamp = jiff::Timestamp::from_nanosecond(i128::from(at)).map(|at| at.to_string());
        format!("{} ({} ago)", stamp.unwrap_or_default(), ago(Some(at), now_ns))
    };
    let replayed = match letter["replayed"].as_u64().unwrap_or(0) {
        0 => String::from("never"),
        times => format!("{times}×, last {} ago", ago(letter["replayed_at_ns"].as_u64(), now_ns)),
    };
    let rows = [
        ("letter", number(letter, "id")),
        ("source", word(letter, "source").to_owned()),
        (
            "whose",
            format!("{}/{}, {}", word(letter, "tenant"), word(letter, "project"), word(letter, "signal")),
        ),
        ("class", word(letter, "class").to_owned()),
        ("reason", word(letter, "reason").to_owned()),
        ("tries", number(letter, "attempts")),
        ("first failed", failed("first_failed_ns")),
        ("last failed", failed("last_failed_ns")),
        ("size", bytes(letter["size"].as_u64().unwrap_or(0))),
        ("replayed", replayed),
    ];
    let mut text = String::new();
    let mut put = |line: Line, width: usize| {
        text.push_str(&line.render(width, paper.colour));
        text.push('\n');
    };
    for (name, value) in rows {
        let mut line = Line::new();
        line.cell(name, 14, Style::Dim).push(value, Style::Plain);
        put(line, usize::MAX);
    }
    put(Line::new(), paper.width);
    let mut title = Line::new();
    title.push("headers", Style::Bold);
    put(title, paper.width);
    for pair in letter["headers"].as_array().into_iter().flatten() {
        let mut line = Line::new();
        line.cell(format!("  {}", pair[0].as_str().unwrap_or_default()), 30, Style::Dim);
        line.push(" ", Style::Plain).push(pair[1].as_str().unwrap_or_default(), Style::Plain);
        put(line, paper.width);
    }
    put(Line::new(), paper.width);
    let mut title = Line::new();
    title.push("payload", Style::Bold);
    put(title, paper.width);
    match &letter["payload"] {
        Value::Null => {
            let mut line = Line::new();
            line.push("  cannot be read: ", Style::Bad).push(word(letter, "unreadable"), Style::Plain);
            put(line, usize::MAX);
        }
        payload => {
            for row in format!("{payload:#}").lines() {
                let mut line = Line::new();
                line.push(row, Style::Plain);
                put(line, usize::MAX);
            }
        }
    }
    text
}

fn word<'a>(item: &'a Value, key: &str) -> &'a str {
    item[key].as_str().unwrap_or_default()
}

fn number(item: &Value, key: &str) -> String {
    item[key].as_u64().map(|number| number.to_string()).unwrap_or_default()
}

fn ago(at_ns: Option<u64>, now_ns: u64) -> String {
    at_ns.map_or_else(String::new, |at| span(now_ns.saturating_sub(at) / 1_000_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Paper = Paper { width: usize::MAX, colour: false };
    const NOW: u64 = 1_700_000_100_000_000_000;

    fn letter() -> Value {
        json!({"id": 12, "tenant": "acme", "project": "shop", "signal": "traces", "source": "obtrace.traces-0-3.17",
            "class": "panic", "reason": "it panics at \u{1b}[2Jx.rs:1", "attempts": 3, "size": 2048, "replayed": 1,
            "first_failed_ns": NOW - 90_000_000_000_u64, "last_failed_ns": NOW - 5_000_000_000_u64,
            "replayed_at_ns": NOW - 1_000_000_000, "headers": [["obtrace-tenant", "acme"]],
            "payload": {"resourceSpans": []}, "unreadable": null})
    }

    #[test]
    fn a_replay_takes_ids_or_a_filter() {
        use clap::Parser as _;
        let parsed = |args: &str| {
            crate::cli::Cli::try_parse_from(["obtrace", "dlq"].into_iter().chain(args.split(' '))).is_ok()
        };
        for good in ["list --reason x", "show 3", "replay 3 4", "replay --all", "replay --reason x --dry-run"]
        {
            assert!(parsed(good), "{good}");
        }
        for bad in ["replay", "replay 3 --all", "replay 3 --reason x", "show", "replay x"] {
            assert!(!parsed(bad), "{bad}");
        }
    }

    #[test]
    fn letters_stand_in_columns_and_cannot_steer_the_terminal() {
        let text = table(&[letter()], NOW, PLAIN);
        // One byte a cell, so that places in bytes are columns.
        let text = text.replace('×', "x");
        let rows: Vec<&str> = text.lines().collect();
        assert_eq!(rows.len(), 2, "{text}");
        for (title, value) in [
            ("ID", "12"),
            ("FAILED", "5s"),
            ("TENANT", "acme/shop"),
            ("CLASS", "panic"),
            ("TRIES", "3"),
            ("REASON", "it panics"),
        ] {
            assert_eq!(rows[0].find(title), rows[1].find(value), "{title} stands over {value}:\n{text}");
        }
        assert!(!text.contains('\u{1b}'));
        assert_eq!(table(&[], NOW, PLAIN), "no dead letters\n");
    }

    #[test]
    fn one_letter_is_shown_whole() {
        let text = page(&letter(), NOW, PLAIN);
        for part in
            ["obtrace.traces-0-3.17", "1×", "obtrace-tenant", "\"resourceSpans\"", "acme/shop, traces"]
        {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        let mut broken = letter();
        broken["payload"] = Value::Null;
        broken["unreadable"] = json!("not OTLP/JSON");
        assert!(page(&broken, NOW, PLAIN).contains("cannot be read: not OTLP/JSON"));
    }
}
