-- V1: spans, logs, metrics and the trace index. Applied once, at start or by `obtrace migrate`, in the database named
-- by `telemetry.database`; a statement ends with a semicolon at the end of its line, every one can be repeated.
--
-- One text for one server and for a cluster (`telemetry.cluster`), written out by src/backends/telemetry/schema.rs:
--   ${table:T}     T; on a cluster T_local on every node, where the rows are
--   ${engine:E}    E; on a cluster its replicated kind
--   ${window:N}    how many inserts are remembered by their token
--   ${view:V}      V; on a cluster on every node
--   ${rows:T}      T; on a cluster T_local
--   ${all:T:key}   nothing; on a cluster T over the T_local of all shards, rows going to a shard by the key
--
-- What all three tables share:
--   * Tenant first in the order, then five-minute buckets: the mandatory tenant filter is a range of the primary key,
--     and `ORDER BY ts_bucket DESC, ts DESC LIMIT n` of one tenant (and service) reads from the newest end and stops.
--   * Partitions by day and retention class, dropped whole when the class is over; nothing is rewritten to expire.
--   * The expiry saturates at the end of DateTime (2106) instead of wrapping round to 1970 and deleting at once.
--   * `ts_source` says where `ts` came from: 0 the record's own time, 1 its observed time, 2 the time it was received.
--   * An acknowledged insert is on disk: files and the folder of a part are synced before the answer.
--   * A block repeated with the same `insert_deduplication_token` is dropped, also for what the view wrote.
--   * Spans and logs are found by few rows at a time: small granules, and parts of up to 1 GiB (uncompressed) keep all columns in
--     one file, since a whole row has some hundred streams and opening a file for each costs more than reading it.
--   * An attribute value is text; `*_types` has one letter an entry, in order, and is empty where all are strings:
--     s string, b bool, i int, d double, y bytes (base64), a array, k key-value list (both OTLP/JSON), e empty.
--   * `attr_kv` is `key=value` of attributes and resource attributes; `has(attr_kv, 'key=value')` uses the text index.

CREATE TABLE IF NOT EXISTS ${table:spans}
(
    tenant LowCardinality(String),
    project LowCardinality(String),
    app LowCardinality(String),
    env LowCardinality(String),
    retention_days UInt16 CODEC(ZSTD(1)),
    ts_bucket DateTime('UTC') CODEC(Delta(4), ZSTD(1)),
    ts DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1)),
    ts_source UInt8 CODEC(ZSTD(1)),
    received_at DateTime64(3, 'UTC') CODEC(Delta(8), ZSTD(1)),
    batch_id UUID CODEC(ZSTD(1)),
    service LowCardinality(String),
    resource_attributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    resource_types LowCardinality(String),
    resource_schema_url LowCardinality(String),
    resource_dropped UInt32 CODEC(ZSTD(1)),
    resource_entities LowCardinality(String),
    scope_name LowCardinality(String),
    scope_version LowCardinality(String),
    scope_attributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    scope_types LowCardinality(String),
    scope_schema_url LowCardinality(String),
    scope_dropped UInt32 CODEC(ZSTD(1)),
    attributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    attribute_types LowCardinality(String),
    dropped_attributes UInt32 CODEC(ZSTD(1)),
    trace_id FixedString(16) CODEC(ZSTD(1)),
    span_id FixedString(8) CODEC(ZSTD(1)),
    parent_span_id FixedString(8) CODEC(ZSTD(1)),
    trace_state String CODEC(ZSTD(1)),
    flags UInt32 CODEC(ZSTD(1)),
    name LowCardinality(String),
    kind UInt8 CODEC(ZSTD(1)),
    end_ts DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1)),
    duration_ns UInt64 CODEC(ZSTD(1)),
    status_code UInt8 CODEC(ZSTD(1)),
    status_message String CODEC(ZSTD(1)),
    events_ts Array(DateTime64(9, 'UTC')) CODEC(ZSTD(1)),
    events_name Array(LowCardinality(String)) CODEC(ZSTD(1)),
    events_attributes Array(Map(LowCardinality(String), String)) CODEC(ZSTD(1)),
    events_types Array(String) CODEC(ZSTD(1)),
    events_dropped Array(UInt32) CODEC(ZSTD(1)),
    dropped_events UInt32 CODEC(ZSTD(1)),
    links_trace_id Array(FixedString(16)) CODEC(ZSTD(1)),
    links_span_id Array(FixedString(8)) CODEC(ZSTD(1)),
    links_trace_state Array(String) CODEC(ZSTD(1)),
    links_flags Array(UInt32) CODEC(ZSTD(1)),
    links_attributes Array(Map(LowCardinality(String), String)) CODEC(ZSTD(1)),
    links_types Array(String) CODEC(ZSTD(1)),
    links_dropped Array(UInt32) CODEC(ZSTD(1)),
    dropped_links UInt32 CODEC(ZSTD(1)),
    attr_kv Array(String) ALIAS arrayMap((k, v) -> concat(k, '=', v),
        arrayConcat(mapKeys(attributes), mapKeys(resource_attributes)),
        arrayConcat(mapValues(attributes), mapValues(resource_attributes))),
    INDEX idx_trace_id trace_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_attr_kv arrayMap((k, v) -> concat(k, '=', v),
        arrayConcat(mapKeys(attributes), mapKeys(resource_attributes)),
        arrayConcat(mapValues(attributes), mapValues(resource_attributes))) TYPE text(tokenizer = 'array'),
    INDEX idx_duration duration_ns TYPE minmax GRANULARITY 1
)
ENGINE = ${engine:MergeTree}
PARTITION BY (toDate(ts), retention_days)
ORDER BY (tenant, ts_bucket, service, ts)
TTL toDateTime(least(toUnixTimestamp64Second(ts) + toInt64(retention_days) * 86400, 4294967295))
SETTINGS ttl_only_drop_parts = 1, ${window:10000}, fsync_after_insert = 1,
    fsync_part_directory = 1, index_granularity = 1024, min_bytes_for_wide_part = 1073741824;

${all:spans:cityHash64(tenant, trace_id)};

-- Body words: `hasAllTokens(body, 'word word')` uses the text index and does not mind case.
CREATE TABLE IF NOT EXISTS ${table:logs}
(
    tenant LowCardinality(String),
    project LowCardinality(String),
    app LowCardinality(String),
    env LowCardinality(String),
    retention_days UInt16 CODEC(ZSTD(1)),
    ts_bucket DateTime('UTC') CODEC(Delta(4), ZSTD(1)),
    ts DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1)),
    ts_source UInt8 CODEC(ZSTD(1)),
    received_at DateTime64(3, 'UTC') CODEC(Delta(8), ZSTD(1)),
    batch_id UUID CODEC(ZSTD(1)),
    service LowCardinality(String),
    resource_attributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    resource_types LowCardinality(String),
    resource_schema_url LowCardinality(String),
    resource_dropped UInt32 CODEC(ZSTD(1)),
    resource_entities LowCardinality(String),
    scope_name LowCardinality(String),
    scope_version LowCardinality(String),
    scope_attributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    scope_types LowCardinality(String),
    scope_schema_url LowCardinality(String),
    scope_dropped UInt32 CODEC(ZSTD(1)),
    attributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    attribute_types LowCardinality(String),
    dropped_attributes UInt32 CODEC(ZSTD(1)),
    observed_ts DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1)),
    trace_id FixedString(16) CODEC(ZSTD(1)),
    span_id FixedString(8) CODEC(ZSTD(1)),
    flags UInt32 CODEC(ZSTD(1)),
    severity_number UInt8 CODEC(ZSTD(1)),
    severity_text LowCardinality(String),
    body String CODEC(ZSTD(1)),
    body_type LowCardinality(String),
    event_name LowCardinality(String),
    attr_kv Array(String) ALIAS arrayMap((k, v) -> concat(k, '=', v),
        arrayConcat(mapKeys(attributes), mapKeys(resource_attributes)),
        arrayConcat(mapValues(attributes), mapValues(resource_attributes))),
    INDEX idx_trace_id trace_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_attr_kv arrayMap((k, v) -> concat(k, '=', v),
        arrayConcat(mapKeys(attributes), mapKeys(resource_attributes)),
        arrayConcat(mapValues(attributes), mapValues(resource_attributes))) TYPE text(tokenizer = 'array'),
    INDEX idx_body lower(body) TYPE text(tokenizer = 'splitByNonAlpha'),
    INDEX idx_severity severity_number TYPE minmax GRANULARITY 1
)
ENGINE = ${engine:MergeTree}
PARTITION BY (toDate(ts), retention_days)
ORDER BY (tenant, ts_bucket, service, ts)
TTL toDateTime(least(toUnixTimestamp64Second(ts) + toInt64(retention_days) * 86400, 4294967295))
SETTINGS ttl_only_drop_parts = 1, ${window:10000}, fsync_after_insert = 1,
    fsync_part_directory = 1, index_granularity = 1024, min_bytes_for_wide_part = 1073741824;

${all:logs:cityHash64(tenant, service, trace_id)};

-- One row a data point, all kinds. `value` counts only where `has_value`; `int_value` is set where an integer was sent.
CREATE TABLE IF NOT EXISTS ${table:metrics}
(
    tenant LowCardinality(String),
    project LowCardinality(String),
    app LowCardinality(String),
    env LowCardinality(String),
    retention_days UInt16 CODEC(ZSTD(1)),
    ts_bucket DateTime('UTC') CODEC(Delta(4), ZSTD(1)),
    ts DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1)),
    ts_source UInt8 CODEC(ZSTD(1)),
    received_at DateTime64(3, 'UTC') CODEC(Delta(8), ZSTD(1)),
    batch_id UUID CODEC(ZSTD(1)),
    service LowCardinality(String),
    resource_attributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    resource_types LowCardinality(String),
    resource_schema_url LowCardinality(String),
    resource_dropped UInt32 CODEC(ZSTD(1)),
    resource_entities LowCardinality(String),
    scope_name LowCardinality(String),
    scope_version LowCardinality(String),
    scope_attributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    scope_types LowCardinality(String),
    scope_schema_url LowCardinality(String),
    scope_dropped UInt32 CODEC(ZSTD(1)),
    attributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    attribute_types LowCardinality(String),
    dropped_attributes UInt32 CODEC(ZSTD(1)),
    metric LowCardinality(String),
    unit LowCardinality(String),
    description LowCardinality(String),
    metadata Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    metadata_types LowCardinality(String),
    kind Enum8('gauge' = 1, 'sum' = 2, 'histogram' = 3, 'exponential_histogram' = 4, 'summary' = 5) CODEC(ZSTD(1)),
    temporality UInt8 CODEC(ZSTD(1)),
    is_monotonic Bool CODEC(ZSTD(1)),
    start_ts DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1)),
    flags UInt32 CODEC(ZSTD(1)),
    series_hash UInt64 CODEC(ZSTD(1)),
    has_value Bool CODEC(ZSTD(1)),
    value Float64 CODEC(ZSTD(1)),
    int_value Nullable(Int64) CODEC(ZSTD(1)),
    count UInt64 CODEC(ZSTD(1)),
    sum Nullable(Float64) CODEC(ZSTD(1)),
    min Nullable(Float64) CODEC(ZSTD(1)),
    max Nullable(Float64) CODEC(ZSTD(1)),
    bucket_counts Array(UInt64) CODEC(ZSTD(1)),
    explicit_bounds Array(Float64) CODEC(ZSTD(1)),
    scale Int32 CODEC(ZSTD(1)),
    zero_count UInt64 CODEC(ZSTD(1)),
    zero_threshold Float64 CODEC(ZSTD(1)),
    positive_offset Int32 CODEC(ZSTD(1)),
    positive_counts Array(UInt64) CODEC(ZSTD(1)),
    negative_offset Int32 CODEC(ZSTD(1)),
    negative_counts Array(UInt64) CODEC(ZSTD(1)),
    quantiles Array(Float64) CODEC(ZSTD(1)),
    quantile_values Array(Float64) CODEC(ZSTD(1)),
    exemplars_ts Array(DateTime64(9, 'UTC')) CODEC(ZSTD(1)),
    exemplars_value Array(Float64) CODEC(ZSTD(1)),
    exemplars_int_value Array(Nullable(Int64)) CODEC(ZSTD(1)),
    exemplars_trace_id Array(FixedString(16)) CODEC(ZSTD(1)),
    exemplars_span_id Array(FixedString(8)) CODEC(ZSTD(1)),
    exemplars_attributes Array(Map(LowCardinality(String), String)) CODEC(ZSTD(1)),
    exemplars_types Array(String) CODEC(ZSTD(1)),
    attr_kv Array(String) ALIAS arrayMap((k, v) -> concat(k, '=', v),
        arrayConcat(mapKeys(attributes), mapKeys(resource_attributes)),
        arrayConcat(mapValues(attributes), mapValues(resource_attributes)))
)
ENGINE = ${engine:MergeTree}
PARTITION BY (toDate(ts), retention_days)
ORDER BY (tenant, metric, service, ts_bucket, series_hash, ts)
TTL toDateTime(least(toUnixTimestamp64Second(ts) + toInt64(retention_days) * 86400, 4294967295))
SETTINGS ttl_only_drop_parts = 1, ${window:10000}, fsync_after_insert = 1,
    fsync_part_directory = 1;

${all:metrics:cityHash64(tenant, series_hash)};

-- Where in time a trace lies, so that a trace by id reads minutes and not everything. A trace that crosses midnight has
-- a row for each day: readers take min and max over what they find.
CREATE TABLE IF NOT EXISTS ${table:trace_index}
(
    tenant LowCardinality(String),
    trace_id FixedString(16) CODEC(ZSTD(1)),
    day Date,
    retention_days UInt16,
    min_ts SimpleAggregateFunction(min, DateTime64(9, 'UTC')) CODEC(Delta(8), ZSTD(1)),
    max_ts SimpleAggregateFunction(max, DateTime64(9, 'UTC')) CODEC(Delta(8), ZSTD(1))
)
ENGINE = ${engine:AggregatingMergeTree}
PARTITION BY (day, retention_days)
ORDER BY (tenant, trace_id)
TTL toDateTime(least((toInt64(toUInt16(day)) + retention_days + 1) * 86400, 4294967295))
SETTINGS ttl_only_drop_parts = 1, ${window:10000}, fsync_after_insert = 1,
    fsync_part_directory = 1, index_granularity = 1024;

CREATE MATERIALIZED VIEW IF NOT EXISTS ${view:trace_index_view} TO ${rows:trace_index} AS
SELECT tenant, trace_id, toDate(ts) AS day, retention_days, min(ts) AS min_ts, max(ts) AS max_ts
FROM ${rows:spans}
GROUP BY tenant, trace_id, day, retention_days;

${all:trace_index:cityHash64(tenant, trace_id)};
