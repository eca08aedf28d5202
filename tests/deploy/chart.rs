//! `deploy/helm/obtrace`: takes what it should and refuses the rest, is valid for the oldest and the newest Kubernetes,
//! and gives every role what it needs to be started, moved and stopped without loss.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::tools::{feed, good, list, number, obtrace_takes, text, tools};

const CHART: &str = "deploy/helm/obtrace";
/// The values it comes with, then those of its folder `ci`.
const VALUES: [&[&str]; 3] = [
    &[],
    &["--values", "deploy/helm/obtrace/ci/everything.yaml"],
    &["--values", "deploy/helm/obtrace/ci/small.yaml"],
];
const EVERYTHING: &[&str] = VALUES[1];
const VERSIONS: [&str; 2] = ["1.27.0", "1.37.0"];

fn template(more: &[&str], version: &str) -> String {
    let args = [&["template", "obtrace", CHART, "--namespace", "telemetry", "--kube-version", version], more];
    good(&tools().expect("tools")["HELM"], &args.concat(), "")
}

fn objects(more: &[&str]) -> Option<Vec<Value>> {
    let check = &tools()?["DEPLOY_CHECK"];
    let json = good(check, &["documents"], &template(more, VERSIONS[1]));
    Some(serde_json::from_str(&json).expect("JSON"))
}

fn of_kind<'a>(objects: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    objects.iter().filter(move |object| object["kind"] == kind)
}

fn component(object: &Value) -> &str {
    text(object, "/metadata/labels/app.kubernetes.io~1component")
}

fn components(objects: &[Value], kind: &str) -> BTreeSet<String> {
    of_kind(objects, kind).map(|object| component(object).to_owned()).collect()
}

fn container(deployment: &Value) -> &Value {
    let found = list(deployment, "/spec/template/spec/containers");
    assert_eq!(found.len(), 1);
    &found[0]
}

/// Seconds of the budget that a container is told, from `45s`.
fn budget(container: &Value) -> i64 {
    let variable =
        list(container, "/env").iter().find(|v| v["name"] == "OBTRACE__SUPERVISION__SHUTDOWN_BUDGET");
    let value = text(variable.expect("the budget is set"), "/value");
    value.trim_end_matches('s').parse().expect("seconds")
}

#[test]
fn helm_finds_nothing_to_complain_of() {
    let Some(tools) = tools() else { return };
    for more in VALUES {
        let said = good(&tools["HELM"], &[&["lint", "--strict", CHART], more].concat(), "");
        assert!(!said.contains("[WARNING]") && !said.contains("[ERROR]"), "{said}");
    }
}

#[test]
fn kubernetes_takes_what_it_renders() {
    let Some(tools) = tools() else { return };
    let schemas = &tools["SCHEMAS"];
    let own = format!(
        "{schemas}/{{{{.NormalizedKubernetesVersion}}}}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"
    );
    let keda = format!("{schemas}/{{{{.Group}}}}/{{{{.ResourceKind}}}}_{{{{.ResourceAPIVersion}}}}.json");
    let check = |manifest: &str, version: &str| {
        let args = [
            "-strict",
            "-summary",
            "-kubernetes-version",
            version,
            "-schema-location",
            &own,
            "-schema-location",
            &keda,
        ];
        feed(&tools["KUBECONFORM"], &args, manifest)
    };
    for more in VALUES {
        for version in VERSIONS {
            let output = check(&template(more, version), version);
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success(), "{version} {more:?}: {said}");
            assert!(said.contains("Invalid: 0, Errors: 0, Skipped: 0"), "{version} {more:?}: {said}");
        }
    }
    // It must be able to find something, in Kubernetes' own kinds and in KEDA's.
    let rendered = template(EVERYTHING, VERSIONS[1]);
    for (right, wrong) in [
        ("terminationGracePeriodSeconds", "terminationGraceSeconds"),
        ("maxUnavailable: 50%", "maxUnavailble: 50%"),
        ("pollingInterval", "polingInterval"),
    ] {
        assert!(rendered.contains(right), "{right} is not rendered any more");
        assert!(!check(&rendered.replace(right, wrong), VERSIONS[1]).status.success(), "{wrong} was taken");
    }
}

#[test]
fn each_role_is_a_deployment_that_can_be_probed_moved_and_stopped() {
    for more in VALUES {
        let Some(objects) = objects(more) else { return };
        let roles = components(&objects, "Deployment");
        assert_eq!(roles, ["ingest-edge", "query-gateway", "worker-otlp"].map(String::from).into());
        assert_eq!(components(&objects, "PodDisruptionBudget"), roles);
        for deployment in of_kind(&objects, "Deployment") {
            let (role, container) = (component(deployment), container(deployment));
            let args: Vec<&str> = list(container, "/args").iter().filter_map(Value::as_str).collect();
            assert_eq!(args[..3], ["serve", "--roles", role]);
            assert_eq!(text(container, "/readinessProbe/httpGet/path"), "/readyz", "{role}");
            assert_eq!(text(container, "/livenessProbe/httpGet/path"), "/livez", "{role}");
            let grace = number(deployment, "/spec/template/spec/terminationGracePeriodSeconds");
            assert!(
                grace > budget(container),
                "{role} is killed after {grace} s, before it has used its budget"
            );
            assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
            assert_eq!(deployment["spec"]["template"]["spec"]["securityContext"]["runAsNonRoot"], true);
            for bound in ["/resources/requests/cpu", "/resources/requests/memory", "/resources/limits/memory"]
            {
                text(container, bound);
            }
            let selector = &deployment["spec"]["selector"]["matchLabels"];
            let labels = &deployment["spec"]["template"]["metadata"]["labels"];
            for (key, value) in selector.as_object().expect("a selector") {
                assert_eq!(&labels[key], value, "{role} does not select its own pods");
            }
        }
    }
}

#[test]
fn the_budget_moves_the_grace_with_it() {
    let Some(objects) = objects(&["--set", "shutdownBudgetSeconds=120"]) else { return };
    for deployment in of_kind(&objects, "Deployment") {
        assert_eq!(budget(container(deployment)), 120);
        assert_eq!(number(deployment, "/spec/template/spec/terminationGracePeriodSeconds"), 135);
    }
}

#[test]
fn every_way_of_scaling_names_its_deployment_and_leaves_replicas_to_it() {
    let Some(objects) = objects(EVERYTHING) else { return };
    let scaled = ["HorizontalPodAutoscaler", "ScaledObject"].map(|kind| components(&objects, kind));
    assert_eq!(scaled[0], ["ingest-edge", "query-gateway"].map(String::from).into());
    assert_eq!(scaled[1], ["worker-otlp".to_owned()].into());
    for deployment in of_kind(&objects, "Deployment") {
        let name = text(deployment, "/metadata/name");
        let scalers =
            objects.iter().filter(|o| o.pointer("/spec/scaleTargetRef/name").is_some_and(|n| n == name));
        assert_eq!(scalers.count(), 1, "{name}");
        assert!(deployment["spec"].get("replicas").is_none(), "an upgrade would undo what the scaler did");
    }
    let lag = of_kind(&objects, "ScaledObject").next().expect("one");
    let topics: Vec<&str> = list(lag, "/spec/triggers").iter().map(|t| text(t, "/metadata/topic")).collect();
    assert_eq!(topics, ["obtrace.traces", "obtrace.logs", "obtrace.metrics"]);
    assert_eq!(text(lag, "/spec/triggers/0/authenticationRef/name"), "obtrace-kafka");
}

#[test]
fn policies_open_what_a_role_serves_and_no_more() {
    let Some(objects) = objects(EVERYTHING) else { return };
    assert_eq!(components(&objects, "NetworkPolicy"), components(&objects, "Deployment"));
    for policy in of_kind(&objects, "NetworkPolicy") {
        let ports: BTreeSet<&str> = list(policy, "/spec/ingress")
            .iter()
            .flat_map(|rule| list(rule, "/ports"))
            .map(|port| text(port, "/port"))
            .collect();
        let deployment = of_kind(&objects, "Deployment").find(|d| component(d) == component(policy));
        let served: BTreeSet<&str> = list(container(deployment.expect("one")), "/ports")
            .iter()
            .map(|port| text(port, "/name"))
            .collect();
        assert_eq!(ports, served, "{}", component(policy));
        for rule in list(policy, "/spec/ingress") {
            assert!(!list(rule, "/from").is_empty(), "{}: the values close this door", component(policy));
        }
    }
}

#[test]
fn passwords_come_from_secrets_and_the_migration_has_its_own() {
    let Some(objects) = objects(EVERYTHING) else { return };
    assert_eq!(of_kind(&objects, "Secret").count(), 0, "the chart makes no Secret");
    let password = |container: &Value| {
        let variables = list(container, "/env");
        let found: Vec<&Value> =
            variables.iter().filter(|v| v["name"] == "OBTRACE__TELEMETRY__PASSWORD").collect();
        assert_eq!(found.len(), 1);
        assert!(found[0].get("value").is_none());
        text(found[0], "/valueFrom/secretKeyRef/name").to_owned()
    };
    for deployment in of_kind(&objects, "Deployment") {
        assert_eq!(password(container(deployment)), "obtrace-clickhouse");
    }
    let job = of_kind(&objects, "Job").next().expect("the migration");
    assert_eq!(password(container(job)), "obtrace-clickhouse-owner");
    let hook = |object: &Value| text(object, "/metadata/annotations/helm.sh~1hook").to_owned();
    assert_eq!(hook(job), "pre-install,pre-upgrade");
    let mounted = text(job, "/spec/template/spec/volumes/0/configMap/name");
    let config = of_kind(&objects, "ConfigMap").find(|c| text(c, "/metadata/name") == mounted);
    assert_eq!(hook(config.expect("its configuration")), hook(job), "it must be there before the release is");
}

/// What a Secret may hold for this variable.
fn secret(variable: &Value) -> &str {
    match text(variable, "/name") {
        "OBTRACE__STORE__STATE__URL" => "postgres://obtrace_app:secret@postgres:5432/obtrace",
        "OBTRACE__STORE__CACHE__URL" => "redis://redis:6379",
        _ => "a-secret-of-some-length",
    }
}

#[test]
fn this_build_takes_the_configuration_and_the_variables() {
    for more in VALUES {
        let Some(objects) = objects(more) else { return };
        for deployment in of_kind(&objects, "Deployment") {
            let variables = list(container(deployment), "/env").iter();
            let mut env: Vec<(String, String)> = variables
                .map(|v| (text(v, "/name"), v.get("value").map_or_else(|| secret(v), |_| text(v, "/value"))))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect();
            assert!(env.len() >= 5, "{env:?}");
            env.push(("OBTRACE_ROLES".into(), component(deployment).into()));
            for map in of_kind(&objects, "ConfigMap") {
                assert_eq!(obtrace_takes(text(map, "/data/obtrace.toml"), &env), Ok(()), "{more:?}");
            }
        }
    }
}

#[test]
fn values_that_mean_nothing_are_refused() {
    let Some(tools) = tools() else { return };
    let wrong: [(&str, &str); 7] = [
        ("roles.worker-otpl.enabled=true", "worker-otpl"),
        ("roles.worker-otlp.replica=3", "replica"),
        ("roles.worker-otlp.autoscaling.by=load", "by"),
        ("roles.ingest-edge.autoscaling.min=20", "above max"),
        ("roles.query-gateway.autoscaling.by=lag", "needs topics"),
        ("secrets.password=hunter2", "secrets"),
        ("shutdownBudgetSeconds=0", "shutdownBudgetSeconds"),
    ];
    for (set, named) in wrong {
        let args = ["template", "obtrace", CHART, "--kube-version", VERSIONS[1], "--set", set];
        let output = feed(&tools["HELM"], &args, "");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{set} was taken");
        assert!(said.contains(named), "{set}: {said}");
    }
}
