//! Sends a share of the clients to another backend, the same ones each time: who they are comes from a cookie, a header or an
//! address, and a hash of that decides. A larger share has all of those that a smaller one had.
//!
//! (A share of the *requests*, drawn anew for each, is what `use-plugin … canary="5%"` gives plugins.)

use gateway_plugin_sdk::config::{TimeSpan, one_or_many};
use gateway_plugin_sdk::needs::{RequestNeed, ResponseNeed};
use gateway_plugin_sdk::{
    ConfigError, Failure, Needs, Outcome, Plugin, Reply, Request, RequestEdits, RequestFilter, Response, ResponseEdits,
    ResponseFilter, plugin, random, tags,
};
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// What the operator writes in `config { … }`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// Where they go: a backend that the plugin is granted (`route-to`).
    backend: String,
    /// How many of a hundred, up to two places.
    percent: f64,
    /// What tells clients apart, the first that a request has.
    #[serde(default, deserialize_with = "one_or_many")]
    by: Vec<By>,
    /// Clients that have nothing of that get this cookie, with a lot in it.
    assign: Option<Assign>,
    /// A header by which one may choose: `force header="x-canary" on="yes" off="no"`.
    force: Option<Force>,
    /// Another one makes another choice of clients.
    #[serde(default)]
    salt: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct By {
    cookie: Option<String>,
    header: Option<String>,
    #[serde(default)]
    client_ip: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Assign {
    cookie: String,
    #[serde(default = "default_max_age")]
    max_age: TimeSpan,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Force {
    header: String,
    on: String,
    off: Option<String>,
}

/// The plugin.
#[derive(Debug)]
pub struct CanaryRoute {
    backend: String,
    /// Of [`LOTS`].
    share: u16,
    by: Vec<RequestNeed>,
    assign: Option<Assigned>,
    force: Option<(RequestNeed, Force)>,
    salt: String,
}

#[derive(Debug)]
struct Assigned {
    cookie: String,
    max_age: u64,
    known: RequestNeed,
    lot: ResponseNeed,
    scheme: ResponseNeed,
}

impl Plugin for CanaryRoute {
    type Config = Config;
    const NAME: &'static str = "canary-route";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ABOUT: &'static str = "Sends a stable share of the clients to another backend.";

    fn configure(config: Config, needs: &mut Needs) -> Result<Self, ConfigError> {
        let share = config.percent * f64::from(LOTS) / 100.0;
        if !(0.0..=f64::from(LOTS)).contains(&share) || (share - share.round()).abs() > 1e-6 {
            let message = "a share is 0 to 100, with at most two places";
            return Err(ConfigError::new(message).at("/percent"));
        }
        if config.by.is_empty() && config.assign.is_none() {
            return Err(ConfigError::new("nothing tells clients apart: say a `by`").at("/by"));
        }
        let mut by = Vec::new();
        for (index, entry) in config.by.iter().enumerate() {
            by.push(match (&entry.cookie, &entry.header, entry.client_ip) {
                (Some(name), None, false) if is_token(name) => needs.request.cookie(name),
                (None, Some(name), false) if is_token(name) => needs.request.header(name),
                (Some(_), None, false) => {
                    return Err(ConfigError::new("this is no name of a cookie").at(format!("/by/{index}/cookie")));
                }
                (None, Some(_), false) => {
                    return Err(ConfigError::new("this is no name of a field").at(format!("/by/{index}/header")));
                }
                (None, None, true) => needs.request.client_ip(),
                _ => {
                    let message = "say one of cookie=\"…\", header=\"…\" and client-ip=#true";
                    return Err(ConfigError::new(message).at(format!("/by/{index}")));
                }
            });
        }
        let assign = config.assign.map(|assign| {
            if !is_token(&assign.cookie) {
                return Err(ConfigError::new("this is no name of a cookie").at("/assign/cookie"));
            }
            if config.by.iter().any(|by| by.client_ip) {
                let message = "every client has an address: with `by client-ip=#true` none is left to give a cookie to";
                return Err(ConfigError::new(message).at("/assign"));
            }
            Ok(Assigned {
                known: needs.request.cookie(&assign.cookie),
                lot: needs.response.tag(LOT),
                scheme: needs.response.scheme(),
                max_age: assign.max_age.whole_seconds(),
                cookie: assign.cookie,
            })
        });
        Ok(Self {
            backend: config.backend,
            share: share.round() as u16,
            by,
            assign: assign.transpose()?,
            force: config.force.map(|force| (needs.request.header(&force.header), force)),
            salt: config.salt,
        })
    }
}

impl RequestFilter for CanaryRoute {
    fn on_request(&self, request: &Request<'_>, _: &mut RequestEdits) -> Result<Outcome, Failure> {
        let chosen = match self.forced(request) {
            Some(forced) => forced,
            None => self.lot(request)?.is_some_and(|lot| lot < self.share),
        };
        tags::set("canary-route", if chosen { "yes" } else { "no" })?;
        Ok(match chosen {
            true => Outcome::Route(self.backend.clone()),
            false => Outcome::Proceed,
        })
    }
}

impl ResponseFilter for CanaryRoute {
    fn on_response(&self, response: &Response<'_>, edits: &mut ResponseEdits) -> Result<Option<Reply>, Failure> {
        if let Some(assign) = &self.assign
            && let Some(lot) = response.text(assign.lot)
        {
            let secure = if response.get(assign.scheme) == Some(b"https") {
                "; Secure"
            } else {
                ""
            };
            let Assigned { cookie, max_age, .. } = assign;
            let cookie = format!("{cookie}={lot}; Path=/; Max-Age={max_age}; HttpOnly; SameSite=Lax{secure}");
            edits.add_header("set-cookie", cookie)?;
        }
        Ok(None)
    }
}

impl CanaryRoute {
    fn forced(&self, request: &Request<'_>) -> Option<bool> {
        let (need, force) = self.force.as_ref()?;
        let value = request.get(*need)?;
        if value == force.on.as_bytes() {
            return Some(true);
        }
        (force.off.as_ref()?.as_bytes() == value).then_some(false)
    }

    /// The lot of who asks; none where nothing tells who that is.
    fn lot(&self, request: &Request<'_>) -> Result<Option<u16>, Failure> {
        let mut known = self.by.iter().filter_map(|need| request.get(*need));
        if let Some(who) = known.find(|who| !who.is_empty()) {
            return Ok(Some(self.hash(who)));
        }
        let Some(assign) = &self.assign else {
            return Ok(None);
        };
        let given = request.text(assign.known).and_then(|text| text.parse::<u16>().ok());
        if let Some(lot) = given.filter(|lot| *lot < LOTS) {
            return Ok(Some(lot));
        }
        // The remainder favours some lots by less than one in a million million.
        let lot = (random::number() % u64::from(LOTS)) as u16;
        tags::set(LOT, lot.to_string())?;
        Ok(Some(lot))
    }

    fn hash(&self, who: &[u8]) -> u16 {
        let digest = Sha256::new()
            .chain_update(&self.salt)
            .chain_update([0])
            .chain_update(who)
            .finalize();
        let first = digest.first_chunk::<8>().copied().unwrap_or_default();
        (u64::from_be_bytes(first) % u64::from(LOTS)) as u16
    }
}

/// RFC 9110, section 5.6.2, as RFC 6265 wants cookies to be called.
fn is_token(text: &str) -> bool {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_token)
}

/// A roll-out is over in a month.
fn default_max_age() -> TimeSpan {
    TimeSpan::seconds(30 * 86_400)
}

/// A share is said in hundredths of a percent.
const LOTS: u16 = 10_000;

/// From the request to its response: the lot that was drawn.
const LOT: &str = "canary-route.lot";

plugin!(CanaryRoute: RequestFilter + ResponseFilter);
