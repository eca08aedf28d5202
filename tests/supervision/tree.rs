//! The tree as a whole: order, nested restarts, replicas, what the snapshot says.

use std::time::Duration;

use futures_util::StreamExt;
use obtrace::domain::failure::FailureClass;
use obtrace::supervisors::kernel::lane::LaneView;
use obtrace::supervisors::kernel::policy::{Policy, Strategy};
use obtrace::supervisors::kernel::snapshot::ChildState;
use obtrace::supervisors::kernel::spec::ChildSpec;

use crate::support::{
    Cast, Job, Order, Rig, Script, Trace, lane, ms, pass, paused, policy, puppet, strategy,
};

#[test]
fn stages_start_in_order_and_stop_in_reverse() {
    paused(async {
        let trace = Trace::default();
        let child = |name: &str| puppet(name, policy(), &trace, Script::default()).build();
        let stage = |name: &str, children| ChildSpec::supervisor(name, policy(), children);
        let rig = Rig::up(
            strategy(Strategy::RestForOne),
            vec![
                stage("store", vec![child("s1"), child("s2")]),
                stage("ingest", vec![child("i1"), child("i2")]),
            ],
        )
        .await;
        assert_eq!(trace.take(), ["+s1", "+s2", "+i1", "+i2"]);
        rig.stop().await;
        assert_eq!(trace.take(), ["-i2", "-i1", "-s2", "-s1"]);
    });
}

#[test]
fn a_stage_that_fails_is_restarted_by_its_parents_policy() {
    paused(async {
        let trace = Trace::default();
        let frail = Cast::new("frail");
        let child = |name: &str| puppet(name, policy(), &trace, Script::default()).build();
        let store = ChildSpec::supervisor(
            "store",
            Policy { intensity: 0, ..policy() },
            vec![child("calm"), frail.plays(policy(), &trace, Script::default())],
        );
        let mut rig =
            Rig::up(strategy(Strategy::RestForOne), vec![child("before"), store, child("after")]).await;
        trace.take();
        frail.told(Order::Panic).await;
        pass(ms(300)).await;
        assert_eq!(trace.take(), ["-frail", "-calm", "-after", "+calm", "+frail", "+after"]);
        assert_eq!((rig.node("store").restarts, rig.node("store").generation), (1, 2));
        assert_eq!((rig.node("before").restarts, rig.node("after").restarts), (0, 1));
        assert!(rig.node("store").last_failure.unwrap().contains("store.frail: more than 0 restarts"));
        assert!(rig.tree().view().is_up());
        // The new incarnation of the stage has a window of its own.
        frail.told(Order::Panic).await;
        pass(ms(400)).await;
        assert_eq!(rig.node("store").restarts, 2);
        rig.stop().await;
    });
}

#[test]
fn replicas_share_a_lane_and_lose_only_their_own_leases() {
    paused(async {
        let (trace, lane) = (Trace::default(), lane("pair"));
        // Detached work, which outlives its actor.
        let holds = Script::default().consume(|lease, _| {
            actix_rt::spawn(async move {
                tokio::time::sleep(Duration::from_secs(5)).await;
                lease.ack();
            });
        });
        let casts = std::sync::Arc::new([Cast::new("1"), Cast::new("2")]);
        let (known, read) = (casts.clone(), lane.clone());
        let spec = ChildSpec::replicated("pair", Policy { replicas: 2, ..policy() }, move |name, policy| {
            let cast = &known[name.parse::<usize>().unwrap() - 1];
            puppet(&name, policy, &trace, holds.clone()).reads(&read).known_as(&cast.known).build()
        });
        let rig = Rig::up(policy(), vec![spec]).await;
        (1..=2).for_each(|id| lane.port().try_send(Job::new(id)).unwrap());
        pass(ms(1)).await;
        assert_eq!(lane.stats().leased, 2);
        casts[0].told(Order::Panic).await;
        pass(ms(200)).await;
        assert_eq!(lane.stats().redelivered, 1, "only the lease of the replica that crashed came back");
        pass(Duration::from_secs(10)).await;
        let stats = lane.stats();
        assert_eq!((stats.acked, stats.queued, stats.leased), (2, 0, 0));
        rig.stop().await;
    });
}

#[test]
fn a_degraded_child_shows_so_and_is_not_restarted() {
    paused(async {
        let trace = Trace::default();
        let script = Script::default().started(|probe, ctx| {
            use actix::AsyncContext;
            probe.degraded("clickhouse does not answer");
            probe.ready();
            let probe = probe.clone();
            ctx.run_later(Duration::from_secs(600), move |_, _| probe.recovered());
        });
        let mut rig = Rig::up(policy(), vec![puppet("store", policy(), &trace, script).build()]).await;
        pass(Duration::from_secs(300)).await;
        let node = rig.node("store");
        assert_eq!((node.state, node.restarts), (ChildState::Degraded, 0));
        assert_eq!(node.degraded.as_deref(), Some("clickhouse does not answer"));
        assert!(rig.tree().view().is_up());
        pass(Duration::from_secs(301)).await;
        assert_eq!((rig.state("store"), rig.node("store").degraded), (ChildState::Running, None));
        rig.stop().await;
    });
}

#[test]
fn an_incarnation_hears_that_it_was_replaced() {
    paused(async {
        let (trace, lane) = (Trace::default(), lane("l"));
        let kept = std::sync::Arc::new(parking_lot::Mutex::new(None));
        let keep = kept.clone();
        let script = Script::default().consume(move |lease, ctx| {
            if keep.lock().is_none() {
                *keep.lock() = Some(lease);
                actix::ActorContext::stop(ctx);
            } else {
                assert!(lease.ack());
            }
        });
        let rig = Rig::up(policy(), vec![puppet("l", policy(), &trace, script).reads(&lane).build()]).await;
        lane.port().try_send(Job::new(1)).unwrap();
        pass(ms(50)).await;
        assert!(
            kept.lock().as_ref().unwrap().generation().is_current(),
            "ended, but nobody has taken over yet"
        );
        pass(ms(200)).await;
        let lease = kept.lock().take().unwrap();
        assert!(!lease.generation().is_current());
        assert!(!lease.ack(), "the successor got the message, the zombie's work does not count");
        assert_eq!(trace.take(), ["+l", "l got 1#1", "-l", "+l", "l got 1#2"]);
        assert_eq!((lane.stats().acked, lane.stats().leased), (1, 0));
        rig.stop().await;
    });
}

#[test]
fn the_snapshot_keeps_its_shape() {
    paused(async {
        let (trace, lane) = (Trace::default(), lane("process.otlp"));
        let cast = Cast::new("otlp");
        let otlp =
            puppet("otlp", policy(), &trace, Script::default()).reads(&lane).known_as(&cast.known).build();
        let process = ChildSpec::supervisor("process", strategy(Strategy::OneForAll), vec![otlp]);
        let group = ChildSpec::group("consumers", policy(), Default::default());
        let mut rig = Rig::up(strategy(Strategy::RestForOne), vec![process, group]).await;
        cast.told(Order::Fail(FailureClass::Dependency)).await;
        pass(Duration::from_secs(3)).await;
        lane.port().try_send(Job::new(1)).unwrap();
        pass(ms(1)).await;
        let mut shown = rig.tree().view().snapshot();
        let otlp = &mut shown.root.children[0].children[0];
        // Wall time, the one thing here that does not stand still.
        assert!(otlp.last_failure_at.is_some_and(|at| at > 1_700_000_000_000_000_000));
        otlp.last_failure_at = Some(1);
        let shown = serde_json::to_string_pretty(&shown).unwrap();
        assert_eq!(shown, include_str!("snapshot.golden.json").trim_end(), "{shown}");
        rig.stop().await;
    });
}

#[test]
fn a_detached_inbox_still_ends_when_its_lane_is_closed() {
    paused(async {
        let lane = lane("l");
        let mut inbox = lane.inbox(obtrace::supervisors::kernel::probe::Probe::detached());
        let end = actix_rt::spawn(async move { inbox.next().await.is_none() });
        pass(ms(1)).await;
        lane.close();
        assert!(end.await.unwrap());
    });
}
