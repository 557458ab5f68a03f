//! The first-party components: shipped inside the binary, run like anybody's.

use crate::config::{
    Acl, AclTest, BuiltIn, Conditional, Config, Grant, Match, Named, Replace, ReplaceFrom, RequestEdit, ResponseEdit,
    Text,
};

/// A component that ships with the gateway.
#[derive(Debug, Clone, Copy)]
pub struct FirstParty {
    /// Its name, as its `describe` says it.
    pub name: &'static str,
    /// The component.
    pub wasm: &'static [u8],
    /// What it is granted: what it uses, no more.
    pub grants: &'static [Grant],
}

/// The component that answers the predicates of this configuration's frontends.
#[must_use]
pub fn acl(config: &Config) -> &'static FirstParty {
    acl_of(config.frontends.iter().flat_map(|frontend| &frontend.acls))
}

/// The component that answers these.
#[must_use]
pub fn acl_of<'a>(mut acls: impl Iterator<Item = &'a Acl>) -> &'static FirstParty {
    let patterns = acls.any(|acl| match &acl.test {
        AclTest::Match(when) => match_has_pattern(when),
        AclTest::Plugin { .. } | AclTest::Servers(_) => false,
    });
    if patterns { &ACL_REGEX } else { &ACL }
}

/// The component that makes the edits of this configuration's frontends and backends.
#[must_use]
pub fn header_rewrite(config: &Config) -> &'static FirstParty {
    let frontends = config.frontends.iter();
    let frontends = frontends.map(|frontend| (&*frontend.request_edits, &*frontend.response_edits));
    let backends = config.backends.iter();
    let backends = backends.map(|backend| (&*backend.request_edits, &*backend.response_edits));
    header_rewrite_of(frontends.chain(backends))
}

/// The component that makes these, of requests and of responses.
#[must_use]
pub fn header_rewrite_of<'a>(
    mut edits: impl Iterator<Item = (&'a [Conditional<RequestEdit>], &'a [Conditional<ResponseEdit>])>,
) -> &'static FirstParty {
    let patterns = edits.any(|(request, response)| {
        request.iter().any(|edit| has_pattern(edit.edit.replace()))
            || response.iter().any(|edit| has_pattern(edit.edit.replace()))
    });
    if patterns {
        &HEADER_REWRITE_REGEX
    } else {
        &HEADER_REWRITE
    }
}

/// A built component: the committed one, unless the build was told of others (see `build.rs`).
#[cfg(not(plugins_from_elsewhere))]
macro_rules! built {
    ($file:literal) => {
        include_bytes!(concat!("../../../plugins/dist/", $file))
    };
}
#[cfg(plugins_from_elsewhere)]
macro_rules! built {
    ($file:literal) => {
        include_bytes!(concat!(env!("GATEWAY_PLUGINS_DIST"), "/", $file))
    };
}

/// Answers the predicates of `acl` where none of them has a pattern. It takes a quarter of the time to compile that
/// [`ACL_REGEX`] takes.
pub const ACL: FirstParty = FirstParty {
    name: "acl",
    wasm: built!("acl.wasm"),
    grants: &[Grant::Clock],
};

/// Answers the predicates of `acl`.
pub const ACL_REGEX: FirstParty = FirstParty {
    name: "acl",
    wasm: built!("acl-regex.wasm"),
    grants: &[Grant::Clock],
};

/// Makes the edits of `request { … }` and `response { … }` where none of them has a pattern.
pub const HEADER_REWRITE: FirstParty = FirstParty {
    name: "header-rewrite",
    wasm: built!("header-rewrite.wasm"),
    grants: &[Grant::Clock],
};

/// Makes the edits of `request { … }` and `response { … }`.
pub const HEADER_REWRITE_REGEX: FirstParty = FirstParty {
    name: "header-rewrite",
    wasm: built!("header-rewrite-regex.wasm"),
    grants: &[Grant::Clock],
};

/// Classifies requests for `rate-limit`.
pub const RATE_LIMIT: FirstParty = FirstParty {
    name: "rate-limit",
    wasm: built!("rate-limit.wasm"),
    grants: &[Grant::Buckets, Grant::Clock],
};

/// A component of the shelf. Compiled only when a configuration names it.
#[must_use]
pub const fn shelf(built_in: BuiltIn) -> &'static [u8] {
    match built_in {
        BuiltIn::ApiKey => built!("api-key.wasm"),
        BuiltIn::BasicAuth => built!("basic-auth.wasm"),
        BuiltIn::BotFilter => built!("bot-filter.wasm"),
        BuiltIn::CanaryRoute => built!("canary-route.wasm"),
        BuiltIn::Cors => built!("cors.wasm"),
        BuiltIn::IpList => built!("ip-list.wasm"),
        BuiltIn::JwtAuth => built!("jwt-auth.wasm"),
        BuiltIn::Maintenance => built!("maintenance.wasm"),
        BuiltIn::RequestId => built!("request-id.wasm"),
        BuiltIn::SecurityHeaders => built!("security-headers.wasm"),
    }
}

fn match_has_pattern(when: &Match) -> bool {
    match when {
        Match::All(parts) | Match::Any(parts) => parts.iter().any(match_has_pattern),
        Match::Not(part) => match_has_pattern(part),
        Match::Path(text) => matches!(text, Text::Regex(_)),
        Match::Header(Named { value, .. }) | Match::Cookie(Named { value, .. }) | Match::Query(Named { value, .. }) => {
            matches!(value, Some(Text::Regex(_)))
        }
        Match::Fact(fact) => matches!(fact.value, Some(Text::Regex(_))),
        Match::HostRegex(_) => true,
        Match::Host(_)
        | Match::HttpVersion(_)
        | Match::Upgrade(_)
        | Match::UriLength(_)
        | Match::HeaderCount(_)
        | Match::HeaderLength(_)
        | Match::SourcePort(_)
        | Match::Method(_)
        | Match::Source(_)
        | Match::Tls
        | Match::Sni(_)
        | Match::Destination(_)
        | Match::Port(_)
        | Match::Alpn(_)
        | Match::Time(_) => false,
    }
}

fn has_pattern(replace: Option<&Replace>) -> bool {
    replace.is_some_and(|replace| matches!(replace.from, ReplaceFrom::Regex(_)))
}
