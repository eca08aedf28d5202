//! Every statement of the state store, once, in the words that SQLite and Postgres share.
//!
//! One text for both and no builder: the set is small and fixed, values are always bound, and a test can go through all
//! of it, prepare each on both engines and try each against the wall between tenants. What the dialects do not share is
//! written another way (`CASE` for the larger of two). Parameters are `$1`, `$2`, … and first come in this order, by which
//! SQLite numbers them.

/// Under what a statement runs in Postgres. SQLite, which one process has to itself, makes no difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// The tenant that the transaction has announced: row-level security shows and takes only its rows.
    Tenant,
    /// The keeper of the books over all tenants: reads usage, removes what is old.
    Books,
    /// The process: tables that belong to no tenant.
    Process,
}

/// A statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statement {
    /// Under what it runs.
    pub who: Who,
    /// Its text.
    pub text: &'static str,
}

const fn of(who: Who, text: &'static str) -> Statement {
    Statement { who, text }
}

/// Writes a total: tenant, day, source, spans, logs, points, bytes. No counter goes back.
pub const PUT_USAGE: Statement = of(
    Who::Tenant,
    "INSERT INTO usage (tenant, day, source, spans, logs, points, bytes) VALUES ($1, $2, $3, $4, $5, $6, $7) \
     ON CONFLICT (day, tenant, source) DO UPDATE SET \
     spans = CASE WHEN excluded.spans > usage.spans THEN excluded.spans ELSE usage.spans END, \
     logs = CASE WHEN excluded.logs > usage.logs THEN excluded.logs ELSE usage.logs END, \
     points = CASE WHEN excluded.points > usage.points THEN excluded.points ELSE usage.points END, \
     bytes = CASE WHEN excluded.bytes > usage.bytes THEN excluded.bytes ELSE usage.bytes END",
);

/// The totals of a day.
pub const READ_USAGE: Statement = of(
    Who::Books,
    "SELECT tenant, source, spans, logs, points, bytes FROM usage WHERE day = $1 ORDER BY tenant, source",
);

/// Removes the totals before a day.
pub const FORGET_USAGE: Statement = of(Who::Books, "DELETE FROM usage WHERE day < $1");

/// Notes the use of a key: name, Unix seconds. No time goes back.
pub const TOUCH_KEY: Statement = of(
    Who::Process,
    "INSERT INTO key_uses (name, last_used_s) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET last_used_s = \
     CASE WHEN excluded.last_used_s > key_uses.last_used_s THEN excluded.last_used_s ELSE key_uses.last_used_s END",
);

/// The last uses of all keys.
pub const READ_KEY_USES: Statement = of(Who::Process, "SELECT name, last_used_s FROM key_uses ORDER BY name");

/// Writes a marker: tenant, service, version, Unix milliseconds, who. One that is there stays.
pub const PUT_DEPLOY: Statement = of(
    Who::Tenant,
    "INSERT INTO deploys (tenant, service, version, at_ms, who) VALUES ($1, $2, $3, $4, $5) \
     ON CONFLICT (tenant, at_ms, service, version) DO NOTHING",
);

/// The markers of a tenant that were told and the changes of a version that were seen, newest first: tenant, service or empty
/// text for all, from, until; the marker behind which to go on, by time, service, version and who; at most.
pub const READ_DEPLOYS: Statement = of(
    Who::Tenant,
    "SELECT service, version, at_ms, who FROM (\
       SELECT service, version, at_ms, who FROM deploys WHERE tenant = $1 \
       UNION ALL SELECT service, version, first_ms, '' FROM versions WHERE tenant = $1 AND changed = 1) AS markers \
     WHERE ($2 = '' OR service = $2) AND at_ms >= $3 AND at_ms < $4 \
     AND (at_ms < $5 OR (at_ms = $5 AND (service, version, who) > ($6, $7, $8))) \
     ORDER BY at_ms DESC, service, version, who LIMIT $9",
);

/// Notes a version that was seen: tenant, service, version, Unix milliseconds twice. The first time goes back only, the last one
/// forth only; whether it was a change is settled when it is first written.
pub const NOTE_VERSION: Statement = of(
    Who::Tenant,
    "INSERT INTO versions (tenant, service, version, first_ms, last_ms, changed) VALUES ($1, $2, $3, $4, $5, \
       CASE WHEN EXISTS (SELECT 1 FROM versions AS others WHERE others.tenant = $1 AND others.service = $2 \
       AND others.version <> $3 AND others.first_ms < $4) THEN 1 ELSE 0 END) \
     ON CONFLICT (tenant, service, version) DO UPDATE SET \
     first_ms = CASE WHEN excluded.first_ms < versions.first_ms THEN excluded.first_ms ELSE versions.first_ms END, \
     last_ms = CASE WHEN excluded.last_ms > versions.last_ms THEN excluded.last_ms ELSE versions.last_ms END",
);

/// Removes the versions that were last seen before a time.
pub const FORGET_VERSIONS: Statement = of(Who::Books, "DELETE FROM versions WHERE last_ms < $1");

/// Removes the markers before a time.
pub const FORGET_DEPLOYS: Statement = of(Who::Books, "DELETE FROM deploys WHERE at_ms < $1");

/// Writes, reads and removes the row of a self-check, by its id.
pub const PROBE: [Statement; 3] = [
    of(Who::Process, "INSERT INTO probes (id) VALUES ($1)"),
    of(Who::Process, "SELECT id FROM probes WHERE id = $1"),
    of(Who::Process, "DELETE FROM probes WHERE id = $1"),
];

/// All of them, by name.
pub const ALL: [(&str, Statement); 13] = [
    ("put_usage", PUT_USAGE),
    ("read_usage", READ_USAGE),
    ("forget_usage", FORGET_USAGE),
    ("touch_key", TOUCH_KEY),
    ("read_key_uses", READ_KEY_USES),
    ("put_deploy", PUT_DEPLOY),
    ("read_deploys", READ_DEPLOYS),
    ("forget_deploys", FORGET_DEPLOYS),
    ("note_version", NOTE_VERSION),
    ("forget_versions", FORGET_VERSIONS),
    ("probe_put", PROBE[0]),
    ("probe_read", PROBE[1]),
    ("probe_remove", PROBE[2]),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of the parameters of a text, in the order of their first place.
    fn parameters(text: &str) -> Vec<u32> {
        let mut seen = Vec::new();
        for piece in text.split('$').skip(1) {
            let digits: String = piece.chars().take_while(char::is_ascii_digit).collect();
            let number = digits.parse().expect("a number behind the $");
            if !seen.contains(&number) {
                seen.push(number);
            }
        }
        seen
    }

    #[test]
    fn parameters_first_come_in_order() {
        for (name, statement) in ALL {
            let found = parameters(statement.text);
            assert_eq!(found, (1..=found.len() as u32).collect::<Vec<_>>(), "{name}");
        }
        assert_eq!(parameters("$2 $1"), [2, 1], "the test sees another order");
    }
}
