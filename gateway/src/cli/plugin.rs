//! `gateway plugin …`: what may be said of each tool for plugins, and which one is meant.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::check;
use crate::config::{BuiltIn, one_of_names};
use crate::plugin_tools::World;
use crate::plugin_tools::bench::{self, Bench};
use crate::plugin_tools::build::{self, Build};
use crate::plugin_tools::inspect::{self, Subject};
use crate::plugin_tools::new::{self, Hook, Language, New};
use crate::plugin_tools::test::{self, Test};

/// A tool, and what it is to do.
#[derive(Debug, Subcommand)]
pub enum PluginCommand {
    /// Write the project of a plugin, with a test, and a configuration that has it turn away a request.
    New(NewArgs),
    /// Ask what fixtures ask over and over, warm and with an instance for each time, and say how long that takes.
    Bench(BenchArgs),
    /// Make a component of a crate or of a WebAssembly module, and say what it exports, imports and needs granted.
    Build(BuildArgs),
    /// Say what a component is: who it says it is, its hooks, what it imports, its memory, and whether this gateway takes it.
    Inspect(InspectArgs),
    /// Ask a component what its fixtures ask, by the host that serves requests, and compare what it makes of that with what they
    /// expect. Exits 0 when all is as it is expected, else 1.
    Test(TestArgs),
    /// Sign components with an Ed25519 key: what `trust` in a configuration asks for.
    Sign(super::plugin_signatures::SignArgs),
    /// Look whether components are signed by one of some keys. Exits 0 when all are, else 1.
    Verify(super::plugin_signatures::VerifyArgs),
    /// Write the digests of components into the configuration that names them, so that no other ones are taken.
    Lock(super::plugin_lock::LockArgs),
}

/// What `bench` is told.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// The component.
    component: PathBuf,
    /// A file of fixtures.
    fixture: PathBuf,
    /// Only the cases that are called so.
    #[arg(long, value_name = "NAME")]
    case: Option<String>,
    /// How often each case is asked at most, in each way.
    #[arg(long, value_name = "N", default_value_t = bench::DEFAULT_CALLS, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    calls: u32,
    /// For how many seconds at most, likewise.
    #[arg(long, value_name = "N", default_value_t = bench::DEFAULT_SECONDS, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Say it as a JSON object.
    #[arg(long)]
    json: bool,
}

/// What `new` is told.
#[derive(Debug, Args)]
pub struct NewArgs {
    /// The plugin's name, as api-key.
    name: String,
    /// Where the project goes, a folder that is new or empty; one of the plugin's name in the current folder unless said.
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
    /// What it is written in.
    #[arg(long = "lang", value_enum, default_value_t)]
    language: Language,
    /// What it is asked, by the contract's name of it.
    #[arg(long, value_enum, default_value_t)]
    hook: Hook,
    /// For Rust: the SDK, the folder `plugin-sdk` of a checkout of the gateway. Found where the gateway runs out of a checkout,
    /// or the current folder is in one.
    #[arg(long, value_name = "PATH")]
    sdk: Option<PathBuf>,
}

/// What `build` is told.
#[derive(Debug, Args)]
pub struct BuildArgs {
    /// A crate's folder, which cargo builds; or what a compiler left: target/wasm32-unknown-unknown/release/NAME.wasm.
    #[arg(value_name = "DIR|MODULE", default_value = ".")]
    source: PathBuf,
    /// Where the component goes; a file of the module's name in the current folder unless said.
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The world of a module that says nothing of its types, as C compilers leave it: one of the contract, or of `--wit`.
    #[arg(long, value_name = "NAME")]
    world: Option<String>,
    /// The file that the world is in.
    #[arg(long, value_name = "FILE", requires = "world")]
    wit: Option<PathBuf>,
    /// The schema of its configuration; the crate's own config.schema.kdl unless said.
    #[arg(long, value_name = "FILE")]
    schema: Option<PathBuf>,
    /// Further arguments of `cargo build`, for a crate.
    #[arg(last = true, value_name = "CARGO")]
    cargo: Vec<OsString>,
}

/// What `test` is told.
#[derive(Debug, Args)]
pub struct TestArgs {
    /// The component.
    component: PathBuf,
    /// Files of fixtures, or folders with such files.
    #[arg(value_name = "FIXTURES", default_value = "fixtures")]
    fixtures: Vec<PathBuf>,
    /// Say it as a JSON object.
    #[arg(long)]
    json: bool,
}

/// What `inspect` is told.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The component.
    #[arg(required_unless_present = "builtin")]
    file: Option<PathBuf>,
    /// One that is part of the gateway, in the place of a file.
    #[arg(long, value_name = "NAME", value_parser = built_in, conflicts_with = "file")]
    builtin: Option<BuiltIn>,
    /// Say it as a JSON object.
    #[arg(long)]
    json: bool,
}

impl PluginCommand {
    /// Does what is wanted.
    pub fn run(self) -> ExitCode {
        match self {
            Self::Sign(args) => args.run(),
            Self::Verify(args) => args.run(),
            Self::Lock(args) => args.run(),
            Self::New(args) => new::run(&args.into()),
            Self::Build(args) => build::run(&args.into(), check::print),
            Self::Bench(args) => bench::run(&args.into(), check::print),
            Self::Inspect(InspectArgs { file, builtin, json }) => {
                let subject = builtin.map_or_else(|| Subject::File(file.unwrap_or_default()), Subject::BuiltIn);
                inspect::run(&subject, format(json))
            }
            Self::Test(args) => test::run(&args.into(), check::print),
        }
    }
}

impl From<NewArgs> for New {
    fn from(args: NewArgs) -> Self {
        Self {
            name: args.name,
            language: args.language,
            hook: args.hook,
            folder: args.folder,
            sdk: args.sdk,
        }
    }
}

impl From<BenchArgs> for Bench {
    fn from(args: BenchArgs) -> Self {
        Self {
            component: args.component,
            fixture: args.fixture,
            case: args.case,
            calls: args.calls,
            time: Duration::from_secs(args.seconds.into()),
            format: format(args.json),
        }
    }
}

impl From<TestArgs> for Test {
    fn from(args: TestArgs) -> Self {
        Self {
            component: args.component,
            fixtures: args.fixtures,
            format: format(args.json),
        }
    }
}

fn format(json: bool) -> inspect::Format {
    match json {
        true => inspect::Format::Json,
        false => inspect::Format::Text,
    }
}

/// A component of the shelf, by its name.
fn built_in(name: &str) -> Result<BuiltIn, String> {
    let known = BuiltIn::ALL.iter().find(|(known, _)| *known == name);
    let names = || {
        BuiltIn::ALL
            .iter()
            .map(|(name, _)| (*name).to_owned())
            .collect::<Vec<_>>()
    };
    known
        .map(|(_, built_in)| *built_in)
        .ok_or_else(|| one_of_names(name, &names()))
}

impl From<BuildArgs> for Build {
    fn from(args: BuildArgs) -> Self {
        let wit = args.wit;
        Self {
            source: args.source,
            out: args.out,
            world: args.world.map(|name| World { name, wit }),
            schema: args.schema,
            cargo: args.cargo,
        }
    }
}
