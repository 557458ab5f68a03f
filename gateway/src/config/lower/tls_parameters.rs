//! `tls min-version="1.2" max-version="1.3" { ciphers "…"; curves "…" }`: what two ends may agree on.

use miette::SourceSpan;

use super::acl::distinct;
use super::or_none;
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::TlsParameters;
use crate::config::reader::{At, Block, Context, Node, Value, clip};
use crate::config::suggest;
use crate::crypto::{CipherSuite, Group, TlsVersion};

/// The versions that a `tls` says, none where it has been reported what is wrong with them.
pub(super) struct Versions<'a> {
    ctx: &'a Context<'a>,
    range: Option<(TlsVersion, TlsVersion)>,
}

impl<'a> Versions<'a> {
    pub(super) fn read(node: &mut Node<'a>) -> Self {
        let min = node.property("min-version").map(|value| version(&value));
        let max = node.property("max-version").map(|value| version(&value));
        let read = || Some((or_none(min)?, or_none(max)?));
        let range = read().and_then(|(min, max)| {
            if let (Some(min), Some(max)) = (&min, &max)
                && min.value > max.value
            {
                let error = ConfigError::new(Code::Conflict, "no version of TLS is left");
                let error = error
                    .label(max.span, "the newest")
                    .label(min.span, "the oldest, and newer");
                node.fail(error.help("leave one of them out"));
                return None;
            }
            let or = |said: Option<At<TlsVersion>>, default| said.map_or(default, |said| said.value);
            Some((or(min, TlsVersion::V1_2), or(max, TlsVersion::V1_3)))
        });
        Self { ctx: node.ctx, range }
    }

    /// Without `ciphers` or `curves`.
    pub(super) fn alone(&self) -> Option<TlsParameters> {
        let (min, max) = self.range?;
        Some(TlsParameters {
            min,
            max,
            ciphers: Vec::new(),
            prefers_client: true,
            curves: Vec::new(),
        })
    }
}

/// Whose `tls` it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// A bind's: of what clients offer, it chooses.
    Bind,
    /// A server's, which chooses.
    Server,
}

/// Reads what the block of a `tls` says.
pub(super) fn read(versions: &Versions<'_>, block: &mut Block<'_>, end: End) -> Option<TlsParameters> {
    let ciphers = block.one("ciphers").map(|mut node| {
        let values = node.some_arguments("a cipher suite");
        let prefer = match end {
            End::Bind => node.property("prefer"),
            End::Server => None,
        };
        let prefers_client = prefer.map(|value| value.choice(&[("client", true), ("server", false)]));
        node.finish();
        let prefers_client = or_none(prefers_client)?.unwrap_or(false);
        let at: Vec<SourceSpan> = values.iter().map(Value::span).collect();
        let ciphers = distinct(values, cipher).filter(|ciphers| !ciphers.is_empty())?;
        Some((ciphers.into_iter().zip(at).collect::<Vec<_>>(), prefers_client))
    });
    let curves = block.one("curves").map(|mut node| {
        let values = node.some_arguments("a curve");
        node.finish();
        distinct(values, curve).filter(|curves| !curves.is_empty())
    });
    let (ciphers, curves) = (or_none(ciphers), or_none(curves));
    let mut parameters = versions.alone()?;
    let (ciphers, prefers_client) = ciphers?.unwrap_or_else(|| (Vec::new(), true));
    for (cipher, span) in &ciphers {
        if cipher.version() < parameters.min || cipher.version() > parameters.max {
            let error = ConfigError::new(Code::Inert, format!("{} is never agreed on here", cipher.name()));
            let label = match cipher.version() {
                TlsVersion::V1_2 => "for TLS 1.2, which `min-version=` leaves out",
                TlsVersion::V1_3 => "for TLS 1.3, which `max-version=` leaves out",
            };
            versions.ctx.report(error.label(*span, label).help("leave it out"));
        }
    }
    parameters.ciphers = ciphers.into_iter().map(|(cipher, _)| cipher).collect();
    parameters.prefers_client = prefers_client;
    parameters.curves = curves?.unwrap_or_default();
    Some(parameters)
}

fn version(value: &Value<'_>) -> Option<At<TlsVersion>> {
    let version = match value.any_text()? {
        "1.2" => TlsVersion::V1_2,
        "1.3" => TlsVersion::V1_3,
        old @ ("1.0" | "1.1" | "TLSv1.0" | "TLSv1.1" | "SSLv3") => {
            return value.fail(
                format!("{old} is not spoken here"),
                "broken, and withdrawn by RFC 8996",
                "write \"1.2\" or \"1.3\"; older versions are not in the library, and who needs them has to have TLS pass \
                 through, in mode \"tcp\" without `tls`",
            );
        }
        other => {
            let title = value.title();
            let help = match other.strip_prefix("TLSv") {
                Some(number @ ("1.2" | "1.3")) => format!("write {number:?}"),
                _ => "write one of them".to_owned(),
            };
            return value.fail(format!("{title} has to be \"1.2\" or \"1.3\""), "no such version", help);
        }
    };
    Some(value.at(version))
}

fn cipher(value: &Value<'_>) -> Option<CipherSuite> {
    let text = value.text()?;
    if let Some(cipher) = CipherSuite::named(text) {
        return Some(cipher);
    }
    let names: Vec<String> = CipherSuite::all().map(CipherSuite::name).collect();
    let help = match CipherSuite::all().find(|suite| suite.openssl_name() == text) {
        Some(suite) => format!(
            "write {:?}: suites have their names of the IANA's registry here",
            suite.name()
        ),
        None => one_of(text, &names),
    };
    let message = format!("there is no cipher suite {:?}", clip(text));
    value.fail(message, "unknown, or not forward secret and so not there", help)
}

fn curve(value: &Value<'_>) -> Option<Group> {
    let text = value.text()?;
    if let Some(group) = Group::named(text) {
        return Some(group);
    }
    let names: Vec<String> = Group::all().map(Group::name).collect();
    value.fail(
        format!("there is no curve {:?}", clip(text)),
        "unknown",
        one_of(text, &names),
    )
}

fn one_of(text: &str, names: &[String]) -> String {
    let nearest = suggest::nearest(text, names.iter().map(String::as_str));
    let near = nearest
        .map(|near| format!("did you mean {near:?}? "))
        .unwrap_or_default();
    format!("{near}there are {}", names.join(", "))
}
