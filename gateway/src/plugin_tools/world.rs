//! The types of a module's interfaces, for modules that say nothing of them: what a compiler of C leaves.

use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result};
use wit_component::StringEncoding;
use wit_parser::{PackageId, Resolve};

use crate::regular_file;

/// What a module imports and exports: a world of the contract, or of the author's own file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct World {
    /// Its name.
    pub name: String,
    /// The file that it is in; none for a world of the contract.
    pub wit: Option<PathBuf>,
}

impl World {
    /// Puts the types of this world into a module.
    ///
    /// # Errors
    /// There is no such world, or the file cannot be read; the text says what is there.
    pub(super) fn embed(&self, module: &mut Vec<u8>) -> Result<()> {
        let mut resolve = Resolve::default();
        let contract = resolve.push_str("policy.wit", CONTRACT)?;
        let (package, place) = match &self.wit {
            None => (contract, "the contract".to_owned()),
            Some(file) => (push(&mut resolve, file)?, file.display().to_string()),
        };
        let world = resolve.packages[package].worlds.get(&self.name).copied();
        let world = world.with_context(|| {
            let names: Vec<&str> = resolve.packages[package].worlds.keys().map(String::as_str).collect();
            format!("{place} has no world {:?}; it has {}", self.name, names.join(", "))
        })?;
        wit_component::embed_component_metadata(module, &resolve, world, StringEncoding::UTF8)
    }
}

fn push(resolve: &mut Resolve, file: &Path) -> Result<PackageId> {
    let name = file.display();
    let bytes = regular_file::read(file, MAX_WIT).with_context(|| format!("cannot read {name}"))?;
    let text = String::from_utf8(bytes).with_context(|| format!("{name} is not UTF-8"))?;
    let pushed = resolve.push_str(file, &text);
    // With the place in the file.
    pushed.map_err(|error| Error::msg(resolve.render_error(&error)))
}

/// The contract that this gateway has.
pub(super) const CONTRACT: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../wit/policy.wit"));

/// Bytes of an author's file: many times the contract itself.
const MAX_WIT: usize = 1 << 20;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_world_that_is_not_there_is_told_from_those_that_are() {
        let mut module = wat::parse_str("(module)").unwrap();
        let world = World {
            name: "loger".to_owned(),
            wit: None,
        };
        let error = world.embed(&mut module).unwrap_err().to_string();
        assert!(
            error.contains("no world \"loger\"") && error.contains("logger"),
            "{error}"
        );
    }

    #[test]
    fn what_is_wrong_in_an_authors_file_is_said_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("world.wit");
        std::fs::write(&file, "package mine:fence;\nwrld fence {}").unwrap();
        let mut module = wat::parse_str("(module)").unwrap();
        let world = World {
            name: "fence".to_owned(),
            wit: Some(file),
        };
        let error = world.embed(&mut module).unwrap_err().to_string();
        assert!(error.contains("world.wit:2:1"), "{error}");
    }

    #[test]
    fn an_authors_own_world_may_use_the_contract() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("world.wit");
        let text = "package mine:fence;\nworld fence { export gateway:policy/lifecycle@0.1.0; }";
        std::fs::write(&file, text).unwrap();
        let mut module = wat::parse_str("(module)").unwrap();
        let before = module.len();
        let world = World {
            name: "fence".to_owned(),
            wit: Some(file),
        };
        world.embed(&mut module).unwrap();
        assert!(module.len() > before);
    }
}
