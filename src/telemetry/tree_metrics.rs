//! The tree as metrics: a snapshot in, families of samples out. Bounded: a group of many members is one path.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use super::exposition::{Family, Kind};
use crate::supervisors::kernel::lane::LaneStats;
use crate::supervisors::kernel::meter::POLL_BUCKETS_S;
use crate::supervisors::kernel::snapshot::{ChildState, Crowd, Left, NodeSnapshot, TreeSnapshot};

/// Groups of more members than this are summed up under `GROUP.*`: members come and go, and with them their series.
pub const MOST_MEMBERS: usize = 64;

/// Groups whose members come and go with connections: their names would pile up as labels, however few there are at once.
const PASSING: [&str; 1] = ["ingest.sessions"];

/// The lanes of all members of such a group together; shown under the path of the members.
const MEMBERS: &str = "*";

/// Every state, so that a series of each is there from the start.
const STATES: [ChildState; 9] = [
    ChildState::Starting,
    ChildState::Running,
    ChildState::Degraded,
    ChildState::Paused,
    ChildState::BackingOff,
    ChildState::Quarantined,
    ChildState::Draining,
    ChildState::Drained,
    ChildState::Stopped,
];

/// The families of a tree.
pub fn families(snapshot: &TreeSnapshot) -> Vec<Family> {
    let mut sums = BTreeMap::new();
    gather(&snapshot.root, None, &mut sums);
    let mut families = write(&sums);
    families.extend(threads(snapshot));
    families
}

/// What is known of the threads, and of what had to be forced.
fn threads(snapshot: &TreeSnapshot) -> [Family; 3] {
    let help = "Seconds that the last sign of life of an arbiter thread came late";
    let mut lag = Family::new("obtrace_arbiter_lag_seconds", Kind::Gauge, help);
    for thread in &snapshot.arbiters {
        lag.add(&[("pool", &thread.pool), ("arbiter", &thread.arbiter.to_string())], thread.lag_s);
    }
    let help = "Arbiter threads given up because they were blocked";
    let mut condemned = Family::new("obtrace_arbiters_condemned", Kind::Counter, help);
    condemned.add(&[], snapshot.condemned as f64);
    let help = "Children aborted because they did not start or drain in time";
    let mut forced = Family::new("obtrace_forced_aborts", Kind::Counter, help);
    forced.add(&[], snapshot.forced_aborts as f64);
    [lag, condemned, forced]
}

/// What is known under one path: of one node, or of the members of a large group together.
#[derive(Default)]
struct Sum<'t> {
    states: BTreeMap<&'static str, u64>,
    generation: u64,
    handled: u64,
    fenced: u64,
    /// Busy ratios, each with how many have it on average.
    busy: Vec<(f64, f64)>,
    /// Summed up as whole nanoseconds: in another order fractions would give less, and a counter would go down.
    polls: (Duration, [u64; POLL_BUCKETS_S.len() + 1]),
    worker: bool,
    lanes: BTreeMap<&'t str, Cow<'t, LaneStats>>,
    gauges: BTreeMap<&'static str, f64>,
    breaker: Option<&'static str>,
}

fn gather<'t>(node: &'t NodeSnapshot, under: Option<&str>, sums: &mut BTreeMap<String, Sum<'t>>) {
    let path = under.map_or_else(|| named(&node.path), str::to_owned);
    sums.entry(path).or_default().add(node);
    let below = under.map(str::to_owned).or_else(|| is_large(node).then(|| format!("{}.*", node.path)));
    let passing = PASSING.contains(&node.path.as_str());
    match &node.crowd {
        Some(crowd) => sums.entry(format!("{}.*", node.path)).or_default().add_crowd(crowd),
        None => node.children.iter().for_each(|child| gather(child, below.as_deref(), sums)),
    }
    if let (Some(left), Some(path)) = (&node.left, &below) {
        let lanes_as_one = passing || node.crowd.is_some();
        sums.entry(path.clone()).or_default().add_left(left, lanes_as_one);
    }
    if passing && let Some(sum) = below.and_then(|path| sums.get_mut(&path)) {
        sum.merge_lanes();
    }
}

/// Groups of more than [`MOST_MEMBERS`].
pub fn large_groups(snapshot: &TreeSnapshot) -> Vec<&str> {
    let nodes = snapshot.root.walk().into_iter();
    nodes.filter(|node| is_large(node)).map(|node| node.path.as_str()).collect()
}

fn is_large(node: &NodeSnapshot) -> bool {
    node.kind == "group"
        && (node.crowd.is_some()
            || node.children.len() > MOST_MEMBERS
            || PASSING.contains(&node.path.as_str()))
}

/// A path as a label.
pub fn named(path: &str) -> String {
    if path.is_empty() { "root".to_owned() } else { path.to_owned() }
}

impl<'t> Sum<'t> {
    fn add(&mut self, node: &'t NodeSnapshot) {
        *self.states.entry(node.state.as_str()).or_default() += 1;
        self.generation = self.generation.max(node.generation);
        self.handled += node.handled;
        self.fenced += node.fenced;
        self.busy.extend(node.busy_ratio.map(|ratio| (ratio, 1.0)));
        self.worker |= node.kind == "worker";
        self.polls.0 += node.polls.busy;
        self.polls.1.iter_mut().zip(node.polls.buckets).for_each(|(sum, n)| *sum += n);
        self.lanes.extend(node.lanes.iter().map(|lane| (lane.name.as_str(), Cow::Borrowed(lane))));
        for (name, value) in &node.gauges {
            *self.gauges.entry(name).or_default() += value;
        }
        // Of several breakers the worst is shown.
        let rank = |state: &str| ["closed", "half_open", "open"].iter().position(|known| *known == state);
        let state = node.breaker.map(|breaker| breaker.as_str());
        self.breaker = self.breaker.max_by_rank(state, rank);
    }

    /// The members of a group that does not list them.
    fn add_crowd(&mut self, crowd: &'t Crowd) {
        for (state, n) in &crowd.states {
            *self.states.entry(state).or_default() += *n as u64;
        }
        self.generation = self.generation.max(crowd.generation);
        self.handled += crowd.handled;
        self.fenced += crowd.fenced;
        self.busy.push((crowd.busy_ratio, crowd.members as f64));
        self.worker = true;
        self.polls.0 += crowd.polls.busy;
        self.polls.1.iter_mut().zip(crowd.polls.buckets).for_each(|(sum, n)| *sum += n);
        self.lanes.extend(crowd.lane.iter().map(|lane| (MEMBERS, Cow::Borrowed(lane))));
        for (name, value) in &crowd.gauges {
            *self.gauges.entry(name).or_default() += value;
        }
    }

    /// What those had counted that are no longer among the members: counters do not go down.
    fn add_left(&mut self, left: &Left, lanes: bool) {
        self.handled += left.handled;
        self.fenced += left.fenced;
        self.worker = true;
        self.polls.0 += left.polls.busy;
        self.polls.1.iter_mut().zip(left.polls.buckets).for_each(|(sum, n)| *sum += n);
        if let Some(lane) = left.lane.as_ref().filter(|_| lanes) {
            self.lanes.entry(MEMBERS).or_default().to_mut().add_counts(lane);
        }
    }

    /// Lanes of members that come and go, under one name: theirs would pile up.
    fn merge_lanes(&mut self) {
        let mut sum = LaneStats::default();
        self.lanes.values().for_each(|lane| sum.add(lane));
        if !self.lanes.is_empty() {
            self.lanes = [(MEMBERS, Cow::Owned(sum))].into();
        }
    }
}

/// The later of two by a rank; none is before all.
trait ByRank: Sized {
    fn max_by_rank(self, other: Self, rank: impl Fn(&'static str) -> Option<usize>) -> Self;
}

impl ByRank for Option<&'static str> {
    fn max_by_rank(self, other: Self, rank: impl Fn(&'static str) -> Option<usize>) -> Self {
        if other.and_then(&rank) > self.and_then(&rank) { other } else { self }
    }
}

fn write(sums: &BTreeMap<String, Sum<'_>>) -> Vec<Family> {
    use Kind::{Counter, Gauge, Histogram};
    let family = |name: &str, kind, help: &str| Family::new(&format!("obtrace_{name}"), kind, help);
    let mut state = family("child_state", Gauge, "Children under this path in this state");
    let mut generation =
        family("child_generation", Gauge, "Number of the incarnation, the highest under this path");
    let mut handled = family("child_handled", Counter, "Messages handled");
    let mut fenced = family("child_fenced", Counter, "Writes from which replaced incarnations were kept");
    let mut busy =
        family("busy_ratio", Gauge, "Share of the last ten seconds spent at work, the mean under this path");
    let mut polls = family("poll_seconds", Histogram, "Time of one turn of a worker on its thread");
    let mut gauge = family("child_gauge", Gauge, "Figures that workers report, by name");
    let mut breaker =
        family("breaker_state", Gauge, "1 for the state of the circuit breaker, the worst under this path");
    for (path, sum) in sums {
        let path = path.as_str();
        for name in STATES.map(ChildState::as_str) {
            let n = sum.states.get(name).copied().unwrap_or_default();
            state.add(&[("path", path), ("state", name)], n as f64);
        }
        generation.add(&[("path", path)], sum.generation as f64);
        if sum.worker {
            handled.add(&[("path", path)], sum.handled as f64);
            fenced.add(&[("path", path)], sum.fenced as f64);
            polls.observe(&[("path", path)], &POLL_BUCKETS_S, &sum.polls.1, sum.polls.0.as_secs_f64());
        }
        if !sum.busy.is_empty() {
            let (total, of) =
                sum.busy.iter().fold((0.0, 0.0), |sum, (ratio, n)| (sum.0 + ratio * n, sum.1 + n));
            busy.add(&[("path", path)], total / of);
        }
        for (name, value) in &sum.gauges {
            gauge.add(&[("path", path), ("name", name)], *value);
        }
        for name in ["closed", "half_open", "open"].into_iter().filter(|_| sum.breaker.is_some()) {
            let holds = sum.breaker == Some(name);
            breaker.add(&[("path", path), ("state", name)], f64::from(u8::from(holds)));
        }
    }
    let mut families = vec![state, generation, handled, fenced, busy, polls, gauge, breaker];
    families.extend(lanes(sums));
    families
}

/// Lanes by their own name: several nodes side by side read the same one.
fn lanes<'s>(sums: &'s BTreeMap<String, Sum<'_>>) -> Vec<Family> {
    let named = |(path, sum): (&'s String, &'s Sum<'_>)| {
        let of_members = move |name: &'s str| if name == MEMBERS { path.as_str() } else { name };
        sum.lanes.iter().map(move |(name, lane)| (of_members(name), &**lane))
    };
    let lanes: BTreeMap<&str, &LaneStats> = sums.iter().flat_map(named).collect();
    type Reading = fn(&LaneStats) -> f64;
    let kinds: [(&str, Kind, &str, Reading); 12] = [
        ("lane_messages", Kind::Gauge, "Messages resident in the lane", |l| (l.queued + l.leased) as f64),
        ("lane_bytes", Kind::Gauge, "Bytes resident in the lane", |l| l.bytes as f64),
        ("lane_peak_bytes", Kind::Gauge, "Most bytes resident so far under the present bounds", |l| {
            l.peak_bytes as f64
        }),
        ("lane_capacity", Kind::Gauge, "Most messages of the lane", |l| l.capacity as f64),
        ("lane_capacity_bytes", Kind::Gauge, "Most bytes of the lane", |l| l.capacity_bytes as f64),
        ("lane_sent", Kind::Counter, "Messages that the lane accepted", |l| l.sent as f64),
        ("lane_redelivered", Kind::Counter, "Deliveries that ended without an acknowledgement", |l| {
            l.redelivered as f64
        }),
        ("lane_shed", Kind::Counter, "Messages refused because the lane was full", |l| l.shed as f64),
        ("lane_fenced", Kind::Counter, "Times that a replaced incarnation tried to act", |l| l.fenced as f64),
        (
            "lane_wait_seconds",
            Kind::Counter,
            "Time that delivered messages waited in the lane, summed up",
            |l| l.waited_for.as_secs_f64(),
        ),
        ("poison", Kind::Counter, "Messages that took the poison path", |l| l.poisoned as f64),
        ("lane_dropped", Kind::Counter, "Poison messages that were dropped, as lane.poison has it", |l| {
            l.dropped as f64
        }),
    ];
    kinds
        .into_iter()
        .map(|(name, kind, help, reading)| {
            let mut family = Family::new(&format!("obtrace_{name}"), kind, help);
            lanes.iter().for_each(|(path, lane)| family.add(&[("path", path)], reading(lane)));
            family
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisors::kernel::lane::{Cargo, Lane, Lease};
    use crate::supervisors::kernel::policy::{Policy, Restart};
    use crate::supervisors::kernel::pools::{INLINE, Pools};
    use crate::supervisors::kernel::seat::{Consume, Seated, Worker};
    use crate::supervisors::kernel::snapshot::LISTED;
    use crate::supervisors::kernel::spec::{ChildSpec, Group};
    use crate::supervisors::kernel::tree::{Tree, TreeView};
    use crate::telemetry::exposition::read;
    use crate::telemetry::metrics::Metrics;
    use std::time::Duration;

    struct Clerk;
    impl Worker for Clerk {}

    struct Note;
    impl Cargo for Note {
        fn weight(&self) -> usize {
            1
        }

        fn poisoned(&self, _: u32) {}
    }

    impl Consume<Note> for Clerk {
        fn consume(&mut self, note: Lease<Note>, _: &mut Seated<Self>) {
            assert!(note.ack());
        }
    }

    async fn rendered(members: usize) -> String {
        let policy = Policy { pool: INLINE.into(), max_children: 1000, ..Policy::default() };
        let clerk = |name: String| ChildSpec::worker(name, policy.clone(), |_| Clerk).build();
        let group = Group::default();
        (0..members).for_each(|n| group.want(clerk(format!("t-{n}"))));
        let children = vec![clerk("alone".into()), ChildSpec::group("many", policy.clone(), group)];
        let mut tree =
            Tree::start(&ChildSpec::supervisor("root", policy.clone(), children), Pools::new([].into()));
        tree.ready().await.unwrap();
        while tree.view().snapshot().root.walk().iter().filter(|n| n.state == ChildState::Running).count()
            < members + 3
        {
            tokio::task::yield_now().await;
        }
        let text = Metrics::new().render(&tree.view());
        tree.stop(Duration::from_secs(5)).await;
        text
    }

    #[actix_web::test]
    async fn what_prometheus_scrapes_is_well_formed_and_has_the_names_that_are_promised() {
        let text = rendered(3).await;
        let families = read(&text).unwrap_or_else(|why| panic!("{why}"));
        let names: Vec<&str> = families.iter().map(|family| family.name.as_str()).collect();
        for name in [
            "obtrace_child_state",
            "obtrace_child_generation",
            "obtrace_busy_ratio",
            "obtrace_poll_seconds",
            "obtrace_arbiters_condemned",
            "obtrace_forced_aborts",
        ] {
            assert!(names.contains(&name), "{name} in {names:?}");
        }
        for line in [
            "obtrace_child_state{path=\"alone\",state=\"running\"} 1\n",
            "obtrace_child_state{path=\"alone\",state=\"quarantined\"} 0\n",
            "obtrace_child_state{path=\"many.t-2\",state=\"running\"} 1\n",
            "obtrace_child_generation{path=\"root\"} 1\n",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }

    fn present(view: &TreeView) -> usize {
        let snapshot = view.snapshot();
        let group = snapshot.root.find("ingest.sessions").unwrap();
        group.crowd.as_ref().map_or(group.children.len(), |crowd| crowd.members)
    }

    /// The counters of a path in a metrics text, buckets and sums of its histograms included.
    fn counters(text: &str, path: &str) -> BTreeMap<String, f64> {
        let counts = |series: &str| {
            let name = series.split('{').next().unwrap_or_default();
            ["_total", "_bucket", "_sum", "_count"].iter().any(|end| name.ends_with(end))
        };
        let lines = text.lines().filter_map(|line| line.split(" # ").next()?.rsplit_once(' '));
        let of_path =
            lines.filter(|(series, _)| series.contains(&format!("path=\"{path}\"")) && counts(series));
        of_path.map(|(series, value)| (series.to_owned(), value.parse().unwrap())).collect()
    }

    #[actix_web::test]
    async fn counters_of_a_group_keep_what_members_had_counted_that_left() {
        let policy = Policy {
            pool: INLINE.into(),
            restart: Restart::Temporary,
            max_children: 1000,
            ..Policy::default()
        };
        let stays = Policy { pool: INLINE.into(), ..Policy::default() };
        for members in [3, LISTED + 6] {
            let group = Group::default();
            let sessions = ChildSpec::group("sessions", policy.clone(), group.clone());
            let ingest = ChildSpec::supervisor("ingest", stays.clone(), vec![sessions]);
            let root = ChildSpec::supervisor("root", stays.clone(), vec![ingest]);
            let mut tree = Tree::start(&root, Pools::new([].into()));
            tree.ready().await.unwrap();
            let name = |n: usize| format!("t-{n}");
            for n in 0..members {
                let lane = Lane::new(format!("ingest.sessions.{}", name(n)), policy.lane);
                group.want(ChildSpec::worker(name(n), policy.clone(), |_| Clerk).reads(&lane).build());
                (0..3).for_each(|_| lane.port().try_send(Note).unwrap());
            }
            let view = tree.view();
            let text = || Metrics::new().render(&view);
            let read = || counters(&text(), "ingest.sessions.*");
            let handled = "obtrace_child_handled_total{path=\"ingest.sessions.*\"}";
            let all = 3.0 * members as f64;
            while read().get(handled) != Some(&all) {
                tokio::task::yield_now().await;
            }
            let mut before = read();
            for left in [members / 2, members - 1, members] {
                (0..left).for_each(|n| group.unwant(&name(n)));
                while present(&view) > members - left {
                    tokio::task::yield_now().await;
                }
                let now = read();
                assert_eq!((now[handled], now.len()), (all, before.len()), "{left} of {members} left");
                let lane = |what: &str| now[&format!("obtrace_{what}_total{{path=\"ingest.sessions.*\"}}")];
                assert_eq!(lane("lane_sent"), all);
                for (series, value) in &before {
                    assert!(now[series] >= *value, "{series} went down as {left} of {members} left");
                }
                before = now;
            }
            assert!(text().contains("obtrace_lane_messages{path=\"ingest.sessions.*\"} 0\n"), "{}", text());
            assert!(text().contains("obtrace_lane_capacity{path=\"ingest.sessions.*\"} 0\n"), "{}", text());
            tree.stop(Duration::from_secs(5)).await;
        }
    }

    #[actix_web::test]
    async fn a_large_group_is_one_path_however_large() {
        let (large, larger) = (rendered(MOST_MEMBERS + 1).await, rendered(3 * MOST_MEMBERS).await);
        assert_eq!(large.lines().count(), larger.lines().count());
        assert!(larger.contains("obtrace_child_state{path=\"many.*\",state=\"running\"} 192\n"), "{larger}");
        assert!(!larger.contains("many.t-"));
        read(&larger).unwrap();
    }
}
