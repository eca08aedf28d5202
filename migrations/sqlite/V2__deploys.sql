-- Which version of a service began to run when.
CREATE TABLE deploys (
    tenant  TEXT    NOT NULL,
    service TEXT    NOT NULL,
    version TEXT    NOT NULL,
    at_ms   INTEGER NOT NULL, -- Unix milliseconds
    who     TEXT    NOT NULL,
    PRIMARY KEY (tenant, at_ms, service, version)
) WITHOUT ROWID, STRICT;

CREATE INDEX deploys_by_time ON deploys (at_ms);
