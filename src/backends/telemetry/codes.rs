//! ClickHouse's exception codes as Obtrace takes them: a code in, its class out. Never the HTTP status, which is 500 for
//! a broken row and for a broken disk alike.

use crate::domain::failure::FailureClass::{self, Bug, Config, Dependency, Overload, Poison};

/// Every code that is told apart, with ClickHouse's name of it. Any other is a dependency's: waiting loses nothing, giving
/// rows up would.
pub(super) const CODES: &[(i32, &str, FailureClass)] = &[
    // The rows or the statement: the same input fails again.
    (6, "CANNOT_PARSE_TEXT", Poison),
    (7, "INCORRECT_NUMBER_OF_COLUMNS", Poison),
    (20, "NUMBER_OF_COLUMNS_DOESNT_MATCH", Poison),
    (26, "CANNOT_PARSE_QUOTED_STRING", Poison),
    (27, "CANNOT_PARSE_INPUT_ASSERTION_FAILED", Poison),
    (33, "CANNOT_READ_ALL_DATA", Poison),
    (38, "CANNOT_PARSE_DATE", Poison),
    (41, "CANNOT_PARSE_DATETIME", Poison),
    (43, "ILLEGAL_TYPE_OF_ARGUMENT", Poison),
    (44, "ILLEGAL_COLUMN", Poison),
    (53, "TYPE_MISMATCH", Poison),
    (62, "SYNTAX_ERROR", Poison),
    (69, "ARGUMENT_OUT_OF_BOUND", Poison),
    (70, "CANNOT_CONVERT_TYPE", Poison),
    (72, "CANNOT_PARSE_NUMBER", Poison),
    (117, "INCORRECT_DATA", Poison),
    (122, "INCOMPATIBLE_COLUMNS", Poison),
    (128, "TOO_LARGE_ARRAY_SIZE", Poison),
    (130, "CANNOT_READ_ARRAY_FROM_TEXT", Poison),
    (131, "TOO_LARGE_STRING_SIZE", Poison),
    (153, "ILLEGAL_DIVISION", Poison),
    (190, "SIZES_OF_ARRAYS_DONT_MATCH", Poison),
    (321, "VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE", Poison),
    (349, "CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN", Poison),
    (376, "CANNOT_PARSE_UUID", Poison),
    (386, "NO_COMMON_TYPE", Poison),
    (395, "FUNCTION_THROW_IF_VALUE_IS_NON_ZERO", Poison),
    (407, "DECIMAL_OVERFLOW", Poison),
    (467, "CANNOT_PARSE_BOOL", Poison),
    (469, "VIOLATED_CONSTRAINT", Poison),
    (691, "UNKNOWN_ELEMENT_OF_ENUM", Poison),
    // Schema, settings, rights, the cluster's own configuration: an operator's to mend.
    (10, "NOT_FOUND_COLUMN_IN_BLOCK", Config),
    (16, "NO_SUCH_COLUMN_IN_TABLE", Config),
    (36, "BAD_ARGUMENTS", Config),
    (46, "UNKNOWN_FUNCTION", Config),
    (47, "UNKNOWN_IDENTIFIER", Config),
    (48, "NOT_IMPLEMENTED", Config),
    (50, "UNKNOWN_TYPE", Config),
    (57, "TABLE_ALREADY_EXISTS", Config),
    (60, "UNKNOWN_TABLE", Config),
    (73, "UNKNOWN_FORMAT", Config),
    (80, "INCORRECT_QUERY", Config),
    (81, "UNKNOWN_DATABASE", Config),
    (82, "DATABASE_ALREADY_EXISTS", Config),
    (115, "UNKNOWN_SETTING", Config),
    (139, "NO_ELEMENTS_IN_CONFIG", Config),
    (164, "READONLY", Config),
    (192, "UNKNOWN_USER", Config),
    (193, "WRONG_PASSWORD", Config),
    (194, "REQUIRED_PASSWORD", Config),
    (195, "IP_ADDRESS_NOT_ALLOWED", Config),
    (452, "SETTING_CONSTRAINT_VIOLATION", Config),
    (497, "ACCESS_DENIED", Config),
    (511, "UNKNOWN_ROLE", Config),
    (516, "AUTHENTICATION_FAILED", Config),
    (701, "CLUSTER_DOESNT_EXIST", Config),
    // A bound was reached: rows or bytes to read, memory, statements at once, quota, parts.
    (158, "TOO_MANY_ROWS", Overload),
    (173, "CANNOT_ALLOCATE_MEMORY", Overload),
    (201, "QUOTA_EXCEEDED", Overload),
    (202, "TOO_MANY_SIMULTANEOUS_QUERIES", Overload),
    (241, "MEMORY_LIMIT_EXCEEDED", Overload),
    (252, "TOO_MANY_PARTS", Overload),
    (307, "TOO_MANY_BYTES", Overload),
    (396, "TOO_MANY_ROWS_OR_BYTES", Overload),
    (745, "SERVER_OVERLOADED", Overload),
    // A defect of the store itself.
    (49, "LOGICAL_ERROR", Bug),
    // Slow, away, read-only, full, without its Keeper or its replicas: as any other code, named for the nodes' sake.
    (159, "TIMEOUT_EXCEEDED", Dependency),
    (198, "DNS_ERROR", Dependency),
    (209, "SOCKET_TIMEOUT", Dependency),
    (210, "NETWORK_ERROR", Dependency),
    (225, "NO_ZOOKEEPER", Dependency),
    (236, "ABORTED", Dependency),
    (242, "TABLE_IS_READ_ONLY", Dependency),
    (243, "NOT_ENOUGH_SPACE", Dependency),
    (246, "CORRUPTED_DATA", Dependency),
    (279, "ALL_CONNECTION_TRIES_FAILED", Dependency),
    (285, "TOO_FEW_LIVE_REPLICAS", Dependency),
    (286, "UNSATISFIED_QUORUM_FOR_PREVIOUS_WRITE", Dependency),
    (319, "UNKNOWN_STATUS_OF_INSERT", Dependency),
    (394, "QUERY_WAS_CANCELLED", Dependency),
    (439, "CANNOT_SCHEDULE_TASK", Dependency),
    (999, "KEEPER_EXCEPTION", Dependency),
];

/// Codes that another node of the same store may not have.
const OF_THE_NODE: [i32; 11] = [198, 202, 209, 210, 225, 242, 243, 246, 279, 745, 999];

/// The class of a code.
pub(super) fn class_of(code: i32) -> FailureClass {
    CODES.iter().find(|(known, ..)| *known == code).map_or(Dependency, |(.., class)| *class)
}

/// Whether another node may well answer where this one says so.
pub(super) fn is_of_the_node(code: i32) -> bool {
    OF_THE_NODE.contains(&code)
}

/// Every code that is told apart, with its name, for the test that asks the engine for its own.
pub fn known() -> impl Iterator<Item = (i32, &'static str)> {
    CODES.iter().map(|(code, name, _)| (*code, *name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_stands_once_and_has_one_class() {
        for (i, (code, ..)) in CODES.iter().enumerate() {
            assert!(CODES[..i].iter().all(|(other, ..)| other != code), "{code} stands twice");
        }
        for (class, codes) in [
            (Poison, [6, 27, 53, 70, 117, 349].as_slice()),
            (Config, &[60, 81, 497, 516]),
            (Overload, &[202, 241, 252]),
            (Dependency, &[159, 209, 210, 242, 243, 999, 987_654]),
            (Bug, &[49]),
        ] {
            assert!(codes.iter().all(|code| class_of(*code) == class), "{codes:?} are {class:?}");
        }
        assert!(OF_THE_NODE.iter().all(|code| matches!(class_of(*code), Dependency | Overload)));
    }
}
