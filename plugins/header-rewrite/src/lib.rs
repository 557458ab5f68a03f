//! The first-party header-rewrite component: sets, adds, deletes and replaces headers of requests and responses, and
//! rewrites paths and Location.
//!
//! Its configuration is `{"request": […], "response": […]}`. Edits of one header work in the order they are written,
//! each on what the one before left. What they come to is settled when the configuration is read: a call makes one host
//! call per header field that changes, and reads only what a replacement has to see.

mod config;
mod headers;
mod replacement;

use std::borrow::Cow;

use gateway_plugin_sdk::needs::RequestNeed;
use gateway_plugin_sdk::{
    ConfigError, Failure, Needs, Plugin, Reply, Request, RequestEdits, RequestFilter, Response, ResponseEdits,
    ResponseFilter, plugin,
};

pub use config::{Config, HeaderName, HeaderReplace, HeaderValue, Replace, RequestEdit, ResponseEdit};
use headers::{Plans, Step};
use replacement::{Kind, Replacement};

/// The plugin.
#[derive(Debug)]
pub struct HeaderRewrite {
    request: Plans<RequestNeed>,
    response: Plans<gateway_plugin_sdk::needs::ResponseNeed>,
    path: Option<PathPlan>,
}

/// The rewrites of the path.
#[derive(Debug)]
struct PathPlan {
    path: RequestNeed,
    rewrites: Vec<Replacement>,
}

impl Plugin for HeaderRewrite {
    type Config = Config;
    const NAME: &'static str = "header-rewrite";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ABOUT: &'static str = "Sets, adds, deletes and replaces headers, and rewrites paths and Location.";

    fn configure(config: Config, needs: &mut Needs) -> Result<Self, ConfigError> {
        let mut request = Vec::new();
        let mut rewrites = Vec::new();
        for (index, edit) in config.request.into_iter().enumerate() {
            let at = format!("/request/{index}");
            match edit {
                RequestEdit::SetHeader(header) => request.push(Step::set(header, &at)?),
                RequestEdit::AddHeader(header) => request.push(Step::add(header, &at)?),
                RequestEdit::DeleteHeader(header) => request.push(Step::delete(header, &at)?),
                RequestEdit::ReplaceHeader(header) => request.push(Step::replace(header, &at)?),
                RequestEdit::RewritePath(replace) => rewrites.push(Replacement::compile(replace, Kind::Path, &at)?),
            }
        }
        let mut response = Vec::new();
        for (index, edit) in config.response.into_iter().enumerate() {
            let at = format!("/response/{index}");
            match edit {
                ResponseEdit::SetHeader(header) => response.push(Step::set(header, &at)?),
                ResponseEdit::AddHeader(header) => response.push(Step::add(header, &at)?),
                ResponseEdit::DeleteHeader(header) => response.push(Step::delete(header, &at)?),
                ResponseEdit::ReplaceHeader(header) => response.push(Step::replace(header, &at)?),
                ResponseEdit::RewriteLocation(replace) => response.push(Step::location(replace, &at)?),
            }
        }
        Ok(Self {
            request: Plans::new(request, "/request", |name| needs.request.header(name))?,
            response: Plans::new(response, "/response", |name| needs.response.response_header(name))?,
            path: (!rewrites.is_empty()).then(|| PathPlan {
                path: needs.request.path(),
                rewrites,
            }),
        })
    }
}

impl RequestFilter for HeaderRewrite {
    fn on_request(&self, request: &Request<'_>, edits: &mut RequestEdits) -> Result<Option<Reply>, Failure> {
        let mut room = self.request.room();
        if let Some(plan) = &self.path
            && let Some(path) = request.get(plan.path)
            && let Cow::Owned(path) = plan.rewrite(path)
            && room.take(1, path.len())
        {
            // What comes of a client's path need not be one, as half of a character: then the old one stays.
            let _ = edits.set_path(path);
        }
        self.request.apply(edits, room, |need| request.all(need))?;
        Ok(None)
    }
}

impl ResponseFilter for HeaderRewrite {
    fn on_response(&self, response: &Response<'_>, edits: &mut ResponseEdits) -> Result<(), Failure> {
        self.response
            .apply(edits, self.response.room(), |need| response.all(need))?;
        Ok(())
    }
}

impl PathPlan {
    /// The path after all rewrites; borrowed when none found what it looks for.
    fn rewrite<'a>(&self, path: &'a [u8]) -> Cow<'a, [u8]> {
        let mut path = Cow::Borrowed(path);
        for rewrite in &self.rewrites {
            if let Some(mut rewritten) = rewrite.apply(&path) {
                // A prefix taken away may have taken the slash along: `/api` without `/api` is `/`.
                if rewritten.first() != Some(&b'/') {
                    rewritten.insert(0, b'/');
                }
                path = Cow::Owned(rewritten);
            }
        }
        path
    }
}

plugin!(HeaderRewrite: RequestFilter + ResponseFilter);
