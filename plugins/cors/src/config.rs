//! The configuration, and what is made of it.

use gateway_plugin_sdk::ConfigError;
use gateway_plugin_sdk::config::{TimeSpan, one_or_many};
use serde::Deserialize;

use crate::origin::Origins;

/// What the operator writes in `config { … }`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// Who may: `https://app.example`, `https://*.example` (any name below, not itself), `null`, or `*` for everybody.
    #[serde(deserialize_with = "one_or_many")]
    origin: Vec<String>,
    /// Methods beside GET, HEAD and POST, which need no leave; `*` for all.
    #[serde(default, deserialize_with = "one_or_many")]
    method: Vec<String>,
    /// Request fields beside those that need no leave; `*` for all.
    #[serde(default, deserialize_with = "one_or_many")]
    header: Vec<String>,
    /// Response fields that scripts may read beside those that they may anyway; `*` for all.
    #[serde(default, deserialize_with = "one_or_many")]
    expose_header: Vec<String>,
    /// Whether requests may come with cookies and other credentials.
    #[serde(default)]
    credentials: bool,
    /// Whether public pages may ask for what is in a private network.
    #[serde(default)]
    private_network: bool,
    /// How long a browser may remember the answer to a preflight.
    max_age: Option<TimeSpan>,
    /// Whether requests from other origins are refused, and not only their answers kept from scripts.
    #[serde(default)]
    enforce: bool,
}

/// What runs.
#[derive(Debug)]
pub(crate) struct Policy {
    origins: Origins,
    methods: List,
    headers: List,
    pub(crate) methods_text: String,
    pub(crate) headers_text: String,
    pub(crate) expose_headers: Option<String>,
    pub(crate) credentials: bool,
    pub(crate) private_network: bool,
    pub(crate) max_age: String,
    pub(crate) enforce: bool,
}

/// Names that are allowed.
#[derive(Debug)]
enum List {
    All,
    These(Vec<String>),
}

impl Policy {
    pub(crate) fn new(config: Config) -> Result<Self, ConfigError> {
        let origins = Origins::new(&config.origin)?;
        if config.credentials {
            if origins.is_everybody() {
                let message = "with `credentials` every site could act for its visitors: name the origins";
                return Err(ConfigError::new(message).at("/origin"));
            }
            if origins.have(b"null") {
                let message =
                    "any site can make a page whose origin is `null`: with `credentials` it could act for its visitors";
                return Err(ConfigError::new(message).at("/origin"));
            }
            // Browsers take `*` for a name where credentials come along (Fetch Standard, section 3.3.5).
            for (list, at) in [
                (&config.method, "/method"),
                (&config.header, "/header"),
                (&config.expose_header, "/expose-header"),
            ] {
                if list.iter().any(|name| name == "*") {
                    return Err(ConfigError::new("`*` does not go with `credentials`: write the names").at(at));
                }
            }
        }
        for (index, method) in config.method.iter().enumerate() {
            let is_known = |known: &&&str| known.eq_ignore_ascii_case(method) && **known != method;
            if let Some(known) = KNOWN_METHODS.iter().find(is_known) {
                let message = format!(
                    "methods are told apart by their case: `{method}` would never be asked for; write `{known}`"
                );
                return Err(ConfigError::new(message).at(format!("/method/{index}")));
            }
        }
        let max_age = config.max_age.unwrap_or(DEFAULT_MAX_AGE);
        let exposed = List::new(&config.expose_header, "/expose-header")?;
        Ok(Self {
            origins,
            methods: List::new(&config.method, "/method")?,
            headers: List::new(&config.header, "/header")?,
            methods_text: config.method.join(", "),
            headers_text: config.header.join(", "),
            expose_headers: match exposed {
                List::These(names) if names.is_empty() => None,
                _ => Some(config.expose_header.join(", ")),
            },
            credentials: config.credentials,
            private_network: config.private_network,
            max_age: max_age.whole_seconds().to_string(),
            enforce: config.enforce,
        })
    }

    pub(crate) fn allows(&self, origin: &[u8]) -> bool {
        self.origins.have(origin)
    }

    /// What `Access-Control-Allow-Origin` says to an origin that is allowed.
    pub(crate) fn answer_to<'a>(&self, origin: &'a [u8]) -> &'a [u8] {
        if self.origins.is_everybody() { b"*" } else { origin }
    }

    /// Whether answers differ by origin.
    pub(crate) fn depends_on_origin(&self) -> bool {
        !self.origins.is_everybody()
    }

    /// Methods are compared as they are (RFC 9110, section 9.1).
    pub(crate) fn allows_method(&self, method: &[u8]) -> bool {
        self.methods.has(|name| name.as_bytes() == method)
    }

    pub(crate) fn allows_header(&self, header: &[u8]) -> bool {
        // `*` does not cover this one (Fetch Standard, section 3.3.5).
        let by_name = |name: &str| name.as_bytes().eq_ignore_ascii_case(header);
        match &self.headers {
            List::All => !header.eq_ignore_ascii_case(b"authorization"),
            List::These(names) => names.iter().any(|name| by_name(name)),
        }
    }
}

impl List {
    fn new(names: &[String], at: &str) -> Result<Self, ConfigError> {
        if names.iter().any(|name| name == "*") {
            return match names.len() {
                1 => Ok(Self::All),
                _ => Err(ConfigError::new("beside `*` no other name has a meaning").at(at)),
            };
        }
        for (index, name) in names.iter().enumerate() {
            let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'+-.^_`|~".contains(&byte);
            if name.is_empty() || !name.bytes().all(is_token) {
                return Err(ConfigError::new(format!("`{name}` is no name")).at(format!("{at}/{index}")));
            }
        }
        Ok(Self::These(names.to_vec()))
    }

    fn has(&self, is: impl Fn(&str) -> bool) -> bool {
        match self {
            Self::All => true,
            Self::These(names) => names.iter().any(|name| is(name)),
        }
    }
}

/// Methods that are meant by whoever writes them in another case: browsers ask for most of them in upper case, however a script writes
/// them (Fetch Standard, section 2.2.1), and servers know no others.
const KNOWN_METHODS: [&str; 9] = [
    "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE",
];

/// Methods that need no leave (Fetch Standard, section 2.2.1).
pub(crate) fn is_safe_method(method: &[u8]) -> bool {
    [&b"GET"[..], b"HEAD", b"POST"].contains(&method)
}

/// What a browser takes anyway: a change of policy is felt soon, and a busy page asks rarely.
const DEFAULT_MAX_AGE: TimeSpan = TimeSpan::seconds(600);
