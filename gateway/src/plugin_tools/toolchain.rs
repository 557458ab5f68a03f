//! Which compiler builds an author's crate: his own where it has the target for WebAssembly, else one that can build the
//! standard library along.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

/// A compiler that builds plugins.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Toolchain {
    /// None where cargo finds the right one by itself.
    rustc: Option<PathBuf>,
    /// The standard library has to be built along, from its source.
    build_std: bool,
    /// A linker, where the compiler brings none.
    linker: Option<PathBuf>,
}

/// A compiler that is installed.
struct Compiler {
    /// None for the one that cargo takes by itself.
    rustc: Option<PathBuf>,
    sysroot: PathBuf,
}

impl Toolchain {
    /// The first of: the compiler that cargo takes in that folder, when it has the target; the distribution's, when it has; either
    /// of them with the standard library's source. Whoever names a compiler in `RUSTC` gets that one or none.
    ///
    /// # Errors
    /// None of these is installed; the text says what installs one.
    pub(super) fn find(folder: &Path) -> Result<Self> {
        let mut compilers = Vec::new();
        let named = env::var_os("RUSTC");
        let usual = named.clone().unwrap_or_else(|| "rustc".into());
        if let Some(sysroot) = sysroot(&usual, folder) {
            compilers.push(Compiler { rustc: None, sysroot });
        }
        if named.is_none()
            && let Some(sysroot) = sysroot(OsStr::new(DISTRIBUTION_RUSTC), folder)
        {
            let rustc = Some(PathBuf::from(DISTRIBUTION_RUSTC));
            compilers.push(Compiler { rustc, sysroot });
        }
        Self::of(&compilers, env::var_os("PATH"))
    }

    fn of(compilers: &[Compiler], path: Option<OsString>) -> Result<Self> {
        let with_target = compilers
            .iter()
            .find(|compiler| compiler.sysroot.join("lib/rustlib").join(TARGET).is_dir());
        let with_source = || {
            compilers
                .iter()
                .find(|compiler| compiler.sysroot.join(STD_SOURCE).is_file())
        };
        let Some(compiler) = with_target.or_else(with_source) else {
            bail!(
                "no compiler for {TARGET} is installed. With rustup: `rustup target add {TARGET}`; on Debian, where rustup \
                 can fetch nothing: `apt-get install rustc-web rust-web-src`"
            );
        };
        Ok(Self {
            rustc: compiler.rustc.clone(),
            build_std: with_target.is_none(),
            linker: linker(&compiler.sysroot, compilers, path),
        })
    }

    /// A cargo that builds in a folder for the target.
    pub(super) fn cargo_build(&self, folder: &Path) -> Command {
        // A cargo that runs us says which one it is.
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo
            .current_dir(folder)
            .args(["build", "--release", "--target", TARGET]);
        if let Some(rustc) = &self.rustc {
            cargo.env("RUSTC", rustc);
        }
        if self.build_std {
            // The option is unstable; this lets a stable compiler take it.
            cargo.env("RUSTC_BOOTSTRAP", "1").arg("-Zbuild-std=std,panic_abort");
        }
        if let Some(linker) = &self.linker {
            cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
        }
        cargo
    }
}

fn sysroot(rustc: &OsStr, folder: &Path) -> Option<PathBuf> {
    let output = Command::new(rustc)
        .current_dir(folder)
        .args(["--print", "sysroot"])
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(text.trim()))
}

/// rustup's compilers bring `rust-lld`; the distribution's may not, and takes another's.
fn linker(chosen: &Path, compilers: &[Compiler], path: Option<OsString>) -> Option<PathBuf> {
    let bundled = |sysroot: &Path| {
        let hosts = fs::read_dir(sysroot.join("lib/rustlib")).ok()?;
        hosts
            .flatten()
            .map(|host| host.path().join("bin/rust-lld"))
            .find(|linker| linker.is_file())
    };
    if bundled(chosen).is_some() {
        return None;
    }
    let on_path = || {
        env::split_paths(&path?)
            .map(|folder| folder.join("wasm-ld"))
            .find(|linker| linker.is_file())
    };
    compilers
        .iter()
        .find_map(|compiler| bundled(&compiler.sysroot))
        .or_else(on_path)
}

/// What plugins are compiled for.
const TARGET: &str = "wasm32-unknown-unknown";

/// Debian's, whose package `rustc-web` keeps up with browsers.
const DISTRIBUTION_RUSTC: &str = "/usr/bin/rustc";

const STD_SOURCE: &str = "lib/rustlib/src/rust/library/std/Cargo.toml";

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A compiler's folder with these files in it.
    fn compiler(folder: &Path, rustc: Option<&str>, files: &[&str]) -> Compiler {
        for file in files {
            let file = folder.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "").unwrap();
        }
        Compiler {
            rustc: rustc.map(PathBuf::from),
            sysroot: folder.to_owned(),
        }
    }

    const WITH_TARGET: &str = "lib/rustlib/wasm32-unknown-unknown/lib/libstd.rlib";
    const LINKER: &str = "lib/rustlib/host/bin/rust-lld";

    #[test]
    fn the_authors_own_compiler_is_taken_when_it_has_the_target() {
        let folder = tempfile::tempdir().unwrap();
        let compilers = [
            compiler(&folder.path().join("own"), None, &[WITH_TARGET, LINKER]),
            compiler(&folder.path().join("other"), Some("/o/rustc"), &[WITH_TARGET]),
        ];
        let expected = Toolchain {
            rustc: None,
            build_std: false,
            linker: None,
        };
        assert_eq!(Toolchain::of(&compilers, None).unwrap(), expected);
    }

    #[test]
    fn a_compiler_with_the_librarys_source_is_taken_when_none_has_the_target() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("own");
        let compilers = [
            compiler(&own, None, &[LINKER]),
            compiler(&folder.path().join("other"), Some("/o/rustc"), &[STD_SOURCE]),
        ];
        let expected = Toolchain {
            rustc: Some("/o/rustc".into()),
            build_std: true,
            linker: Some(own.join(LINKER)),
        };
        assert_eq!(Toolchain::of(&compilers, None).unwrap(), expected);
        let command = expected.cargo_build(folder.path());
        assert!(
            command
                .get_args()
                .any(|argument| argument == "-Zbuild-std=std,panic_abort")
        );
        assert!(
            command
                .get_envs()
                .any(|(name, value)| name == "RUSTC" && value == Some(OsStr::new("/o/rustc")))
        );
    }

    #[test]
    fn a_linker_on_the_path_is_the_last_resort() {
        let folder = tempfile::tempdir().unwrap();
        let compilers = [compiler(&folder.path().join("own"), None, &[STD_SOURCE])];
        let path = folder.path().join("bin");
        fs::create_dir_all(&path).unwrap();
        assert_eq!(
            Toolchain::of(&compilers, Some(path.clone().into())).unwrap().linker,
            None
        );
        fs::write(path.join("wasm-ld"), "").unwrap();
        let found = Toolchain::of(&compilers, Some(path.clone().into())).unwrap().linker;
        assert_eq!(found, Some(path.join("wasm-ld")));
    }

    #[test]
    fn where_nothing_is_installed_it_is_said_what_installs_it() {
        let folder = tempfile::tempdir().unwrap();
        let compilers = [compiler(folder.path(), None, &[LINKER])];
        let error = Toolchain::of(&compilers, None).unwrap_err().to_string();
        assert!(error.contains("rustup target add wasm32-unknown-unknown"), "{error}");
        assert!(error.contains("rustc-web"), "{error}");
    }
}
