//! What the schema is written out for: one server or a cluster. A migration's text in, its statements out; one text
//! serves both, by the marks that the first migration explains.
//!
//! It cannot fail: a mark that is not known stays as it is, which a test forbids.

use sha2::{Digest, Sha256};

/// One server, or the nodes of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Layout {
    /// One server, or the embedded engine.
    #[default]
    Single,
    /// Shards of replicas.
    Cluster(Cluster),
}

/// A cluster as its own configuration names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Name in `remote_servers`.
    pub name: String,
    /// Path of a table in Keeper, with the server's macros.
    pub keeper_path: String,
    /// Name of a replica, with the server's macros.
    pub replica: String,
    /// How long inserts are remembered by their token, in seconds.
    pub window_seconds: u64,
}

impl Layout {
    /// What distinguishes the notes of one layout from those of the other.
    pub(super) fn name_of(&self, migration: &str) -> String {
        match self {
            Self::Single => migration.to_owned(),
            Self::Cluster(_) => format!("{migration} (cluster)"),
        }
    }

    /// `ON CLUSTER`, where there is one.
    pub(super) fn on_cluster(&self) -> String {
        match self {
            Self::Single => String::new(),
            Self::Cluster(cluster) => format!(" ON CLUSTER {}", quoted(&cluster.name)),
        }
    }

    /// The tables in which the rows of `table` are, and through which they are read.
    pub(super) fn tables(&self, table: &str) -> Vec<String> {
        match self {
            Self::Single => vec![table.to_owned()],
            Self::Cluster(_) => vec![format!("{table}_local"), table.to_owned()],
        }
    }

    /// The statements of a migration in this layout, with `database` as its place.
    pub(super) fn statements(&self, sql: &str, database: &str) -> Vec<String> {
        // Comments may tell of marks.
        let code: String =
            sql.lines().filter(|line| !is_comment(line)).flat_map(|line| [line, "\n"]).collect();
        statements(&self.write_out(&code, database))
    }

    /// The table of notes. Of a cluster every node has all of them, whatever its shard.
    pub(super) fn notes(&self) -> String {
        let (engine, window) = match self {
            Self::Single => ("MergeTree".to_owned(), "non_replicated_deduplication_window"),
            Self::Cluster(cluster) => (
                format!(
                    "ReplicatedMergeTree({}, {})",
                    quoted(&cluster.keeper_path.replace("{shard}", "all")),
                    quoted(&format!("{{shard}}-{}", cluster.replica))
                ),
                "replicated_deduplication_window",
            ),
        };
        format!(
            "CREATE TABLE IF NOT EXISTS schema_migrations{}
(version UInt32, name String, checksum String, build String, applied_at DateTime64(3, 'UTC') DEFAULT now64(3))
ENGINE = {engine} ORDER BY version
SETTINGS {window} = 1000, fsync_after_insert = 1, fsync_part_directory = 1",
            self.on_cluster()
        )
    }

    fn write_out(&self, sql: &str, database: &str) -> String {
        let mut out = String::with_capacity(sql.len());
        let mut rest = sql;
        while let Some(at) = rest.find("${") {
            let Some(end) = rest[at..].find('}') else { break };
            out.push_str(&rest[..at]);
            let mark = &rest[at + 2..at + end];
            match self.mark(mark, database) {
                Some(text) => out.push_str(&text),
                None => out.push_str(&rest[at..=at + end]),
            }
            rest = &rest[at + end + 1..];
        }
        out.push_str(rest);
        out
    }

    fn mark(&self, mark: &str, database: &str) -> Option<String> {
        let (kind, what) = mark.split_once(':')?;
        let Self::Cluster(cluster) = self else {
            return match kind {
                "table" | "engine" | "view" | "rows" => Some(what.to_owned()),
                "window" => Some(format!("non_replicated_deduplication_window = {what}")),
                "all" => Some(String::new()),
                _ => None,
            };
        };
        let on = self.on_cluster();
        match kind {
            "table" => Some(format!("{what}_local{on}")),
            "rows" => Some(format!("{what}_local")),
            "view" => Some(format!("{what}{on}")),
            "engine" => Some(format!(
                "Replicated{what}({}, {})",
                quoted(&cluster.keeper_path),
                quoted(&cluster.replica)
            )),
            "window" => Some(format!(
                "replicated_deduplication_window = {what}, replicated_deduplication_window_seconds = {}",
                cluster.window_seconds
            )),
            "all" => {
                let (table, key) = what.split_once(':')?;
                let (name, place) = (quoted(&cluster.name), quoted(database));
                let local = quoted(&format!("{table}_local"));
                Some(format!(
                    "CREATE TABLE IF NOT EXISTS {table}{on} AS {table}_local\nENGINE = Distributed({name}, {place}, {local}, {key})"
                ))
            }
            _ => None,
        }
    }
}

/// Text as a literal of ClickHouse.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("--")
}

/// The statements of a file: each ends with a semicolon at the end of a line; lines of comment and what is empty are
/// left out.
fn statements(sql: &str) -> Vec<String> {
    let mut statements = Vec::new();
    let mut current = String::new();
    let mut end = |current: &mut String| {
        let statement = std::mem::take(current).trim().to_owned();
        statements.extend(Some(statement).filter(|statement| !statement.is_empty()));
    };
    for line in sql.lines().filter(|line| !is_comment(line)) {
        let line = line.trim_end();
        current.push_str(line.strip_suffix(';').unwrap_or(line));
        current.push('\n');
        if line.ends_with(';') {
            end(&mut current);
        }
    }
    end(&mut current);
    statements
}

/// SHA-256 of what is executed on one server, so that a comment may be mended, line ends do not matter, and a cluster's
/// own names are free to change.
pub(super) fn checksum(sql: &str) -> String {
    let digest = Sha256::digest(Layout::Single.statements(sql, "").join("\n;\n"));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster() -> Layout {
        Layout::Cluster(Cluster {
            name: "main".into(),
            keeper_path: "/clickhouse/tables/{shard}/{database}/{table}".into(),
            replica: "{replica}".into(),
            window_seconds: 604_800,
        })
    }

    #[test]
    fn a_file_is_cut_into_statements() {
        assert_eq!(statements("-- why\nSELECT 1;\n"), ["SELECT 1"]);
        assert_eq!(statements("SELECT\n  2;\nSELECT 3;"), ["SELECT\n  2", "SELECT 3"]);
        assert_eq!(statements("-- a;\r\n\r\nSELECT ';'\r\n, 1;\r\n;\n"), ["SELECT ';'\n, 1"]);
        assert_eq!(checksum("-- a\nSELECT 1;"), checksum("SELECT 1;\r\n-- b\n"));
        assert_ne!(checksum("SELECT 1;"), checksum("SELECT 2;"));
    }

    #[test]
    fn marks_are_written_out_for_each_layout() {
        let sql = "CREATE TABLE ${table:t} ENGINE = ${engine:MergeTree} SETTINGS ${window:7};\n${all:t:cityHash64(a)};\nCREATE VIEW ${view:v} AS SELECT 1 FROM ${rows:t};\n";
        assert_eq!(
            Layout::Single.statements(sql, "db"),
            [
                "CREATE TABLE t ENGINE = MergeTree SETTINGS non_replicated_deduplication_window = 7",
                "CREATE VIEW v AS SELECT 1 FROM t"
            ]
        );
        assert_eq!(
            cluster().statements(sql, "db"),
            [
                "CREATE TABLE t_local ON CLUSTER 'main' ENGINE = ReplicatedMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}') SETTINGS replicated_deduplication_window = 7, replicated_deduplication_window_seconds = 604800",
                "CREATE TABLE IF NOT EXISTS t ON CLUSTER 'main' AS t_local\nENGINE = Distributed('main', 'db', 't_local', cityHash64(a))",
                "CREATE VIEW v ON CLUSTER 'main' AS SELECT 1 FROM t_local"
            ]
        );
        assert_eq!(quoted("a'b\\"), r"'a\'b\\'");
    }
}
