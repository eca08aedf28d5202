#!/bin/sh
# Gives the two roles of Obtrace that log in their password; run by the image of Postgres when it makes the database.
set -eu
psql --set ON_ERROR_STOP=1 --set "password=$POSTGRES_PASSWORD" --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<'SQL'
ALTER ROLE obtrace_app PASSWORD :'password';
ALTER ROLE obtrace_migrate PASSWORD :'password';
SQL
