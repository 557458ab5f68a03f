//! Which files a project is made of.

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::plugin_tools::world::CONTRACT;

/// What a plugin is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Language {
    /// Rust, with the SDK.
    #[default]
    Rust,
    /// JavaScript, for componentize-js.
    #[value(name = "js", alias = "javascript")]
    JavaScript,
    /// Python, for componentize-py.
    Python,
    /// C, for clang.
    C,
}

/// What a plugin is asked, by the contract's name of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Hook {
    /// Questions about requests, for acls.
    #[value(alias = "acl")]
    Predicates,
    /// Whether a request is within its limits.
    #[value(alias = "rate-limit")]
    Limiter,
    /// What becomes of a request.
    #[default]
    RequestFilter,
    /// What becomes of a request that another service is asked about.
    #[value(alias = "authorization")]
    CallAnswered,
    /// What becomes of a request's body.
    RequestBodyFilter,
    /// What becomes of a server's response.
    ResponseFilter,
    /// What becomes of its body.
    ResponseBodyFilter,
    /// Nothing: it is told of exchanges that are over.
    #[value(alias = "log")]
    AccessLog,
    /// Whether a connection is let in, in TCP mode.
    #[value(alias = "connection")]
    ConnectionFilter,
}

impl Language {
    /// What people call it.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Rust => "Rust",
            Self::JavaScript => "JavaScript",
            Self::Python => "Python",
            Self::C => "C",
        }
    }

    /// What makes the component, the first time.
    pub(super) fn build_lines(self) -> &'static [&'static str] {
        match self {
            Self::Rust => &["gateway plugin build"],
            Self::JavaScript => &["npm install", "npm run build"],
            // A system's own Python takes no packages from elsewhere (PEP 668).
            Self::Python => &[
                "python3 -m venv .venv",
                ". .venv/bin/activate",
                "pip install -r requirements.txt",
                "sh build.sh",
            ],
            Self::C => &["sh build.sh"],
        }
    }
}

impl Hook {
    /// What the contract calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Predicates => "predicates",
            Self::Limiter => "limiter",
            Self::RequestFilter => "request-filter",
            Self::CallAnswered => "call-answered",
            Self::RequestBodyFilter => "request-body-filter",
            Self::ResponseFilter => "response-filter",
            Self::ResponseBodyFilter => "response-body-filter",
            Self::AccessLog => "access-log",
            Self::ConnectionFilter => "connection-filter",
        }
    }
}

/// The files of a project: where they go, and what is in them before the plugin has a name.
///
/// # Errors
/// There is no template for that hook in that language.
pub(super) fn files(language: Language, hook: Hook) -> Result<Vec<(&'static str, &'static str)>> {
    if language != Language::Rust && hook != Hook::RequestFilter {
        bail!(
            "there is no project in {} for the hook {}: that language has request-filter; Rust has every hook",
            language.title(),
            hook.name()
        );
    }
    let mut files = match language {
        Language::Rust => vec![
            ("Cargo.toml", include_str!("rust/manifest.toml")),
            (".cargo/config.toml", include_str!("rust/config.toml")),
            ("rustfmt.toml", include_str!("rust/rustfmt.toml")),
            (".gitignore", include_str!("rust/gitignore")),
            ("README.md", include_str!("rust/README.md")),
            ("src/lib.rs", rust(hook)),
            ("config.schema.kdl", schema(hook)),
        ],
        Language::JavaScript => vec![
            ("package.json", include_str!("javascript/package.json")),
            ("build.mjs", include_str!("javascript/build.mjs")),
            (".gitignore", include_str!("javascript/gitignore")),
            ("README.md", include_str!("javascript/README.md")),
            ("plugin.js", include_str!("javascript/plugin.js")),
        ],
        Language::Python => vec![
            ("requirements.txt", include_str!("python/requirements.txt")),
            ("build.sh", include_str!("python/build.sh")),
            (".gitignore", include_str!("python/gitignore")),
            ("README.md", include_str!("python/README.md")),
            ("app.py", include_str!("python/app.py")),
        ],
        Language::C => vec![
            ("build.sh", include_str!("c/build.sh")),
            (".gitignore", include_str!("c/gitignore")),
            ("README.md", include_str!("c/README.md")),
            ("plugin.c", include_str!("c/plugin.c")),
        ],
    };
    if language != Language::Rust {
        // The SDK knows the contract; other makers of components are told.
        files.push(("wit/world.wit", include_str!("world.wit")));
        files.push(("wit/deps/policy/policy.wit", CONTRACT));
    }
    files.push(("gateway.kdl", configuration(language, hook)));
    files.push(("fixtures/cases.kdl", fixtures(language, hook)));
    Ok(files)
}

/// What a project's configuration tells its reader to try: the lines with a command, and what comes of it.
pub(super) fn trials(language: Language, hook: Hook) -> impl Iterator<Item = &'static str> {
    configuration(language, hook)
        .lines()
        .filter_map(|line| line.strip_prefix("//     "))
}

fn rust(hook: Hook) -> &'static str {
    match hook {
        Hook::Predicates => include_str!("rust/predicates.rs"),
        Hook::Limiter => include_str!("rust/limiter.rs"),
        Hook::RequestFilter => include_str!("rust/request_filter.rs"),
        Hook::CallAnswered => include_str!("rust/call_answered.rs"),
        Hook::RequestBodyFilter => include_str!("rust/request_body_filter.rs"),
        Hook::ResponseFilter => include_str!("rust/response_filter.rs"),
        Hook::ResponseBodyFilter => include_str!("rust/response_body_filter.rs"),
        Hook::AccessLog => include_str!("rust/access_log.rs"),
        Hook::ConnectionFilter => include_str!("rust/connection_filter.rs"),
    }
}

/// What operators may write for a plugin in Rust.
fn schema(hook: Hook) -> &'static str {
    match hook {
        Hook::Predicates => include_str!("rust/predicates.schema.kdl"),
        Hook::Limiter => include_str!("rust/limiter.schema.kdl"),
        Hook::RequestFilter => include_str!("rust/request_filter.schema.kdl"),
        Hook::CallAnswered => include_str!("rust/call_answered.schema.kdl"),
        Hook::RequestBodyFilter => include_str!("rust/request_body_filter.schema.kdl"),
        Hook::ResponseFilter => include_str!("rust/response_filter.schema.kdl"),
        Hook::ResponseBodyFilter => include_str!("rust/response_body_filter.schema.kdl"),
        Hook::AccessLog => include_str!("rust/access_log.schema.kdl"),
        Hook::ConnectionFilter => include_str!("rust/connection_filter.schema.kdl"),
    }
}

/// A gateway with the plugin in front of an echo server. One that brings an interpreter needs more room.
fn configuration(language: Language, hook: Hook) -> &'static str {
    match (language, hook) {
        (Language::JavaScript | Language::Python, _) => include_str!("interpreted/gateway.kdl"),
        (_, Hook::Predicates) => include_str!("rust/predicates.kdl"),
        (_, Hook::Limiter) => include_str!("rust/limiter.kdl"),
        (_, Hook::RequestFilter) => include_str!("rust/request_filter.kdl"),
        (_, Hook::CallAnswered) => include_str!("rust/call_answered.kdl"),
        (_, Hook::RequestBodyFilter) => include_str!("rust/request_body_filter.kdl"),
        (_, Hook::ResponseFilter) => include_str!("rust/response_filter.kdl"),
        (_, Hook::ResponseBodyFilter) => include_str!("rust/response_body_filter.kdl"),
        (_, Hook::AccessLog) => include_str!("rust/access_log.kdl"),
        (_, Hook::ConnectionFilter) => include_str!("rust/connection_filter.kdl"),
    }
}

/// Cases for `gateway plugin test`, with what the plugin is to make of them.
fn fixtures(language: Language, hook: Hook) -> &'static str {
    match (language, hook) {
        (Language::JavaScript | Language::Python, _) => include_str!("interpreted/fixtures.kdl"),
        (_, Hook::Predicates) => include_str!("rust/fixtures/predicates.kdl"),
        (_, Hook::Limiter) => include_str!("rust/fixtures/limiter.kdl"),
        (_, Hook::RequestFilter) => include_str!("rust/fixtures/request_filter.kdl"),
        (_, Hook::CallAnswered) => include_str!("rust/fixtures/call_answered.kdl"),
        (_, Hook::RequestBodyFilter) => include_str!("rust/fixtures/request_body_filter.kdl"),
        (_, Hook::ResponseFilter) => include_str!("rust/fixtures/response_filter.kdl"),
        (_, Hook::ResponseBodyFilter) => include_str!("rust/fixtures/response_body_filter.kdl"),
        (_, Hook::AccessLog) => include_str!("rust/fixtures/access_log.kdl"),
        (_, Hook::ConnectionFilter) => include_str!("rust/fixtures/connection_filter.kdl"),
    }
}
