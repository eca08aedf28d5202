-- Which versions the telemetry of a service names, and whether that was a change.
CREATE TABLE versions (
    tenant   text   NOT NULL,
    service  text   NOT NULL,
    version  text   NOT NULL,
    first_ms bigint NOT NULL, -- Unix milliseconds
    last_ms  bigint NOT NULL, -- to the day
    changed  bigint NOT NULL, -- 1 where another version of the service was known before
    PRIMARY KEY (tenant, service, version)
);

CREATE INDEX versions_by_first ON versions (tenant, first_ms);
CREATE INDEX versions_by_last ON versions (last_ms);

ALTER TABLE versions ENABLE ROW LEVEL SECURITY;
ALTER TABLE versions FORCE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON versions TO obtrace_app
    USING (tenant = current_setting('obtrace.tenant', true))
    WITH CHECK (tenant = current_setting('obtrace.tenant', true));
CREATE POLICY books_read ON versions FOR SELECT TO obtrace_books USING (true);
CREATE POLICY books_forget ON versions FOR DELETE TO obtrace_books USING (true);
GRANT SELECT, INSERT, UPDATE ON versions TO obtrace_app;
-- Enough to remove what is old, too little to see what it was.
GRANT SELECT (last_ms), DELETE ON versions TO obtrace_books;
