//! Which files a project is made of.

use clap::ValueEnum;

/// What a plugin is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Language {
    /// Rust, with the SDK.
    #[default]
    Rust,
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
    /// What becomes of a server's response.
    ResponseFilter,
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
        }
    }

    /// What makes the component.
    pub(super) fn build_line(self) -> &'static str {
        match self {
            Self::Rust => "gateway plugin build",
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
            Self::ResponseFilter => "response-filter",
            Self::AccessLog => "access-log",
            Self::ConnectionFilter => "connection-filter",
        }
    }
}

/// The files of a project: where they go, and what is in them before the plugin has a name.
pub(super) fn files(language: Language, hook: Hook) -> Vec<(&'static str, &'static str)> {
    let mut files = match language {
        Language::Rust => vec![
            ("Cargo.toml", include_str!("rust/manifest.toml")),
            (".cargo/config.toml", include_str!("rust/config.toml")),
            ("rustfmt.toml", include_str!("rust/rustfmt.toml")),
            (".gitignore", include_str!("rust/gitignore")),
            ("README.md", include_str!("rust/README.md")),
            ("src/lib.rs", rust(hook)),
        ],
    };
    files.push(("gateway.kdl", configuration(language, hook)));
    files
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
        Hook::ResponseFilter => include_str!("rust/response_filter.rs"),
        Hook::AccessLog => include_str!("rust/access_log.rs"),
        Hook::ConnectionFilter => include_str!("rust/connection_filter.rs"),
    }
}

/// A gateway with the plugin in front of an echo server.
fn configuration(language: Language, hook: Hook) -> &'static str {
    match (language, hook) {
        (Language::Rust, Hook::Predicates) => include_str!("rust/predicates.kdl"),
        (Language::Rust, Hook::Limiter) => include_str!("rust/limiter.kdl"),
        (Language::Rust, Hook::RequestFilter) => include_str!("rust/request_filter.kdl"),
        (Language::Rust, Hook::ResponseFilter) => include_str!("rust/response_filter.kdl"),
        (Language::Rust, Hook::AccessLog) => include_str!("rust/access_log.kdl"),
        (Language::Rust, Hook::ConnectionFilter) => include_str!("rust/connection_filter.kdl"),
    }
}
