//! The fields of a request that nobody but the gateway and trusted proxies in front write: those that tell of the client, the
//! request's number, and where traces are made the trace that it belongs to. They are kept before plugins and tenants have a say, and put back behind them.

use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::forwarding;
use crate::config::{Forwarding, Frontend};
use crate::telemetry::trace::context;
use crate::twins::reads_as;

/// What stood in them.
#[derive(Debug)]
pub struct OwnFields<'a> {
    forwarding: Option<&'a Forwarding>,
    /// Strangers have a say: of what servers may take for a trusted proxy's word they write nothing, told of by the gateway or not.
    is_strict: bool,
    number: Option<&'a HeaderName>,
    /// The request belongs to a trace: what servers are told of that is what spans say.
    is_traced: bool,
    kept: Vec<(HeaderName, HeaderValue)>,
}

impl<'a> OwnFields<'a> {
    /// As they stand there now; none where the request has no such fields. `for_strangers` says that tenants are among those who
    /// have a say, `is_traced` that the request belongs to a trace.
    pub fn keep(frontend: &'a Frontend, headers: &HeaderMap, for_strangers: bool, is_traced: bool) -> Option<Self> {
        let forwarding = frontend.forwarding.as_deref();
        let mut own = Self {
            forwarding,
            is_strict: for_strangers && forwarding.is_some_and(|told| told.trusted.is_some()),
            number: frontend.request_id.as_ref().map(|id| &id.header),
            is_traced,
            kept: Vec::new(),
        };
        if own.forwarding.is_none() && own.number.is_none() && !is_traced {
            return None;
        }
        let stand = headers.iter().filter(|(name, _)| own.has(name));
        own.kept = stand.map(|(name, value)| (name.clone(), value.clone())).collect();
        Some(own)
    }

    /// Puts them back as they were: what was written there in the meantime would be taken for a proxy's word.
    pub fn put_back(&self, headers: &mut HeaderMap) {
        let stand = headers.iter().filter(|(name, _)| self.has(name));
        if stand.eq(self.kept.iter().map(|(name, value)| (name, value))) {
            return;
        }
        // Collected first: the names borrow from the map that they are removed from.
        let written: Vec<HeaderName> = headers.keys().filter(|name| self.has(name)).cloned().collect();
        for name in written {
            headers.remove(name);
        }
        for (name, value) in &self.kept {
            // There is room: as many stood there before. Otherwise servers are told less.
            let _ = headers.try_append(name, value.clone());
        }
    }

    fn has(&self, name: &HeaderName) -> bool {
        (self.is_traced && (*name == context::TRACEPARENT || *name == context::TRACESTATE))
            || self.number.is_some_and(|number| reads_as(name, number))
            || self.forwarding.is_some_and(|told| match self.is_strict {
                true => forwarding::is_of_client(name, told),
                false => forwarding::is_told_in(told, name),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ForwardedFor, ForwardedHeaders};

    #[test]
    fn what_was_written_there_is_gone_and_what_stood_there_is_back() {
        let told = Forwarding {
            forwarded_for: Some(ForwardedFor {
                header: HeaderName::from_static("x-client"),
                if_none: true,
                except: Vec::new(),
            }),
            headers: ForwardedHeaders {
                host: true,
                real_ip: true,
                ..ForwardedHeaders::default()
            },
            ..Forwarding::default()
        };
        let number = HeaderName::from_static("x-number");
        let of = |lines: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            headers
        };
        let before = of(&[
            ("x-client", "1"),
            ("x-other", "a"),
            ("x-client", "2"),
            ("x-number", "7"),
            ("x-real-ip", "3"),
            ("tracestate", "a=1"),
        ]);
        let own = |kept: Vec<(HeaderName, HeaderValue)>| OwnFields {
            forwarding: Some(&told),
            is_strict: false,
            number: Some(&number),
            is_traced: true,
            kept,
        };
        let names = own(Vec::new());
        let stand = before.iter().filter(|(name, _)| names.has(name));
        let kept: Vec<_> = stand.map(|(name, value)| (name.clone(), value.clone())).collect();
        let mut after = of(&[
            ("x-client", "forged"),
            ("x_real_ip", "forged"),
            ("x-forwarded-host", "forged"),
            ("x-forwarded-proto", "not told"),
            ("x-other", "b"),
            ("tracestate", "forged"),
            ("traceparent", "forged"),
        ]);
        let untraced = OwnFields {
            is_traced: false,
            ..own(kept.clone())
        };
        assert!(!untraced.has(&context::TRACEPARENT) && !untraced.has(&context::TRACESTATE));
        let mut of_strangers = after.clone();
        own(kept.clone()).put_back(&mut after);
        let strict = OwnFields {
            is_strict: true,
            ..own(kept)
        };
        strict.put_back(&mut of_strangers);
        assert!(of_strangers.remove("x-forwarded-proto").is_none());
        let expected = of(&[
            ("x-client", "1"),
            ("x-client", "2"),
            ("x-number", "7"),
            ("x-real-ip", "3"),
            ("tracestate", "a=1"),
            ("x-forwarded-proto", "not told"),
            ("x-other", "b"),
        ]);
        assert_eq!(after, expected);
        after.remove("x-forwarded-proto");
        assert_eq!(of_strangers, after);
    }
}
