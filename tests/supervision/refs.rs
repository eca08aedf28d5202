//! References to workers for control messages: through a restart, at the deadline, bounded.

use std::time::Duration;

use actix::AsyncContext;
use obtrace::supervisors::kernel::policy::Policy;
use obtrace::supervisors::kernel::port::PortError;

use crate::support::{Cast, Order, Rig, Script, Trace, WhichQuery, ms, pass, paused, policy};

#[test]
fn an_ask_waits_through_a_restart_and_reaches_the_successor() {
    paused(async {
        let cast = Cast::new("hand");
        let rig = Rig::up(policy(), vec![cast.plays(policy(), &Trace::default(), Script::default())]).await;
        assert_eq!(cast.known.ask(WhichQuery, ms(10)).await, Ok(1));
        assert_eq!(cast.known.ask(Order::Panic, ms(10)).await, Err(PortError::Gone));
        assert_eq!(cast.known.ask(WhichQuery, ms(50)).await, Err(PortError::Restarting));
        assert_eq!(cast.known.ask(WhichQuery, Duration::from_secs(5)).await, Ok(2));
        rig.stop().await;
        assert_eq!(cast.known.ask(WhichQuery, ms(50)).await, Err(PortError::Restarting));
    });
}

#[test]
fn a_busy_child_gives_no_answer_and_takes_no_more_than_its_control_capacity() {
    paused(async {
        let cast = Cast::new("hand");
        let busy = Script::default().started(|probe, ctx| {
            probe.ready();
            ctx.spawn(actix::fut::wrap_future(std::future::pending()));
            ctx.wait(actix::fut::wrap_future(tokio::time::sleep(Duration::from_secs(5))));
        });
        let small = Policy { control_capacity: 3, ..policy() };
        let rig = Rig::up(policy(), vec![cast.plays(small, &Trace::default(), busy)]).await;
        assert_eq!(cast.known.ask(WhichQuery, ms(50)).await, Err(PortError::NoAnswer));
        let patient = (0..3).map(|_| cast.known.ask(WhichQuery, Duration::from_secs(2)));
        let hasty = (0..3).map(|_| cast.known.ask(WhichQuery, ms(50)));
        let (patient, hasty) =
            tokio::join!(futures_util::future::join_all(patient), futures_util::future::join_all(hasty));
        assert_eq!(patient, [Err(PortError::NoAnswer); 3]);
        assert_eq!(hasty, [Err(PortError::Full); 3]);
        pass(Duration::from_secs(6)).await;
        assert_eq!(cast.known.ask(WhichQuery, ms(50)).await, Ok(1));
        rig.stop().await;
    });
}
