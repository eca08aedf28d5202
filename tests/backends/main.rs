//! The backends against their contracts and against the real thing: one suite a port.

#[path = "../support/authority.rs"]
mod authority;
mod blobs;
mod blobs_s3;
#[path = "../support/bucket.rs"]
mod bucket;
mod cache;
mod consumer;
mod engine;
mod event_log;
mod event_log_embedded;
mod event_log_kafka;
mod event_log_kafka_groups;
mod leases;
mod locks;
#[path = "../support/engine.rs"]
mod own_engine;
#[path = "../support/pg.rs"]
mod pg;
#[path = "../support/proxy.rs"]
mod proxy;
mod query;
mod reach;
#[path = "../support/redis.rs"]
mod redis;
mod schema;
#[path = "../support/services.rs"]
mod services;
mod services_script;
mod state;
mod state_postgres;
mod state_postgres_tls;
mod telemetry;
mod wall;
