//! What a failure at the broker means to the callers of the log: librdkafka's code in, [`LogError`] by its class out.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::backends::event_log::LogError;

/// The error of a call to the broker.
pub(super) fn log_error(doing: &str, error: &KafkaError) -> LogError {
    match error.rdkafka_error_code() {
        Some(code) => of_code(doing, code),
        None => LogError::Away(format!("{doing}: {error}")),
    }
}

/// The error that `code` stands for. What nobody but an operator can mend is a matter of settings; what a stale member of
/// a group is told is fencing; all else may work at another time.
pub(super) fn of_code(doing: &str, code: RDKafkaErrorCode) -> LogError {
    use RDKafkaErrorCode as Code;
    match code {
        Code::IllegalGeneration
        | Code::UnknownMemberId
        | Code::FencedInstanceId
        | Code::FencedMemberEpoch
        | Code::StaleMemberEpoch => LogError::Fenced,
        Code::QueueFull => LogError::Full,
        Code::UnknownTopic | Code::UnknownPartition | Code::UnknownTopicOrPartition => {
            LogError::Settings(format!("{doing}: {code}: are the topics made (obtrace migrate)?"))
        }
        Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::UnsupportedSASLMechanism
        | Code::InvalidReplicationFactor
        | Code::PolicyViolation
        | Code::InvalidConfig
        | Code::SSL => LogError::Settings(format!("{doing}: {code}")),
        _ => LogError::Away(format!("{doing}: {code}")),
    }
}

/// True where the partition is being handed on at the moment and the same call may work shortly.
pub(super) fn is_rebalancing(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::RebalanceInProgress
            | RDKafkaErrorCode::WaitingForCoordinator
            | RDKafkaErrorCode::CoordinatorLoadInProgress
            | RDKafkaErrorCode::NotCoordinator
    )
}

/// True where a group lets no member of ours in, or lets it have less than it asks for, until somebody mends it.
pub(super) fn is_groups(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::InvalidSessionTimeout
            | RDKafkaErrorCode::InconsistentGroupProtocol
            | RDKafkaErrorCode::InvalidGroupId
            | RDKafkaErrorCode::GroupMaxSizeReached
            | RDKafkaErrorCode::UnsupportedAssignor
            | RDKafkaErrorCode::UnsupportedFeature
            | RDKafkaErrorCode::UnsupportedVersion
    )
}

/// True where the record itself is what the broker refuses.
pub(super) fn is_too_large(code: RDKafkaErrorCode) -> bool {
    matches!(code, RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::failure::{Classified, FailureClass};

    #[test]
    fn the_code_decides_the_class() {
        use RDKafkaErrorCode as Code;
        for (code, class) in [
            (Code::AllBrokersDown, FailureClass::Dependency),
            (Code::MessageTimedOut, FailureClass::Dependency),
            (Code::NotEnoughReplicas, FailureClass::Dependency),
            (Code::IllegalGeneration, FailureClass::Fenced),
            (Code::UnknownMemberId, FailureClass::Fenced),
            (Code::FencedMemberEpoch, FailureClass::Fenced),
            (Code::SaslAuthenticationFailed, FailureClass::Config),
            (Code::UnknownTopicOrPartition, FailureClass::Config),
            (Code::QueueFull, FailureClass::Overload),
        ] {
            assert_eq!(of_code("a call", code).class(), class, "{code:?}");
        }
        assert!(is_rebalancing(Code::RebalanceInProgress) && !is_rebalancing(Code::IllegalGeneration));
    }
}
