-- Which versions the telemetry of a service names, and whether that was a change.
CREATE TABLE versions (
    tenant   TEXT    NOT NULL,
    service  TEXT    NOT NULL,
    version  TEXT    NOT NULL,
    first_ms INTEGER NOT NULL, -- Unix milliseconds
    last_ms  INTEGER NOT NULL, -- to the day
    changed  INTEGER NOT NULL, -- 1 where another version of the service was known before
    PRIMARY KEY (tenant, service, version)
) WITHOUT ROWID, STRICT;

CREATE INDEX versions_by_first ON versions (tenant, first_ms);
CREATE INDEX versions_by_last ON versions (last_ms);
