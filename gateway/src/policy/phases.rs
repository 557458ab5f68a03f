//! The phases of an exchange in which components are asked, and their order: said here, and gone by wherever an exchange is
//! led through them. The data plane is held to it by builds for tests ([`Exchange::enters`](super::Exchange::enters)); the
//! tool that tests plugins walks the list.

/// A phase in which components are asked, in the order of an exchange. docs/ARCHITECTURE.md has the same words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AskingPhase {
    /// Predicates.
    Acl,
    /// Whether a connection of TCP mode goes on, and where to.
    ConnectionPolicy,
    /// Limiters.
    Limits,
    /// Request filters, and the answers to their calls.
    RequestRewrite,
    /// How the request's body is filtered.
    RequestBody,
    /// Response filters.
    ResponseRewrite,
    /// How the response's body is filtered.
    ResponseBody,
    /// Who is told of what is over.
    Log,
}

impl AskingPhase {
    /// What a request comes to.
    pub const OF_REQUESTS: [Self; 7] = [
        Self::Acl,
        Self::Limits,
        Self::RequestRewrite,
        Self::RequestBody,
        Self::ResponseRewrite,
        Self::ResponseBody,
        Self::Log,
    ];

    /// What a connection of TCP mode comes to.
    pub const OF_CONNECTIONS: [Self; 3] = [Self::Acl, Self::ConnectionPolicy, Self::Log];
}

#[cfg(test)]
mod tests {
    use super::super::hook::HookPlace;
    use super::*;

    #[test]
    fn every_hook_is_asked_in_a_phase_that_some_exchange_comes_to_and_each_list_is_in_order() {
        let lists: [&[AskingPhase]; 2] = [&AskingPhase::OF_REQUESTS, &AskingPhase::OF_CONNECTIONS];
        for place in HookPlace::ALL {
            let Some(phase) = place.phase() else {
                assert_eq!(place, HookPlace::Instantiate);
                continue;
            };
            assert!(lists.iter().any(|list| list.contains(&phase)), "{place:?}");
        }
        for list in lists {
            assert!(list.is_sorted_by(|one, next| one < next), "{list:?}");
        }
    }
}
