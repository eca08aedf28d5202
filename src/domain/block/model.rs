//! A model of "offset, intent, insert, commit", small enough to be explored whole: every order of steps of two consumers,
//! a log that fences, a network that loses and delays, and a store that knows tokens.
//!
//! In: the real [`Plan`] and [`BlockId`]. Out: that in every state that can be reached no record is stored twice, and that
//! from each of them a state is reached in which all are stored and committed. Each rule of the protocol can be taken away
//! ([`Rule`]), and the search must then find a way to lose or to double a record: a model that cannot fail shows nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use super::{BlockId, Plan};
use crate::domain::offence::Verdict;

/// Records in the partition.
const RECORDS: u64 = 3;
/// Most records of a block.
const LONGEST: u64 = 2;
/// Consumers that may be at work at the same time: the owner and one that does not know yet that it is replaced.
const CONSUMERS: usize = 2;

/// A rule of the protocol, to be taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// The intent is committed before a block is inserted.
    Intent,
    /// Whoever takes over cuts the block that he finds announced.
    SameBlock,
    /// A commit by an earlier claim is refused.
    Fence,
    /// The store drops a block whose token it knows.
    Token,
    /// The end is committed after the block is stored, not before.
    StoreFirst,
    /// That a block is stored in parts is committed before the first part is.
    Verdict,
}

/// What a consumer is about to do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Step {
    /// Not running.
    Down,
    /// Reads the next block from here on; with the plan that was found there.
    Cut(u64, Option<Plan>),
    /// Commits the intent.
    Announce(u64, Plan),
    /// Sends part `.2` of the block (a block that is not apart is its only part).
    Send(u64, Plan, u64),
    /// Waits for the answer about that part.
    Wait(u64, Plan, u64),
    /// Commits the end.
    Finish(u64, Plan),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Consumer {
    claim: u8,
    step: Step,
}

/// An insert under way; `from` is empty when nobody waits for its answer any more.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Insert {
    first: u64,
    end: u64,
    whole: bool,
    claim: u8,
    from: Option<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    /// The committed offset and its metadata.
    committed: (u64, String),
    /// The latest claim.
    owner: u8,
    consumers: [Consumer; CONSUMERS],
    network: BTreeSet<Insert>,
    tokens: BTreeSet<String>,
    /// Whole blocks that the store refused, with the newest claim that it told. What it refused it goes on to refuse from
    /// that claim and earlier ones; a later one may be another build, which makes other rows of the same records.
    refused: BTreeMap<(u64, u64), u8>,
    /// How often each record is stored.
    stored: [u8; RECORDS as usize],
    /// Crashes, takeovers, lost answers and refusals that may still happen.
    faults: u8,
}

impl State {
    fn start(faults: u8) -> Self {
        let down = Consumer { claim: 0, step: Step::Down };
        Self {
            committed: (0, String::new()),
            owner: 0,
            consumers: [down.clone(), down],
            network: BTreeSet::new(),
            tokens: BTreeSet::new(),
            refused: BTreeMap::new(),
            stored: [0; RECORDS as usize],
            faults,
        }
    }

    fn is_done(&self) -> bool {
        self.committed.0 == RECORDS && self.stored.iter().all(|times| *times == 1)
    }

    fn doubled(&self) -> bool {
        self.stored.iter().any(|times| *times > 1)
    }
}

/// The log of the model is one partition.
fn block(first: u64, end: u64) -> BlockId {
    BlockId { topic: "obtrace.traces".into(), partition: 0, first, end }
}

/// All that can happen next, each with a word for it.
struct Next<'a> {
    state: &'a State,
    without: Option<Rule>,
    out: Vec<(String, State)>,
}

impl Next<'_> {
    fn of(state: &State, without: Option<Rule>) -> Vec<(String, State)> {
        let mut next = Next { state, without, out: Vec::new() };
        for who in 0..CONSUMERS {
            next.work(who);
            next.fail(who);
        }
        for insert in &state.network {
            next.deliver(insert);
        }
        next.out
    }

    fn holds(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    fn may(&mut self, what: String, change: impl FnOnce(&mut State)) {
        let mut state = self.state.clone();
        change(&mut state);
        self.out.push((what, state));
    }

    /// The step that a consumer takes by itself.
    fn work(&mut self, who: usize) {
        let consumer = &self.state.consumers[who];
        let claim = consumer.claim;
        match &consumer.step {
            Step::Down => self.claim(who),
            Step::Cut(at, _) if *at >= RECORDS => {}
            Step::Cut(at, Some(plan)) if self.holds(Rule::SameBlock) => self.cut(who, *at, plan.clone()),
            Step::Cut(at, _) => {
                for end in at + 1..=(at + LONGEST).min(RECORDS) {
                    self.cut(who, *at, Plan::new(end, u64::from(claim)));
                }
            }
            Step::Announce(first, plan) => {
                let (first, plan) = (*first, plan.clone());
                let then = Step::Send(first, plan.clone(), 0);
                let silent = !self.holds(Rule::Intent) || self.already_told(first, &plan);
                let what = if silent { "nothing" } else { "the intent" };
                self.commit(who, what, (!silent).then(|| (first, plan.to_metadata(4096))), then);
            }
            Step::Send(first, plan, part) => self.send(who, *first, plan, *part),
            Step::Wait(..) => {}
            Step::Finish(first, plan) => {
                let (first, plan) = (*first, plan.clone());
                let then = match self.holds(Rule::StoreFirst) {
                    true => Step::Cut(plan.end, None),
                    false => Step::Send(first, plan.clone(), 0),
                };
                self.commit(who, "the end", Some((plan.end, String::new())), then);
            }
        }
    }

    /// A verdict that is not to be told is kept from the log.
    fn already_told(&self, first: u64, plan: &Plan) -> bool {
        let known = Plan::parse(&self.state.committed.1, first);
        !self.holds(Rule::Verdict) && plan.verdict.apart && known.is_some()
    }

    fn claim(&mut self, who: usize) {
        let other_is_down = self.state.consumers.iter().all(|other| other.step == Step::Down);
        // A second one beside a living one is a takeover, which is a fault.
        if !other_is_down && self.state.faults == 0 {
            return;
        }
        self.may(format!("{who} claims"), |state| {
            state.faults -= u8::from(!other_is_down);
            state.owner += 1;
            let (offset, metadata) = &state.committed;
            let plan = Plan::parse(metadata, *offset);
            state.consumers[who] = Consumer { claim: state.owner, step: Step::Cut(*offset, plan) };
        });
    }

    fn cut(&mut self, who: usize, first: u64, plan: Plan) {
        let then = match self.holds(Rule::StoreFirst) {
            true => Step::Announce(first, plan),
            false => Step::Finish(first, plan),
        };
        self.may(format!("{who} cuts"), |state| state.consumers[who].step = then);
    }

    /// A commit: refused where a later claim stands, and the consumer then ends.
    fn commit(&mut self, who: usize, what: &str, position: Option<(u64, String)>, then: Step) {
        let current = self.state.consumers[who].claim == self.state.owner;
        let fenced = position.is_some() && !current && self.holds(Rule::Fence);
        self.may(format!("{who} commits {what}"), |state| {
            if fenced {
                state.consumers[who].step = Step::Down;
                return;
            }
            if let Some(position) = position {
                state.committed = position;
            }
            state.consumers[who].step = then;
        });
    }

    fn send(&mut self, who: usize, first: u64, plan: &Plan, part: u64) {
        let whole = !plan.verdict.apart;
        let (from, end) = if whole { (first, plan.end) } else { (first + part, first + part + 1) };
        let insert =
            Insert { first: from, end, whole, claim: self.state.consumers[who].claim, from: Some(who) };
        let then = Step::Wait(first, plan.clone(), part);
        self.may(format!("{who} sends {from}..{end}"), |state| {
            state.network.insert(insert);
            state.consumers[who].step = then;
        });
    }

    /// A crash, or a wait that is given up: the insert stays under way.
    fn fail(&mut self, who: usize) {
        let step = self.state.consumers[who].step.clone();
        if step == Step::Down || self.state.faults == 0 {
            return;
        }
        let forget = |state: &mut State| {
            state.faults -= 1;
            let orphans = std::mem::take(&mut state.network).into_iter();
            let disown = |insert: Insert| Insert { from: insert.from.filter(|from| *from != who), ..insert };
            state.network = orphans.map(disown).collect();
        };
        self.may(format!("{who} crashes"), |state| {
            forget(state);
            state.consumers[who].step = Step::Down;
        });
        if let Step::Wait(first, plan, part) = step {
            self.may(format!("{who} waits no longer"), |state| {
                forget(state);
                state.consumers[who].step = Step::Send(first, plan, part);
            });
        }
    }

    /// What may become of an insert under way: it is applied, refused, or lost on the way when nobody waits for it.
    fn deliver(&mut self, insert: &Insert) {
        let (first, end) = (insert.first, insert.end);
        let known = block(first, end).to_string();
        let drops = self.holds(Rule::Token) && self.state.tokens.contains(&known);
        let was_refused = self.state.refused.get(&(first, end)).is_some_and(|claim| *claim >= insert.claim);
        let may_be_refused = insert.whole && end - first > 1 && !drops;
        if drops || !(insert.whole && was_refused) {
            self.may(format!("the store takes {known}"), |state| {
                state.network.remove(insert);
                if !drops {
                    (first..end).for_each(|record| state.stored[record as usize] += 1);
                    state.tokens.insert(known);
                }
                insert.from.into_iter().for_each(|who| taken(state, who));
            });
        }
        if may_be_refused && (was_refused || self.state.faults > 0) {
            self.may(format!("the store refuses {first}..{end}"), |state| {
                state.faults -= u8::from(!was_refused);
                state.network.remove(insert);
                let newest = state.refused.entry((first, end)).or_default();
                *newest = insert.claim.max(*newest);
                insert.from.into_iter().for_each(|who| refused(state, who));
            });
        }
        if insert.from.is_none() {
            self.may("an insert is lost".into(), |state| {
                state.network.remove(insert);
            });
        }
    }
}

/// The store has refused the block as a whole: it is stored in parts from then on.
fn refused(state: &mut State, who: usize) {
    let Step::Wait(first, plan, _) = state.consumers[who].step.clone() else { return };
    let verdict = Verdict { apart: true, ..plan.verdict };
    state.consumers[who].step = Step::Announce(first, Plan { verdict, ..plan });
}

/// The store has told `who` that what it waits for is stored.
fn taken(state: &mut State, who: usize) {
    let Step::Wait(first, plan, part) = state.consumers[who].step.clone() else { return };
    let parts = if plan.verdict.apart { plan.end - first } else { 1 };
    state.consumers[who].step = match (part + 1 < parts, state.committed.0 >= plan.end) {
        (true, _) => Step::Send(first, plan, part + 1),
        // Only where the end is committed first.
        (false, true) if state.consumers[who].claim == state.owner => Step::Cut(plan.end, None),
        (false, _) => Step::Finish(first, plan),
    };
}

/// What the search found.
#[derive(Debug)]
enum Found {
    /// Every state that can be reached is well; so many there are.
    Well(usize),
    /// The steps into a state where a record is doubled, or from which not all can be stored any more.
    Broken(&'static str, Vec<String>),
}

/// Every state that can be reached, breadth first, so that a broken one comes by the shortest way.
struct Search {
    states: Vec<State>,
    came_by: Vec<(usize, String)>,
    before: Vec<Vec<usize>>,
}

impl Search {
    fn run(faults: u8, without: Option<Rule>) -> Found {
        let start = State::start(faults);
        let mut index = HashMap::from([(start.clone(), 0)]);
        let mut search =
            Self { states: vec![start], came_by: vec![(0, String::new())], before: vec![vec![]] };
        let mut open = VecDeque::from([0]);
        while let Some(at) = open.pop_front() {
            for (word, state) in Next::of(&search.states[at], without) {
                let to = *index.entry(state.clone()).or_insert(search.states.len());
                if to == search.states.len() {
                    let doubled = state.doubled();
                    search.states.push(state);
                    search.came_by.push((at, word));
                    search.before.push(Vec::new());
                    open.push_back(to);
                    if doubled {
                        return Found::Broken("a record is stored twice", search.way(to));
                    }
                }
                search.before[to].push(at);
            }
        }
        match search.stuck() {
            Some(at) => Found::Broken("not all records can be stored any more", search.way(at)),
            None => Found::Well(search.states.len()),
        }
    }

    fn way(&self, mut to: usize) -> Vec<String> {
        let mut way = Vec::new();
        while to != 0 {
            way.push(self.came_by[to].1.clone());
            to = self.came_by[to].0;
        }
        way.reverse();
        way
    }

    /// The first state from which no state is reached in which all is stored once and committed.
    fn stuck(&self) -> Option<usize> {
        let mut good: Vec<bool> = self.states.iter().map(State::is_done).collect();
        let mut open: Vec<usize> = (0..good.len()).filter(|at| good[*at]).collect();
        while let Some(at) = open.pop() {
            for before in &self.before[at] {
                if !std::mem::replace(&mut good[*before], true) {
                    open.push(*before);
                }
            }
        }
        good.iter().position(|good| !good)
    }
}

#[test]
fn every_order_of_steps_stores_each_record_once() {
    match Search::run(3, None) {
        Found::Well(states) => {
            assert!(states > 10_000, "the model explores next to nothing: {states} states")
        }
        Found::Broken(what, way) => panic!("{what}:\n  {}", way.join("\n  ")),
    }
}

#[test]
fn without_any_one_rule_the_search_finds_what_breaks() {
    let rules = [Rule::Intent, Rule::SameBlock, Rule::Fence, Rule::Token, Rule::StoreFirst, Rule::Verdict];
    for rule in rules {
        match Search::run(3, Some(rule)) {
            Found::Broken(what, way) => println!("without {rule:?}, {what}: {}", way.join(" · ")),
            Found::Well(states) => panic!("{rule:?} is not needed in any of {states} states"),
        }
    }
}
