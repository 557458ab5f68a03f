//! The cookie that keeps a client at its server: what a request's says, and what a response sets. Its semantics, its value
//! and its dates are HAProxy's (configuration manual, `cookie`), so that one can take the other's place in front of clients
//! that have cookies already.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use super::date;
use crate::backend::Server;
use crate::config::{self, CookieMode};

/// A backend's `cookie`.
#[derive(Debug)]
pub struct CookieRule {
    config: config::CookiePersistence,
    /// The servers' values, sorted; servers of the same value in their order.
    values: Vec<(Box<[u8]>, usize)>,
    /// By server: what it is known by.
    of_server: Vec<Option<Box<[u8]>>>,
    /// By server: what sets it, when no dates are to be set; for servers without a value, what takes the cookie away.
    plain: Vec<HeaderValue>,
}

/// What became of a request's cookie. The letters of HAProxy's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verdict {
    /// `N`: there was none.
    #[default]
    None,
    /// `I`: it names no server.
    Invalid,
    /// `D`: it names servers that are all down.
    Down,
    /// `V`: it names a server that may be used.
    Valid,
    /// `E`: it was not seen for longer than `max-idle=`.
    Expired,
    /// `O`: it was first set longer ago than `max-life=`.
    Old,
}

/// A cookie that a client has sent, understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Presented {
    /// What became of it.
    pub verdict: Verdict,
    /// The server that it names, when that may be used.
    pub server: Option<usize>,
    /// When it was last set, in seconds since 1970.
    last: Option<u64>,
    /// When it was first set.
    first: Option<u64>,
}

impl CookieRule {
    /// The rule of a backend with these servers.
    pub fn new(config: &config::CookiePersistence, servers: &[config::Server]) -> Self {
        let of_server: Vec<Option<Box<[u8]>>> = servers
            .iter()
            .map(|server| server.cookie.as_ref().map(|value| value.as_bytes().into()))
            .collect();
        let with_value = of_server.iter().enumerate();
        let mut values: Vec<_> = with_value.filter_map(|(i, value)| Some((value.clone()?, i))).collect();
        values.sort();
        let plain = of_server
            .iter()
            .map(|value| set(config, value.as_deref(), b""))
            .collect();
        Self {
            config: config.clone(),
            values,
            of_server,
            plain,
        }
    }

    /// The cookie's name.
    pub fn name(&self) -> &[u8] {
        self.config.name.as_bytes()
    }

    /// What is done with it.
    pub fn config(&self) -> &config::CookiePersistence {
        &self.config
    }

    /// What a server is known by.
    pub fn value_of(&self, server: usize) -> Option<&[u8]> {
        self.of_server.get(server)?.as_deref()
    }

    /// Whether the time is needed to understand cookies.
    fn has_dates(&self) -> bool {
        self.config.max_idle.is_some() || self.config.max_life.is_some()
    }

    /// Understands a cookie's value. `now` is asked for seconds since 1970 when it has dates.
    pub fn read(&self, value: &[u8], servers: &[Arc<Server>], now: impl FnOnce() -> u64) -> Presented {
        let mut presented = Presented::default();
        let id = if self.config.mode == CookieMode::Prefix {
            &value[..prefix_length(value).unwrap_or(value.len())]
        } else {
            let mut parts = value.splitn(3, |byte| *byte == b'|');
            let id = parts.next().unwrap_or_default();
            presented.last = parts.next().and_then(date::decode);
            presented.first = parts.next().and_then(date::decode);
            id
        };
        if self.has_dates() && (presented.last.is_some() || presented.first.is_some()) {
            let now = now();
            // A date that lies ahead for longer than clocks differ is worth nothing either.
            let is_past = |date: Option<u64>, limit: Option<Duration>| {
                let (Some(date), Some(limit)) = (date, limit) else {
                    return false;
                };
                now.saturating_sub(date) > limit.as_secs() || date.saturating_sub(now) > AHEAD
            };
            let verdict = if is_past(presented.first, self.config.max_life) {
                Some(Verdict::Old)
            } else if is_past(presented.last, self.config.max_idle) {
                Some(Verdict::Expired)
            } else {
                None
            };
            if let Some(verdict) = verdict {
                return Presented {
                    verdict,
                    ..Presented::default()
                };
            }
        }
        let from = self.values.partition_point(|(known, _)| **known < *id);
        let named = self.values[from..].iter().take_while(|(known, _)| **known == *id);
        presented.verdict = Verdict::Invalid;
        for &(_, server) in named {
            let is_in_service = servers.get(server).is_some_and(|server| server.is_in_service());
            if is_in_service {
                presented.verdict = Verdict::Valid;
                presented.server = Some(server);
                break;
            }
            presented.verdict = Verdict::Down;
        }
        presented
    }

    /// What a response of `server` sets, if it has to; `is_direct` says whether the request's cookie led there. Answers also
    /// whether that is more than a new date.
    pub fn insert(
        &self,
        server: usize,
        is_direct: bool,
        presented: &Presented,
        now: impl FnOnce() -> u64,
    ) -> Option<(HeaderValue, bool)> {
        let config = &self.config;
        let value = self.value_of(server);
        if !self.has_dates() {
            // A date that nobody asks for any more is taken away.
            let is_due = !is_direct || presented.last.is_some() || presented.first.is_some();
            let is_new = !(is_direct && value.is_some());
            return is_due.then(|| Some((self.plain.get(server)?.clone(), is_new)))?;
        }
        let now = now();
        let is_due = !is_direct
            || (presented.last.is_none_or(|last| last < now)
                && (config.max_idle.is_some() || presented.last.is_some()))
            || (config.max_life.is_some() != presented.first.is_some());
        if !is_due {
            return None;
        }
        let Some(value) = value else {
            return Some((self.plain.get(server)?.clone(), true));
        };
        let mut dates = vec![b'|'];
        dates.extend_from_slice(&date::encode(now));
        if config.max_life.is_some() {
            dates.push(b'|');
            // Whoever went elsewhere begins anew, unless the cookie was good when it came.
            dates.extend_from_slice(&date::encode(presented.first.unwrap_or(now)));
        }
        Some((set(config, Some(value), &dates), !is_direct))
    }
}

/// How many bytes at the front of a cookie's value are the server's, in `prefix` mode; none when it is not in there.
pub(crate) fn prefix_length(value: &[u8]) -> Option<usize> {
    value.iter().position(|byte| *byte == DELIMITER)
}

/// Between the server's value and the application's.
const DELIMITER: u8 = b'~';

/// Set-Cookie for a server of this value; without one, what takes the cookie away.
fn set(config: &config::CookiePersistence, value: Option<&[u8]>, dates: &[u8]) -> HeaderValue {
    let mut line = Vec::new();
    line.extend_from_slice(config.name.as_bytes());
    line.push(b'=');
    match value {
        Some(value) => {
            line.extend_from_slice(value);
            line.extend_from_slice(dates);
        }
        None => line.extend_from_slice(b"; Expires=Thu, 01-Jan-1970 00:00:01 GMT"),
    }
    line.extend_from_slice(config.attributes.as_bytes());
    // All of it is printable, as the configuration was checked to be.
    HeaderValue::from_bytes(&line).unwrap_or(HeaderValue::from_static(""))
}

/// How far ahead a date may be: HAProxy's bound, a day.
const AHEAD: u64 = 86_400;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::backend::{Backend, test_backend_of, test_config};
    use crate::config::Balance;
    use crate::telemetry::metrics::Registry;

    const NOW: u64 = 1_700_000_000;

    fn rule(change: impl FnOnce(&mut config::CookiePersistence)) -> (CookieRule, Arc<Backend>) {
        let mut configured = test_config(Balance::RoundRobin, &[(1, false), (1, false), (1, false), (1, true)]);
        for (server, value) in configured
            .servers
            .iter_mut()
            .zip([Some("b"), Some("a"), Some("a"), None])
        {
            server.cookie = value.map(Into::into);
        }
        let mut cookie = config::CookiePersistence {
            name: "SRV".to_owned(),
            mode: CookieMode::Insert,
            indirect: true,
            nocache: true,
            postonly: false,
            preserve: false,
            max_idle: None,
            max_life: None,
            attributes: "; path=/".to_owned(),
        };
        change(&mut cookie);
        let addresses = vec![([127, 0, 0, 1], 1).into(); configured.servers.len()];
        let backend = test_backend_of(&configured, &addresses, &Registry::new());
        (CookieRule::new(&cookie, &configured.servers), backend)
    }

    fn text(set: Option<(HeaderValue, bool)>) -> Option<(String, bool)> {
        set.map(|(value, is_new)| (value.to_str().unwrap().to_owned(), is_new))
    }

    #[test]
    fn a_value_names_the_first_server_of_its_own_that_is_up() {
        let (rule, backend) = rule(|_| {});
        let read = |value: &str| {
            let presented = rule.read(value.as_bytes(), &backend.servers, || NOW);
            (presented.verdict, presented.server)
        };
        assert_eq!(read("a"), (Verdict::Valid, Some(1)));
        assert_eq!(read("b"), (Verdict::Valid, Some(0)));
        for wrong in ["", "c", "A", "ab", "a ", "\"a\"", "a~x"] {
            assert_eq!(read(wrong), (Verdict::Invalid, None), "{wrong}");
        }
        backend.servers[1].metrics.went(false);
        assert_eq!(read("a"), (Verdict::Valid, Some(2)));
        backend.servers[2]
            .metrics
            .set_admin(crate::telemetry::metrics::Admin::Maintenance);
        assert_eq!(read("a"), (Verdict::Down, None));
        // Drained servers, and those without a weight, keep their sessions.
        backend.servers[0]
            .metrics
            .set_admin(crate::telemetry::metrics::Admin::Drain);
        backend.servers[0].metrics.set_weight(0);
        assert_eq!(read("b"), (Verdict::Valid, Some(0)));
    }

    #[test]
    fn dates_end_a_cookie() {
        let (rule, backend) = rule(|cookie| {
            cookie.max_idle = Some(Duration::from_secs(60));
            cookie.max_life = Some(Duration::from_secs(600));
        });
        let date = |seconds| String::from_utf8(date::encode(seconds).to_vec()).unwrap();
        let read = |last, first| {
            let value = format!("a|{}|{}", date(last), date(first));
            rule.read(value.as_bytes(), &backend.servers, || NOW).verdict
        };
        assert_eq!(read(NOW, NOW), Verdict::Valid);
        assert_eq!(read(NOW - 60, NOW - 600), Verdict::Valid);
        assert_eq!(read(NOW - 64, NOW - 64), Verdict::Expired);
        assert_eq!(read(NOW, NOW - 604), Verdict::Old);
        assert_eq!(read(NOW + 86_400, NOW), Verdict::Valid);
        assert_eq!(read(NOW + 86_404, NOW), Verdict::Expired);
        // Without dates it is taken, and told its dates.
        let bare = rule.read(b"a", &backend.servers, || NOW);
        assert_eq!(bare.verdict, Verdict::Valid);
        let set = text(rule.insert(1, true, &bare, || NOW));
        assert_eq!(set, Some((format!("SRV=a|{0}|{0}; path=/", date(NOW)), false)));
        // The first date stays, the last one moves.
        let value = format!("a|{}|{}", date(NOW - 40), date(NOW - 400));
        let seen = rule.read(value.as_bytes(), &backend.servers, || NOW);
        let set = text(rule.insert(1, true, &seen, || NOW));
        let expected = format!("SRV=a|{}|{}; path=/", date(NOW), date(NOW - 400));
        assert_eq!(set, Some((expected, false)));
        // Not twice within a step.
        let value = format!("a|{}|{}", date(NOW), date(NOW - 400));
        let seen = rule.read(value.as_bytes(), &backend.servers, || NOW);
        assert_eq!(rule.insert(1, true, &seen, || NOW), None);
    }

    #[test]
    fn it_is_set_when_the_client_has_another_or_none() {
        let (rule, backend) = rule(|_| {});
        let none = Presented::default();
        let set = |server, direct, presented: &Presented| text(rule.insert(server, direct, presented, || NOW));
        assert_eq!(set(0, false, &none), Some(("SRV=b; path=/".to_owned(), true)));
        let right = rule.read(b"b", &backend.servers, || NOW);
        assert_eq!(set(0, true, &right), None);
        // A server without a value takes it away.
        let gone = "SRV=; Expires=Thu, 01-Jan-1970 00:00:01 GMT; path=/".to_owned();
        assert_eq!(set(3, false, &none), Some((gone, true)));
        // Dates that an earlier configuration set are taken off.
        let dated = rule.read(b"b|ZVPxA", &backend.servers, || NOW);
        assert_eq!(set(0, true, &dated), Some(("SRV=b; path=/".to_owned(), false)));
    }

    #[test]
    fn a_prefix_ends_at_the_tilde() {
        let (rule, backend) = rule(|cookie| cookie.mode = CookieMode::Prefix);
        let read = |value: &[u8]| rule.read(value, &backend.servers, || NOW).server;
        assert_eq!(read(b"b~anything~else"), Some(0));
        assert_eq!(read(b"b"), Some(0));
        assert_eq!(read(b"b|ZVPxA"), None);
        assert_eq!(prefix_length(b"b~x~y"), Some(1));
        assert_eq!(prefix_length(b"bxy"), None);
    }
}
