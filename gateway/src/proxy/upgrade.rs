//! Connections that go over to another protocol (RFC 9110, section 7.8; WebSocket: RFC 6455): what a client asks for, what
//! a server agrees to, and the tunnel that both are joined by then.
//!
//! The handshake is a request like any other: every rule applies to it. Once a server has answered it with 101, HTTP lets go
//! of both connections, and the [`mod@relay`] that serves TCP mode moves what follows.

use std::cell::Cell;
use std::future::poll_fn;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Version, request};

use super::http2::tunnel::StreamIo;
use super::record::Record;
use super::relay::{self, Early, RelaySettings, Relayed, relay};
use crate::backend::{Session, StreamPlace};
use crate::config::Upgrades;
use crate::stream::Stream;

/// The protocols that a request asks to go on in, as they are forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked(HeaderValue);

impl Asked {
    /// What a request asks for. To be called before its hop-by-hop fields are removed; [`put`] writes them anew.
    ///
    /// Over HTTP/2 a head has the fields of an upgrade when it was an extended CONNECT, and never otherwise (RFC 9113, section 8.2.2).
    ///
    /// None means that the request is served as if it did not ask, which every recipient may do: when HTTP/1.0 asks, when
    /// `Connection` does not say so too, when a body comes with it (where it ends, the other protocol would begin, and the two
    /// ends would have to agree on that), and when no protocol is left that may be asked for.
    pub fn of(head: &mut request::Parts, has_body: bool, allowed: &Upgrades) -> Option<Self> {
        if !head.headers.contains_key(header::UPGRADE) {
            return None;
        }
        // Of the upgrade to h2c, which is never forwarded (RFC 9113, section 3.1).
        head.headers.remove(HTTP2_SETTINGS);
        if head.version < Version::HTTP_11 || has_body || !is_nominated(&head.headers) {
            return None;
        }
        list(&head.headers, |protocol| allowed.allow(protocol)).map(Self)
    }

    /// The protocols, as a field's value.
    pub fn protocols(&self) -> &HeaderValue {
        &self.0
    }

    /// What the server agreed to in a 101. None when that is nothing, or something that was not asked for.
    pub fn agreed(&self, response: &HeaderMap) -> Option<HeaderValue> {
        let asked = |protocol: &[u8]| tokens(&self.0).any(|asked| asked.eq_ignore_ascii_case(protocol));
        let mut agreed = response.get_all(header::UPGRADE).iter().flat_map(tokens);
        if !is_nominated(response) || !agreed.all(asked) {
            return None;
        }
        list(response, |_| true)
    }
}

/// What a server of a 426 would go over to: the one other response that has to say so (RFC 9110, section 15.5.22).
pub fn required(response: &HeaderMap) -> Option<HeaderValue> {
    list(response, |protocol| !Upgrades::is_http(protocol))
}

/// Writes the fields of an upgrade to a head whose hop-by-hop fields have been removed.
pub fn put(headers: &mut HeaderMap, protocols: HeaderValue) {
    headers.insert(header::UPGRADE, protocols);
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
}

const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Whether `Connection` says that `Upgrade` is meant for this hop.
fn is_nominated(headers: &HeaderMap) -> bool {
    let mut options = headers.get_all(header::CONNECTION).iter().flat_map(tokens);
    options.any(|option| option.eq_ignore_ascii_case(b"upgrade"))
}

/// The protocols of all `Upgrade` fields that may pass, as one field. The same value when there is only one that does.
fn list(headers: &HeaderMap, mut may_pass: impl FnMut(&str) -> bool) -> Option<HeaderValue> {
    let mut passing = headers
        .get_all(header::UPGRADE)
        .iter()
        .flat_map(|value| tokens(value).map(move |token| (value, token)))
        .filter_map(|(value, token)| Some((value, std::str::from_utf8(token).ok()?)))
        .filter(|(_, protocol)| may_pass(protocol));
    let (value, first) = passing.next()?;
    if value.len() == first.len() && headers.get_all(header::UPGRADE).iter().nth(1).is_none() {
        return Some(value.clone());
    }
    let mut all = first.to_owned();
    for (_, protocol) in passing {
        all.push_str(", ");
        all.push_str(protocol);
    }
    HeaderValue::try_from(all).ok()
}

/// The elements of a list (RFC 9110, section 5.6.1).
fn tokens(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    let elements = value.as_bytes().split(|byte| *byte == b',');
    elements.map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

/// Where the exchange that is under way on a connection leaves what the connection is to become.
#[derive(Default)]
pub struct Switch {
    tunnel: Cell<Option<Box<Tunnel>>>,
    mentioned: Cell<bool>,
}

impl Switch {
    /// A request mentioned another protocol. hyper takes that for the client's being able to have the connection back,
    /// and does not shut it down at its end.
    pub fn mention(&self) {
        self.mentioned.set(true);
    }

    /// Whether somebody else than hyper has to shut the connection down.
    pub fn is_left_open(&self) -> bool {
        self.mentioned.get()
    }

    /// The exchange's response is a 101: when it has been written, the tunnel begins.
    pub fn to(&self, tunnel: Tunnel) {
        self.tunnel.set(Some(Box::new(tunnel)));
    }

    /// What the connection is to become, if it is not to end.
    pub fn take(&self) -> Option<Box<Tunnel>> {
        self.tunnel.take()
    }
}

/// What is left of an exchange whose server has gone over to another protocol: its connection, its place at the server, and
/// the record, which is written at the tunnel's end.
pub struct Tunnel {
    server: ServerEnd,
    /// What was read of it behind the head.
    early: Bytes,
    session: Session,
    settings: RelaySettings,
    record: Box<Record>,
}

/// The end of a tunnel at its server.
pub enum ServerEnd {
    /// A connection that was one of HTTP/1.1.
    Connection(Stream),
    /// A stream of HTTP/2, and its place on the connection.
    Stream(Box<StreamIo>, StreamPlace),
}

impl Tunnel {
    /// A tunnel to this server.
    pub fn new(
        server: ServerEnd,
        early: Bytes,
        session: Session,
        settings: RelaySettings,
        record: Box<Record>,
    ) -> Self {
        Self {
            server,
            early,
            session,
            settings,
            record,
        }
    }

    /// Joins the client to the server until the end. `early` is what was read of the client behind its request.
    pub async fn run(self, client: &mut impl Relayed, early: Bytes) {
        let Self {
            server,
            mut session,
            mut record,
            settings,
            early: from_server,
        } = self;
        let early = Early {
            from_client: early,
            from_server,
            ..Early::default()
        };
        // The place at the server is free when its end is closed, and no sooner.
        match server {
            ServerEnd::Connection(mut stream) => {
                join(client, &mut stream, &mut session, &mut record, settings, early).await;
            }
            ServerEnd::Stream(mut stream, place) => {
                join(client, &mut *stream, &mut session, &mut record, settings, early).await;
                drop(stream);
                drop(place);
            }
        }
        drop(session);
    }
}

/// Moves bytes between both ends until one of them, or somebody else, ends it.
async fn join<S: Relayed>(
    client: &mut impl Relayed,
    server: &mut S,
    session: &mut Session,
    record: &mut Record,
    settings: RelaySettings,
    early: Early,
) {
    record.tunnel_begins();
    let ended = tokio::select! {
        biased;
        ended = relay(client, server, settings, early, |moved| record.relayed(moved)) => Ok(ended),
        why = poll_fn(|cx| session.poll_ended(cx)) => Err(why),
    };
    match ended {
        Ok(ended) => record.tunnel_ended(ended.termination(), None),
        Err(why) => {
            let (termination, reason) = relay::cut_off(why);
            record.tunnel_ended(termination, Some(reason));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn asked(version: Version, fields: &[(&'static str, &'static str)], allowed: &Upgrades) -> Option<String> {
        let mut request = http::Request::get("/").version(version);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let mut head = request.body(()).unwrap().into_parts().0;
        let asked = Asked::of(&mut head, false, allowed)?;
        Some(asked.protocols().to_str().unwrap().to_owned())
    }

    #[test]
    fn what_is_asked_for() {
        const YES: (&str, &str) = ("connection", "keep-alive, Upgrade");
        let any = |fields: &[_]| asked(Version::HTTP_11, fields, &Upgrades::Any);
        assert_eq!(any(&[YES, ("upgrade", "websocket")]).as_deref(), Some("websocket"));
        assert_eq!(any(&[YES, ("upgrade", "WebSocket")]).as_deref(), Some("WebSocket"));
        assert_eq!(any(&[("upgrade", "websocket")]), None, "without Connection");
        assert_eq!(any(&[YES]), None, "without a protocol");
        assert_eq!(any(&[YES, ("upgrade", "")]), None);
        assert_eq!(any(&[("connection", "upgrades"), ("upgrade", "websocket")]), None);
        assert_eq!(any(&[YES, ("upgrade", "h2c")]), None, "HTTP is none");
        assert_eq!(any(&[YES, ("upgrade", "HTTP/2.0, H2C, h2")]), None);
        assert_eq!(
            any(&[YES, ("upgrade", "h2c, websocket ,, irc/6.9")]).as_deref(),
            Some("websocket, irc/6.9")
        );
        assert_eq!(
            any(&[YES, ("upgrade", "a"), ("upgrade", "b")]).as_deref(),
            Some("a, b"),
            "two fields are one list"
        );
        let old = asked(Version::HTTP_10, &[YES, ("upgrade", "websocket")], &Upgrades::Any);
        assert_eq!(old, None, "HTTP/1.0");
        let translated = asked(Version::HTTP_2, &[YES, ("upgrade", "websocket")], &Upgrades::Any);
        assert_eq!(translated.as_deref(), Some("websocket"), "of an extended CONNECT");
    }

    #[test]
    fn what_may_be_asked_for_is_bounded() {
        const YES: (&str, &str) = ("connection", "upgrade");
        let only = Upgrades::Only(["websocket".into()].into());
        let asked = |fields: &[_], allowed: &_| asked(Version::HTTP_11, fields, allowed);
        assert_eq!(
            asked(&[YES, ("upgrade", "irc/6.9, WebSocket")], &only).as_deref(),
            Some("WebSocket")
        );
        assert_eq!(asked(&[YES, ("upgrade", "irc/6.9")], &only), None);
        let none = Upgrades::Only([].into());
        assert_eq!(asked(&[YES, ("upgrade", "websocket")], &none), None);
    }

    #[test]
    fn a_body_keeps_the_connection_with_http() {
        let request = http::Request::post("/")
            .header("connection", "upgrade")
            .header("upgrade", "websocket");
        let mut head = request.body(()).unwrap().into_parts().0;
        assert!(Asked::of(&mut head, false, &Upgrades::Any).is_some());
        assert!(Asked::of(&mut head, true, &Upgrades::Any).is_none());
    }

    #[test]
    fn a_server_agrees_to_what_was_asked_for() {
        let asked = Asked(HeaderValue::from_static("websocket, irc/6.9"));
        let agreed = |fields: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, HeaderValue::from_static(value));
            }
            asked.agreed(&headers)
        };
        const YES: (&str, &str) = ("connection", "Upgrade");
        assert_eq!(agreed(&[YES, ("upgrade", "WebSocket")]).unwrap(), "WebSocket");
        assert_eq!(agreed(&[YES, ("upgrade", "irc/6.9")]).unwrap(), "irc/6.9");
        assert_eq!(agreed(&[YES, ("upgrade", "irc/7")]), None);
        assert_eq!(agreed(&[YES, ("upgrade", "websocket"), ("upgrade", "h2c")]), None);
        assert_eq!(agreed(&[YES]), None);
        assert_eq!(agreed(&[YES, ("upgrade", " , ")]), None);
        assert_eq!(agreed(&[("upgrade", "websocket")]), None);
    }
}
