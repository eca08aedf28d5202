//! What one query may cost: bounds of the process and of the tenant's plan in, the tighter of each out, and the words for
//! whoever ran into one.

use std::time::Duration;

use crate::domain::plan::Plan;
use crate::domain::query::QueryError;

/// Bounds of one statement, enforced by the store; 0 is no bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryLimits {
    /// Most rows the store may read.
    pub max_rows_to_read: u64,
    /// Most bytes the store may read, uncompressed.
    pub max_bytes_to_read: u64,
    /// Most bytes of memory the statement may use.
    pub max_memory_bytes: u64,
    /// Most rows the store may answer.
    pub max_result_rows: u64,
    /// Most bytes the store may answer.
    pub max_result_bytes: u64,
    /// The plan of the tenant who asks, which some of the bounds are from.
    pub plan: Option<Plan>,
}

/// Which bound a query ran into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// Rows to read.
    Rows,
    /// Bytes to read.
    Bytes,
    /// Memory.
    Memory,
    /// Rows of the answer.
    Answer,
    /// Bytes of the answer.
    AnswerBytes,
}

impl Default for QueryLimits {
    /// What the configuration says where nobody set it (`serve.query.*`).
    fn default() -> Self {
        Self {
            max_rows_to_read: 0,
            max_bytes_to_read: 0,
            max_memory_bytes: 512 << 20,
            max_result_rows: 0,
            max_result_bytes: 64 << 20,
            plan: None,
        }
    }
}

impl QueryLimits {
    /// These bounds, and those of a plan where they are tighter.
    #[must_use]
    pub fn within(self, plan: Plan) -> Self {
        let limits = plan.limits;
        Self {
            max_rows_to_read: tighter(self.max_rows_to_read, limits.query_rows_to_read),
            max_bytes_to_read: tighter(self.max_bytes_to_read, limits.query_bytes_to_read),
            max_memory_bytes: tighter(self.max_memory_bytes, limits.query_memory_bytes),
            max_result_rows: tighter(self.max_result_rows, limits.query_result_rows),
            plan: Some(plan),
            ..self
        }
    }

    /// Longest time that the plan gives a query.
    pub fn plan_time(&self) -> Option<Duration> {
        let seconds = self.plan.as_ref()?.limits.query_seconds;
        (seconds > 0).then(|| Duration::from_secs(seconds.into()))
    }

    /// The answer to a query that ran out of its plan's time.
    pub fn out_of_time(&self) -> QueryError {
        match (&self.plan, self.plan_time()) {
            (Some(plan), Some(time)) => QueryError::TooLarge(format!(
                "the query took longer than {} s, the most that plan {:?} allows: ask for a shorter time range or add a filter",
                time.as_secs(),
                plan.name
            )),
            _ => QueryError::Timeout,
        }
    }

    /// The answer to a query that ran into a bound of which the store said `what`.
    pub fn too_large(&self, bound: Bound, what: &str) -> QueryError {
        let plan = self.plan.as_ref();
        let of_plan = |value: u64, own: fn(&Plan) -> u64| {
            let from = plan.filter(|plan| value > 0 && own(plan) == value);
            from.map(|plan| format!("plan {:?}", plan.name))
        };
        let (does, value, whose, key) = match bound {
            Bound::Rows => (
                format!("would read more than {} rows", self.max_rows_to_read),
                self.max_rows_to_read,
                of_plan(self.max_rows_to_read, |plan| plan.limits.query_rows_to_read),
                "serve.query.max_rows_to_read",
            ),
            Bound::Bytes => (
                format!("would read more than {} bytes", self.max_bytes_to_read),
                self.max_bytes_to_read,
                of_plan(self.max_bytes_to_read, |plan| plan.limits.query_bytes_to_read),
                "the plan",
            ),
            Bound::Memory => (
                format!("needs more than {} bytes of memory", self.max_memory_bytes),
                self.max_memory_bytes,
                of_plan(self.max_memory_bytes, |plan| plan.limits.query_memory_bytes),
                "serve.query.max_memory",
            ),
            Bound::Answer => (
                format!("has an answer of more than {} rows", self.max_result_rows),
                self.max_result_rows,
                of_plan(self.max_result_rows, |plan| plan.limits.query_result_rows),
                "the plan",
            ),
            Bound::AnswerBytes => (
                format!("has an answer of more than {} bytes", self.max_result_bytes),
                self.max_result_bytes,
                None,
                "serve.query.max_answer",
            ),
        };
        let advice = "ask for a shorter time range or add a filter";
        QueryError::TooLarge(match value {
            0 => format!("the query is too large ({what}): {advice}"),
            _ => {
                let whose = whose.unwrap_or_else(|| key.to_owned());
                format!("the query {does}, the most that {whose} allows: {advice}")
            }
        })
    }
}

/// The smaller of two bounds, of which 0 is none.
fn tighter(a: u64, b: u64) -> u64 {
    match (a, b) {
        (0, other) | (other, 0) => other,
        (a, b) => a.min(b),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::plan::Limits;

    fn limits(query_rows_to_read: u64, query_seconds: u32) -> QueryLimits {
        let limits = Limits { query_rows_to_read, query_seconds, ..Limits::default() };
        let own = QueryLimits { max_rows_to_read: 100, ..QueryLimits::default() };
        own.within(Plan { name: Arc::from("free"), limits })
    }

    #[test]
    fn the_tighter_bound_holds_and_an_answer_names_it_and_whose_it_is() {
        let text = |limits: QueryLimits, bound| limits.too_large(bound, "x").to_string();
        let rest = "ask for a shorter time range or add a filter";
        assert_eq!(
            text(limits(10, 0), Bound::Rows),
            format!("the query would read more than 10 rows, the most that plan \"free\" allows: {rest}")
        );
        assert_eq!(
            text(limits(1000, 0), Bound::Rows),
            format!(
                "the query would read more than 100 rows, the most that serve.query.max_rows_to_read allows: {rest}"
            )
        );
        assert_eq!(
            text(limits(0, 0), Bound::Memory),
            format!(
                "the query needs more than 536870912 bytes of memory, the most that serve.query.max_memory allows: {rest}"
            )
        );
        assert_eq!(
            text(limits(0, 0), Bound::AnswerBytes),
            format!(
                "the query has an answer of more than 67108864 bytes, the most that serve.query.max_answer allows: {rest}"
            )
        );
        assert_eq!(text(limits(0, 0), Bound::Bytes), format!("the query is too large (x): {rest}"));
    }

    #[test]
    fn time_is_the_plans_where_it_has_one() {
        assert!(
            limits(0, 5).out_of_time().to_string().contains("longer than 5 s, the most that plan \"free\"")
        );
        assert_eq!(limits(0, 0).out_of_time(), QueryError::Timeout);
    }
}
