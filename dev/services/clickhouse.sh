# A ClickHouse server, where there is one: OBTRACE_CLICKHOUSE_URL, else `clickhouse` on the PATH. No reachable package
# brings a current one; without it the tests use the engine (`obtrace engine`), which needs nothing of this.

possible() { [ -n "${OBTRACE_CLICKHOUSE_URL:-}" ] || has clickhouse; }

packages() { :; }
fetch() { possible || die "clickhouse: no \`clickhouse\` on the PATH and no OBTRACE_CLICKHOUSE_URL; tests use the engine"; }
parts() { if [ -z "${OBTRACE_CLICKHOUSE_URL:-}" ]; then echo clickhouse; fi; }
stop_signal() { echo TERM; }

launch() {
    mkdir -p "$dir/data" "$dir/access"
    cat >"$dir/config.xml" <<XML
<clickhouse>
  <logger><level>warning</level><console>1</console></logger>
  <listen_host>127.0.0.1</listen_host>
  <http_port>$(port main)</http_port>
  <tcp_port>$(port tcp)</tcp_port>
  <path>$dir/data/</path>
  <mark_cache_size>67108864</mark_cache_size>
  <max_server_memory_usage>2000000000</max_server_memory_usage>
  <custom_settings_prefixes>SQL_</custom_settings_prefixes>
  <user_directories>
    <users_xml><path>users.xml</path></users_xml>
    <local_directory><path>$dir/access/</path></local_directory>
  </user_directories>
</clickhouse>
XML
    cat >"$dir/users.xml" <<'XML'
<clickhouse>
  <profiles><default/></profiles>
  <quotas><default/></quotas>
  <users><default>
    <password/><networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota>
    <access_management>1</access_management>
  </default></users>
</clickhouse>
XML
    spawn clickhouse sh -c 'cd "$1" && exec clickhouse server --config-file=config.xml' sh "$dir"
}

url() { echo "${OBTRACE_CLICKHOUSE_URL:-http://127.0.0.1:$(port main)}"; }
ready() { [ "$(curl -fs --max-time 2 "$(url)/ping" 2>/dev/null)" = "Ok." ]; }
lines() { echo "OBTRACE_TEST_CLICKHOUSE=$(url)"; }
