#!/bin/sh
# Gives the two roles of migrations/postgres/roles.sql that log in the password of the database.
set -eu
psql -v ON_ERROR_STOP=1 -v password="$POSTGRES_PASSWORD" -U "$POSTGRES_USER" -d "$POSTGRES_DB" <<'SQL'
ALTER ROLE obtrace_app PASSWORD :'password';
ALTER ROLE obtrace_migrate PASSWORD :'password';
SQL
