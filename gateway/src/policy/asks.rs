//! The hooks of components, asked one by one: what each is called about, and what its answer comes to.

use std::sync::Arc;

use super::attachment::Attachment;
use super::bindings::exports::gateway::policy::connection_filter;
use super::calls;
use super::edits;
use super::exchange::{ConnectionFacts, ConnectionVerdict, Exchange, LimitVerdict, Outcome, Reply};
use super::failure::{Failure, FailureKind};
use super::hook::{CHECK, EVALUATE, ON_ANSWER, ON_CONNECT, ON_LOG, ON_REQUEST, ON_RESPONSE};
use super::instances::{Instances, QUARANTINED};
use super::scope;
use super::subject::Subject;

impl Instances {
    /// Asks all predicates: bit `i` answers the `i`-th of [`Attachment::predicates`].
    ///
    /// # Errors
    /// When the call fails; the instance is gone then.
    pub fn evaluate(&mut self, attachment: &Arc<Attachment>, exchange: &mut Box<Exchange>) -> Result<u64, Failure> {
        if attachment.stands_aside(exchange) {
            return Ok(0);
        }
        let answer = self.call_or_recall(
            attachment,
            Subject::Exchange(exchange),
            EVALUATE,
            |guests, store, facts| {
                guests
                    .predicates
                    .as_ref()
                    .map(|guest| guest.call_evaluate(store, facts))
            },
            |answer, _, _| Ok(answer),
        )?;
        let named = attachment.predicates().len();
        // Bits beyond the named ones mean nothing.
        Ok(if named < 64 {
            answer & ((1 << named) - 1)
        } else {
            answer
        })
    }

    /// Asks the limiter. None when no limit applies.
    ///
    /// # Errors
    /// When the call fails; the instance is gone then.
    pub fn check(
        &mut self,
        attachment: &Arc<Attachment>,
        exchange: &mut Box<Exchange>,
    ) -> Result<Option<LimitVerdict>, Failure> {
        if attachment.stands_aside(exchange) {
            return Ok(None);
        }
        self.call_or_recall(
            attachment,
            Subject::Exchange(exchange),
            CHECK,
            |guests, store, facts| guests.limiter.as_ref().map(|guest| guest.call_check(store, facts)),
            |verdict, _, _| {
                let Some(verdict) = verdict else { return Ok(None) };
                let policy = usize::try_from(verdict.policy).unwrap_or(usize::MAX);
                if policy >= attachment.policies().len() {
                    return Err("decides by a policy that it does not have".into());
                }
                if attachment.is_shadow() {
                    if !verdict.allowed {
                        attachment.differs(CHECK.name, "would have refused the request");
                    }
                    return Ok(None);
                }
                Ok(Some(LimitVerdict {
                    allowed: verdict.allowed,
                    policy,
                    remaining: verdict.remaining,
                    reset_ms: verdict.reset_ms,
                    retry_after_ms: verdict.retry_after_ms,
                }))
            },
        )
    }

    /// Runs the request filter; its edits are in `exchange.request` when it lets the request go on, and in the route when it
    /// routes.
    ///
    /// # Errors
    /// When the call fails; the instance is gone then, and no edit was made.
    pub fn on_request(
        &mut self,
        attachment: &Arc<Attachment>,
        exchange: &mut Box<Exchange>,
    ) -> Result<Outcome, Failure> {
        if attachment.stands_aside(exchange) {
            return Ok(Outcome::Proceed);
        }
        let outcome = self.call_or_recall(
            attachment,
            Subject::Exchange(exchange),
            ON_REQUEST,
            |guests, store, facts| {
                guests
                    .request_filter
                    .as_ref()
                    .map(|guest| guest.call_on_request(store, facts))
            },
            |outcome, edits, subject| match (attachment.is_shadow(), subject) {
                (true, Subject::Exchange(exchange)) => {
                    let mut request = exchange.request.clone();
                    let outcome = calls::outcome(outcome, edits, &mut request, attachment)?;
                    let differs = match &outcome {
                        Outcome::Proceed => scope::request_differs(&exchange.request, &request),
                        Outcome::Reply(reply) => Some(format!("would answer {}", reply.status.as_u16())),
                        Outcome::Route(route) => Some(format!("would route to {}", route.name)),
                        Outcome::Call(call) => Some(format!("would call {}", call.backend)),
                    };
                    differs.inspect(|text| attachment.differs(ON_REQUEST.name, text));
                    Ok(Outcome::Proceed)
                }
                (false, Subject::Exchange(exchange)) => {
                    calls::outcome(outcome, edits, &mut exchange.request, attachment)
                }
                (_, Subject::Connection(_) | Subject::Body(_)) => Err("is about no request".into()),
            },
        )?;
        // Nobody is asked for an answer that nobody would look at.
        if matches!(outcome, Outcome::Call(_)) && attachment.would_refuse(ON_ANSWER.place) {
            return Err(self.refuse(attachment, ON_ANSWER, FailureKind::Quarantined, QUARANTINED));
        }
        Ok(outcome)
    }

    /// Runs the response filter; its edits are in `exchange.response` when it succeeded. A reply takes the response's place.
    ///
    /// # Errors
    /// When the call fails; the instance is gone then, and no edit was made.
    pub fn on_response(
        &mut self,
        attachment: &Arc<Attachment>,
        exchange: &mut Box<Exchange>,
    ) -> Result<Option<Reply>, Failure> {
        if attachment.stands_aside(exchange) {
            return Ok(None);
        }
        self.call_or_recall(
            attachment,
            Subject::Exchange(exchange),
            ON_RESPONSE,
            |guests, store, facts| {
                guests
                    .response_filter
                    .as_ref()
                    .map(|guest| guest.call_on_response(store, facts))
            },
            |reply, mut edits, subject| {
                if let Some(reply) = reply {
                    // Nobody would see them.
                    edits.clear();
                    let reply = edits::reply_of(reply, attachment)?;
                    if attachment.is_shadow() {
                        let text = format!("would answer {}", reply.status.as_u16());
                        attachment.differs(ON_RESPONSE.name, &text);
                        return Ok(None);
                    }
                    return Ok(Some(reply));
                }
                if attachment.is_shadow() {
                    if let Subject::Exchange(exchange) = subject
                        && let Some(response) = &exchange.response
                    {
                        let mut edited = response.clone();
                        edits.apply_to_response(&mut edited);
                        let differs = scope::response_differs(response, &edited);
                        differs.inspect(|text| attachment.differs(ON_RESPONSE.name, text));
                    }
                    edits.clear();
                    return Ok(None);
                }
                if let Subject::Exchange(exchange) = subject
                    && let Some(response) = &mut exchange.response
                {
                    edits.apply_to_response(response);
                }
                Ok(None)
            },
        )
    }

    /// Tells of an exchange that is over.
    ///
    /// # Errors
    /// When the call fails; the instance is gone then.
    pub fn on_log(&mut self, attachment: &Arc<Attachment>, exchange: &mut Box<Exchange>) -> Result<(), Failure> {
        if attachment.stands_aside(exchange) {
            return Ok(());
        }
        self.call(
            attachment,
            Subject::Exchange(exchange),
            ON_LOG,
            |guests, store, facts| guests.access_log.as_ref().map(|guest| guest.call_on_log(store, facts)),
            |(), _, _| Ok(()),
        )
    }

    /// Asks what becomes of a connection.
    ///
    /// # Errors
    /// When the call fails; the instance is gone then.
    pub fn on_connect(
        &mut self,
        attachment: &Arc<Attachment>,
        connection: &Arc<ConnectionFacts>,
    ) -> Result<ConnectionVerdict, Failure> {
        let mut connection = Arc::clone(connection);
        self.call(
            attachment,
            Subject::Connection(&mut connection),
            ON_CONNECT,
            |guests, store, facts| {
                guests
                    .connection_filter
                    .as_ref()
                    .map(|guest| guest.call_on_connect(store, facts))
            },
            |verdict, _, _| {
                let (verdict, differs) = match verdict {
                    connection_filter::Verdict::Accept => return Ok(ConnectionVerdict::Accept),
                    connection_filter::Verdict::Refuse => {
                        (ConnectionVerdict::Refuse, "would refuse the connection".to_owned())
                    }
                    connection_filter::Verdict::Route(name) => {
                        let backend = calls::route(attachment.granted(), &name)?;
                        (ConnectionVerdict::Route(backend), format!("would route to {name}"))
                    }
                };
                if attachment.is_shadow() {
                    attachment.differs(ON_CONNECT.name, &differs);
                    return Ok(ConnectionVerdict::Accept);
                }
                Ok(verdict)
            },
        )
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use std::time::Duration;

    use super::super::host::Host;
    use super::*;
    use crate::config::{Isolation, OnFailure, PluginLimits, StateLimits, StatusSet};
    use crate::policy::first_party::{ACL, FirstParty, HEADER_REWRITE, RATE_LIMIT};
    use crate::policy::{AttachedAs, AttachmentSpec, Budget, Callers, Clock, CountedLimit, Ends, HostSettings, Scope};

    fn host() -> Arc<Host> {
        host_with(64)
    }

    fn host_with(answers: usize) -> Arc<Host> {
        Host::new(HostSettings {
            instances: 16,
            memory: 16 << 20,
            total_memory: u64::MAX,
            host_memory: u64::MAX,
            max_buckets: 1000,
            answers,
        })
    }

    fn attach(host: &Arc<Host>, what: FirstParty, config: &str) -> Arc<Attachment> {
        attach_counting(host, what, config, Arc::default())
    }

    fn attach_counting(
        host: &Arc<Host>,
        what: FirstParty,
        config: &str,
        counted: Arc<[CountedLimit]>,
    ) -> Arc<Attachment> {
        let component = host.compile(what.name, what.wasm, what.grants).unwrap();
        let spec = AttachmentSpec {
            maps: Some(Arc::default()),
            counted,
            label: what.name.into(),
            namespace: what.name.to_owned(),
            config: config.to_owned(),
            limits: PluginLimits {
                cpu: Duration::from_millis(50),
                memory: 16 << 20,
            },
            on_failure: OnFailure::Deny(503),
            vouched: Arc::default(),
            isolation: Isolation::FOREVER,
            is_forgetful: true,
            budget: Budget::unlimited(),
            quarantine: None,
            callers: Callers::Workers,
            place: AttachedAs::Filter,
            scope: Scope::default(),
            state: StateLimits::DEFAULT,
            granted: Arc::default(),
            origin: None,
        };
        host.attach(&component, spec).unwrap()
    }

    fn exchange(uri: &str) -> Box<Exchange> {
        let request = http::Request::builder()
            .uri(uri)
            .header("host", "example.net")
            .header("x-debug", "1");
        Exchange::new(
            request.body(()).unwrap().into_parts().0,
            Arc::new(ConnectionFacts {
                accepted: tokio::time::Instant::now(),
                ends: Ends::new("192.0.2.7:4711".parse().unwrap(), "192.0.2.1:80".parse().unwrap()),
                tls: None,
                preamble: None,
            }),
        )
    }

    #[test]
    fn the_first_party_components_do_their_work() {
        let host = host();
        let mut instances = Instances::new(&host);
        let acl = r#"{"predicates":[{"name":"is-api","when":{"path":{"prefix":["/api/"]}}},{"name":"other","when":{"host":["example.com"]}}]}"#;
        let acl = attach(&host, ACL, acl);
        assert_eq!(acl.predicates(), ["is-api", "other"]);
        assert_eq!(instances.evaluate(&acl, &mut exchange("/api/x")), Ok(1));
        assert_eq!(instances.evaluate(&acl, &mut exchange("/x")), Ok(0));
        assert_eq!((acl.stats().calls(), acl.stats().instantiations()), (2, 1));

        let rewrite = r#"{"request":[{"set-header":{"name":"x-pool","value":"api"}},{"delete-header":{"name":"x-debug"}},{"rewrite-path":{"prefix":"/old/","to":"/new/"}}],"response":[{"set-header":{"name":"server","value":"gateway"}}]}"#;
        let rewrite = attach(&host, HEADER_REWRITE, rewrite);
        let mut exchange_ = exchange("/old/a?b");
        let outcome = instances.on_request(&rewrite, &mut exchange_).unwrap();
        assert!(matches!(outcome, Outcome::Proceed), "{outcome:?}");
        assert_eq!(exchange_.request.uri, "/new/a?b");
        assert_eq!(exchange_.request.headers["x-pool"], "api");
        assert!(!exchange_.request.headers.contains_key("x-debug"));
        exchange_.response = Some(http::Response::new(()).into_parts().0);
        instances.on_response(&rewrite, &mut exchange_).unwrap();
        assert_eq!(exchange_.response.unwrap().headers["server"], "gateway");

        let limit = r#"{"limits":[{"name":"per-ip","key":[{"client-ip":{"ipv4-prefix":32,"ipv6-prefix":64}}],"tokens":1,"period-ms":3600000,"burst":2}]}"#;
        let limit = attach(&host, RATE_LIMIT, limit);
        for allowed in [true, true, false] {
            let verdict = instances.check(&limit, &mut exchange("/")).unwrap().unwrap();
            assert_eq!(limit.policies()[verdict.policy].quota, 2);
            assert_eq!(verdict.allowed, allowed, "{verdict:?}");
        }
    }
    #[test]
    fn what_they_said_to_the_same_facts_they_are_not_asked_again() {
        let host = host();
        let mut instances = Instances::new(&host);
        let acl = r#"{"predicates":[{"name":"is-api","when":{"path":{"prefix":["/api/"]}}}]}"#;
        let acl = attach(&host, ACL, acl);
        let rewrite = r#"{"request":[{"set-header":{"name":"x-pool","value":"api"}},{"rewrite-path":{"prefix":"/old/","to":"/new/"}}],"response":[{"delete-header":{"name":"server"}}]}"#;
        let rewrite = attach(&host, HEADER_REWRITE, rewrite);
        // One after the other: what is asked about in turn might have one seat between them.
        for (uri, is_api, path) in [("/api/x", 1, "/api/x"), ("/old/y", 0, "/new/y")] {
            for _ in 0..4 {
                assert_eq!(instances.evaluate(&acl, &mut exchange(uri)), Ok(is_api));
                let mut exchange = exchange(uri);
                let outcome = instances.on_request(&rewrite, &mut exchange);
                assert!(matches!(outcome, Ok(Outcome::Proceed)), "{outcome:?}");
                assert_eq!(exchange.request.uri.path(), path);
                assert_eq!(exchange.request.headers["x-pool"], "api");
            }
        }
        assert_eq!((acl.stats().calls(), acl.stats().repeats()), (8, 4));
        assert_eq!((rewrite.stats().calls(), rewrite.stats().repeats()), (8, 4));
        // What needs no facts is the same for all.
        for uri in ["/a", "/b", "/c"] {
            let mut exchange = exchange(uri);
            let response = http::Response::builder().header("server", "secret").body(());
            exchange.response = Some(response.unwrap().into_parts().0);
            assert!(matches!(instances.on_response(&rewrite, &mut exchange), Ok(None)));
            assert!(!exchange.response.unwrap().headers.contains_key("server"));
        }
        assert_eq!((rewrite.stats().calls(), rewrite.stats().repeats()), (11, 5));
    }

    #[test]
    fn what_counts_says_the_same_whether_it_is_asked_or_its_bucket_is_known() {
        let clock = Clock::standing_at(Duration::from_secs(1));
        let limit = r#"{"limits":[{"name":"per-ip","key":[{"client-ip":{"ipv4-prefix":32,"ipv6-prefix":64}}],"tokens":3,"period-ms":1000,"burst":5}]}"#;
        let mut both = [64, 0].map(|answers| {
            let host = host_with(answers).beside(clock.clone()).unwrap();
            (Instances::new(&host), attach(&host, RATE_LIMIT, limit))
        });
        let mut seen = [false; 2];
        for _ in 0..40 {
            clock.forward(Duration::from_millis(97));
            let [known, asked] = both
                .each_mut()
                .map(|(instances, limit)| instances.check(limit, &mut exchange("/")).unwrap().unwrap());
            assert_eq!(known, asked);
            seen[usize::from(known.allowed)] = true;
        }
        assert_eq!(seen, [true; 2], "refused, allowed");
        assert_eq!(
            both.map(|(_, limit)| (limit.stats().calls(), limit.stats().repeats())),
            [(40, 38), (40, 0)]
        );
    }

    #[test]
    fn what_counts_in_several_buckets_or_by_responses_is_asked_each_time() {
        let host = host();
        let one = |name: &str, burst: u32| {
            format!(r#"{{"name":"{name}","key":[],"tokens":1,"period-ms":3600000,"burst":{burst}}}"#)
        };
        let several = format!(r#"{{"limits":[{},{}]}}"#, one("a", 9), one("b", 5));
        let several = attach(&host, RATE_LIMIT, &several);
        let counted = CountedLimit {
            name: "c".into(),
            statuses: StatusSet::of(&[(400, 499)]),
        };
        let by_responses = format!(r#"{{"limits":[{}]}}"#, one("c", 5));
        let by_responses = attach_counting(&host, RATE_LIMIT, &by_responses, [counted].into());
        let mut instances = Instances::new(&host);
        for (limit, allowed) in [(several, 5), (by_responses, 7)] {
            let is_allowed = |_: &u32| instances.check(&limit, &mut exchange("/")).unwrap().unwrap().allowed;
            assert_eq!((0..7).filter(is_allowed).count(), allowed);
            assert_eq!((limit.stats().calls(), limit.stats().repeats()), (7, 0));
        }
    }
}
