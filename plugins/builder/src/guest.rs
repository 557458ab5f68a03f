//! Building a plugin's crate for wasm32, and making a component of the module.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use wit_component::ComponentEncoder;

use crate::Component;

/// A compiler that can build guests.
#[derive(Debug)]
pub struct Toolchain {
    rustc: PathBuf,
    sysroot: PathBuf,
    /// The standard library has to be built along, from its source.
    build_std: bool,
    /// A linker, where the compiler brings none.
    linker: Option<PathBuf>,
}

impl Toolchain {
    /// The first of: the compiler on the path with its wasm32 target, the distribution's with its, then either with the
    /// standard library's source (Debian: `rustc-web` and `rust-web-src`; rustup: the component `rust-src`).
    ///
    /// # Errors
    /// None of these is installed.
    pub fn find() -> Result<Self> {
        let compilers: Vec<(PathBuf, PathBuf)> = [PathBuf::from("rustc"), PathBuf::from(DISTRIBUTION_RUSTC)]
            .into_iter()
            .filter_map(|rustc| Some((rustc.clone(), sysroot(&rustc)?)))
            .collect();
        let with_target = compilers
            .iter()
            .find(|(_, sysroot)| sysroot.join("lib/rustlib").join(TARGET).is_dir());
        let with_source = || compilers.iter().find(|(_, sysroot)| sysroot.join(STD_SOURCE).is_file());
        let Some((rustc, sysroot)) = with_target.or_else(with_source) else {
            bail!(
                "no compiler for {TARGET} here. Run `rustup target add {TARGET}`; or, on Debian, \
                 `apt-get install rustc-web rust-web-src`"
            );
        };
        Ok(Self {
            rustc: rustc.clone(),
            sysroot: sysroot.clone(),
            build_std: with_target.is_none(),
            linker: linker(sysroot, &compilers),
        })
    }

    /// Says which it is.
    pub fn describe(&self) -> String {
        let how = if self.build_std {
            "building its standard library"
        } else {
            "with its wasm32 target"
        };
        format!("{} ({how})", self.rustc.display())
    }

    /// Builds a plugin's crate and makes a component of the module.
    ///
    /// # Errors
    /// It does not compile, or is not a plugin.
    pub fn build(&self, workspace: &Path, wanted: &Component, target_dir: &Path) -> Result<Vec<u8>> {
        let package = format!("gateway-plugin-{}", wanted.plugin);
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(workspace);
        cargo.args(["rustc", "--quiet", "--lib", "--crate-type", "cdylib", "--locked"]);
        cargo.args(["--package", &package, "--profile", PROFILE, "--target", TARGET]);
        cargo.args(["--no-default-features", "--features", wanted.features]);
        cargo.arg("--target-dir").arg(target_dir);
        cargo.env("RUSTC", &self.rustc);
        cargo.env("CARGO_ENCODED_RUSTFLAGS", self.flags(workspace).join("\u{1f}"));
        cargo.env_remove("RUSTFLAGS");
        if self.build_std {
            // The option is unstable; the distribution's compiler is a stable one.
            cargo.env("RUSTC_BOOTSTRAP", "1").arg("-Zbuild-std=std,panic_abort");
        }
        if let Some(linker) = &self.linker {
            cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
        }
        cargo.arg("--").arg(format!("-Clink-arg=-zstack-size={STACK}"));
        let status = cargo.status().context("cargo")?;
        if !status.success() {
            bail!("{package} does not build");
        }
        let file = target_dir
            .join(TARGET)
            .join(PROFILE)
            .join(format!("{}.wasm", package.replace('-', "_")));
        let module = fs::read(&file).with_context(|| format!("{}", file.display()))?;
        component(&module).with_context(|| package)
    }

    /// Compiler flags: no path of this machine in what a guest says when it panics.
    fn flags(&self, workspace: &Path) -> Vec<String> {
        let mut flags = vec![
            remap(workspace, "/gateway"),
            remap(&self.sysroot.join("lib/rustlib/src/rust"), "/rust"),
        ];
        if let Ok(source) = self.sysroot.join("lib/rustlib/src/rust").canonicalize() {
            flags.push(remap(&source, "/rust"));
        }
        let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from);
        let cargo_home = cargo_home.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
        if let Some(sources) = cargo_home.and_then(|home| fs::read_dir(home.join("registry/src")).ok()) {
            // A folder per registry, named after it.
            flags.extend(sources.flatten().map(|registry| remap(&registry.path(), "/cargo")));
        }
        flags
    }
}

/// Makes a component of a module that `wit-bindgen` wrote its types into.
///
/// # Errors
/// It is not such a module, or lacks something of the contract.
pub fn component(module: &[u8]) -> Result<Vec<u8>> {
    ComponentEncoder::default().module(module)?.validate(true).encode()
}

fn remap(from: &Path, to: &str) -> String {
    format!("--remap-path-prefix={}={to}", from.display())
}

fn sysroot(rustc: &Path) -> Option<PathBuf> {
    let output = Command::new(rustc).args(["--print", "sysroot"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(text.trim()))
}

/// rustup's compilers bring `rust-lld`; the distribution's may not, and can use another's.
fn linker(chosen: &Path, compilers: &[(PathBuf, PathBuf)]) -> Option<PathBuf> {
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
        let path = env::var_os("PATH")?;
        env::split_paths(&path)
            .map(|folder| folder.join("wasm-ld"))
            .find(|linker| linker.is_file())
    };
    compilers
        .iter()
        .find_map(|(_, sysroot)| bundled(sysroot))
        .or_else(on_path)
}

const TARGET: &str = "wasm32-unknown-unknown";

/// In the workspace's manifest.
const PROFILE: &str = "guest";

const DISTRIBUTION_RUSTC: &str = "/usr/bin/rustc";

const STD_SOURCE: &str = "lib/rustlib/src/rust/library/std/Cargo.toml";

/// Bytes of a guest's stack: every fresh instance has that much more memory to set up. The most deeply nested patterns and
/// expressions that are accepted were seen to need between 16 and 32 KiB; one that needed more would trap at the load.
const STACK: u32 = 32_768;
