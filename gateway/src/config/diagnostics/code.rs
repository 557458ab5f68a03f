//! The kinds of faults.

use std::fmt;

/// The kind of a fault. The words are part of what `gateway check --format json` promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// The file cannot be read.
    Io,
    /// The text is not KDL.
    Syntax,
    /// A node, property or argument that does not exist, or not there.
    Unknown,
    /// Something is said twice.
    Duplicate,
    /// Something has to be said and is not.
    Missing,
    /// A value is not one that can stand there.
    Value,
    /// A name that nothing has.
    Reference,
    /// Something does not fit the mode, or two modes do not fit.
    Mode,
    /// Two settings contradict each other.
    Conflict,
    /// Something has no effect.
    Inert,
    /// A certificate or key that cannot be used.
    Tls,
    /// A component that cannot be used, or not like this.
    Policy,
    /// Something that this machine does not have, or does not give.
    System,
}

impl Code {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Io,
        Self::Syntax,
        Self::Unknown,
        Self::Duplicate,
        Self::Missing,
        Self::Value,
        Self::Reference,
        Self::Mode,
        Self::Conflict,
        Self::Inert,
        Self::Tls,
        Self::Policy,
        Self::System,
    ];

    /// The code as it is printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Io => "config::io",
            Self::Syntax => "config::syntax",
            Self::Unknown => "config::unknown",
            Self::Duplicate => "config::duplicate",
            Self::Missing => "config::missing",
            Self::Value => "config::value",
            Self::Reference => "config::reference",
            Self::Mode => "config::mode",
            Self::Conflict => "config::conflict",
            Self::Inert => "config::inert",
            Self::Tls => "config::tls",
            Self::Policy => "config::policy",
            Self::System => "config::system",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
