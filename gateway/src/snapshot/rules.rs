//! A frontend's rules, ready to be gone through: what can be settled before a request comes has been.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use gateway_plugin_template::Place;
use http::header::{HeaderName, HeaderValue};
use http::{StatusCode, header};

use super::AclAnswers;
use super::pages::{self, PageError};
use crate::config::{self, At, Condition, Scheme};
use crate::policy::Values;
use crate::policy::maps::Maps;
use crate::policy::path_captures::PathCaptures;

/// A rule that ends a request.
#[derive(Debug)]
pub struct Rule {
    /// What it does.
    pub action: Action,
    /// When; none means always.
    pub when: Option<Condition>,
    /// Where it stands.
    pub at: RuleAt,
}

/// Where a rule stands, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleAt {
    /// The line.
    pub line: usize,
    /// The file, where it is a tenant's.
    pub file: Option<Arc<str>>,
}

impl Rule {
    /// Whether its condition does.
    pub fn holds(&self, answers: &AclAnswers) -> bool {
        self.when.as_ref().is_none_or(|when| answers.hold(when))
    }
}

/// What a rule does.
#[derive(Debug)]
pub enum Action {
    /// Answers with this status.
    Deny(u16),
    /// Sends elsewhere.
    Redirect(Redirect),
    /// Answers with this.
    Return(Return),
}

/// A redirect.
#[derive(Debug)]
pub struct Redirect {
    /// Where to.
    pub to: Target,
    /// With which status.
    pub code: StatusCode,
    /// Whether the request's query follows.
    pub keeps_query: bool,
    /// A cookie to set.
    pub set_cookie: Option<HeaderValue>,
}

/// Where a redirect leads.
#[derive(Debug)]
pub enum Target {
    /// The same path with another scheme, host or port.
    Authority {
        /// The request's when none.
        scheme: Option<Scheme>,
        /// The request's when none.
        host: Option<Values>,
        /// As the configuration says.
        port: Option<u16>,
    },
    /// This, and the request's path behind it.
    Prefix(Values),
    /// This.
    Location(Values),
    /// This, with parts of the request's path in it.
    Matched {
        /// How they come by.
        captures: PathCaptures,
        /// In order.
        parts: Vec<LocationPart>,
    },
}

/// A part of where a redirect leads.
#[derive(Debug)]
pub enum LocationPart {
    /// A text.
    Values(Values),
    /// What was captured.
    Capture {
        /// Its position among the captures that are needed.
        position: usize,
        /// Whether it stands as the value of a query's parameter.
        is_value: bool,
    },
}

/// A response that is made here.
#[derive(Debug)]
pub struct Return {
    /// Its status.
    pub status: StatusCode,
    /// Its fields.
    pub headers: Vec<(HeaderName, Field)>,
    /// Its content.
    pub content: Content,
}

/// A field's value.
#[derive(Debug)]
pub enum Field {
    /// The same for all.
    Fixed(HeaderValue),
    /// Put together for each.
    Values(Values),
}

/// A response's content.
#[derive(Debug)]
pub enum Content {
    /// The same for all.
    Fixed(Bytes),
    /// Put together for each.
    Values(Values, Place),
}

/// Why a rule cannot be made ready.
#[derive(Debug)]
pub(super) enum RuleError {
    /// Its file cannot be sent.
    File(At<PathBuf>, PageError),
    /// The lowering let something through that it should not have.
    Defect(String),
}

/// Makes a rule ready. `captures` has how the captures come by of rules that have such.
pub(super) fn rule(
    rule: &config::Rule,
    frontend: &config::Frontend,
    maps: &Maps,
    captures: Option<PathCaptures>,
) -> Result<Rule, RuleError> {
    let name = &frontend.name;
    let action = match &rule.action {
        config::Action::Deny(status) => Action::Deny(*status),
        config::Action::Redirect(redirect) => Action::Redirect(self::redirect(redirect, name, maps, captures)?),
        config::Action::Return(answer) => Action::Return(self::answer(answer, name, maps)?),
    };
    Ok(Rule {
        action,
        when: rule.when.clone(),
        at: RuleAt {
            line: rule.origin.line,
            file: (rule.origin.file != frontend.origin.file).then(|| rule.origin.file.clone()),
        },
    })
}

fn redirect(
    redirect: &config::Redirect,
    frontend: &str,
    maps: &Maps,
    captures: Option<PathCaptures>,
) -> Result<Redirect, RuleError> {
    let values = |template: &config::Template| values(template, frontend, maps);
    let to = match &redirect.to {
        config::RedirectTo::Authority { scheme, host, port } => Target::Authority {
            scheme: *scheme,
            host: host.as_ref().map(values).transpose()?,
            port: *port,
        },
        config::RedirectTo::Prefix(prefix) => Target::Prefix(values(prefix)?),
        config::RedirectTo::Location(location) => Target::Location(values(location)?),
        config::RedirectTo::Matched(captured) => {
            let needed = captured.captures();
            let part = |part: &config::LocationPart| {
                Ok(match part {
                    config::LocationPart::Text(text) => LocationPart::Values(values(text)?),
                    config::LocationPart::Capture { number, is_value } => LocationPart::Capture {
                        position: needed.iter().position(|needed| needed == number).unwrap_or_default(),
                        is_value: *is_value,
                    },
                })
            };
            Target::Matched {
                parts: captured.location.iter().map(part).collect::<Result<_, _>>()?,
                captures: captures.ok_or_else(|| RuleError::Defect("nothing captures for it".to_owned()))?,
            }
        }
    };
    let set_cookie = redirect.set_cookie.as_ref().map(|cookie| {
        let value = HeaderValue::try_from(format!("{cookie}; path=/"));
        value.map_err(|error| RuleError::Defect(error.to_string()))
    });
    Ok(Redirect {
        to,
        code: status(redirect.code)?,
        keeps_query: redirect.keeps_query,
        set_cookie: set_cookie.transpose()?,
    })
}

fn answer(answer: &config::Return, frontend: &str, maps: &Maps) -> Result<Return, RuleError> {
    let mut headers = Vec::with_capacity(answer.headers.len() + 1);
    for (name, value) in &answer.headers {
        let name = HeaderName::try_from(name).map_err(|error| RuleError::Defect(error.to_string()))?;
        let values = values(value, frontend, maps)?;
        let field = match values.as_plain() {
            Some(text) => Field::Fixed(field(text)?),
            None => Field::Values(values),
        };
        headers.push((name, field));
    }
    let (content, content_type) = match &answer.content {
        config::Content::Empty => (Content::Fixed(Bytes::new()), None),
        config::Content::Text {
            text,
            content_type,
            place,
        } => {
            let values = values(text, frontend, maps)?;
            let content = match values.as_plain() {
                Some(text) => Content::Fixed(Bytes::copy_from_slice(text)),
                None => Content::Values(values, *place),
            };
            (content, Some(content_type))
        }
        config::Content::File { path, content_type } => {
            let bytes = pages::read(&path.value, MAX_FILE).map_err(|error| RuleError::File(path.clone(), error))?;
            (Content::Fixed(bytes.into()), Some(content_type))
        }
    };
    if let Some(content_type) = content_type {
        headers.push((header::CONTENT_TYPE, Field::Fixed(field(content_type.as_bytes())?)));
    }
    Ok(Return {
        status: status(answer.status)?,
        headers,
        content,
    })
}

fn values(template: &config::Template, frontend: &str, maps: &Maps) -> Result<Values, RuleError> {
    Values::new(&template.named(frontend, None), maps).map_err(RuleError::Defect)
}

fn status(status: u16) -> Result<StatusCode, RuleError> {
    StatusCode::from_u16(status).map_err(|error| RuleError::Defect(error.to_string()))
}

fn field(text: &[u8]) -> Result<HeaderValue, RuleError> {
    HeaderValue::from_bytes(text).map_err(|error| RuleError::Defect(error.to_string()))
}

/// What is served from memory, to anybody, in one piece: as much as a component may answer with.
const MAX_FILE: usize = 1 << 20;
