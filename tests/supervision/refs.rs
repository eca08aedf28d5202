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
        let asks = (0..10).map(|_| cast.known.ask(WhichQuery, ms(50)));
        let answers = futures_util::future::join_all(asks).await;
        let of = |what| answers.iter().filter(|answer| **answer == Err(what)).count();
        // Permits come back at the first three's deadline, which is everybody's.
        assert_eq!(of(PortError::NoAnswer) + of(PortError::Full), 10, "{answers:?}");
        assert!(of(PortError::Full) > 0 && of(PortError::NoAnswer) >= 3, "{answers:?}");
        pass(Duration::from_secs(6)).await;
        assert_eq!(cast.known.ask(WhichQuery, ms(50)).await, Ok(1));
        rig.stop().await;
    });
}
