//! What a hook is asked about and what it answers, in `http` types.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, request, response};
use tokio::time::Instant;

use super::attachment::Attachment;
use super::calls::{Call, Route};
use super::client_certificate::ClientCertificate;
use super::client_hello::ClientHello;
use super::counted::Counted;
use super::ends::Ends;
use super::host_memory::HostMemory;
use super::kept::{Kept, KeptByConnection, with_connection};
use super::phases::AskingPhase;
use super::scope::Lot;
use super::tags::Tags;
use crate::config::{BackendId, Isolation, TlsValue};
use crate::in_place::boxed;
use crate::proxy_protocol::Header;
use crate::telemetry::line::Connected;
use crate::telemetry::trace::{SpanId, TraceId};

/// A request, the response to it when there is one, and the connection both belong to.
///
/// Kept in a box, so that it moves into a component's store for a call and back by swapping two pointers.
#[derive(Debug)]
pub struct Exchange {
    /// The request's head, as earlier hooks left it.
    pub request: request::Parts,
    /// The response's head; there once a server has answered.
    pub response: Option<response::Parts>,
    /// The client's connection.
    pub connection: Arc<ConnectionFacts>,
    /// Which of the conditions that the operator's edits have hold, a bit each.
    pub conditions: u64,
    /// The number that the request has been given, where it has one.
    pub request_id: Option<HeaderValue>,
    /// The trace that it belongs to and the span of it in there, where traces are made.
    pub trace: Option<(TraceId, SpanId)>,
    /// The name of the server that answered, where somebody may ask for it.
    pub server: Option<Arc<str>>,
    /// Instances that see more than one phase of it.
    pub(super) kept: Kept,
    /// What the edits of its heads take, where that is much.
    pub(super) held: Vec<HostMemory>,
    /// Who takes part in it.
    pub(super) lot: Lot,
    /// Instances that see all requests of its connection, where something asks for such.
    pub kept_by_connection: Option<KeptByConnection>,
    /// What it takes of limits that responses take from.
    pub counted: Counted,
    /// What components have tagged it with; none when nothing.
    pub tags: Option<Box<Tags>>,
    /// Who has replied in a server's place; none where nobody has.
    pub replied: Option<Arc<Attachment>>,
    /// Components are told of it when it is over.
    pub is_told_of: bool,
    /// It has lost its heads: there was no room for them.
    pub(super) is_headless: bool,
    /// What is known of it now that it is over; there for `access-log` only.
    pub over: Option<Box<Over>>,
    /// How far it has come, where that is looked at.
    #[cfg(debug_assertions)]
    pub(super) phase: AskingPhase,
}

/// What is known of an exchange when it is over.
#[derive(Debug, Clone)]
pub struct Over {
    /// What the client was sent; none when it was sent nothing.
    pub status: Option<u16>,
    /// The backend that the request was routed to.
    pub backend: Option<Arc<str>>,
    /// From the request's first byte to now.
    pub duration: Duration,
    /// Of the response's body.
    pub bytes_sent: u64,
    /// Why the gateway answered itself or the exchange broke off.
    pub reason: Option<&'static str>,
    /// It was a connection of TCP mode, which has no request: what is said of one is absent.
    pub is_of_connection: bool,
}

impl Exchange {
    /// Whether an instance of this attachment is kept for it, or for its connection.
    pub fn keeps(&self, attachment: &Attachment) -> bool {
        match attachment.isolation {
            Isolation::Reuse { .. } => false,
            Isolation::PerRequest { .. } => self.kept.has(attachment),
            Isolation::PerConnection { .. } => {
                let kept = self.kept_by_connection.as_ref();
                kept.is_some_and(|kept| with_connection(kept, |kept| kept.has(attachment)))
            }
        }
    }

    /// The instances that are kept for it alone go: no phase comes any more but the one in which components are told of it, which
    /// has others.
    pub fn gives_up_instances(&mut self) {
        self.kept = Kept::default();
    }

    /// What stands in for it while this one is asked about it elsewhere: as it is now, where components are told of it should it end
    /// meanwhile. Its heads are held for who is asked; where there is no room for them, components are not told. Instances, and what its
    /// edits hold, stay with it.
    pub fn stand_in(&self, asked: &Attachment) -> Box<Self> {
        let held = match self.is_told_of {
            true => asked.hold_so_much(self.bytes_of_heads()).ok(),
            false => None,
        };
        let request = match &held {
            Some(_) => self.request.clone(),
            None => http::Request::new(()).into_parts().0,
        };
        let mut stand_in = Self::new(request, self.connection.clone());
        stand_in.is_told_of = self.is_told_of;
        stand_in.is_headless = self.is_told_of && held.is_none();
        if let Some(heads) = held {
            stand_in.response.clone_from(&self.response);
            stand_in.held.extend(heads);
        }
        stand_in.request_id.clone_from(&self.request_id);
        stand_in.trace = self.trace;
        stand_in.server.clone_from(&self.server);
        stand_in.lot = self.lot.clone();
        stand_in.tags.clone_from(&self.tags);
        stand_in
    }

    /// Of a request that has just come.
    pub fn new(request: request::Parts, connection: Arc<ConnectionFacts>) -> Box<Self> {
        boxed(|| Self {
            request,
            response: None,
            connection,
            conditions: 0,
            request_id: None,
            trace: None,
            server: None,
            kept: Kept::default(),
            held: Vec::new(),
            lot: Lot::default(),
            kept_by_connection: None,
            counted: Counted::default(),
            tags: None,
            replied: None,
            is_told_of: false,
            is_headless: false,
            over: None,
            #[cfg(debug_assertions)]
            phase: AskingPhase::Acl,
        })
    }

    /// What the names and values of its request and response take, and the target.
    pub(super) fn bytes_of_heads(&self) -> usize {
        let of = |headers: &HeaderMap| -> usize {
            let fields = headers.iter();
            fields.map(|(name, value)| name.as_str().len() + value.len()).sum()
        };
        let target = self.request.uri.path_and_query();
        target.map_or(0, |target| target.as_str().len())
            + of(&self.request.headers)
            + self.response.as_ref().map_or(0, |response| of(&response.headers))
    }

    /// Notes the host that decides who takes part, which may be gone from the head by the time that somebody asks.
    pub fn is_for(&mut self, host: Option<Box<str>>) {
        self.lot.host = host;
    }

    /// Notes which of the conditions hold under which the plugins of its host's tenant take part, a bit each.
    pub const fn is_used_by(&mut self, uses: u64) {
        self.lot.uses = uses;
    }

    /// Takes part in it whoever took part in its connection, in TCP mode.
    pub fn is_drawn(&mut self, lot: Lot) {
        self.lot = lot;
    }

    /// Whether it is a connection of TCP mode that is over.
    pub(super) fn has_no_request(&self) -> bool {
        self.over.as_ref().is_some_and(|over| over.is_of_connection)
    }

    /// Components are about to be asked in this phase. One that is earlier than where the exchange has come to is a defect of
    /// ours, which builds for tests end with; others do not look.
    #[inline]
    pub fn enters(&mut self, phase: AskingPhase) {
        #[cfg(debug_assertions)]
        {
            assert!(
                self.phase <= phase,
                "an exchange goes back from {:?} to {phase:?}",
                self.phase
            );
            self.phase = phase;
        }
        #[cfg(not(debug_assertions))]
        let _ = phase;
    }
}

/// What is known of a client's connection. Boxed is what most connections have not: this lives as long as they do.
#[derive(Debug, Clone)]
pub struct ConnectionFacts {
    /// When it was accepted.
    pub accepted: Instant,
    /// Its two addresses.
    pub ends: Ends,
    /// TLS facts; none on a plain connection, and none where TLS passes through.
    pub tls: Option<Box<TlsFacts>>,
    /// What was read of it before its protocol began, where there was something to read.
    pub preamble: Option<Box<Preamble>>,
}

/// What a connection may begin with, before its protocol.
#[derive(Debug, Clone, Default)]
pub struct Preamble {
    /// What a client said whose TLS passes through, where it was looked at.
    pub hello: Option<ClientHello>,
    /// The PROXY header, where one was asked for.
    pub proxy: Option<Introduced>,
    /// HTTP, where TLS has to begin: the client is told so, and served no further.
    pub is_http_for_tls: bool,
}

/// What a connection that begins with a PROXY header has beside others.
#[derive(Debug, Clone)]
pub struct Introduced {
    /// The other end of the connection itself; none of a UNIX socket.
    pub peer: Option<SocketAddr>,
    /// What it said.
    pub header: Header,
}

impl ConnectionFacts {
    /// The client: the original one when a PROXY header named it, else the peer. None of a UNIX socket.
    pub fn client(&self) -> Option<SocketAddr> {
        self.ends.client()
    }

    /// The client's address without its port.
    pub fn client_ip(&self) -> Option<IpAddr> {
        self.client().map(|client| client.ip())
    }

    /// The address that the client connected to, likewise.
    pub fn local(&self) -> Option<SocketAddr> {
        self.ends.local()
    }

    /// Whether a balancer in front speaks for itself, as in its health checks.
    pub fn is_from_balancer(&self) -> bool {
        matches!(self.header(), Some(Header::Local))
    }

    /// The other end of the connection itself; none of a UNIX socket.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.introduced()
            .map_or_else(|| self.client(), |introduced| introduced.peer)
    }

    /// What a client said whose TLS passes through, where it was looked at.
    pub fn hello(&self) -> Option<&ClientHello> {
        self.preamble.as_ref()?.hello.as_ref()
    }

    /// Whether it began with HTTP where it had to begin with TLS.
    pub fn is_http_for_tls(&self) -> bool {
        self.preamble.as_ref().is_some_and(|preamble| preamble.is_http_for_tls)
    }

    /// The PROXY header that the connection began with, where one was asked for.
    pub fn header(&self) -> Option<&Header> {
        self.introduced().map(|introduced| &introduced.header)
    }

    fn introduced(&self) -> Option<&Introduced> {
        self.preamble.as_ref()?.proxy.as_ref()
    }
}

impl Connected for ConnectionFacts {
    fn tls_value(&self, what: TlsValue) -> Option<&[u8]> {
        let tls = self.tls.as_deref();
        let hello = self.hello();
        let certificate = || Some(tls?.client_certificate.as_ref()?.read());
        let text = match what {
            TlsValue::Version => Some(tls?.version),
            TlsValue::Cipher => Some(tls?.cipher),
            TlsValue::Sni => match tls {
                Some(tls) => tls.sni.as_deref(),
                None => hello?.sni.as_deref(),
            },
            TlsValue::Alpn => {
                let agreed = tls.and_then(|tls| tls.alpn.as_deref());
                return agreed.or_else(|| hello?.alpn.first().map(Vec::as_slice));
            }
            TlsValue::ClientCertSubject => Some(certificate()?.subject.as_str()),
            TlsValue::ClientCertCn => certificate()?.common_name.as_deref(),
            TlsValue::ClientCertIssuer => Some(certificate()?.issuer.as_str()),
            TlsValue::ClientCertSerial => Some(certificate()?.serial.as_str()),
            TlsValue::ClientCertSan => certificate()?.alternative.first().map(String::as_str),
            TlsValue::ClientCertFingerprint => Some(certificate()?.fingerprint.as_str()),
            TlsValue::ClientCertNotBefore => Some(certificate()?.not_before.as_str()),
            TlsValue::ClientCertNotAfter => Some(certificate()?.not_after.as_str()),
            TlsValue::ClientCertDer => Some(tls?.client_certificate.as_ref()?.base64()),
            TlsValue::ClientCertVerify => Some(tls?.verified()),
        };
        text.map(str::as_bytes)
    }
}

/// What a TLS handshake settled.
#[derive(Debug, Clone)]
pub struct TlsFacts {
    /// `TLSv1.3` or `TLSv1.2`.
    pub version: &'static str,
    /// The cipher suite, by the name that OpenSSL has for it.
    pub cipher: &'static str,
    /// The server name the client asked for, lower-case.
    pub sni: Option<String>,
    /// The application protocol agreed on.
    pub alpn: Option<Vec<u8>>,
    /// The client's own certificate, which has been verified.
    pub client_certificate: Option<ClientCertificate>,
}

impl TlsFacts {
    /// What became of the client's certificate. One that is not believed gets no connection, so that there is no third answer.
    pub fn verified(&self) -> &'static str {
        match self.client_certificate {
            Some(_) => "SUCCESS",
            None => "NONE",
        }
    }
}

/// A limiter's answer to one request; see `limiter.verdict` in the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitVerdict {
    /// Whether the request may go on.
    pub allowed: bool,
    /// Which of [`Attachment::policies`](super::Attachment::policies) decided.
    pub policy: usize,
    /// Requests left now.
    pub remaining: u64,
    /// Milliseconds until all of the quota is there again.
    pub reset_ms: u64,
    /// Milliseconds until the next request will be allowed; 0 when one is allowed now.
    pub retry_after_ms: u64,
}

/// A limit that a limiter sets; see `limiter.policy` in the contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitPolicy {
    /// Its name.
    pub name: String,
    /// Its size, in requests.
    pub quota: u64,
    /// Milliseconds in which so many arrive anew.
    pub window_ms: u64,
}

/// What a request filter came to.
#[derive(Debug)]
pub enum Outcome {
    /// The request goes on.
    Proceed,
    /// It ends here.
    Reply(Reply),
    /// It goes on, to another backend.
    Route(Route),
    /// It waits for a backend's answer to this.
    Call(Box<Call>),
}

/// A response that a component gives in the server's place. Checked: framing and hop-by-hop fields are not in it.
#[derive(Debug, Clone)]
pub struct Reply {
    /// 200 to 599.
    pub status: StatusCode,
    /// Header fields.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// What becomes of a connection in TCP mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectionVerdict {
    /// It goes on, to the backend that the configuration says.
    Accept,
    /// It is closed.
    Refuse,
    /// It goes to this backend, to which the component may route.
    Route(BackendId),
}
