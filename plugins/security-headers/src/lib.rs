//! Tells browsers what they must not do with a page: the fields that OWASP's Secure Headers Project recommends, on responses
//! of servers.
//!
//! A field that the server has sent stands, unless `override` says otherwise: it knows its pages better. A field set to
//! `#false` is left to the server alone.

use gateway_plugin_sdk::config::{TimeSpan, one_or_many};
use gateway_plugin_sdk::needs::ResponseNeed;
use gateway_plugin_sdk::{
    ConfigError, Failure, Needs, Plugin, Reply, Response, ResponseEdits, ResponseFilter, fields, plugin,
};
use serde::Deserialize;

/// What the operator writes in `config { … }`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// `X-Content-Type-Options: nosniff`; on unless this is false.
    content_type_options: Choice<NoText>,
    /// `X-Frame-Options`: `DENY` unless said, or `SAMEORIGIN`.
    frame_options: Choice<String>,
    /// `Referrer-Policy`: `strict-origin-when-cross-origin` unless said.
    referrer_policy: Choice<String>,
    /// `X-Permitted-Cross-Domain-Policies`: `none` unless said.
    permitted_cross_domain_policies: Choice<String>,
    /// `Content-Security-Policy`.
    content_security_policy: Option<String>,
    /// `Content-Security-Policy-Report-Only`.
    content_security_policy_report_only: Option<String>,
    /// `Permissions-Policy`.
    permissions_policy: Option<String>,
    /// `Cross-Origin-Opener-Policy`.
    cross_origin_opener_policy: Option<String>,
    /// `Cross-Origin-Embedder-Policy`.
    cross_origin_embedder_policy: Option<String>,
    /// `Cross-Origin-Resource-Policy`.
    cross_origin_resource_policy: Option<String>,
    /// `Strict-Transport-Security` (RFC 6797), over TLS only.
    strict_transport_security: Option<Hsts>,
    /// Fields of the server's that nobody has to see, as `server` and `x-powered-by`.
    #[serde(deserialize_with = "one_or_many")]
    remove: Vec<String>,
    /// Whether the server's own fields are replaced.
    #[serde(rename = "override")]
    overrides: bool,
}

/// A field that is there unless it is switched off.
#[derive(Debug, Default, Deserialize)]
#[serde(untagged)]
enum Choice<T> {
    #[default]
    #[serde(skip)]
    Default,
    On(bool),
    Text(T),
}

/// Of what has one value alone, no text can be said.
#[derive(Debug, Deserialize)]
enum NoText {}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Hsts {
    max_age: TimeSpan,
    #[serde(default)]
    include_subdomains: bool,
    #[serde(default)]
    preload: bool,
}

/// The plugin.
#[derive(Debug)]
pub struct SecurityHeaders {
    fields: Vec<Field>,
    remove: Vec<String>,
    /// Declared when a field is for TLS only.
    scheme: Option<ResponseNeed>,
}

#[derive(Debug)]
struct Field {
    name: &'static str,
    value: String,
    /// Where the server's own field stands; none where it is replaced.
    own: Option<ResponseNeed>,
    needs_tls: bool,
}

impl Plugin for SecurityHeaders {
    type Config = Config;
    const NAME: &'static str = "security-headers";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ABOUT: &'static str = "Tells browsers what they must not do with a page.";

    fn configure(config: Config, needs: &mut Needs) -> Result<Self, ConfigError> {
        let mut fields = Vec::new();
        let overrides = config.overrides;
        let mut add = |name: &'static str, value: String, needs: &mut Needs| {
            fields.push(Field {
                name,
                value,
                own: (!overrides).then(|| needs.response.response_header(name)),
                needs_tls: name == HSTS,
            });
        };
        if !matches!(config.content_type_options, Choice::On(false)) {
            add("x-content-type-options", "nosniff".to_owned(), needs);
        }
        for (name, at, choice, known) in [
            ("x-frame-options", "/frame-options", config.frame_options, FRAME_OPTIONS),
            (
                "referrer-policy",
                "/referrer-policy",
                config.referrer_policy,
                REFERRER_POLICIES,
            ),
            (
                "x-permitted-cross-domain-policies",
                "/permitted-cross-domain-policies",
                config.permitted_cross_domain_policies,
                CROSS_DOMAIN_POLICIES,
            ),
        ] {
            match choice {
                Choice::On(false) => {}
                Choice::Default | Choice::On(true) => add(name, known[0].to_owned(), needs),
                Choice::Text(value) => add(name, one_of(value, known, at)?, needs),
            }
        }
        for (name, at, value, known) in [
            (
                "cross-origin-opener-policy",
                "/cross-origin-opener-policy",
                config.cross_origin_opener_policy,
                OPENER_POLICIES,
            ),
            (
                "cross-origin-embedder-policy",
                "/cross-origin-embedder-policy",
                config.cross_origin_embedder_policy,
                EMBEDDER_POLICIES,
            ),
            (
                "cross-origin-resource-policy",
                "/cross-origin-resource-policy",
                config.cross_origin_resource_policy,
                RESOURCE_POLICIES,
            ),
        ] {
            if let Some(value) = value {
                add(name, one_of(value, known, at)?, needs);
            }
        }
        for (name, at, value) in [
            (
                "content-security-policy",
                "/content-security-policy",
                config.content_security_policy,
            ),
            (
                "content-security-policy-report-only",
                "/content-security-policy-report-only",
                config.content_security_policy_report_only,
            ),
            ("permissions-policy", "/permissions-policy", config.permissions_policy),
        ] {
            if let Some(value) = value {
                add(name, field_value(&value, at)?, needs);
            }
        }
        let mut scheme = None;
        if let Some(hsts) = config.strict_transport_security {
            add(HSTS, hsts.value()?, needs);
            scheme = Some(needs.response.scheme());
        }
        for (index, name) in config.remove.iter().enumerate() {
            fields::check_name(name).map_err(|refused| ConfigError::from(refused).at(format!("/remove/{index}")))?;
        }
        if fields.is_empty() && config.remove.is_empty() {
            return Err(ConfigError::new(
                "everything is switched off: there is nothing left to do",
            ));
        }
        Ok(Self {
            fields,
            remove: config.remove,
            scheme,
        })
    }
}

impl ResponseFilter for SecurityHeaders {
    fn on_response(&self, response: &Response<'_>, edits: &mut ResponseEdits) -> Result<Option<Reply>, Failure> {
        for name in &self.remove {
            edits.remove_header(name)?;
        }
        let is_tls = self.scheme.is_some_and(|scheme| response.get(scheme) == Some(b"https"));
        for field in &self.fields {
            let is_there = field.own.is_some_and(|own| response.get(own).is_some());
            if !is_there && (is_tls || !field.needs_tls) {
                edits.set_header(field.name, &field.value)?;
            }
        }
        Ok(None)
    }
}

impl Hsts {
    fn value(&self) -> Result<String, ConfigError> {
        let at = "/strict-transport-security";
        let seconds = self.max_age.whole_seconds();
        if self.preload && (!self.include_subdomains || seconds < YEAR) {
            let message = "browsers preload what includes subdomains and has a max-age of a year (365d) at least";
            return Err(ConfigError::new(message).at(format!("{at}/preload")));
        }
        let mut value = format!("max-age={seconds}");
        if self.include_subdomains {
            value.push_str("; includeSubDomains");
        }
        if self.preload {
            value.push_str("; preload");
        }
        Ok(value)
    }
}

/// One of the words that a field may have, in whatever case.
fn one_of(value: String, known: &[&str], at: &str) -> Result<String, ConfigError> {
    match known.iter().find(|known| known.eq_ignore_ascii_case(&value)) {
        Some(known) => Ok((*known).to_owned()),
        None => {
            let message = format!("`{value}` is none of {}", known.join(", "));
            Err(ConfigError::new(message).at(at))
        }
    }
}

/// A text that can stand in a field (RFC 9110, section 5.5): checked now, since the host would refuse it with each response. A
/// policy that is too long for one line is written in several, in a file mostly: line breaks and what stands around them are a space.
fn field_value(value: &str, at: &str) -> Result<String, ConfigError> {
    let lines: Vec<&str> = value
        .lines()
        .map(str::trim_ascii)
        .filter(|line| !line.is_empty())
        .collect();
    let value = lines.join(" ");
    let fits = !value.is_empty() && value.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    match fits {
        true => Ok(value),
        false => Err(ConfigError::new("has to be printable ASCII").at(at)),
    }
}

const HSTS: &str = "strict-transport-security";

/// Seconds. What the lists that browsers ship with ask for.
const YEAR: u64 = 31_536_000;

/// The first of each is what is sent unless said otherwise.
const FRAME_OPTIONS: &[&str] = &["DENY", "SAMEORIGIN"];
const REFERRER_POLICIES: &[&str] = &[
    "strict-origin-when-cross-origin",
    "no-referrer",
    "no-referrer-when-downgrade",
    "origin",
    "origin-when-cross-origin",
    "same-origin",
    "strict-origin",
    "unsafe-url",
];
const CROSS_DOMAIN_POLICIES: &[&str] = &["none", "master-only", "by-content-type", "all"];
const OPENER_POLICIES: &[&str] = &[
    "same-origin",
    "same-origin-allow-popups",
    "noopener-allow-popups",
    "unsafe-none",
];
const EMBEDDER_POLICIES: &[&str] = &["require-corp", "credentialless", "unsafe-none"];
const RESOURCE_POLICIES: &[&str] = &["same-origin", "same-site", "cross-origin"];

plugin!(SecurityHeaders: ResponseFilter);
