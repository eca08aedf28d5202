-- What tenants used, as totals of the process that counted.
CREATE TABLE usage (
    tenant text   NOT NULL,
    day    bigint NOT NULL, -- days since 1970-01-01, UTC
    source text   NOT NULL, -- the process
    spans  bigint NOT NULL,
    logs   bigint NOT NULL,
    points bigint NOT NULL,
    bytes  bigint NOT NULL,
    PRIMARY KEY (day, tenant, source)
);

ALTER TABLE usage ENABLE ROW LEVEL SECURITY;
ALTER TABLE usage FORCE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON usage TO obtrace_app
    USING (tenant = current_setting('obtrace.tenant', true))
    WITH CHECK (tenant = current_setting('obtrace.tenant', true));
CREATE POLICY books_read ON usage FOR SELECT TO obtrace_books USING (true);
CREATE POLICY books_forget ON usage FOR DELETE TO obtrace_books USING (true);
GRANT SELECT, INSERT, UPDATE ON usage TO obtrace_app;
GRANT SELECT, DELETE ON usage TO obtrace_books;

-- When a key was last used. Of the process, not of a tenant: names as they stand in the configuration.
CREATE TABLE key_uses (
    name        text   NOT NULL PRIMARY KEY,
    last_used_s bigint NOT NULL
);

GRANT SELECT, INSERT, UPDATE ON key_uses TO obtrace_app;

-- Rows of the self-check.
CREATE TABLE probes (
    id text NOT NULL PRIMARY KEY
);

GRANT SELECT, INSERT, DELETE ON probes TO obtrace_app;
