//! How an error of building is said as a fault of the configuration's text: where it points, and what to do.

use std::io;

use miette::SourceSpan;

use super::tls_fault::{TlsFiles, tls_fault};
use super::{BuildError, PluginAt, at_line};
use crate::config::{self, Code, ConfigError};
use crate::policy::{FailureKind, Hooks, PolicyError};
use crate::signatures::KeyError;
use crate::snapshot::pages::PageError;

impl BuildError {
    /// The error as a fault of the configuration's text.
    pub(super) fn fault(&self) -> ConfigError {
        let code = match self {
            Self::Tls { .. } | Self::ServerTls { .. } => Code::Tls,
            Self::CollectorHeader { .. }
            | Self::File {
                source: PageError::File(_),
                ..
            } => Code::Io,
            Self::File { .. } | Self::Rule { .. } | Self::Map { .. } => Code::Value,
            Self::TrustedKey { source, .. } => match source {
                KeyError::Io { .. } => Code::Io,
                KeyError::Unusable { .. } => Code::Value,
            },
            Self::MappedBackend { .. } => Code::Reference,
            _ => Code::Policy,
        };
        let fault = ConfigError::new(code, self.to_string());
        match self {
            Self::Host(PolicyError::Cache(_)) => {
                fault.help("give it a folder of its own, which belongs to whom the gateway runs as, with mode 700")
            }
            Self::Host(PolicyError::NotExecutable(_)) => fault.help(HELP_WITH_EXECUTABLE),
            Self::Host(_) => fault.help("ask for less with `policy instances=… memory=…` in `process`"),
            Self::Tls { bind, tls, source } => tls_fault(fault, &TlsFiles::of_bind(tls, bind.span), source),
            Self::ServerTls { tls, source } => tls_fault(fault, &TlsFiles::of_server(tls), source),
            Self::PluginFile { plugin, source } => {
                let label = match source.kind() {
                    io::ErrorKind::NotFound => "there is no such file",
                    io::ErrorKind::FileTooLarge => "too large for a component",
                    _ => "this file cannot be read",
                };
                let help = match source.kind() {
                    io::ErrorKind::FileTooLarge => HELP_WITH_SIZE,
                    _ => HELP_WITH_FILES,
                };
                fault.label(plugin.component.span, label).help(help)
            }
            Self::Unsigned { plugin, tried, .. } => fault
                .label(plugin.component.span, "not signed by a trusted key")
                .label(plugin.origin.span, "of this plugin")
                .help(format!(
                    "trusted here: {tried}. Whoever has one of these keys signs it: gateway plugin sign --key KEY {}",
                    plugin.component.value
                )),
            Self::TrustedKey { path, .. } => fault
                .label(path.span, "this key")
                .help("the file has to be there and hold what `openssl pkey -in KEY -pubout` writes"),
            Self::CollectorHeader { path, .. } => fault
                .label(path.span, "this file")
                .help("let it hold the value alone, as `Bearer …`, and let the gateway read it"),
            Self::ConfigFile { path, .. } => fault.label(path.span, "this file").help(HELP_WITH_FILES),
            Self::Digest { plugin, at, found } => fault
                .label(*at, "not the digest of this file")
                .label(plugin.component.span, "the file")
                .help(format!("if the file is the right one, write sha256 \"{}\"", hex(found))),
            Self::Schema { plugin, .. } => fault.label(plugin.component.span, "this component").help(HELP_WITH_OWN),
            Self::Setting { fault: setting, .. } => setting.clone().in_words(self.to_string()),
            Self::Plugin { plugin, source } => plugin_fault(fault, plugin, source),
            Self::Predicate { acl, name, known, .. } => {
                let fault = match name {
                    Some(name) => fault.label(name.span, "unknown predicate"),
                    None => fault.label(acl.span, "there is nothing to ask it"),
                };
                fault.help(match known.is_empty() {
                    true => "an acl asks predicates; a filter is attached with `use-plugin`".to_owned(),
                    false => config::one_of_names(name.as_ref().map_or("", |name| &name.value), known),
                })
            }
            Self::NoHook { at, hooks, .. } => fault.label(*at, "would never be called here").help(match hooks {
                Hooks { predicates: true, .. } => {
                    "ask it in an acl: acl \"name\" { plugin \"its name\" predicate=\"…\" }"
                }
                Hooks {
                    connection_filter: true,
                    ..
                } => "use it in a frontend with mode \"tcp\"",
                _ => "use it in a frontend with mode \"http\"",
            }),
            Self::Incomparable { at, hooks, .. } => {
                let (label, help) = match hooks.request_body_filter || hooks.response_body_filter {
                    true => (
                        "sees bodies, which have gone by when they are known to be other than they should be",
                        "try it on a part of the requests, where it is obeyed: canary=\"5%\"",
                    ),
                    false => (
                        "is told of exchanges that are over, and changes nothing",
                        "leave `shadow` out; canary=\"5%\" has it told of a part of them",
                    ),
                };
                fault.label(*at, label).help(help)
            }
            Self::NeverAlways { at, mode, .. } => {
                let label = match mode {
                    config::Mode::Http => "it has no hook `response-filter`",
                    config::Mode::Tcp => "in TCP mode nothing is answered",
                };
                fault.label(*at, label).help("leave it out")
            }
            Self::Map { map, error } => fault
                .label(map.path.span, format!("the map {:?}{}", map.name, at_line(error.line)))
                .help("a line is a key, a space and its value; lines that begin with `#` are passed over"),
            Self::MappedBackend { map, line, route, .. } => {
                let place = match line {
                    0 => "its `default=`".to_owned(),
                    line => format!("its line {line}"),
                };
                fault
                    .label(map.path.span, place)
                    .label(route.span, "leads to the backends that it names")
                    .help("declare the backend, in the frontend's mode, or mend the map")
            }
            Self::File { path, source, .. } => page_fault(fault, path.span, source),
            Self::Rule { origin, .. } => fault
                .label(origin.span, "this rule")
                .help("this is a defect of the gateway: please report it"),
            Self::Own { origin, source } => {
                let help = own_limits_help(source).unwrap_or("this is a defect of the gateway: please report it");
                fault.label(origin.span, "needed here").help(help)
            }
        }
    }
}

fn page_fault(fault: ConfigError, place: SourceSpan, error: &PageError) -> ConfigError {
    match error {
        PageError::File(error) => {
            let label = match error.kind() {
                io::ErrorKind::NotFound => "there is no such file",
                _ => "this file cannot be read",
            };
            fault.label(place, label).help(HELP_WITH_FILES)
        }
        PageError::TooLong(_) => fault
            .label(place, "too long")
            .help("it is kept in memory: make it shorter"),
        PageError::Malformed(_) => fault.label(place, "not a response").help(
            "the file has to hold a whole response, as HAProxy's error files: a status line, fields, an empty line and \
             the content; or give its name the extension of what it holds, as .html",
        ),
        PageError::Status { found } => fault.label(place, "says another status").help(format!(
            "let its first line say the status it is for, or write: error-page {found} …"
        )),
        PageError::Field(_) => fault
            .label(place, "has a field that it may not have")
            .help("leave the field out: the gateway writes it as each connection needs it"),
        PageError::Length { .. } => fault
            .label(place, "says a length that it has not")
            .help("leave Content-Length out: the gateway writes it"),
    }
}

fn plugin_fault(fault: ConfigError, plugin: &PluginAt, error: &PolicyError) -> ConfigError {
    let help = error.help();
    let (label, help) = match error {
        PolicyError::NotGranted { line, .. } | PolicyError::NeedNotGranted { line, .. } => {
            let help = match line.strip_prefix("grant ") {
                // A second `grant` would be said twice.
                Some(word) if !plugin.grants.is_empty() => format!("add `{word}` to its `grant`"),
                _ => help.unwrap_or_default(),
            };
            return fault.label(plugin.origin.span, "this is not granted here").help(help);
        }
        PolicyError::Config { at, .. } => {
            let (span, label) = match at.as_deref().map(|at| (at, plugin.config.find(at))) {
                Some((_, (span, true))) => (span, "refused".to_owned()),
                Some((at, (span, false))) => (span, format!("refused in here, at `{at}`")),
                None => (plugin.config.span(), "refused".to_owned()),
            };
            let help = "the plugin's documentation says what it takes; it gets this block as JSON";
            return fault.label(span, label).help(help);
        }
        PolicyError::Engine(_) | PolicyError::Cache(_) => (
            "needed here",
            "ask for less with `policy instances=… memory=…` in `process`",
        ),
        PolicyError::NotExecutable(_) => ("needed here", HELP_WITH_EXECUTABLE),
        PolicyError::TooLarge { .. } => ("this component", HELP_WITH_SIZE),
        PolicyError::CompileLimit { .. } => (
            "this component",
            "if you trust it, allow more with `policy compile-cpu=… compile-memory=…` in `process`",
        ),
        PolicyError::CodeLimit { .. } => (
            "this component",
            "no component is as large by nature: build it with optimisation, and leave out what it does not use",
        ),
        PolicyError::CompileQuota { .. } => (
            "this component",
            "have fewer or smaller components, mend the one that took too much, or let the operator allow more with `quota compile-cpu=`",
        ),
        PolicyError::CodeQuota { .. } => (
            "this component",
            "have fewer or smaller components, or let the operator allow more with `quota machine-code=`",
        ),
        PolicyError::SetUpQuota { .. } => (
            "this component",
            "have fewer plugins or uses of them, have them do less in `configure`, or let the operator allow more with `quota compile-cpu=`",
        ),
        PolicyError::Compiler { .. } => (
            "this component",
            "it is compiled by a process of its own: look at the limits on processes and memory that the gateway runs under",
        ),
        PolicyError::Invalid { .. } => (
            "not a usable component",
            "make a component with `gateway plugin build`, and put it in its place whole: written beside it and renamed",
        ),
        PolicyError::UnknownImport { .. } => (
            "this component",
            "build it for wasm32-unknown-unknown, with the interfaces of wit/policy.wit alone: there is no WASI",
        ),
        PolicyError::Mistyped { .. } | PolicyError::MissingExport { .. } => (
            "this component",
            "build it with the wit/policy.wit of this version of the gateway",
        ),
        PolicyError::UnknownNeed { .. }
        | PolicyError::Predicates { .. }
        | PolicyError::Metrics { .. }
        | PolicyError::LimitPolicies { .. } => ("this component", HELP_WITH_OWN),
        // What the operator grants, and what the component has a use for, do not go together.
        PolicyError::OtherMode { .. }
        | PolicyError::CallOverHttp2 { .. }
        | PolicyError::NoCallGranted { .. }
        | PolicyError::Inert { .. } => {
            return fault
                .label(plugin.origin.span, "in this plugin's block")
                .help(help.unwrap_or_default());
        }
        PolicyError::Failed { .. } => (
            "fails when it is made ready",
            limits_help(error).unwrap_or(HELP_WITH_OWN),
        ),
    };
    // Before the plugin: a fault is where its first label is.
    let fault = match plugin.used {
        Some(used) => fault.label(used, "as it is limited here"),
        None => fault,
    };
    let fault = fault.label(plugin.component.span, label);
    fault.help(help)
}

/// What to do about a component that fails by a limit.
fn limits_help(error: &PolicyError) -> Option<&'static str> {
    let PolicyError::Failed { failure, .. } = error else {
        return None;
    };
    match failure.kind {
        FailureKind::Deadline => Some("give it more time with `limit cpu=`"),
        FailureKind::Memory => Some("give it more memory with `limit memory=`"),
        FailureKind::StoreFull if failure.lacks_shared_memory => Some(
            "allow more memory with `policy total-memory=` in `process`, or others less with `total-memory=` and `plugin-memory=`",
        ),
        FailureKind::StoreFull => Some(
            "allow more instances: `limit instances=` of the plugin, `plugin-instances=` of its tenant, or `policy instances=` in `process`",
        ),
        _ => None,
    }
}

/// The same of one of the gateway's own, which takes as much as it is told to compare with.
fn own_limits_help(error: &PolicyError) -> Option<&'static str> {
    match error {
        PolicyError::Failed { failure, .. } if failure.kind == FailureKind::Memory => Some(
            "have fewer values or regular expressions, or give components more memory with `policy memory=` in `process`",
        ),
        PolicyError::Failed { failure, .. } if failure.kind == FailureKind::Deadline => {
            Some("have fewer values or regular expressions")
        }
        error => limits_help(error),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const HELP_WITH_OWN: &str = "this is the component's own fault: ask those who made it, or take another version";
const HELP_WITH_SIZE: &str = "build it with optimisations and without debug information";
const HELP_WITH_EXECUTABLE: &str = "components are compiled to machine code: let the gateway make memory executable, which \
     `MemoryDenyWriteExecute=yes` in a systemd unit forbids";
pub(super) const HELP_WITH_FILES: &str =
    "check that the file is there and may be read; relative paths start at the folder of the configuration file";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Failure;

    #[test]
    fn who_has_no_room_is_told_of_what_is_lacking() {
        let help = |message: &str, lacks_shared_memory| {
            let failure = Failure {
                kind: FailureKind::StoreFull,
                hook: "instantiate",
                message: message.to_owned(),
                lacks_shared_memory,
            };
            let label = "geo".to_owned();
            limits_help(&PolicyError::Failed { label, failure }).unwrap_or_default()
        };
        let memory = help("no words of a guest's or of ours decide: wasm trap", true);
        assert!(
            memory.contains("`policy total-memory=`") && !memory.contains("instances="),
            "{memory}"
        );
        let instances = help("plugin \"geo\" has its 4 instances already", false);
        assert!(
            instances.contains("`limit instances=`") && !instances.contains("memory"),
            "{instances}"
        );
    }
}
