-- The roles and the schema, once for each database, by a superuser, or by somebody who may make roles (CREATEROLE) and
-- schemas in this database. It can be repeated.
--   psql "$ADMIN_URL" -v ON_ERROR_STOP=1 -f migrations/postgres/roles.sql
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

-- A new role is no superuser and does not bypass row-level security; only a superuser may say so once more. A process
-- looks at its own login before it does anything.
ALTER ROLE obtrace_migrate NOINHERIT;
ALTER ROLE obtrace_app NOINHERIT;
GRANT obtrace_owner TO obtrace_migrate;
GRANT obtrace_books TO obtrace_app;

-- Only who may become a role gives it a schema: an administrator who may not is a member for as long as this takes.
DO $$
DECLARE
    may text := CASE WHEN current_setting('server_version_num')::int < 160000 THEN 'MEMBER' ELSE 'SET' END;
    was_member boolean := pg_has_role(current_user, 'obtrace_owner', may);
BEGIN
    IF NOT was_member THEN GRANT obtrace_owner TO CURRENT_USER; END IF;
    CREATE SCHEMA IF NOT EXISTS obtrace AUTHORIZATION obtrace_owner;
    GRANT USAGE ON SCHEMA obtrace TO obtrace_app, obtrace_books, obtrace_migrate;
    IF NOT was_member THEN REVOKE obtrace_owner FROM CURRENT_USER; END IF;
END $$;
