//! Where a plugin's component comes from: a file, or the shelf of components that are part of the gateway.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::Grant;

/// What a plugin is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ComponentSource {
    /// `plugin "geo" "geo.wasm"`: this file.
    File(PathBuf),
    /// `plugin "browsers" builtin="cors"`: one that ships with the gateway.
    BuiltIn(BuiltIn),
}

/// A component on the shelf; docs/shelf.md describes each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BuiltIn {
    /// Lets in requests with a known key.
    ApiKey,
    /// User names and passwords (RFC 7617).
    BasicAuth,
    /// Tells programs from people by what they say of themselves.
    BotFilter,
    /// Sends a stable share of the clients to another backend.
    CanaryRoute,
    /// Cross-origin requests of browsers.
    Cors,
    /// Long lists of networks.
    IpList,
    /// Lets in requests with a valid JSON Web Token.
    JwtAuth,
    /// A page in the place of everything.
    Maintenance,
    /// Gives requests numbers.
    RequestId,
    /// What browsers are told for safety.
    SecurityHeaders,
}

impl BuiltIn {
    /// All of them, by the names that they have in a configuration.
    pub const ALL: &[(&str, Self)] = &[
        ("api-key", Self::ApiKey),
        ("basic-auth", Self::BasicAuth),
        ("bot-filter", Self::BotFilter),
        ("canary-route", Self::CanaryRoute),
        ("cors", Self::Cors),
        ("ip-list", Self::IpList),
        ("jwt-auth", Self::JwtAuth),
        ("maintenance", Self::Maintenance),
        ("request-id", Self::RequestId),
        ("security-headers", Self::SecurityHeaders),
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        let named = Self::ALL.iter().find(|(_, built_in)| *built_in == self);
        named.map_or("", |(name, _)| name)
    }

    /// CPU time of a call where the configuration does not say: more than others have for those that hash passwords and check
    /// signatures, which take milliseconds on a machine that has nothing else to do.
    #[must_use]
    pub const fn cpu(self) -> Option<Duration> {
        match self {
            Self::BasicAuth | Self::JwtAuth => Some(Duration::from_millis(100)),
            _ => None,
        }
    }

    /// What it may use beside what every plugin may: as much as it has a use for. Nobody has to grant it, since it is as
    /// trusted as the gateway that it is part of.
    #[must_use]
    pub const fn grants(self) -> &'static [Grant] {
        match self {
            Self::ApiKey | Self::BotFilter | Self::Cors | Self::IpList | Self::Maintenance | Self::SecurityHeaders => {
                &[]
            }
            Self::BasicAuth => &[Grant::Buckets],
            Self::CanaryRoute => &[Grant::Random],
            Self::JwtAuth => &[Grant::Clock],
            Self::RequestId => &[Grant::Clock, Grant::Random],
        }
    }
}

impl fmt::Display for ComponentSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::BuiltIn(built_in) => write!(f, "builtin={:?}", built_in.name()),
        }
    }
}
