//! `obtrace tree`: draws the supervision tree of a running Obtrace, from `GET /admin/tree`.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

/// Where to look.
#[derive(Debug, Args)]
pub(super) struct TreeArgs {
    /// Address of the API
    #[arg(long, default_value = "http://127.0.0.1:8080", env = "OBTRACE_API")]
    api: String,
    /// The snapshot as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: TreeArgs) -> ExitCode {
    match fetch(&args.api).await {
        Ok(snapshot) if args.json => println!("{snapshot:#}"),
        Ok(snapshot) => print!("{}", draw(&snapshot["root"])),
        Err(why) => {
            eprintln!("obtrace: {why}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

async fn fetch(api: &str) -> Result<Value, String> {
    let url = format!("{}/admin/tree", api.trim_end_matches('/'));
    let failed =
        |error: reqwest::Error| format!("{url} does not answer: {error}; is Obtrace running there? (--api)");
    let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).build().map_err(failed)?;
    let answer = client.get(&url).send().await.map_err(failed)?;
    if !answer.status().is_success() {
        return Err(format!("{url} answers {}", answer.status()));
    }
    answer.json().await.map_err(failed)
}

fn draw(root: &Value) -> String {
    let mut text = String::new();
    line(&mut text, "", "", root);
    children(&mut text, "", root);
    text
}

fn children(text: &mut String, indent: &str, node: &Value) {
    let below = node["children"].as_array().map(Vec::as_slice).unwrap_or_default();
    for (n, child) in below.iter().enumerate() {
        let last = n + 1 == below.len();
        let (branch, next) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        line(text, indent, branch, child);
        children(text, &format!("{indent}{next}"), child);
    }
}

fn line(text: &mut String, indent: &str, branch: &str, node: &Value) {
    let word = |key: &str| node[key].as_str().unwrap_or_default();
    let number = |key: &str| node[key].as_u64().unwrap_or_default();
    let title = format!("{indent}{branch}{}", word("name"));
    let pad = 34_usize.saturating_sub(title.chars().count());
    let mut row = format!("{title}{}{:<11} gen {:<3}", " ".repeat(pad), word("state"), number("generation"));
    if number("restarts") > 0 {
        write!(row, " restarts {}", number("restarts")).ok();
    }
    if !word("strategy").is_empty() {
        write!(row, " {} (limit {})", word("strategy"), number("intensity")).ok();
    }
    for lane in node["lanes"].as_array().into_iter().flatten() {
        let of = |key: &str| lane[key].as_u64().unwrap_or_default();
        let resident = of("queued") + of("leased");
        let (kib, cap) = (of("bytes") / 1024, of("capacity_bytes") / 1024);
        write!(row, " lane {resident}/{} {kib}/{cap}KiB", of("capacity")).ok();
    }
    for (key, label) in [("degraded", "cause"), ("last_failure", "last")] {
        if !word(key).is_empty() {
            write!(row, " {label}: {}", word(key)).ok();
        }
    }
    text.push_str(row.trim_end());
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_tree_is_drawn_with_state_lanes_and_causes() {
        let lane = json!({"queued": 1, "leased": 2, "capacity": 8, "bytes": 2048, "capacity_bytes": 4096});
        let worker = json!({"name": "writer", "state": "degraded", "generation": 2, "restarts": 1, "lanes": [lane],
            "degraded": "connection refused", "last_failure": "panicked at x"});
        let root = json!({"name": "root", "state": "running", "generation": 1, "strategy": "rest_for_one",
            "intensity": 3, "children": [{"name": "store", "state": "running", "generation": 1,
            "children": [worker]}]});
        let drawn = draw(&root);
        let rows: Vec<&str> = drawn.lines().collect();
        assert!(rows[0].starts_with("root") && rows[0].ends_with("rest_for_one (limit 3)"));
        assert!(rows[2].starts_with("   └─ writer"), "{drawn}");
        for part in
            ["degraded", "restarts 1", "lane 3/8 2/4KiB", "cause: connection refused", "last: panicked at x"]
        {
            assert!(rows[2].contains(part), "{part} in {}", rows[2]);
        }
    }
}
