//! `gateway plugin build`: makes a component of a WebAssembly module, and says what an operator has to know about it.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use wit_component::{ComponentEncoder, DecodedWasm};

/// Does it, and tells the user how it went.
pub fn run(module: &Path, out: Option<&Path>) -> ExitCode {
    match build(module, out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gateway: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Makes a component of a module and writes it to `out`; to a file of the module's name in the current folder where that
/// is none. Prints what it exports and imports, and how it is attached.
///
/// # Errors
/// The module cannot be read, or is not a plugin; or the component cannot be written.
pub fn build(module: &Path, out: Option<&Path>) -> Result<()> {
    let bytes = fs::read(module).with_context(|| format!("cannot read {}", module.display()))?;
    let component = component(&bytes).with_context(|| format!("{} is not a plugin", module.display()))?;
    let interfaces = Interfaces::of(&component).with_context(|| format!("{} is not a plugin", module.display()))?;
    let out = match out {
        Some(out) => out.to_owned(),
        None => default_out(module)?,
    };
    fs::write(&out, &component).with_context(|| format!("cannot write {}", out.display()))?;
    print!("{}", interfaces.report(&out, component.len()));
    Ok(())
}

/// What a component exports and imports of the contract.
#[derive(Debug, PartialEq, Eq)]
struct Interfaces {
    hooks: Vec<String>,
    imports: Vec<String>,
}

impl Interfaces {
    fn of(component: &[u8]) -> Result<Self> {
        let DecodedWasm::Component(resolve, world) = wit_component::decode(component)? else {
            bail!("it holds a WIT package, not a component");
        };
        let world = &resolve.worlds[world];
        let mut hooks = Vec::new();
        let mut lifecycle = false;
        for export in world.exports.keys().map(|key| resolve.name_world_key(key)) {
            match interface(&export) {
                Some("lifecycle") => lifecycle = true,
                Some(hook) => hooks.push(hook.to_owned()),
                None => {}
            }
        }
        ensure!(
            lifecycle,
            "it does not export {PACKAGE}lifecycle: is the line `plugin!(…)` in it?"
        );
        ensure!(
            !hooks.is_empty(),
            "it exports no hook: name one in the line `plugin!(…)`"
        );
        let mut imports = Vec::new();
        for import in world.imports.keys().map(|key| resolve.name_world_key(key)) {
            match interface(&import) {
                Some("types") => {}
                Some(known) => imports.push(known.to_owned()),
                None => bail!("it imports {import}, which the gateway does not offer"),
            }
        }
        Ok(Self { hooks, imports })
    }

    fn report(&self, file: &Path, size: usize) -> String {
        let granted: Vec<String> = GRANTED
            .iter()
            .filter(|grant| self.imports.iter().any(|import| import == *grant))
            .map(|grant| format!("{grant:?}"))
            .collect();
        let grant = match granted.as_slice() {
            [] => String::new(),
            grants => format!("grant {}; ", grants.join(" ")),
        };
        let imports = if self.imports.is_empty() {
            "nothing".to_owned()
        } else {
            self.imports.join(", ")
        };
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        format!(
            "{file}: a component of {size} bytes\n\
             hooks:   {hooks}\n\
             imports: {imports}\n\
             attach:  plugin {name:?} {path:?} {{ {grant}on-failure \"deny\" status=503 }}\n",
            file = file.display(),
            hooks = self.hooks.join(", "),
            path = file.display().to_string(),
        )
    }
}

/// Makes a component of a module; one that is a component already stays as it is.
fn component(bytes: &[u8]) -> Result<Vec<u8>> {
    if bytes.starts_with(COMPONENT_MAGIC) {
        return Ok(bytes.to_vec());
    }
    ensure!(bytes.starts_with(b"\0asm"), "it is not WebAssembly");
    ComponentEncoder::default().module(bytes)?.validate(true).encode()
}

/// `geo.wasm` here, for `target/…/geo.wasm`.
fn default_out(module: &Path) -> Result<PathBuf> {
    let name = module.file_name().context("the module has no file name")?;
    let out = env::current_dir().context("the current folder")?.join(name);
    let same = fs::canonicalize(&out)
        .ok()
        .is_some_and(|out| fs::canonicalize(module).is_ok_and(|module| module == out));
    ensure!(
        !same,
        "the component would replace the module: say where it goes with `-o`"
    );
    Ok(PathBuf::from(name))
}

/// The name of an interface of the contract.
fn interface(name: &str) -> Option<&str> {
    name.strip_prefix(PACKAGE)?.split('@').next()
}

const PACKAGE: &str = "gateway:policy/";

/// Imports that an operator has to grant.
const GRANTED: [&str; 3] = ["buckets", "log", "clock"];

/// How a component begins: the magic number, and the version and layer that tell it from a module.
const COMPONENT_MAGIC: &[u8] = b"\0asm\x0d\0\x01\0";

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::policy::first_party::{ACL, HEADER_REWRITE, RATE_LIMIT};

    #[test]
    fn a_component_says_its_hooks_and_imports() {
        let of = |wasm| Interfaces::of(wasm).unwrap();
        assert_eq!(of(ACL.wasm).hooks, ["predicates"]);
        assert!(of(ACL.wasm).imports.is_empty());
        assert_eq!(of(HEADER_REWRITE.wasm).hooks, ["request-filter", "response-filter"]);
        assert_eq!(of(HEADER_REWRITE.wasm).imports, ["request-edits", "response-edits"]);
        assert_eq!(of(RATE_LIMIT.wasm).imports, ["buckets"]);
    }

    #[test]
    fn the_report_can_be_pasted_into_a_configuration() {
        let report = Interfaces::of(RATE_LIMIT.wasm)
            .unwrap()
            .report(Path::new("dir/mine.wasm"), 7);
        let attach = r#"plugin "mine" "dir/mine.wasm" { grant "buckets"; on-failure "deny" status=503 }"#;
        assert!(report.contains(attach), "{report}");
    }

    #[test]
    fn what_is_not_a_plugin_is_refused_with_the_reason() {
        let refused = |wasm: &[u8]| {
            component(wasm)
                .and_then(|c| Interfaces::of(&c))
                .unwrap_err()
                .to_string()
        };
        assert_eq!(refused(b"hello"), "it is not WebAssembly");
        assert!(refused(&wat::parse_str("(module)").unwrap()).contains("lifecycle"));
        let wasi = r#"(component (import "wasi:cli/environment@0.2.0" (instance)))"#;
        assert!(refused(&wat::parse_str(wasi).unwrap()).contains("lifecycle"));
    }

    #[test]
    fn building_writes_the_component_and_never_over_its_module() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out.wasm");
        let module = folder.path().join("acl.wasm");
        fs::write(&module, ACL.wasm).unwrap();
        build(&module, Some(&out)).unwrap();
        assert_eq!(
            fs::read(&out).unwrap(),
            ACL.wasm,
            "what is a component already stays as it is"
        );
        assert!(
            build(&folder.path().join("none.wasm"), Some(&out))
                .unwrap_err()
                .to_string()
                .contains("cannot read")
        );
    }
}
