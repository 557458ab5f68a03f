//! Which files a project is made of.

use std::borrow::Cow;

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
pub(super) fn files(language: Language, hook: Hook) -> Vec<(&'static str, Cow<'static, str>)> {
    let files = match language {
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
            ("plugin.js", javascript(hook)),
        ],
        Language::Python => vec![
            ("requirements.txt", include_str!("python/requirements.txt")),
            ("build.sh", include_str!("python/build.sh")),
            (".gitignore", include_str!("python/gitignore")),
            ("README.md", include_str!("python/README.md")),
            ("app.py", python(hook)),
        ],
        Language::C => vec![
            ("build.sh", include_str!("c/build.sh")),
            (".gitignore", include_str!("c/gitignore")),
            ("README.md", include_str!("c/README.md")),
            ("contract.h", include_str!("c/contract.h")),
            ("plugin.c", c(hook)),
        ],
    };
    let borrowed = |(path, text)| (path, Cow::Borrowed(text));
    let mut files: Vec<_> = files.into_iter().map(borrowed).collect();
    if language != Language::Rust {
        // The SDK knows the contract; other makers of components are told.
        files.push(("wit/world.wit", Cow::Owned(world(hook))));
        files.push(("wit/deps/policy/policy.wit", Cow::Borrowed(CONTRACT)));
    }
    let (configuration, fixtures) = (configuration(hook), fixtures(hook));
    files.extend(match language {
        Language::JavaScript | Language::Python => [
            ("gateway.kdl", Cow::Owned(with_room(configuration, "100ms"))),
            ("fixtures/cases.kdl", Cow::Owned(with_room(fixtures, "1s"))),
        ],
        Language::Rust | Language::C => [
            ("gateway.kdl", Cow::Borrowed(configuration)),
            ("fixtures/cases.kdl", Cow::Borrowed(fixtures)),
        ],
    });
    files
}

/// What a project's configuration tells its reader to try: the lines with a command, and what comes of it.
pub(super) fn trials(hook: Hook) -> impl Iterator<Item = &'static str> {
    configuration(hook)
        .lines()
        .filter_map(|line| line.strip_prefix("//     "))
}

/// The world of a plugin with that hook: what it exports, and what its template imports of the contract.
fn world(hook: Hook) -> String {
    let (imports, exports): (&[&str], &[&str]) = match hook {
        Hook::Predicates => (&[], &["predicates"]),
        Hook::Limiter => (&["buckets"], &["limiter"]),
        Hook::RequestFilter => (&["request-edits"], &["request-filter"]),
        Hook::CallAnswered => (&["request-edits"], &["request-filter", "call-answered"]),
        Hook::RequestBodyFilter => (&[], &["request-body-filter"]),
        Hook::ResponseFilter => (&["response-edits"], &["response-filter"]),
        Hook::ResponseBodyFilter => (&[], &["response-body-filter"]),
        Hook::AccessLog => (&["log"], &["access-log"]),
        Hook::ConnectionFilter => (&[], &["connection-filter"]),
    };
    let line = |way, name: &&str| format!("    {way} gateway:policy/{name}@0.1.0;\n");
    let imports = imports.iter().map(|name| line("import", name));
    let exports = ["lifecycle"].iter().chain(exports).map(|name| line("export", name));
    let lines: String = imports.chain(exports).collect();
    format!(
        "package example:my-plugin;\n\n/// What this plugin exports, and what it imports of the gateway.\nworld my-plugin {{\n\
         {lines}}}\n"
    )
}

/// A configuration, or fixtures, for a plugin that brings an interpreter: that needs more room than the defaults, and takes too
/// long to make to have an instance for each request.
fn with_room(text: &str, cpu: &str) -> String {
    let limits = format!(
        "    // An interpreter needs more room than the defaults.\n    limit memory=\"64MiB\" cpu=\"{cpu}\"\n    isolation \"reuse\"\n"
    );
    let mut roomy = String::with_capacity(text.len() + 2 * limits.len());
    for line in text.split_inclusive('\n') {
        if line.starts_with("defaults ") {
            roomy.push_str("process { policy memory=\"64MiB\" }\n\n");
        }
        roomy.push_str(line);
        if line.starts_with("plugin ") {
            roomy.push_str(&limits);
        }
    }
    roomy
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

fn javascript(hook: Hook) -> &'static str {
    match hook {
        Hook::Predicates => include_str!("javascript/predicates.js"),
        Hook::Limiter => include_str!("javascript/limiter.js"),
        Hook::RequestFilter => include_str!("javascript/request_filter.js"),
        Hook::CallAnswered => include_str!("javascript/call_answered.js"),
        Hook::RequestBodyFilter => include_str!("javascript/request_body_filter.js"),
        Hook::ResponseFilter => include_str!("javascript/response_filter.js"),
        Hook::ResponseBodyFilter => include_str!("javascript/response_body_filter.js"),
        Hook::AccessLog => include_str!("javascript/access_log.js"),
        Hook::ConnectionFilter => include_str!("javascript/connection_filter.js"),
    }
}

fn python(hook: Hook) -> &'static str {
    match hook {
        Hook::Predicates => include_str!("python/predicates.py"),
        Hook::Limiter => include_str!("python/limiter.py"),
        Hook::RequestFilter => include_str!("python/request_filter.py"),
        Hook::CallAnswered => include_str!("python/call_answered.py"),
        Hook::RequestBodyFilter => include_str!("python/request_body_filter.py"),
        Hook::ResponseFilter => include_str!("python/response_filter.py"),
        Hook::ResponseBodyFilter => include_str!("python/response_body_filter.py"),
        Hook::AccessLog => include_str!("python/access_log.py"),
        Hook::ConnectionFilter => include_str!("python/connection_filter.py"),
    }
}

fn c(hook: Hook) -> &'static str {
    match hook {
        Hook::Predicates => include_str!("c/predicates.c"),
        Hook::Limiter => include_str!("c/limiter.c"),
        Hook::RequestFilter => include_str!("c/request_filter.c"),
        Hook::CallAnswered => include_str!("c/call_answered.c"),
        Hook::RequestBodyFilter => include_str!("c/request_body_filter.c"),
        Hook::ResponseFilter => include_str!("c/response_filter.c"),
        Hook::ResponseBodyFilter => include_str!("c/response_body_filter.c"),
        Hook::AccessLog => include_str!("c/access_log.c"),
        Hook::ConnectionFilter => include_str!("c/connection_filter.c"),
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

/// A gateway with the plugin in front of an echo server.
fn configuration(hook: Hook) -> &'static str {
    match hook {
        Hook::Predicates => include_str!("rust/predicates.kdl"),
        Hook::Limiter => include_str!("rust/limiter.kdl"),
        Hook::RequestFilter => include_str!("rust/request_filter.kdl"),
        Hook::CallAnswered => include_str!("rust/call_answered.kdl"),
        Hook::RequestBodyFilter => include_str!("rust/request_body_filter.kdl"),
        Hook::ResponseFilter => include_str!("rust/response_filter.kdl"),
        Hook::ResponseBodyFilter => include_str!("rust/response_body_filter.kdl"),
        Hook::AccessLog => include_str!("rust/access_log.kdl"),
        Hook::ConnectionFilter => include_str!("rust/connection_filter.kdl"),
    }
}

/// Cases for `gateway plugin test`, with what the plugin is to make of them.
fn fixtures(hook: Hook) -> &'static str {
    match hook {
        Hook::Predicates => include_str!("rust/fixtures/predicates.kdl"),
        Hook::Limiter => include_str!("rust/fixtures/limiter.kdl"),
        Hook::RequestFilter => include_str!("rust/fixtures/request_filter.kdl"),
        Hook::CallAnswered => include_str!("rust/fixtures/call_answered.kdl"),
        Hook::RequestBodyFilter => include_str!("rust/fixtures/request_body_filter.kdl"),
        Hook::ResponseFilter => include_str!("rust/fixtures/response_filter.kdl"),
        Hook::ResponseBodyFilter => include_str!("rust/fixtures/response_body_filter.kdl"),
        Hook::AccessLog => include_str!("rust/fixtures/access_log.kdl"),
        Hook::ConnectionFilter => include_str!("rust/fixtures/connection_filter.kdl"),
    }
}
