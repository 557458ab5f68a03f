//! `gateway plugin …`: what may be said of each tool for plugins, and which one is meant.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::plugin_tools::build::{self, Build};
use crate::plugin_tools::new::{self, Hook, Language, New};
use crate::plugin_tools::{World, inspect};

/// A tool, and what it is to do.
#[derive(Debug, Subcommand)]
pub enum PluginCommand {
    /// Write the project of a plugin, with a test, and a configuration that has it turn away a request.
    New(NewArgs),
    /// Make a component of a crate or of a WebAssembly module, and say what it exports, imports and needs granted.
    Build(BuildArgs),
    /// Say what a component is: who it says it is, its hooks, what it imports, its memory, and whether this gateway takes it.
    Inspect(InspectArgs),
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
    /// Further arguments of `cargo build`, for a crate.
    #[arg(last = true, value_name = "CARGO")]
    cargo: Vec<OsString>,
}

/// What `inspect` is told.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The component.
    file: PathBuf,
    /// Say it as a JSON object.
    #[arg(long)]
    json: bool,
}

impl PluginCommand {
    /// Does what is wanted.
    pub fn run(self) -> ExitCode {
        match self {
            Self::New(args) => new::run(&args.into()),
            Self::Build(args) => build::run(&args.into()),
            Self::Inspect(InspectArgs { file, json }) => {
                let format = if json {
                    inspect::Format::Json
                } else {
                    inspect::Format::Text
                };
                inspect::run(&file, format)
            }
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

impl From<BuildArgs> for Build {
    fn from(args: BuildArgs) -> Self {
        let wit = args.wit;
        Self {
            source: args.source,
            out: args.out,
            world: args.world.map(|name| World { name, wit }),
            cargo: args.cargo,
        }
    }
}
