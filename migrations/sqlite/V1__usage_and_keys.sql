-- What tenants used, as totals of the process that counted.
CREATE TABLE usage (
    tenant TEXT    NOT NULL,
    day    INTEGER NOT NULL, -- days since 1970-01-01, UTC
    source TEXT    NOT NULL, -- the process
    spans  INTEGER NOT NULL,
    logs   INTEGER NOT NULL,
    points INTEGER NOT NULL,
    bytes  INTEGER NOT NULL,
    PRIMARY KEY (day, tenant, source)
) WITHOUT ROWID, STRICT;

-- When a key was last used.
CREATE TABLE key_uses (
    name        TEXT    NOT NULL PRIMARY KEY,
    last_used_s INTEGER NOT NULL
) WITHOUT ROWID, STRICT;

-- Rows of the self-check.
CREATE TABLE probes (
    id TEXT NOT NULL PRIMARY KEY
) WITHOUT ROWID, STRICT;
