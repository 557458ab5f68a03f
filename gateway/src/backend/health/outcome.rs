//! What a check found, in the words that HAProxy has for it.

use std::time::Duration;

use super::CheckError;
use crate::backend::ConnectError;
use crate::config::CheckKind;
use crate::telemetry::metrics::CheckEnd;

/// How a check ended that took so long.
pub(super) fn of(kind: &CheckKind, tls: bool, result: &Result<(), CheckError>, took: Duration) -> CheckEnd {
    // Whether it says anything once it is connected.
    let is_only_connecting = matches!(kind, CheckKind::Tcp(steps) if steps.is_empty());
    let word = match result {
        Ok(()) if !is_only_connecting => "L7OK",
        Ok(()) if tls => "L6OK",
        Ok(()) => "L4OK",
        Err(CheckError::Drains(_)) => "L7OKC",
        Err(CheckError::Connect(ConnectError::Timeout(_))) => "L4TOUT",
        Err(CheckError::Connect(ConnectError::Tls(_))) => "L6RSP",
        Err(CheckError::Connect(ConnectError::TlsTimeout(_))) => "L6TOUT",
        Err(CheckError::Connect(_)) => "L4CON",
        Err(CheckError::Timeout(_)) if is_only_connecting => "L4TOUT",
        Err(CheckError::Timeout(_)) => "L7TOUT",
        Err(CheckError::Status(_) | CheckError::UnwantedStatus(_)) => "L7STS",
        Err(_) => "L7RSP",
    };
    CheckEnd {
        passed: matches!(result, Ok(()) | Err(CheckError::Drains(_))),
        took,
        word,
        status: match result {
            Err(CheckError::Status(status) | CheckError::UnwantedStatus(status) | CheckError::Drains(status)) => {
                Some(*status)
            }
            _ => None,
        },
        reason: result.as_ref().err().map(ToString::to_string),
    }
}
