//! The first-party header-rewrite component: sets, adds, deletes and replaces headers of requests and responses, rewrites
//! paths, queries and Location, and sets the status.
//!
//! Its configuration is `{"request": […], "response": […]}`. Edits of one header work in the order they are written,
//! each on what the one before left; so do those of path and query. What can be settled when the configuration is read
//! is settled then: a call makes one host call per header field that changes, and reads only what a replacement, a
//! condition or a value has to see.

mod config;
mod headers;
mod location;
mod replacement;
mod target;
mod value;

use gateway_plugin_sdk::needs::{List, RequestNeed, ResponseNeed};
use gateway_plugin_sdk::{
    ConfigError, Failure, Needs, Outcome, Plugin, Reply, Request, RequestEdits, RequestFilter, Response, ResponseEdits,
    ResponseFilter, plugin,
};

pub use config::{
    Config, HeaderName, HeaderReplace, HeaderValue, LocationChange, Part, QueryParam, Replace, RequestEdit,
    ResponseEdit, Template, When,
};
use headers::{Plans, Step};
use target::Target;
use value::Known;

/// The plugin.
#[derive(Debug)]
pub struct HeaderRewrite {
    target: Target,
    request: Plans<RequestNeed>,
    response: Plans<ResponseNeed>,
    /// The statuses that are set, each with the fact that has to be there for it.
    statuses: Vec<(Option<ResponseNeed>, u16)>,
}

impl Plugin for HeaderRewrite {
    type Config = Config;
    const NAME: &'static str = "header-rewrite";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ABOUT: &'static str =
        "Sets, adds, deletes and replaces headers, rewrites paths, queries and Location, and sets the status.";

    fn configure(config: Config, needs: &mut Needs) -> Result<Self, ConfigError> {
        let mut headers = Vec::new();
        let mut targets = Vec::new();
        for (index, edit) in config.request.into_iter().enumerate() {
            let at = format!("/request/{index}");
            let of = &mut needs.request;
            let (condition, edit) = match edit {
                RequestEdit::When(when) => (Some(condition(when.condition, of)), *when.edit),
                edit => (None, edit),
            };
            let mut header = |step: Step<RequestNeed>| headers.push(step.when(condition));
            let mut target = |step: target::Step| targets.push(step.when(condition));
            match edit {
                RequestEdit::SetHeader(edit) => header(Step::set(edit, &at, of)?),
                RequestEdit::AddHeader(edit) => header(Step::add(edit, &at, of)?),
                RequestEdit::DeleteHeader(edit) => header(Step::delete(edit, &at)?),
                RequestEdit::ReplaceHeader(edit) => header(Step::replace(edit, &at, of)?),
                RequestEdit::SetPath(path) => target(target::Step::set_path(path, &at, of)?),
                RequestEdit::RewritePath(replace) => target(target::Step::rewrite_path(replace, &at, of)?),
                RequestEdit::AddPrefix(prefix) => target(target::Step::add_prefix(prefix, &at, of)?),
                RequestEdit::StripPrefix(prefix) => target(target::Step::strip_prefix(prefix)),
                RequestEdit::SetQuery(query) => target(target::Step::set_query(query, &at, of)?),
                RequestEdit::RewriteQuery(replace) => target(target::Step::rewrite_query(replace, &at, of)?),
                RequestEdit::SetQueryParam(parameter) => target(target::Step::set_param(parameter, of)),
                RequestEdit::DeleteQueryParam(name) => target(target::Step::delete_param(name)),
                RequestEdit::When(_) => return Err(ConfigError::new(NESTED).at(at)),
            }
        }
        let mut response = Vec::new();
        let mut statuses = Vec::new();
        for (index, edit) in config.response.into_iter().enumerate() {
            let at = format!("/response/{index}");
            let of = &mut needs.response;
            let (condition, edit) = match edit {
                ResponseEdit::When(when) => (Some(condition(when.condition, of)), *when.edit),
                edit => (None, edit),
            };
            let step = match edit {
                ResponseEdit::SetHeader(header) => Step::set(header, &at, of)?,
                ResponseEdit::AddHeader(header) => Step::add(header, &at, of)?,
                ResponseEdit::DeleteHeader(header) => Step::delete(header, &at)?,
                ResponseEdit::ReplaceHeader(header) => Step::replace(header, &at, of)?,
                ResponseEdit::RewriteLocation(replace) => Step::location(replace, &at, of)?,
                ResponseEdit::MoveLocation(change) => Step::move_location(change, &at)?,
                ResponseEdit::SetStatus(status) => {
                    statuses.push((condition, status));
                    continue;
                }
                ResponseEdit::When(_) => return Err(ConfigError::new(NESTED).at(at)),
            };
            response.push(step.when(condition));
        }
        Ok(Self {
            request: Plans::new(headers, "/request", |name| needs.request.header(name))?,
            response: Plans::new(response, "/response", |name| needs.response.response_header(name))?,
            target: Target::new(targets, &mut needs.request),
            statuses,
        })
    }
}

impl RequestFilter for HeaderRewrite {
    fn on_request(&self, request: &Request<'_>, edits: &mut RequestEdits) -> Result<Outcome, Failure> {
        let mut room = self.request.room();
        if !self.target.apply(&Known(request), edits, &mut room) {
            // The server is not asked for something else instead.
            return Ok(Reply::new(URI_TOO_LONG).into());
        }
        self.request.apply(edits, room, &Known(request))?;
        Ok(Outcome::Proceed)
    }
}

impl ResponseFilter for HeaderRewrite {
    fn on_response(&self, response: &Response<'_>, edits: &mut ResponseEdits) -> Result<Option<Reply>, Failure> {
        for (condition, status) in &self.statuses {
            if condition.is_none_or(|need| response.get(need).is_some()) {
                edits.set_status(*status)?;
            }
        }
        self.response.apply(edits, self.response.room(), &Known(response))?;
        Ok(None)
    }
}

/// The key to one of the exchange's conditions: a fact that is there when it holds.
fn condition<Phase>(number: u32, needs: &mut List<Phase>) -> gateway_plugin_sdk::needs::Need<Phase> {
    needs.attribute(&format!("condition:{number}"))
}

plugin!(HeaderRewrite: RequestFilter + ResponseFilter);

const NESTED: &str = "an edit has one condition";

/// RFC 9110, section 15.5.15.
const URI_TOO_LONG: u16 = 414;
