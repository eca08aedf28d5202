//! The journal: one chain of events for what happened to a child, named by its path.

use std::time::Duration;

use obtrace::domain::failure::FailureClass;
use obtrace::supervisors::kernel::policy::{OnLimit, Policy, QuarantinePolicy};
use obtrace::supervisors::kernel::spec::ChildSpec;

use crate::support::{Cast, Job, Order, Rig, Script, Trace, bounds, ms, pass, paused, policy, puppet};

#[test]
fn a_crash_is_told_from_its_cause_to_its_cure() {
    paused(async {
        let (trace, cast) = (Trace::default(), Cast::new("writer"));
        let writer = cast.plays(policy(), &trace, Script::default());
        let rig = Rig::up(policy(), vec![ChildSpec::supervisor("store", policy(), vec![writer])]).await;
        assert_eq!(rig.chronicle("store.writer", 0), ["launched", "ready"]);
        assert_eq!(rig.chronicle("", 0), ["launched", "ready"]);
        let before = rig.view().journal().newest();
        cast.told(Order::Fail(FailureClass::Dependency)).await;
        pass(ms(200)).await;
        let told = rig.chronicle("store.writer", before);
        assert_eq!(
            told,
            ["exited dependency dependency: told to dependency", "restart_planned 100", "launched", "ready"]
        );
        let last = rig.view().journal().recent(1).remove(0);
        assert_eq!((last.path.as_str(), last.generation), ("store.writer", 2));
        let before = rig.view().journal().newest();
        let view = rig.view();
        rig.stop().await;
        let (events, _) = view.journal().after(before);
        let paths = events.iter().map(|event| (event.path.as_str(), event.kind.clone()));
        let told: Vec<String> =
            paths.map(|(path, kind)| format!("{path}: {}", crate::support::shown(&kind))).collect();
        let expected = [
            ": draining",
            "store: draining",
            "store.writer: draining",
            "store.writer: exited null shutdown shutdown",
            "store.writer: stopped",
            "store: exited null shutdown shutdown",
            "store: stopped",
            ": exited null shutdown shutdown",
        ];
        assert_eq!(told, expected);
    });
}

#[test]
fn an_escalation_names_the_child_and_then_the_stage() {
    paused(async {
        let (trace, cast) = (Trace::default(), Cast::new("frail"));
        let frail = cast.plays(policy(), &trace, Script::default());
        let store = ChildSpec::supervisor("store", Policy { intensity: 0, ..policy() }, vec![frail]);
        let rig = Rig::up(policy(), vec![store]).await;
        let before = rig.view().journal().newest();
        cast.told(Order::Panic).await;
        let (events, _) = rig.view().journal().after(before);
        let paths: Vec<_> = events.iter().map(|event| event.path.as_str()).collect();
        assert_eq!(paths, ["store.frail", "store", "store", "store"], "the root cause comes first");
        let told = rig.chronicle("store", before);
        assert!(told[0].starts_with("escalated store.frail: more than 0 restarts"), "{told:?}");
        assert!(told[1].starts_with("exited bug bug: store.frail: more than 0"), "{told:?}");
        assert_eq!(told[2], "restart_planned 100");
        pass(ms(200)).await;
        rig.stop().await;
    });
}

#[test]
fn degraded_and_recovered_name_the_path() {
    paused(async {
        let trace = Trace::default();
        let script = Script::default().started(|probe, _| {
            probe.degraded("no answer");
            probe.degraded("no answer");
            probe.recovered();
            probe.recovered();
            assert_eq!(probe.path(), "store.engine");
            probe.ready();
        });
        let engine = puppet("engine", policy(), &trace, script).build();
        let rig = Rig::up(policy(), vec![ChildSpec::supervisor("store", policy(), vec![engine])]).await;
        assert_eq!(
            rig.chronicle("store.engine", 0),
            ["launched", "degraded no answer", "recovered", "ready"]
        );
        rig.stop().await;
    });
}

#[test]
fn a_message_that_is_given_up_is_told_of_whoever_held_it() {
    paused(async {
        let trace = Trace::default();
        let lane = obtrace::supervisors::kernel::lane::Lane::new("shared", bounds(9, 9 << 10, 2));
        let script = Script::default().consume(|_, _| panic!("boom"));
        let hand = puppet("hand", policy(), &trace, script).reads(&lane).build();
        let rig = Rig::up(policy(), vec![hand]).await;
        lane.port().try_send(Job::new(1)).unwrap();
        pass(Duration::from_secs(2)).await;
        let told = rig.chronicle("hand", 0);
        let poisoned: Vec<_> = told.iter().filter(|line| line.starts_with("poisoned")).collect();
        assert_eq!(poisoned, ["poisoned 2"], "{told:?}");
        rig.stop().await;
    });
}

#[test]
fn a_quarantine_and_its_probe_are_told() {
    paused(async {
        let (trace, cast) = (Trace::default(), Cast::new("bad"));
        let bad = cast.plays(policy(), &trace, Script::default());
        let quarantine = QuarantinePolicy { cool_down: Duration::from_secs(30), probes: 1 };
        let rules = Policy { intensity: 0, on_limit: OnLimit::Quarantine, quarantine, ..policy() };
        let rig = Rig::up(rules, vec![bad]).await;
        let before = rig.view().journal().newest();
        cast.told(Order::Panic).await;
        pass(Duration::from_secs(10)).await;
        assert_eq!(rig.node("bad").quarantine_left_s, Some(20));
        pass(Duration::from_secs(21)).await;
        let told = rig.chronicle("bad", before);
        assert_eq!(told[1..], ["quarantined 30000", "probing", "launched", "ready"], "{told:?}");
        assert_eq!(rig.node("bad").quarantine_left_s, None);
        rig.stop().await;
    });
}
