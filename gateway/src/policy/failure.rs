//! How components fail: at load, which stops the load, and in a call, which costs one exchange its verdict.

use std::fmt;

use super::cache::CacheError;
use super::host_memory::HostMemoryFull;
use crate::hidden::is_hidden;

/// Why a component could not be made ready. Shown to the operator; the running configuration stays.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The engine could not be built.
    #[error("the component engine could not be started: {0}")]
    Engine(String),
    /// The system lets no memory be made executable, and so nothing run that was compiled.
    #[error("what components are compiled to cannot be run here: {0}")]
    NotExecutable(String),
    /// The folder of compiled components is not to be trusted, or cannot be used.
    #[error("the cache of compiled components: {0}")]
    Cache(#[from] CacheError),
    /// Too big to be compiled.
    #[error("{label}: the component has {size} bytes; at most {limit} are taken")]
    TooLarge {
        /// The plugin.
        label: String,
        /// Its size.
        size: usize,
        /// The bound.
        limit: usize,
    },
    /// Compiling it takes more than that may take.
    #[error("{label}: {message}")]
    CompileLimit {
        /// The plugin.
        label: String,
        /// More of what.
        message: String,
    },
    /// Compiled, it is too large.
    #[error("{label}: compiled, it has more than the {} MiB of machine code that are taken", limit >> 20)]
    CodeLimit {
        /// The plugin.
        label: String,
        /// The bound in bytes.
        limit: u64,
    },
    /// Its tenant's files have taken what they may take to compile.
    #[error("{label}: the {most:?} of CPU time that the tenant's files may take to compile are used up")]
    CompileQuota {
        /// The plugin.
        label: String,
        /// How much that is.
        most: std::time::Duration,
    },
    /// With it, they come to more than they may.
    #[error("{label}: with it, the components of its tenant's files come to more than {limit} bytes of machine code")]
    CodeQuota {
        /// The plugin.
        label: String,
        /// The bound in bytes.
        limit: u64,
    },
    /// They have taken what they may take to be set up, too.
    #[error("{label}: the {most:?} of CPU time that the tenant's files may take to compile and to set up are used up")]
    SetUpQuota {
        /// The plugin.
        label: String,
        /// How much that is.
        most: std::time::Duration,
    },
    /// The process that compiles could not do so.
    #[error("{label}: {message}")]
    Compiler {
        /// The plugin.
        label: String,
        /// What became of it.
        message: String,
    },
    /// Not a component, or one that this engine does not take.
    #[error("{label}: not a usable WebAssembly component: {message}")]
    Invalid {
        /// The plugin.
        label: String,
        /// What is wrong.
        message: String,
    },
    /// It imports what the host does not have.
    #[error("{label}: imports `{import}`, which the gateway does not provide")]
    UnknownImport {
        /// The plugin.
        label: String,
        /// The import.
        import: String,
    },
    /// It imports what it was not granted.
    #[error("{label}: imports `{import}`, which it was not granted")]
    NotGranted {
        /// The plugin.
        label: String,
        /// The import.
        import: String,
        /// The line to add to the plugin's block.
        line: &'static str,
    },
    /// It asks for an attribute that it was not granted.
    #[error("{label}: needs `{need}`, which it was not granted")]
    NeedNotGranted {
        /// The plugin.
        label: String,
        /// The attribute.
        need: String,
        /// The line to add to the plugin's block.
        line: &'static str,
    },
    /// An import or export has another type than the contract says.
    #[error("{label}: {message}")]
    Mistyped {
        /// The plugin.
        label: String,
        /// Which, and how it differs.
        message: String,
    },
    /// It exports no hook, or no `lifecycle`.
    #[error("{label}: exports no `{missing}`, so it is not a policy component")]
    MissingExport {
        /// The plugin.
        label: String,
        /// What is missing.
        missing: &'static str,
    },
    /// It refused its configuration.
    #[error("{label}: {message}")]
    Config {
        /// The plugin.
        label: String,
        /// The component's words.
        message: String,
        /// JSON pointer to the place, where the component knows it.
        at: Option<String>,
    },
    /// It asks for an attribute that does not exist, or not in that phase.
    #[error("{label}: needs `{need}`, which {why}")]
    UnknownNeed {
        /// The plugin.
        label: String,
        /// The attribute.
        need: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Its predicates are too many, nameless or not unique.
    #[error("{label}: {message}")]
    Predicates {
        /// The plugin.
        label: String,
        /// What is wrong.
        message: String,
    },
    /// Its metrics are not declared as the contract says.
    #[error("{label}: {message}")]
    Metrics {
        /// The plugin.
        label: String,
        /// What is wrong.
        message: String,
    },
    /// The limits that it sets are not as the contract says.
    #[error("{label}: {message}")]
    LimitPolicies {
        /// The plugin.
        label: String,
        /// What is wrong.
        message: String,
    },
    /// It calls backends, and was granted none.
    #[error("{label}: exports `gateway:policy/call-answered`, so it calls backends, and was granted none")]
    NoCallGranted {
        /// The plugin.
        label: String,
    },
    /// It may route from a frontend to a backend that speaks something else.
    #[error("{label}: may route from the frontend `{frontend}` to the backend `{backend}`, which is of another mode")]
    OtherMode {
        /// The plugin.
        label: String,
        /// The backend.
        backend: String,
        /// The frontend.
        frontend: String,
    },
    /// It may call a backend whose servers speak HTTP/2.
    #[error("{label}: may call the backend `{backend}`, whose servers speak HTTP/2; calls are made by HTTP/1.1")]
    CallOverHttp2 {
        /// The plugin.
        label: String,
        /// The backend.
        backend: String,
    },
    /// Its block grants or bounds what it has no use for.
    #[error("{label}: `{node}` does nothing, since it exports no {missing}")]
    Inert {
        /// The plugin.
        label: String,
        /// What its block says.
        node: &'static str,
        /// The hook that would use it.
        missing: &'static str,
    },
    /// It failed while it was being made ready.
    #[error("{label}: {failure}")]
    Failed {
        /// The plugin.
        label: String,
        /// How.
        failure: Failure,
    },
}

impl PolicyError {
    /// What the operator can do about it, where that is known.
    #[must_use]
    pub fn help(&self) -> Option<String> {
        match self {
            Self::NotGranted { line, .. } | Self::NeedNotGranted { line, .. } => {
                Some(format!("add `{line}` to the plugin's block"))
            }
            Self::OtherMode { .. } => Some("take it out of `route-to`, or give both the same `mode`".to_owned()),
            Self::CallOverHttp2 { .. } => Some("call a backend whose servers have no `http2`".to_owned()),
            Self::Inert { .. } => Some("leave it out, or take a component that uses it".to_owned()),
            Self::NoCallGranted { .. } => Some("add `call \"BACKEND\"` to the plugin's block".to_owned()),
            Self::Config { at: Some(at), .. } => Some(format!("the place in its configuration is `{at}`")),
            _ => None,
        }
    }
}

/// A call that came to nothing. Its instance is gone, its edits are discarded; no other instance is touched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} in {hook}: {message}")]
pub struct Failure {
    /// What kind.
    pub kind: FailureKind,
    /// The hook that was to run.
    pub hook: &'static str,
    /// For the log.
    pub message: String,
    /// Whether there was no room for want of memory that all plugins share.
    pub lacks_shared_memory: bool,
}

impl Failure {
    /// One that is not for want of memory that all share.
    pub(super) fn new(kind: FailureKind, hook: &'static str, message: String) -> Self {
        Self {
            kind,
            hook,
            message,
            lacks_shared_memory: false,
        }
    }

    /// With its message as it may be logged and shown.
    #[must_use]
    pub(super) fn in_one_line(mut self) -> Self {
        self.message = one_line(&self.message);
        self
    }
}

/// Why what a component answered is not taken.
#[derive(Debug)]
pub(super) enum Untaken {
    /// It is not as the contract says, or not what its operator granted.
    Wrong(String),
    /// The gateway may hold no more.
    Full(HostMemoryFull),
}

impl Untaken {
    /// The failure of the call of this hook.
    #[cold]
    pub(super) fn failure(self, hook: &'static str) -> Failure {
        let (kind, message) = match self {
            Self::Wrong(message) => (FailureKind::Trap, message),
            Self::Full(full) => (FailureKind::HostMemory, full.to_string()),
        };
        Failure::new(kind, hook, message)
    }
}

impl From<String> for Untaken {
    fn from(message: String) -> Self {
        Self::Wrong(message)
    }
}

impl From<&str> for Untaken {
    fn from(message: &str) -> Self {
        Self::Wrong(message.to_owned())
    }
}

impl From<HostMemoryFull> for Untaken {
    fn from(full: HostMemoryFull) -> Self {
        Self::Full(full)
    }
}

/// The kinds of failures; labels of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// No instance could be made: it trapped in its start function, or was given other hooks than it has.
    Instantiate,
    /// A fresh instance refused the configuration that its first one took.
    Configure,
    /// It trapped, or returned what the contract does not allow.
    Trap,
    /// It ran past its CPU deadline.
    Deadline,
    /// It wanted more memory than it may have and did not cope.
    Memory,
    /// It misused a host function, or wanted more of it than it may have.
    HostCall,
    /// The pool that instances come from is used up, or its plugin or tenant has as many as it may.
    StoreFull,
    /// It answered with more than the gateway may hold, with what it holds already for its plugin, its tenant or all together.
    HostMemory,
    /// Its plugin or tenant has used up its CPU time for now: it was not called.
    Quota,
    /// It has failed too often in a row: it was not called.
    Quarantined,
}

impl FailureKind {
    /// All kinds, in the order of [`FailureKind::index`].
    pub const ALL: [Self; 10] = [
        Self::Instantiate,
        Self::Configure,
        Self::Trap,
        Self::Deadline,
        Self::Memory,
        Self::HostCall,
        Self::StoreFull,
        Self::HostMemory,
        Self::Quota,
        Self::Quarantined,
    ];

    /// Whether it says something of the component itself: that is what quarantine counts.
    #[must_use]
    pub(super) const fn is_the_components(self) -> bool {
        !matches!(
            self,
            Self::StoreFull | Self::HostMemory | Self::Quota | Self::Quarantined
        )
    }

    /// The kind's label in logs and metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Instantiate => "instantiate",
            Self::Configure => "configure",
            Self::Trap => "trap",
            Self::Deadline => "deadline",
            Self::Memory => "memory",
            Self::HostCall => "host-call",
            Self::StoreFull => "store-full",
            Self::HostMemory => "host-memory",
            Self::Quota => "quota",
            Self::Quarantined => "quarantined",
        }
    }

    /// The kind's position in [`FailureKind::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// A guest's text in a message: bounded, without a way to forge another line or to move a terminal's cursor.
pub(super) fn one_line(text: &str) -> String {
    escaped(text.chars(), MAX_MESSAGE)
}

/// A guest's name for something in a message, as [`one_line`].
pub(super) fn short_name(text: &str) -> String {
    escaped(text.chars().take(MAX_NAME), MAX_MESSAGE)
}

fn escaped(text: impl Iterator<Item = char>, max: usize) -> String {
    let mut line = String::new();
    for c in text {
        if line.len() >= max {
            break;
        }
        if is_hidden(c) {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

/// What a failure says first that came of others having all memory that there is.
pub(super) const NO_SHARED_MEMORY: &str = "all instances of plugins together have the memory that they may have";

/// Bytes of a component's message that are shown; an escaped character may stand out over it.
const MAX_MESSAGE: usize = 1024;

/// Characters of a component's name for something that are shown.
const MAX_NAME: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guests_text_is_one_short_line() {
        assert_eq!(one_line("a\nb\r\x1b[2J\u{85}\u{e4}"), "a\\nb\\r\\u{1b}[2J\\u{85}\u{e4}");
        assert_eq!(one_line("a\u{2028}b\u{202e}c"), "a\\u{2028}b\\u{202e}c");
        assert_eq!(one_line(&"x".repeat(5000)).len(), MAX_MESSAGE);
        assert!(one_line(&"\0".repeat(5000)).len() < MAX_MESSAGE + 10);
        assert_eq!(short_name(&"\u{e4}".repeat(500)), "\u{e4}".repeat(MAX_NAME));
        assert_eq!(short_name(&"\n".repeat(500)).len(), 2 * MAX_NAME);
    }
}
