-- The roles and the schema, once for each database, by somebody who may make roles. It can be repeated.
--   psql "$ADMIN_URL" -f migrations/postgres/roles.sql
-- Then give the two that log in a password:
--   ALTER ROLE obtrace_migrate PASSWORD '…';   store.state.migrate_url
--   ALTER ROLE obtrace_app PASSWORD '…';       store.state.url
--
--   obtrace_owner    owns the schema and every table; nobody logs in as it
--   obtrace_migrate  may become the owner, which `obtrace migrate` does; can do nothing by itself
--   obtrace_app      what processes are: rows of the one tenant that the transaction has announced
--   obtrace_books    what a process becomes for the jobs over all tenants: reads usage, removes what is old; writes nothing
--
-- NOINHERIT: who may become another role has none of its rights before it does, and no policy of it either.
DO $$ BEGIN CREATE ROLE obtrace_owner NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
DO $$ BEGIN CREATE ROLE obtrace_books NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
DO $$ BEGIN CREATE ROLE obtrace_migrate LOGIN NOINHERIT;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
DO $$ BEGIN CREATE ROLE obtrace_app LOGIN NOINHERIT;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;

ALTER ROLE obtrace_migrate NOINHERIT NOSUPERUSER NOBYPASSRLS;
ALTER ROLE obtrace_app NOINHERIT NOSUPERUSER NOBYPASSRLS;
GRANT obtrace_owner TO obtrace_migrate;
GRANT obtrace_books TO obtrace_app;

CREATE SCHEMA IF NOT EXISTS obtrace AUTHORIZATION obtrace_owner;
GRANT USAGE ON SCHEMA obtrace TO obtrace_app, obtrace_books, obtrace_migrate;
