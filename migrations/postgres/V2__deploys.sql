-- Which version of a service began to run when.
CREATE TABLE deploys (
    tenant  text   NOT NULL,
    service text   NOT NULL,
    version text   NOT NULL,
    at_ms   bigint NOT NULL, -- Unix milliseconds
    who     text   NOT NULL,
    PRIMARY KEY (tenant, at_ms, service, version)
);

CREATE INDEX deploys_by_time ON deploys (at_ms);

ALTER TABLE deploys ENABLE ROW LEVEL SECURITY;
ALTER TABLE deploys FORCE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON deploys TO obtrace_app
    USING (tenant = current_setting('obtrace.tenant', true))
    WITH CHECK (tenant = current_setting('obtrace.tenant', true));
CREATE POLICY books_read ON deploys FOR SELECT TO obtrace_books USING (true);
CREATE POLICY books_forget ON deploys FOR DELETE TO obtrace_books USING (true);
GRANT SELECT, INSERT ON deploys TO obtrace_app;
-- Enough to remove what is old, too little to see what it was.
GRANT SELECT (at_ms), DELETE ON deploys TO obtrace_books;
