//! Persistence: what keeps a client at its server.

use std::time::Duration;

/// `cookie "SRVID" insert indirect nocache`. HTTP mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CookiePersistence {
    /// The cookie's name.
    pub name: String,
    /// Who makes it.
    pub mode: CookieMode,
    /// `indirect`: servers never see it, and a client that has the right one is not told it again.
    pub indirect: bool,
    /// `nocache`: a response that sets it says `Cache-Control: private`.
    pub nocache: bool,
    /// `postonly`: it is set in answers to POST only.
    pub postonly: bool,
    /// `preserve`: one that a server sets itself is left as it is.
    pub preserve: bool,
    /// `max-idle=`: a cookie that was not seen for longer counts for nothing.
    pub max_idle: Option<Duration>,
    /// `max-life=`: a cookie that was first set longer ago counts for nothing.
    pub max_life: Option<Duration>,
    /// The attributes, as they stand in Set-Cookie after the value: `; path=/; HttpOnly`.
    pub attributes: String,
}

/// Who makes the cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CookieMode {
    /// The servers do, each with its own value.
    Passive,
    /// `insert`: the gateway does.
    Insert,
    /// `rewrite`: a server does, and the gateway puts the server's value in the place of what it said.
    Rewrite,
    /// `prefix`: a server does, and the gateway puts the server's value and `~` in front of what it said.
    Prefix,
}

/// `stick "header" name="X-Session-Id" expire="30m" size=100000`: who was at which server is learned and kept for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stick {
    /// Who is who.
    pub key: StickKey,
    /// How long somebody is remembered who does not come again.
    pub expire: Duration,
    /// How many are remembered at most.
    pub size: usize,
}

/// What tells clients apart in a stick table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StickKey {
    /// `"client-ip"`: the client's address.
    ClientIp,
    /// `"header"`, `"query"`, `"cookie"`: a part of the request. HTTP mode.
    Of(HashOf),
}

/// What of a request `balance "header"`, `"uri"`, `"query"` and `"cookie"` hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashOf {
    /// `balance "header" name="X-Session-Id"`: the header's first value.
    Header(http::HeaderName),
    /// `balance "query" name="user"`: the parameter's first value.
    Query(String),
    /// `balance "cookie" name="session"`: the cookie's first value.
    Cookie(String),
    /// `balance "uri"`: the request target.
    Uri(UriPart),
}

/// Which part of a request target counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UriPart {
    /// `whole`: with the query.
    pub whole: bool,
    /// `length=`: so many bytes from the front.
    pub length: Option<usize>,
    /// `depth=`: so many segments from the front.
    pub depth: Option<usize>,
}
