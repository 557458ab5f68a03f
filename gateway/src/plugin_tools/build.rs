//! `gateway plugin build`: makes a component of a crate or of a module, and says what an operator has to know about it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use wit_component::ComponentEncoder;

use super::inspect::{self, Report};
use super::toolchain::Toolchain;
use super::world::World;
use crate::config::ConfigErrors;
use crate::config::schema::{self, Schema};
use crate::policy::{MAX_COMPONENT_BYTES, section};
use crate::regular_file;

/// What is to be built.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Build {
    /// A crate's folder, or a module.
    pub source: PathBuf,
    /// Where the component goes; a file of the module's name in the current folder where that is none.
    pub out: Option<PathBuf>,
    /// What a module imports and exports that does not say so itself.
    pub world: Option<World>,
    /// The schema of its configuration; a crate's own `config.schema.kdl` where that is none.
    pub schema: Option<PathBuf>,
    /// Further arguments of `cargo build`, for a crate.
    pub cargo: Vec<OsString>,
}

/// Does it, and tells the user how it went; what is wrong with a schema by way of `show`.
pub fn run(wanted: &Build, show: impl FnOnce(&ConfigErrors)) -> ExitCode {
    match build(wanted) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            match error.downcast_ref::<ConfigErrors>() {
                Some(errors) => show(errors),
                None => eprintln!("gateway: {error:#}"),
            }
            ExitCode::FAILURE
        }
    }
}

/// Makes a component of a module, or of the crate in a folder. Prints what it exports and imports, and how it is attached.
///
/// # Errors
/// The crate does not build; the module cannot be read, or is no plugin that the gateway takes; or the component cannot be
/// written.
pub fn build(wanted: &Build) -> Result<()> {
    let source = &wanted.source;
    let module = if source.is_dir() {
        ensure!(
            wanted.world.is_none(),
            "a crate says by itself what its world is: leave `--world` out"
        );
        compile(source, &wanted.cargo)?
    } else {
        ensure!(
            wanted.cargo.is_empty(),
            "arguments for cargo are of use with a crate's folder only"
        );
        source.clone()
    };
    let bytes = regular_file::read(&module, MAX_COMPONENT_BYTES)
        .with_context(|| format!("cannot read {}", module.display()))?;
    let not_a_plugin = || format!("{} is not a plugin", module.display());
    let mut component = component(bytes, wanted.world.as_ref()).with_context(not_a_plugin)?;
    let own = source.join(SCHEMA);
    let schema = wanted
        .schema
        .as_deref()
        .or_else(|| own.is_file().then_some(own.as_path()));
    if let Some(schema) = schema {
        add_schema(&mut component, schema)?;
    }
    let out = out(wanted.out.as_deref(), &module)?;
    let report = inspect::of(&out.display().to_string(), &component).with_context(not_a_plugin)?;
    fs::write(&out, &component).with_context(|| format!("cannot write {}", out.display()))?;
    print!("{}", built(&report, &out));
    Ok(())
}

/// Has the user's cargo build the crate in a folder; answers where its module is.
fn compile(folder: &Path, arguments: &[OsString]) -> Result<PathBuf> {
    ensure!(
        folder.join("Cargo.toml").is_file(),
        "{} has no Cargo.toml: name a crate's folder, or a module",
        folder.display()
    );
    let mut cargo = Toolchain::find(folder)?.cargo_build(folder);
    cargo.arg("--message-format=json-render-diagnostics").args(arguments);
    let output = cargo
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {}", cargo.get_program().display()))?;
    ensure!(output.status.success(), "{} does not build", folder.display());
    let said = String::from_utf8_lossy(&output.stdout);
    let modules: Vec<Module> = said.lines().filter_map(Module::told_of).collect();
    Ok(folder.join(one_of(modules, folder)?))
}

/// A module that cargo has made.
#[derive(Debug, PartialEq, Eq)]
struct Module {
    file: PathBuf,
    /// The `Cargo.toml` of its crate.
    manifest: PathBuf,
}

impl Module {
    /// The module that a line of cargo's tells of.
    fn told_of(line: &str) -> Option<Self> {
        /// As far as it matters: the format is described in cargo's book under external tools.
        #[derive(Deserialize)]
        struct Message {
            reason: String,
            #[serde(default)]
            manifest_path: PathBuf,
            #[serde(default)]
            filenames: Vec<PathBuf>,
        }
        let message: Message = serde_json::from_str(line).ok()?;
        let mut files = message.filenames.into_iter();
        let file = files.find(|file| file.extension().is_some_and(|extension| extension == "wasm"))?;
        (message.reason == "compiler-artifact").then_some(Self {
            file,
            manifest: message.manifest_path,
        })
    }
}

/// The module of the crate in a folder. Dependencies may leave theirs, too.
fn one_of(mut modules: Vec<Module>, folder: &Path) -> Result<PathBuf> {
    let own = fs::canonicalize(folder.join("Cargo.toml")).ok();
    let is_own = |module: &Module| own.is_some() && fs::canonicalize(&module.manifest).ok() == own;
    if modules.iter().any(is_own) {
        modules.retain(is_own);
    }
    let names: Vec<String> = modules.iter().map(|module| module.file.display().to_string()).collect();
    match (modules.pop(), modules.is_empty()) {
        (Some(module), true) => Ok(module.file),
        (None, _) => bail!(
            "{} makes no module: `crate-type = [\"cdylib\", \"rlib\"]` belongs into `[lib]` of its Cargo.toml",
            folder.display()
        ),
        (Some(_), false) => bail!(
            "{} makes more than one module ({}): name the folder of one crate",
            folder.display(),
            names.join(", ")
        ),
    }
}

/// What is said of a component that was built.
fn built(report: &Report, file: &Path) -> String {
    let grants: Vec<String> = report.grants.iter().map(|grant| format!("{grant:?}")).collect();
    let grant = match grants.as_slice() {
        [] => String::new(),
        grants => format!("grant {}; ", grants.join(" ")),
    };
    let imports = report.imports.iter().map(|import| import.interface.as_str());
    let imports: Vec<&str> = imports.filter(|name| *name != "types").collect();
    let imports = if imports.is_empty() {
        "nothing".to_owned()
    } else {
        imports.join(", ")
    };
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    format!(
        "{file}: a component of {size} bytes\n\
         hooks:   {hooks}\n\
         imports: {imports}\n\
         attach:  plugin {name:?} {path:?} {{ {grant}on-failure \"deny\" status=503 }}\n",
        file = file.display(),
        size = report.size,
        hooks = report.hooks.join(", "),
        path = file.display().to_string(),
    )
}

/// Puts the schema in a file into a component.
fn add_schema(component: &mut Vec<u8>, file: &Path) -> Result<()> {
    let name = file.display();
    let bytes = regular_file::read(file, schema::MAX_BYTES).with_context(|| format!("cannot read {name}"))?;
    let text = String::from_utf8(bytes).with_context(|| format!("{name} is not UTF-8"))?;
    Schema::parse(&name.to_string(), &text)?;
    let has_one = section::config_schema(component).map_or(true, |schema| schema.is_some());
    ensure!(!has_one, "the component has a schema already: leave `--schema` out");
    section::add_config_schema(component, &text);
    Ok(())
}

/// Makes a component of a module; one that is a component already stays as it is.
fn component(bytes: Vec<u8>, world: Option<&World>) -> Result<Vec<u8>> {
    if bytes.starts_with(COMPONENT_MAGIC) {
        ensure!(
            world.is_none(),
            "a component has its world already: leave `--world` out"
        );
        return Ok(bytes);
    }
    if !bytes.starts_with(b"\0asm") {
        bail!("it is not WebAssembly");
    }
    let mut module = bytes;
    if let Some(world) = world {
        world.embed(&mut module)?;
    }
    ComponentEncoder::default().module(&module)?.validate(true).encode()
}

/// Where the component goes, which is never over its module: `geo.wasm` here, for `target/…/geo.wasm`, where nothing is said.
fn out(wanted: Option<&Path>, module: &Path) -> Result<PathBuf> {
    let out = match wanted {
        Some(out) => out,
        None => Path::new(module.file_name().context("the module has no file name")?),
    };
    let same = fs::canonicalize(out).is_ok_and(|out| fs::canonicalize(module).is_ok_and(|module| module == out));
    ensure!(
        !same,
        "the component would replace {}: say where it goes with `-o`",
        module.display()
    );
    Ok(out.to_owned())
}

/// The file beside a crate's `Cargo.toml` that has the schema of its configuration.
const SCHEMA: &str = "config.schema.kdl";

/// How a component begins: the magic number, and the version and layer that tell it from a module.
const COMPONENT_MAGIC: &[u8] = b"\0asm\x0d\0\x01\0";

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::policy::first_party::{ACL, HEADER_REWRITE, RATE_LIMIT};

    #[test]
    fn a_component_says_its_hooks_and_imports() {
        let said = |wasm| built(&inspect::of("x", wasm).unwrap(), Path::new("x.wasm"));
        assert!(said(ACL.wasm).contains("hooks:   predicates\nimports: nothing\n"));
        let rewrite = "hooks:   request-filter, response-filter\nimports: request-edits, response-edits\n";
        assert!(said(HEADER_REWRITE.wasm).contains(rewrite));
        assert!(said(RATE_LIMIT.wasm).contains("imports: buckets\n"));
    }

    #[test]
    fn the_report_can_be_pasted_into_a_configuration() {
        let report = built(&inspect::of("x", RATE_LIMIT.wasm).unwrap(), Path::new("dir/mine.wasm"));
        let attach = r#"plugin "mine" "dir/mine.wasm" { grant "buckets"; on-failure "deny" status=503 }"#;
        assert!(report.contains(attach), "{report}");
    }

    #[test]
    fn what_is_not_a_plugin_is_refused_with_the_reason() {
        let refused = |wasm: &[u8]| {
            component(wasm.to_vec(), None)
                .and_then(|c| inspect::of("x", &c))
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
        let mut wanted = Build {
            source: module,
            out: Some(out.clone()),
            ..Build::default()
        };
        build(&wanted).unwrap();
        assert_eq!(
            fs::read(&out).unwrap(),
            ACL.wasm,
            "what is a component already stays as it is"
        );
        wanted.out = Some(folder.path().join(".").join("acl.wasm"));
        let error = build(&wanted).unwrap_err().to_string();
        assert!(error.contains("would replace"), "{error}");
        wanted.source = folder.path().join("none.wasm");
        let error = build(&wanted).unwrap_err().to_string();
        assert!(error.contains("cannot read"), "{error}");
        wanted.source = folder.path().to_owned();
        let error = build(&wanted).unwrap_err().to_string();
        assert!(error.contains("no Cargo.toml"), "{error}");
    }

    #[test]
    fn a_module_is_found_in_what_cargo_says() {
        let line = r#"{"reason":"compiler-artifact","manifest_path":"/a/Cargo.toml","filenames":["/t/liba.rlib","/t/a.wasm"],"fresh":false}"#;
        let module = Module {
            file: "/t/a.wasm".into(),
            manifest: "/a/Cargo.toml".into(),
        };
        assert_eq!(Module::told_of(line), Some(module));
        for other in [
            r#"{"reason":"compiler-artifact","filenames":["/t/liba.rlib"]}"#,
            r#"{"reason":"build-finished","success":true}"#,
            "warning: not JSON",
        ] {
            assert_eq!(Module::told_of(other), None, "{other}");
        }
    }

    #[test]
    fn the_module_of_the_crate_that_was_named_is_taken_and_none_is_guessed() {
        let here = tempfile::tempdir().unwrap();
        let own = here.path().join("Cargo.toml");
        fs::write(&own, "").unwrap();
        let one = |modules: &[(&str, &Path)]| {
            let modules = modules.iter().map(|(file, manifest)| Module {
                file: file.into(),
                manifest: manifest.into(),
            });
            one_of(modules.collect(), here.path()).map_err(|error| error.to_string())
        };
        let elsewhere = Path::new("/elsewhere/Cargo.toml");
        assert_eq!(one(&[("a", &own), ("b", elsewhere)]), Ok("a".into()));
        assert_eq!(one(&[("b", elsewhere)]), Ok("b".into()));
        assert!(one(&[]).unwrap_err().contains("makes no module"));
        let several = one(&[("b", elsewhere), ("c", elsewhere)]).unwrap_err();
        assert!(several.contains("more than one module (b, c)"), "{several}");
    }
}
