//! Turning KDL text into a typed, validated configuration. Knows no runtime.
//!
//! [`load`] reads a file, [`parse`] a text. The way of a text: `syntax` makes KDL nodes of it, `lower` makes the model of
//! those, reading them through `reader`, which remembers what nobody asked for. All faults of a text are reported at once.

mod diagnostics;
mod effective;
mod examples;
pub mod fixture;
mod health;
mod include;
mod json;
mod lists;
mod lower;
pub mod model;
mod pins;
mod places;
mod reader;
mod reading;
mod resolver;
pub mod schema;
mod suggest;
mod syntax;
mod token;
mod units;

use std::io::Read;
use std::path::Path;

pub use diagnostics::{Code, ConfigError, ConfigErrors, Label, Position, Source};
pub use effective::{
    DEFAULT_MACHINE_CODE, EffectiveLimits, Level, Limit, compile_share, memory_share, of_own_components, pool_share,
    quotas,
};
pub use lower::alone::MOST_MEMORY as MOST_TOOL_MEMORY;
#[cfg(test)]
pub use lower::template_attributes;
pub use lower::{
    DEFAULT_INSTANCE_MEMORY, DEFAULT_MAX_CONNECTIONS, DEFAULT_PLUGIN_CPU, MAX_ACLS, MAX_CONNECTIONS, shifted,
};
pub use model::*;
pub use pins::{Pin, PinError, write_digests};
pub use reading::{LastGood, Reading};
pub use suggest::one_of_names;

/// A configuration, and the text that it was read from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What the text means.
    pub config: Config,
    /// The text, for faults that are found only when the configuration is to run.
    pub source: Source,
    /// What is wrong with files of tenants that were set aside.
    pub aside: Vec<ConfigErrors>,
}

/// Reads and checks a configuration file. Relative paths in it start at its folder. The files that it names are not looked
/// into, but for those that tenants include and lists of values: what is wrong in one of these is a fault like any other.
pub fn load(path: &Path) -> Result<Loaded, ConfigErrors> {
    Reading::of_file(path, &LastGood::default())?.refusing().lower()
}

/// Checks a configuration text. `name` is what messages call it; relative paths in it start at `base_dir`. Lists of values are
/// taken to be empty.
pub fn parse(name: &str, text: &str, base_dir: &Path) -> Result<Config, ConfigErrors> {
    let reading = Reading::of_text(name, text.to_owned(), base_dir, &LastGood::default())?;
    reading.refusing().lower().map(|loaded| loaded.config)
}

/// The text of a configuration file.
fn text_of(path: &Path, name: &str) -> Result<String, ConfigErrors> {
    let fail = |message: String, help: &str| {
        let error = ConfigError::new(Code::Io, message).help(help);
        ConfigErrors::new(name, "", vec![error])
    };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path);
    // One byte more than may be, to know that there is more; a file of a device never ends.
    let read = file.and_then(|file| file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes));
    if let Err(error) = read {
        let help = "name another file with `-c FILE`, or check that this one is there and may be read";
        return Err(fail(format!("cannot read {name}: {error}"), help));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count();
        let message = format!("{name} is not UTF-8: byte {at}, in line {line}, begins no character");
        fail(message, "save the file as UTF-8")
    })
}

/// Bytes of a configuration. Generous: a hundred thousand servers take less than half of it.
pub const MAX_BYTES: usize = 16 << 20;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
