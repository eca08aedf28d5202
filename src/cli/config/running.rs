//! The configuration of a running process, as `GET /admin/config` shows it → TOML that can be loaded and compared.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

/// Secrets are not shown, so they cannot be compared.
pub(super) fn is_secret(key: &str) -> bool {
    ["telemetry.password", "serve.admin_token"].contains(&key)
}

/// True for the sources that hold against any file.
pub(super) fn stands_above_files(source: &str) -> bool {
    source.starts_with("environment ") || source.starts_with("flag ")
}

/// The values that somebody set, of the sources that `of` wants.
pub(super) fn toml(values: &Value, of: impl Fn(&str) -> bool) -> String {
    let mut plain = String::new();
    let mut keys: BTreeMap<u64, String> = BTreeMap::new();
    for (path, found) in values.as_object().into_iter().flatten() {
        let (value, source) = (text(&found["value"]), text(&found["source"]));
        if found["set"] != true || value == "unset" || is_secret(path) || !of(source) {
            continue;
        }
        match path.strip_prefix("tenant.keys.").and_then(|rest| rest.split_once('.')) {
            Some((number, key)) => {
                let number = number.parse().unwrap_or_default();
                writeln!(keys.entry(number).or_default(), "{key} = {value}").ok();
            }
            None => drop(writeln!(plain, "{path} = {value}")),
        }
    }
    keys.values().fold(plain, |text, key| format!("{text}[[tenant.keys]]\n{key}"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_runs_becomes_toml_again() {
        let value =
            |value: &str, source: &str, set: bool| json!({"value": value, "source": source, "set": set});
        let values = json!({
            "process.linger": value("\"1s\"", "f.toml:2", true),
            "serve.http": value("\"127.0.0.1:9\"", "flag --http", true),
            "log": value("\"info\"", "default", false),
            "telemetry.password": value("\"***\"", "f.toml:9", true),
            "tenant.keys.0.name": value("\"a\"", "f.toml:5", true),
            "tenant.keys.0.expires": value("unset", "f.toml:5", true),
        });
        let all = "process.linger = \"1s\"\nserve.http = \"127.0.0.1:9\"\n[[tenant.keys]]\nname = \"a\"\n";
        assert_eq!(toml(&values, |_| true), all);
        assert_eq!(toml(&values, stands_above_files), "serve.http = \"127.0.0.1:9\"\n");
    }
}
