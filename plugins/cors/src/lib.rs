//! Cross-origin requests of browsers (Fetch Standard, section 3.3, "CORS protocol"): answers preflights itself, and says on
//! responses which origin may read them. What servers say of it is replaced: there is one place that decides.

mod config;
mod origin;

use gateway_plugin_sdk::needs::{RequestNeed, ResponseNeed};
use gateway_plugin_sdk::{
    ConfigError, Failure, Needs, Outcome, Plugin, Reply, Request, RequestEdits, RequestFilter, Response, ResponseEdits,
    ResponseFilter, plugin,
};

pub use config::Config;
use config::{Policy, is_safe_method};

/// The plugin.
#[derive(Debug)]
pub struct Cors {
    policy: Policy,
    request: RequestNeeds,
    response: ResponseNeeds,
}

#[derive(Debug)]
struct RequestNeeds {
    method: RequestNeed,
    origin: RequestNeed,
    wanted_method: RequestNeed,
    wanted_headers: RequestNeed,
    private_network: RequestNeed,
    scheme: RequestNeed,
    authority: RequestNeed,
}

#[derive(Debug)]
struct ResponseNeeds {
    origin: ResponseNeed,
    vary: ResponseNeed,
}

impl Plugin for Cors {
    type Config = Config;
    const NAME: &'static str = "cors";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ABOUT: &'static str = "Answers preflights, and says which origins may read responses.";

    fn configure(config: Config, needs: &mut Needs) -> Result<Self, ConfigError> {
        let (request, response) = (&mut needs.request, &mut needs.response);
        Ok(Self {
            policy: Policy::new(config)?,
            request: RequestNeeds {
                method: request.method(),
                origin: request.header("origin"),
                wanted_method: request.header("access-control-request-method"),
                wanted_headers: request.header("access-control-request-headers"),
                private_network: request.header("access-control-request-private-network"),
                scheme: request.scheme(),
                authority: request.authority(),
            },
            response: ResponseNeeds {
                origin: response.header("origin"),
                vary: response.response_header("vary"),
            },
        })
    }
}

impl RequestFilter for Cors {
    fn on_request(&self, request: &Request<'_>, _: &mut RequestEdits) -> Result<Outcome, Failure> {
        let Some(origin) = request.get(self.request.origin) else {
            return Ok(Outcome::Proceed);
        };
        let wanted_method = request.get(self.request.wanted_method);
        if let (Some(b"OPTIONS"), Some(method)) = (request.get(self.request.method), wanted_method) {
            return Ok(self.preflight(request, origin, method).into());
        }
        if self.policy.enforce && !self.policy.allows(origin) && !self.is_same_origin(request, origin) {
            let reply = Reply::new(403).header("vary", "Origin");
            return Ok(reply.body("requests from this origin are not allowed\n").into());
        }
        Ok(Outcome::Proceed)
    }
}

impl ResponseFilter for Cors {
    fn on_response(&self, response: &Response<'_>, edits: &mut ResponseEdits) -> Result<Option<Reply>, Failure> {
        for name in SERVERS {
            edits.remove_header(name)?;
        }
        // A cache that keeps an answer to one origin must not give it to another.
        if self.policy.depends_on_origin() && !varies_by_origin(response.all(self.response.vary)) {
            edits.add_header("vary", "Origin")?;
        }
        let Some(origin) = response.get(self.response.origin) else {
            return Ok(None);
        };
        if !self.policy.allows(origin) {
            return Ok(None);
        }
        edits.set_header("access-control-allow-origin", self.policy.answer_to(origin))?;
        if self.policy.credentials {
            edits.set_header("access-control-allow-credentials", "true")?;
        }
        if let Some(exposed) = &self.policy.expose_headers {
            edits.set_header("access-control-expose-headers", exposed)?;
        }
        Ok(None)
    }
}

impl Cors {
    /// The server is not asked: a preflight is about what it would allow, and that is said here.
    fn preflight(&self, request: &Request<'_>, origin: &[u8], method: &[u8]) -> Reply {
        let wants_private = request.get(self.request.private_network) == Some(b"true");
        let headers_allowed = || {
            let mut names = request.all(self.request.wanted_headers).flat_map(names);
            names.all(|name| self.policy.allows_header(name))
        };
        let allowed = self.policy.allows(origin)
            && (is_safe_method(method) || self.policy.allows_method(method))
            && headers_allowed()
            && (!wants_private || self.policy.private_network);
        let reply = Reply::new(if allowed { 204 } else { 403 }).header("vary", PREFLIGHT_VARY);
        if !allowed {
            return reply;
        }
        let mut reply = reply.header("access-control-allow-origin", self.policy.answer_to(origin));
        if self.policy.credentials {
            reply = reply.header("access-control-allow-credentials", "true");
        }
        if !self.policy.methods_text.is_empty() {
            reply = reply.header("access-control-allow-methods", &self.policy.methods_text);
        }
        if !self.policy.headers_text.is_empty() {
            reply = reply.header("access-control-allow-headers", &self.policy.headers_text);
        }
        if wants_private {
            reply = reply.header("access-control-allow-private-network", "true");
        }
        reply.header("access-control-max-age", &self.policy.max_age)
    }

    /// Browsers send the origin with requests of a page to its own server, too.
    fn is_same_origin(&self, request: &Request<'_>, origin: &[u8]) -> bool {
        let scheme = request.get(self.request.scheme).unwrap_or_default();
        let authority = request.get(self.request.authority).unwrap_or_default();
        let rest = origin.strip_prefix(scheme).and_then(|rest| rest.strip_prefix(b"://"));
        rest.is_some_and(|host| !host.is_empty() && host.eq_ignore_ascii_case(authority))
    }
}

/// The names in a list of fields, `a, b`; empty ones are none (RFC 9110, section 5.6.1).
fn names(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|name| !name.is_empty())
}

fn varies_by_origin<'a>(vary: impl Iterator<Item = &'a [u8]>) -> bool {
    let mut names = vary.flat_map(names);
    names.any(|name| name == b"*" || name.eq_ignore_ascii_case(b"origin"))
}

/// What servers may have said.
const SERVERS: [&str; 7] = [
    "access-control-allow-origin",
    "access-control-allow-credentials",
    "access-control-allow-methods",
    "access-control-allow-headers",
    "access-control-allow-private-network",
    "access-control-expose-headers",
    "access-control-max-age",
];

const PREFLIGHT_VARY: &str =
    "Origin, Access-Control-Request-Method, Access-Control-Request-Headers, Access-Control-Request-Private-Network";

plugin!(Cors: RequestFilter + ResponseFilter);
