//! The telemetry schema of a cluster: what is written out is what a golden file says, and the real parser takes it.

use std::path::Path;
use std::time::Duration;

use arrow_array::cast::AsArray;
use obtrace::backends::telemetry::read::QueryLimits;
use obtrace::backends::telemetry::schema::{Cluster, Layout};
use obtrace::backends::telemetry::{access, migrate};

use crate::own_engine::Engine;

const PATIENCE: Duration = Duration::from_secs(60);

fn cluster() -> Layout {
    Layout::Cluster(Cluster {
        name: "main".into(),
        keeper_path: "/clickhouse/tables/{shard}/{database}/{table}".into(),
        replica: "{replica}".into(),
        window_seconds: 604_800,
    })
}

fn statements(layout: &Layout) -> Vec<String> {
    migrate::whole(layout, "obtrace").steps.into_iter().flat_map(|step| step.statements).collect()
}

#[test]
fn the_schema_of_a_cluster_is_what_the_golden_file_says() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/backends/schema.cluster.golden.sql");
    let text = statements(&cluster()).join(";\n\n") + ";\n";
    if std::env::var_os("OBTRACE_BLESS").is_some() {
        std::fs::write(&golden, &text).unwrap();
    }
    let expected = std::fs::read_to_string(&golden).unwrap_or_default();
    assert!(
        text == expected,
        "the golden file is out of date: OBTRACE_BLESS=1 cargo test --test backends schema"
    );
}

/// No cluster runs here, but its statements pass the parser of the engine, which is that of the servers.
#[tokio::test]
async fn the_engine_can_read_the_statements_of_a_cluster() {
    let engine = Engine::start().await;
    let client = engine.client();
    let read = async |statement: &str| {
        let escaped = statement.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n");
        let params = [("q".to_owned(), escaped)];
        client.query("SELECT formatQuery({q:String})", &params, &[], QueryLimits::default(), PATIENCE).await
    };
    for statement in statements(&cluster()) {
        let read = read(&statement).await.unwrap_or_else(|error| panic!("{error}\n{statement}"));
        let text = read.batches[0].column(0).as_string::<i32>().value(0).to_owned();
        assert!(text.contains("ON CLUSTER main"), "{text}");
    }
    for layout in [&Layout::Single, &cluster()] {
        for statement in access::reader(layout, "obtrace", "reader", "secret") {
            read(&statement).await.unwrap_or_else(|error| panic!("{error}\n{statement}"));
        }
    }
    let slip = read("CREATE TABLE a ON CLUSTR 'b' (c Int8)").await.unwrap_err();
    assert!(slip.to_string().contains("code 62"), "a slip is seen: {slip}");
    engine.child.stop(PATIENCE).await;
}
