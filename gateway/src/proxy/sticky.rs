//! Persistence on the way of a request: what it says of the server that it belongs to, and what its response tells the client.

use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderValue, Method, header, request};

use super::cookies::{self, Edit, SetEdit};
use crate::backend::{Backend, CookieRule, PickKey, Presented, Verdict, prefix_length};
use crate::config::{CookieMode, HashOf, StickKey, UriPart};
use crate::telemetry::access::{CookieFlags, SetCookie};

/// What a request has said about its server.
pub struct Sticky {
    presented: Presented,
    is_post: bool,
}

impl Sticky {
    /// Reads a request that goes to `backend`, and makes it one that servers may see. None when the backend keeps nobody by
    /// a cookie.
    pub fn read(backend: &Backend, head: &mut request::Parts) -> Option<Self> {
        let rule = backend.cookie.as_ref()?;
        let config = rule.config();
        let mut first: Option<Presented> = None;
        cookies::edit(&mut head.headers, rule.name(), |value| {
            // Of several the first counts that names a server.
            if first.is_none_or(|first| first.verdict != Verdict::Valid) {
                let read = rule.read(value, &backend.servers, now);
                if first.is_none() || read.verdict == Verdict::Valid {
                    first = Some(read);
                }
            }
            match config.mode {
                CookieMode::Prefix => prefix_length(value).map_or(Edit::Keep, |n| Edit::Cut(n + 1)),
                CookieMode::Insert if config.indirect => Edit::Remove,
                CookieMode::Insert | CookieMode::Rewrite | CookieMode::Passive => Edit::Keep,
            }
        });
        Some(Self {
            presented: first.unwrap_or_default(),
            is_post: head.method == Method::POST,
        })
    }

    /// What is to be logged while there is no response.
    pub fn flags(&self) -> CookieFlags {
        CookieFlags {
            request: self.presented.verdict.letter(),
            response: SetCookie::None,
        }
    }

    /// Makes the response of `server` tell the client where it belongs. Answers what is to be logged.
    pub fn answer(&self, backend: &Backend, server: usize, headers: &mut HeaderMap) -> CookieFlags {
        let mut flags = self.flags();
        let Some(rule) = &backend.cookie else { return flags };
        let config = rule.config();
        let is_direct = self.presented.server == Some(server);
        cookies::edit_set(headers, rule.name(), |value| {
            flags.response = SetCookie::Present;
            if config.preserve {
                return SetEdit::Keep;
            }
            match (config.mode, rule.value_of(server)) {
                (CookieMode::Insert, _) => {
                    flags.response = SetCookie::Deleted;
                    SetEdit::Remove
                }
                _ if is_direct && config.indirect => {
                    flags.response = SetCookie::Deleted;
                    SetEdit::Remove
                }
                (CookieMode::Rewrite, Some(own)) => {
                    flags.response = SetCookie::Rewritten;
                    SetEdit::Replace(own.to_vec())
                }
                (CookieMode::Prefix, Some(own)) => {
                    flags.response = SetCookie::Rewritten;
                    SetEdit::Replace([own, b"~", value].concat())
                }
                (CookieMode::Passive | CookieMode::Rewrite | CookieMode::Prefix, _) => SetEdit::Keep,
            }
        });
        if flags.response != SetCookie::Present
            && let Some((set, is_new)) = self.inserted(rule, server, is_direct)
        {
            headers.append(header::SET_COOKIE, set);
            flags.response = match is_new {
                true => SetCookie::Inserted,
                false => SetCookie::Updated,
            };
            if config.nocache {
                headers.append(header::CACHE_CONTROL, PRIVATE);
            }
        }
        flags
    }

    fn inserted(&self, rule: &CookieRule, server: usize, is_direct: bool) -> Option<(HeaderValue, bool)> {
        let config = rule.config();
        if config.mode != CookieMode::Insert || (config.postonly && !self.is_post) {
            return None;
        }
        rule.insert(server, is_direct, &self.presented, now)
    }
}

/// What the choice of a request's server depends on.
pub fn pick_key(backend: &Backend, client: Option<IpAddr>, head: &request::Parts, sticky: Option<&Sticky>) -> PickKey {
    let stick = backend.stick.as_ref().and_then(|table| match &table.config().key {
        StickKey::ClientIp => client.map(|client| table.key_of_client(client)),
        StickKey::Of(of) => part(of, head).map(|part| table.key_of(part)),
    });
    // A cookie goes ahead of what was learned.
    let by_cookie = sticky.and_then(|sticky| sticky.presented.server);
    PickKey {
        client,
        hash: backend
            .hash_of
            .as_ref()
            .and_then(|of| part(of, head).map(PickKey::hash_of)),
        wanted: by_cookie.or_else(|| backend.remembered(stick?)),
        stick,
    }
}

/// A part of a request; none when it is not there, or empty.
fn part<'a>(of: &HashOf, head: &'a request::Parts) -> Option<&'a [u8]> {
    let part = match of {
        HashOf::Header(name) => head.headers.get(name)?.as_bytes(),
        HashOf::Cookie(name) => cookies::find(&head.headers, name.as_bytes())?,
        HashOf::Query(name) => parameter(head.uri.query()?, name)?.as_bytes(),
        HashOf::Uri(part) => {
            let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
            uri_part(target, *part).as_bytes()
        }
    };
    (!part.is_empty()).then_some(part)
}

/// The value of a query's first parameter of this name, as it stands.
fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query
        .split('&')
        .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

fn uri_part(target: &str, part: UriPart) -> &str {
    let mut end = target.len();
    if !part.whole {
        end = target.find('?').unwrap_or(end);
    }
    if let Some(depth) = part.depth {
        // The slash that begins a segment does not end the one before it in vain: so many segments, and no slash behind them.
        let slashes = target[..end].match_indices('/').map(|(at, _)| at);
        end = slashes.skip(1).nth(depth - 1).unwrap_or(end);
    }
    if let Some(length) = part.length {
        end = end.min(length);
    }
    // A target is ASCII, mostly; what is not may be cut in its middle.
    let end = (0..=end).rev().find(|end| target.is_char_boundary(*end)).unwrap_or(0);
    &target[..end]
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

impl Verdict {
    /// As HAProxy logs it.
    fn letter(self) -> u8 {
        match self {
            Self::None => b'N',
            Self::Invalid => b'I',
            Self::Down => b'D',
            Self::Valid => b'V',
            Self::Expired => b'E',
            Self::Old => b'O',
        }
    }
}

const PRIVATE: HeaderValue = HeaderValue::from_static("private");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_target_is_cut_where_it_was_said() {
        let part = |whole, length, depth| UriPart { whole, length, depth };
        for (target, part, expected) in [
            ("/a/b/c?d=/e", part(false, None, None), "/a/b/c"),
            ("/a/b/c?d=/e", part(true, None, None), "/a/b/c?d=/e"),
            ("/a/b/c?d", part(false, Some(4), None), "/a/b"),
            ("/a/b/c?d", part(false, None, Some(1)), "/a"),
            ("/a/b/c?d", part(false, None, Some(2)), "/a/b"),
            ("/a/b/c?d", part(false, None, Some(9)), "/a/b/c"),
            ("/a/b/c?d", part(false, Some(3), Some(2)), "/a/"),
            ("/", part(false, Some(1), Some(1)), "/"),
            ("*", part(false, None, Some(1)), "*"),
        ] {
            assert_eq!(uri_part(target, part), expected, "{target} {part:?}");
        }
    }

    #[test]
    fn a_parameter_is_found_by_its_whole_name() {
        assert_eq!(parameter("a=1&user=x&user=y", "user"), Some("x"));
        assert_eq!(parameter("user=&b", "user"), Some(""));
        for query in ["", "users=1", "xuser=1", "user", "&&"] {
            assert_eq!(parameter(query, "user"), None, "{query}");
        }
    }
}
