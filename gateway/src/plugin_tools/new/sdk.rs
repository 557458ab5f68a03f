//! Where the SDK is that a plugin in Rust depends on: it is not published, and is part of a checkout of the gateway.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

/// The SDK's folder, absolute.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sdk(PathBuf);

impl Sdk {
    /// The one that is named, itself or by its checkout; else that of the checkout that the gateway runs out of, or that
    /// somebody works in.
    ///
    /// # Errors
    /// There is none, and the text says how to name one; or its path has characters that cannot stand in a `Cargo.toml`.
    pub(super) fn find(named: Option<&Path>) -> Result<Self> {
        if let Some(named) = named {
            let found = Self::in_folder(named).with_context(|| {
                format!(
                    "{} is not the SDK: it is the folder `plugin-sdk` of a checkout of the gateway",
                    named.display()
                )
            })?;
            return found.checked();
        }
        let program = env::current_exe().ok();
        // Where `cargo run` has found it, whatever folder it has built it in.
        let package = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let places = [program, package, env::current_dir().ok()];
        Self::around(places.iter().flatten().map(PathBuf::as_path))
            .context("where is the SDK? Say `--sdk PATH`: it is the folder `plugin-sdk` of a checkout of the gateway")?
            .checked()
    }

    /// The same, if its path can be written down: so that nothing has been made when it cannot.
    fn checked(self) -> Result<Self> {
        let Some(text) = self.0.to_str() else {
            bail!("the SDK's path is not UTF-8: {}", self.0.display());
        };
        ensure!(
            !text.contains(|c: char| c.is_control() || matches!(c, '"' | '\\')),
            "the SDK's path cannot stand in a Cargo.toml: {text:?}"
        );
        Ok(self)
    }

    /// The first that is in a folder above one of these places.
    fn around<'a>(places: impl Iterator<Item = &'a Path>) -> Option<Self> {
        let mut folders = places.flat_map(Path::ancestors);
        folders.find_map(|folder| Self::at(&folder.join(FOLDER)))
    }

    fn in_folder(folder: &Path) -> Option<Self> {
        Self::at(folder).or_else(|| Self::at(&folder.join(FOLDER)))
    }

    fn at(folder: &Path) -> Option<Self> {
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).ok()?;
        let is_sdk = manifest.lines().any(|line| line == r#"name = "gateway-plugin-sdk""#);
        is_sdk.then(|| folder.canonicalize().ok().map(Self))?
    }

    /// The path to it from a project's folder, as it stands in a `Cargo.toml`: relative where they have a folder in common, so
    /// that both can be moved together, or be somebody else's.
    ///
    /// # Errors
    /// The folder is not there.
    pub(super) fn seen_from(&self, folder: &Path) -> Result<String> {
        let folder = folder
            .canonicalize()
            .with_context(|| format!("cannot find {}", folder.display()))?;
        let path = relative(&self.0, &folder).unwrap_or_else(|| self.0.clone());
        // It has been checked, and the way there has no parts of its own but `..`.
        Ok(path.display().to_string())
    }
}

/// The way from a folder to another one; none where they have nothing but the root in common.
fn relative(to: &Path, from: &Path) -> Option<PathBuf> {
    let shared = to
        .components()
        .zip(from.components())
        .take_while(|(a, b)| a == b)
        .count();
    // The root is one.
    if shared < 2 {
        return None;
    }
    let up = from.components().skip(shared).map(|_| "..".as_ref());
    let down = to.components().skip(shared).map(|part| part.as_os_str());
    Some(up.chain(down).collect())
}

/// What it is called in a checkout.
const FOLDER: &str = "plugin-sdk";

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn own() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../plugin-sdk")
            .canonicalize()
            .unwrap()
    }

    #[test]
    fn the_sdk_is_found_from_within_a_checkout() {
        let checkout = own().parent().unwrap().to_owned();
        let (own, elsewhere) = (Some(Sdk(own())), tempfile::tempdir().unwrap());
        assert_eq!(
            Sdk::around([checkout.join("target/debug/gateway").as_path()].into_iter()),
            own
        );
        assert_eq!(Sdk::around([elsewhere.path(), checkout.as_path()].into_iter()), own);
        assert_eq!(Sdk::around([elsewhere.path()].into_iter()), None);
    }

    #[test]
    fn it_can_be_named_itself_or_by_its_checkout() {
        let sdk = own();
        assert_eq!(Sdk::find(Some(&sdk)).unwrap(), Sdk(sdk.clone()));
        assert_eq!(Sdk::find(sdk.parent()).unwrap(), Sdk(sdk.clone()));
        let error = Sdk::find(Some(&sdk.join("src"))).unwrap_err().to_string();
        assert!(error.contains("src is not the SDK"), "{error}");
    }

    #[test]
    fn paths_are_relative_where_there_is_a_way() {
        for (to, from, expected) in [
            (
                "/home/a/gateway/plugin-sdk",
                "/home/a/geo",
                Some("../gateway/plugin-sdk"),
            ),
            (
                "/home/a/gateway/plugin-sdk",
                "/home/a/gateway/geo",
                Some("../plugin-sdk"),
            ),
            ("/home/a/gateway/plugin-sdk", "/home/b", Some("../a/gateway/plugin-sdk")),
            ("/home/a/gateway/plugin-sdk", "/tmp/geo", None),
        ] {
            let found = relative(Path::new(to), Path::new(from));
            assert_eq!(found, expected.map(PathBuf::from), "{from}");
        }
    }

    #[test]
    fn a_path_that_would_end_its_own_quotes_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let odd = folder.path().join("a\"b/plugin-sdk");
        fs::create_dir_all(&odd).unwrap();
        fs::write(odd.join("Cargo.toml"), "name = \"gateway-plugin-sdk\"\n").unwrap();
        let error = Sdk::find(Some(&odd)).unwrap_err().to_string();
        assert!(error.contains("cannot stand in a Cargo.toml"), "{error}");
    }
}
