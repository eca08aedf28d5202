//! The guard before a tenant's query: its text in, a refusal out where it names what could lift the wall between tenants.
//!
//! Rows of other tenants are filtered out below the SQL, by a setting that carries the tenant. A query that could change
//! that setting, or read past the filter, would lift it: a `SETTINGS` clause of a subquery is applied by ClickHouse
//! without a look at `readonly` (seen with 26.7), index functions show the values of the key column, and `system` knows
//! of everybody. Queries are built by Obtrace and have none of this; here it is made sure, once on each side of the wire.

use super::engine::sql::{Kind, Tokens};

/// The setting by which a ClickHouse server's row policies know the tenant.
pub const TENANT_SETTING: &str = "SQL_tenant_id";
/// The header by which the embedded engine's front knows the tenant.
pub const TENANT_HEADER: &str = "x-obtrace-tenant";
/// The setting that carries the tenant inside the embedded engine, which has no settings of one's own.
pub const ENGINE_SETTING: &str = "log_comment";

/// What stands in that setting while rows are inserted, of whichever tenants; no tenant is called so.
pub const EVERY_TENANT: &str = "*";

/// Names that no tenant's query may have in it, quoted or not. The functions take the name of a database as a text, which is
/// not looked into.
const FORBIDDEN: [&str; 10] = [
    "system",
    "information_schema",
    ENGINE_SETTING,
    "sql_tenant_id",
    "merge",
    "loop",
    "remote",
    "remotesecure",
    "cluster",
    "clusterallreplicas",
];

/// Checks a query that is asked for a tenant.
///
/// # Errors
/// What may not be in it.
pub fn check(sql: &[u8]) -> Result<(), String> {
    let mut first = true;
    for token in Tokens::of(sql) {
        let text = &sql[token.start..token.end];
        if std::mem::take(&mut first) && !word_in(text, &["select", "with"]) && token.kind != Kind::Open {
            return Err("a tenant's query begins with SELECT or WITH".into());
        }
        match token.kind {
            // Where ClickHouse might cut the text in another way than is done here, what it reads would not be looked at:
            // it has blanks and quotes beyond ASCII, and a `$` may open a text or belong to a name.
            Kind::Word if !text.is_ascii() || text.contains(&b'$') => {
                return Err("a tenant's query has names of plain ASCII only".into());
            }
            Kind::Mark(b'$') => return Err("a tenant's query has no `$` outside of a text".into()),
            Kind::Quoted if is_escaped_name(text) => {
                return Err("a tenant's query has no name with a backslash".into());
            }
            Kind::Word if word_in(text, &["settings"]) => {
                return Err("a tenant's query has no SETTINGS clause".into());
            }
            Kind::Word | Kind::Quoted if is_forbidden(token.kind, text) => {
                return Err(format!("a tenant's query does not name {}", String::from_utf8_lossy(text)));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether a statement names the setting that carries the tenant in the engine, other than as a text.
pub fn names_engine_setting(sql: &[u8]) -> bool {
    Tokens::of(sql).any(|token| {
        let text = &sql[token.start..token.end];
        let named = |name: &[u8]| name.eq_ignore_ascii_case(ENGINE_SETTING.as_bytes());
        // What an escaped name stands for is not worked out: it might be this one.
        name(token.kind, text).is_some_and(named) || token.kind == Kind::Quoted && is_escaped_name(text)
    })
}

fn is_forbidden(kind: Kind, text: &[u8]) -> bool {
    name(kind, text).is_some_and(|name| {
        let name = name.to_ascii_lowercase();
        FORBIDDEN.iter().any(|forbidden| name == forbidden.as_bytes()) || name.starts_with(b"mergetree")
    })
}

/// The name that a word or a quoted name stands for; a text in single quotes or a heredoc is none.
fn name(kind: Kind, text: &[u8]) -> Option<&[u8]> {
    match (kind, text) {
        (Kind::Word, word) => Some(word),
        (Kind::Quoted, [b'`' | b'"', name @ .., _]) => Some(name),
        _ => None,
    }
}

/// A quoted name that is not what it looks like.
fn is_escaped_name(text: &[u8]) -> bool {
    matches!(text, [b'`' | b'"', ..]) && text.contains(&b'\\')
}

fn word_in(text: &[u8], words: &[&str]) -> bool {
    words.iter().any(|word| text.eq_ignore_ascii_case(word.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_lift_the_wall_is_refused() {
        for sql in [
            "SELECT * FROM spans SETTINGS log_comment = 'b'",
            "SELECT * FROM (SELECT * FROM spans SETTINGS max_threads = 1)",
            "SELECT * FROM (SELECT * FROM spans settings/**/`log_comment` = 'b')",
            "WITH x AS (SELECT * FROM spans\nSETTINGS\tSQL_tenant_id = 'b') SELECT * FROM x",
            "SELECT 1 AS \"log_comment\"",
            "SELECT * FROM system.parts",
            "SELECT * FROM `system`.parts",
            "SELECT * FROM INFORMATION_SCHEMA.tables",
            "SELECT * FROM mergeTreeIndex('obtrace', 'spans')",
            "SELECT * FROM \"mergeTreeProjection\"('obtrace', 'spans', 'p')",
            "EXPLAIN SELECT 1",
            "SET log_comment = 'b'",
            "-- SELECT\nDROP TABLE spans",
            "SELECT sum(rows) FROM `sys\\x74em`.parts",
            "SELECT * FROM merge('system', '^parts$')",
            "SELECT * FROM (SELECT * FROM spans SETTINGS\u{a0}log_comment = 'b')",
            "SELECT * FROM (SELECT 1 FROM spans // '\nSETTINGS log_comment = 'b') -- '",
            "SELECT * FROM (SELECT 1 FROM spans /* /* */ ' */ SETTINGS log_comment = 'b') -- '",
            "SELECT count() AS x$y$ FROM (SELECT * FROM spans SETTINGS log_comment = 'b') -- $y$",
            "SELECT 1$y$ ' $y$ FROM (SELECT * FROM spans SETTINGS log_comment = 'b') -- '",
        ] {
            assert!(check(sql.as_bytes()).is_err(), "{sql}");
        }
    }

    #[test]
    fn what_obtrace_asks_passes() {
        for sql in [
            "SELECT 1 FROM spans WHERE tenant = {tenant:String}",
            "(SELECT 'system', 'SETTINGS log_comment = 1' FROM logs)",
            "WITH 1 AS one SELECT one -- settings\n/* system */",
            "SELECT $$system.parts settings$$",
        ] {
            assert_eq!(check(sql.as_bytes()), Ok(()), "{sql}");
        }
    }

    #[test]
    fn the_engine_setting_is_found_as_a_name_only() {
        assert!(names_engine_setting(b"INSERT INTO t SELECT 1 SETTINGS `Log_Comment` = 'b'"));
        assert!(names_engine_setting(b"SET log_comment='b'"));
        assert!(names_engine_setting(b"SET `log\\x5fcomment` = 'b'"));
        assert!(!names_engine_setting(b"SELECT getSetting('log_comment')"));
    }
}
