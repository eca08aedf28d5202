//! The sliding window that counts restarts, to OTP's rule: *more than* `intensity` restarts within `period` is too many.

use std::collections::VecDeque;
use std::time::Duration;

/// Restart times of the last `period`, as offsets on any monotonic clock.
#[derive(Debug, Clone)]
pub struct Window {
    intensity: u32,
    period: Duration,
    restarts: VecDeque<Duration>,
}

impl Window {
    /// An empty window.
    pub fn new(intensity: u32, period: Duration) -> Self {
        Self { intensity, period, restarts: VecDeque::new() }
    }

    /// Moves the limit; restarts counted so far still count.
    pub fn limit(&mut self, intensity: u32, period: Duration) {
        self.intensity = intensity;
        self.period = period;
    }

    /// Restart times that may still count, oldest first.
    pub fn restarts(&self) -> impl Iterator<Item = Duration> {
        self.restarts.iter().copied()
    }

    /// Counts a restart at `now`. True when the limit is passed: more than `intensity` restarts in `period`.
    pub fn spend(&mut self, now: Duration) -> bool {
        self.expire(now);
        self.restarts.push_back(now);
        self.restarts.len() > self.intensity as usize
    }

    /// Counts a restart at `now` where that does not pass the limit, and else none. True when it did.
    pub fn try_spend(&mut self, now: Duration) -> bool {
        self.expire(now);
        let has_room = self.restarts.len() < self.intensity as usize;
        if has_room {
            self.restarts.push_back(now);
        }
        has_room
    }

    fn expire(&mut self, now: Duration) {
        while self.restarts.front().is_some_and(|at| now.saturating_sub(*at) > self.period) {
            self.restarts.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_intensity_is_tolerated_and_one_more_is_not() {
        let mut window = Window::new(2, Duration::from_secs(10));
        assert!(!window.spend(Duration::from_secs(0)));
        assert!(!window.spend(Duration::from_secs(1)));
        assert!(window.spend(Duration::from_secs(2)));
    }

    #[test]
    fn restarts_older_than_the_period_are_forgotten() {
        let mut window = Window::new(1, Duration::from_secs(10));
        assert!(!window.spend(Duration::from_secs(0)));
        assert!(!window.spend(Duration::from_secs(11)));
        assert_eq!(window.restarts().count(), 1);
        assert!(window.spend(Duration::from_secs(12)));
    }

    #[test]
    fn a_moved_limit_counts_what_was_there_before() {
        let mut window = Window::new(5, Duration::from_secs(10));
        assert!(!window.spend(Duration::from_secs(0)));
        assert!(!window.spend(Duration::from_secs(1)));
        window.limit(2, Duration::from_secs(60));
        assert!(window.spend(Duration::from_secs(50)));
    }

    #[test]
    fn restarts_that_are_not_made_do_not_count() {
        let mut window = Window::new(3, Duration::from_secs(600));
        // One is asked for each second, for longer than the period.
        let made: Vec<u64> =
            (0..=604).filter(|&second| window.try_spend(Duration::from_secs(second))).collect();
        assert_eq!(made, [0, 1, 2, 601, 602, 603], "there is room again when the first ones have passed");
        assert!(!Window::new(0, Duration::from_secs(1)).try_spend(Duration::ZERO));
    }

    #[test]
    fn zero_intensity_tolerates_nothing() {
        assert!(Window::new(0, Duration::from_secs(1)).spend(Duration::ZERO));
    }
}
