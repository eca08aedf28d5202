//! `obtrace doctor`: looks at the machine, the configuration and a running Obtrace, and says what to do about each.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::ServeArgs;
use super::look::nodes::{self, Node};
use super::look::text::{Line, Paper, Style};
use super::remote::Remote;
use crate::config::Config;
use grade::{Finding, Grade};

mod grade;
mod probe;

/// Time an answer of a running Obtrace may take. Whatever else listens there may never answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What to look at, and how to say it.
#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    settings: ServeArgs,
    /// Address of the API of a running Obtrace; that of serve.http when absent
    #[arg(long, env = "OBTRACE_API")]
    api: Option<String>,
    /// The admin token, where one is set
    #[arg(long, env = "OBTRACE_ADMIN_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// The findings as JSON
    #[arg(long)]
    json: bool,
    /// Without colours
    #[arg(long)]
    no_color: bool,
}

pub(super) async fn run(args: DoctorArgs) -> ExitCode {
    let (config, mut findings) = match super::load_config(&args.settings, None).map(|(_, loaded)| loaded) {
        Ok(loaded) => (loaded.config, vec![Finding::ok("configuration", "every value can be used")]),
        Err(text) => {
            let advice = "correct it; what follows looks at the defaults";
            (Config::default(), vec![Finding::fail("configuration", text, advice)])
        }
    };
    findings.extend(probe::machine(&config).await);
    let asked = args.api.is_some();
    let api = args.api.unwrap_or_else(|| format!("http://{}", config.serve.http));
    findings.extend(running(&Remote::at(api, args.token, PATIENCE), asked).await);
    let worst = findings.iter().map(|finding| finding.grade).max().unwrap_or(Grade::Ok);
    if args.json {
        println!("{:#}", json!({"worst": worst, "findings": findings}));
    } else {
        print!("{}", report(&findings, Paper::of_stdout(args.no_color)));
    }
    ExitCode::from(u8::from(worst == Grade::Fail))
}

/// A running Obtrace. That none runs is no fault unless one was asked for by name.
async fn running(remote: &Remote, asked: bool) -> Vec<Finding> {
    let what = "running";
    if let Err(why) = remote.get("/livez").await {
        return vec![match asked {
            true => Finding::fail(what, why, "start it, or name another --api"),
            false => Finding::ok(what, format!("none at {}", remote.api)),
        }];
    }
    let mut findings = vec![match remote.get("/readyz").await {
        Ok(_) => Finding::ok("ready", format!("{} is live and ready", remote.api)),
        Err(why) => Finding::fail("ready", why, "look at `obtrace tree` for what is not up"),
    }];
    match remote.get("/admin/tree").await.and_then(|snapshot| nodes::read(&snapshot)) {
        Ok(root) => findings.extend(tree(&root)),
        Err(why) => {
            findings.push(Finding::warn("tree", why, "give the admin token: --token or OBTRACE_ADMIN_TOKEN"))
        }
    }
    findings
}

/// What the tree of a running Obtrace tells.
fn tree(root: &Node) -> Vec<Finding> {
    let nodes = root.walk();
    let named = |holds: &dyn Fn(&Node) -> bool| -> Vec<String> {
        nodes.iter().filter(|node| holds(node)).map(|node| node.path.clone()).collect()
    };
    let state = |state: &'static str| named(&move |node: &Node| node.state == state);
    let cases: [(&str, Vec<String>, Grade, &str); 6] = [
        (
            "quarantined",
            state("quarantined"),
            Grade::Warn,
            "see why with `obtrace tree`; `obtrace tree release PATH` tries again",
        ),
        ("backing off", state("backing_off"), Grade::Warn, "see why with `obtrace tree`"),
        (
            "degraded",
            state("degraded"),
            Grade::Warn,
            "what they depend on is down: see the cause with `obtrace tree`",
        ),
        (
            "breaker open",
            named(&|node| node.children.is_empty() && node.open_breaker().is_some()),
            Grade::Warn,
            "what they call is down: see the cause with `obtrace tree`",
        ),
        (
            "paused",
            named(&|node| node.paused && node.children.is_empty()),
            Grade::Warn,
            "`obtrace tree resume PATH` when the reason is gone",
        ),
        (
            "full lanes",
            named(&|node| node.lanes.iter().any(|lane| lane.fill() >= 0.9)),
            Grade::Warn,
            "`obtrace top` shows what holds them up",
        ),
    ];
    let mut findings = vec![Finding::ok(
        "tree",
        format!("{} nodes, {} restarts since the start", nodes.len(), root.total_restarts()),
    )];
    for (what, paths, grade, advice) in cases {
        if !paths.is_empty() {
            let more = paths.len().saturating_sub(5);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let found = format!("{}{more}", paths[..paths.len().min(5)].join(", "));
            findings.push(Finding { what: what.to_owned(), grade, found, advice: advice.to_owned() });
        }
    }
    findings
}

fn report(findings: &[Finding], paper: Paper) -> String {
    let width = findings.iter().map(|finding| finding.what.chars().count()).max().unwrap_or_default();
    let mut text = String::new();
    for finding in findings {
        let (word, style) = match finding.grade {
            Grade::Ok => ("ok  ", Style::Good),
            Grade::Warn => ("WARN", Style::Warn),
            Grade::Fail => ("FAIL", Style::Bad),
        };
        let mut lines = finding.found.lines();
        let mut line = Line::new();
        line.push(word, style).push("  ", Style::Plain).cell(&finding.what, width + 2, Style::Plain);
        line.push(lines.next().unwrap_or_default(), Style::Plain);
        text.push_str(&(line.render(usize::MAX, paper.colour) + "\n"));
        let below: Vec<String> = lines.map(str::to_owned).collect();
        let advice =
            Some(&finding.advice).filter(|advice| !advice.is_empty()).map(|advice| format!("→ {advice}"));
        for more in below.into_iter().chain(advice) {
            text.push_str(&format!("{:width$}{more}\n", "", width = width + 8));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_says_what_to_do_below_what_was_found() {
        let findings = [
            Finding::ok("disk", "plenty"),
            Finding::fail("configuration", "f.toml:2: no\nf.toml:3: no", "correct it"),
        ];
        let text = report(&findings, Paper { width: 80, colour: false });
        let want = "ok    disk           plenty\n\
                    FAIL  configuration  f.toml:2: no\n                     f.toml:3: no\n                     → correct it\n";
        assert_eq!(text, want);
    }

    #[test]
    fn a_tree_that_is_not_well_is_told_node_by_node() {
        let root = json!({"version": nodes::SNAPSHOT_VERSION, "root": {"path": "", "state": "running", "children": [
            {"path": "a", "state": "quarantined"}, {"path": "b", "state": "running", "breaker": "open"},
            {"path": "c", "state": "running", "lanes": [{"name": "c", "queued": 9, "capacity": 10}]}]}});
        let findings = tree(&nodes::read(&root).unwrap());
        let told: Vec<(&str, &str)> = findings.iter().map(|f| (f.what.as_str(), f.found.as_str())).collect();
        assert_eq!(told[1..], [("quarantined", "a"), ("breaker open", "b"), ("full lanes", "c")]);
        assert_eq!(told[0].1, "4 nodes, 0 restarts since the start");
    }
}
