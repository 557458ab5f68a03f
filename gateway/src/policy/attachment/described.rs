//! What a component says of itself, held against what it may say. Errors go on behind the component's name.

use crate::policy::bindings::exports::gateway::policy::limiter;
use crate::policy::exchange::LimitPolicy;
use crate::policy::failure::{one_line, short_name};

/// The names of its predicates: `hook` says whether it answers any.
pub(super) fn check_predicates(hook: bool, names: &[String]) -> Result<(), String> {
    if !hook {
        return Ok(());
    }
    if names.len() > MAX_PREDICATES {
        return Err(format!(
            "has {} predicates; at most {MAX_PREDICATES} fit into an answer",
            names.len()
        ));
    }
    for (i, name) in names.iter().enumerate() {
        if name.is_empty() {
            return Err("has a predicate without a name".to_owned());
        }
        if name.len() > MAX_PREDICATE {
            let name = short_name(name);
            return Err(format!(
                "has a predicate `{name}…`, whose name has more than {MAX_PREDICATE} bytes"
            ));
        }
        if names[..i].contains(name) {
            return Err(format!("has two predicates named `{}`", one_line(name)));
        }
    }
    Ok(())
}

/// The limits that it tells clients of.
pub(super) fn check_policies(policies: Vec<limiter::Policy>) -> Result<Vec<LimitPolicy>, String> {
    if policies.len() > MAX_POLICIES {
        return Err(format!(
            "has {} limits; at most {MAX_POLICIES} are taken",
            policies.len()
        ));
    }
    let check = |policy: limiter::Policy| {
        let is_text = policy
            .name
            .bytes()
            .all(|byte| matches!(byte, b' '..=b'~') && !b"\"\\".contains(&byte));
        match is_text && (1..=MAX_POLICY_NAME).contains(&policy.name.len()) {
            true => Ok(LimitPolicy {
                name: policy.name,
                quota: policy.quota,
                window_ms: policy.window_ms,
            }),
            false => Err(format!(
                "has a limit named `{}`; a name has 1 to {MAX_POLICY_NAME} printable characters of ASCII, without quotes",
                short_name(&policy.name)
            )),
        }
    };
    policies.into_iter().map(check).collect()
}

/// Predicates of a component: bits of the answer.
const MAX_PREDICATES: usize = 64;

/// Bytes of a predicate's name, which is kept for as long as the component is attached.
const MAX_PREDICATE: usize = 512;

/// Limits of a component; the contract says so. A response that tells of them grows with each.
const MAX_POLICIES: usize = 64;
const MAX_POLICY_NAME: usize = 64;
