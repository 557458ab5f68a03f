//! `gateway plugin inspect`: says what a component is, and whether this gateway takes it.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::anatomy::{self, Memory};
use crate::config::schema::Schema;
use crate::config::{BuiltIn, DEFAULT_INSTANCE_MEMORY, DEFAULT_PLUGIN_CPU, Grant, PluginLimits};
use crate::policy::{Description, Hooks, Host, HostSettings, Import, MAX_COMPONENT_BYTES, first_party, section};
use crate::regular_file;

/// How it is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// For programs: one JSON object.
    Json,
}

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A file.
    File(PathBuf),
    /// A component that is part of the gateway.
    BuiltIn(BuiltIn),
}

/// Inspects a component and writes what was found to standard output; an error to standard error. Exits with 0 when this
/// gateway takes the component, else with 1.
pub fn run(subject: &Subject, format: Format) -> ExitCode {
    let report = match subject {
        Subject::File(file) => inspect(file),
        Subject::BuiltIn(built_in) => of(&format!("builtin={:?}", built_in.name()), first_party::shelf(*built_in)),
    };
    let said = report.and_then(|report| match format {
        Format::Text => Ok(report.text()),
        Format::Json => Ok(serde_json::to_string_pretty(&report)? + "\n"),
    });
    match said.and_then(|text| Ok(io::stdout().write_all(text.as_bytes())?)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gateway: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What `inspect` found. Its fields are those of the JSON object.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) file: String,
    pub(super) name: String,
    pub(super) version: String,
    pub(super) about: String,
    /// Bytes.
    pub(super) size: usize,
    /// In hexadecimal.
    pub(super) sha256: String,
    /// What lies beside the file; none of a component that is in no file yet.
    #[serde(flatten)]
    pub(super) signed: super::signed::Signed,
    /// The version of `gateway:policy` that it was built for.
    pub(super) contract: String,
    pub(super) hooks: Vec<&'static str>,
    pub(super) imports: Vec<Interface>,
    /// Whether its answers can follow from nothing but what it is called with and what its instance was called with before.
    pub(super) pure: bool,
    /// What an operator has to grant.
    pub(super) grants: Vec<&'static str>,
    pub(super) memories: Vec<Memory>,
    /// What its configuration may be; none when it does not say.
    pub(super) config: Option<Schema>,
}

#[derive(Debug, Serialize)]
pub(super) struct Interface {
    pub(super) interface: String,
    pub(super) functions: Vec<String>,
}

fn inspect(file: &Path) -> Result<Report> {
    let name = file.display();
    let bytes = regular_file::read(file, MAX_COMPONENT_BYTES).map_err(|error| match error.kind() {
        io::ErrorKind::FileTooLarge => anyhow!("{name}: a component has at most {MAX_COMPONENT_BYTES} bytes"),
        _ => anyhow!("cannot read {name}: {error}"),
    })?;
    let mut report = of(&name.to_string(), &bytes)?;
    report.signed = super::signed::Signed::beside(file, &report.sha256);
    Ok(report)
}

/// What a component is that is called `file`.
///
/// # Errors
/// When this gateway does not take it; the text says why.
pub(super) fn of(file: &str, bytes: &[u8]) -> Result<Report> {
    let anatomy = anatomy::look(bytes).map_err(|why| anyhow!("{file}: {why}"))?;
    let contract = anatomy
        .contract
        .with_context(|| format!("{file}: it does not export `gateway:policy/lifecycle`, so it is not a plugin: is the line `plugin!(…)` in it?"))?;
    if !contract.starts_with(CONTRACT) {
        bail!("{file}: built for the contract {contract}; this gateway has {CONTRACT}x");
    }
    let config = config(bytes).with_context(|| format!("{file}: the schema of its configuration cannot be used"))?;
    // What it begins with does not count: an operator who wants it gives it that.
    let initial: u64 = anatomy
        .memories
        .iter()
        .map(|memory| memory.minimum)
        .fold(0, u64::saturating_add);
    let memory = initial.saturating_add(DEFAULT_INSTANCE_MEMORY).min(MOST_MEMORY);
    let host = Host::new(HostSettings {
        instances: 1,
        memory,
        total_memory: u64::MAX,
        host_memory: u64::MAX,
        max_buckets: 1,
        answers: 0,
    });
    let component = host.compile_strangers(file, bytes, &ALL_GRANTS.map(|(grant, _)| grant))?;
    let limits = PluginLimits {
        cpu: DEFAULT_PLUGIN_CPU,
        memory,
    };
    let Description {
        name,
        version,
        about,
        wants_time,
    } = host.describe(&component, limits)?;
    let imports: Vec<Interface> = component.imports().into_iter().map(Interface::from).collect();
    let is_imported = |name: &str| imports.iter().any(|import| import.interface == name);
    Ok(Report {
        file: file.to_owned(),
        name,
        version,
        about,
        size: bytes.len(),
        signed: super::signed::Signed::default(),
        sha256: Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect(),
        contract,
        hooks: hook_names(component.hooks()),
        grants: ALL_GRANTS
            .iter()
            .map(|(_, name)| *name)
            .filter(|name| is_imported(name) || (wants_time && *name == "clock"))
            .collect(),
        pure: component.is_pure(),
        imports,
        memories: anatomy.memories,
        config,
    })
}

/// The schema of a component's configuration.
fn config(bytes: &[u8]) -> Result<Option<Schema>> {
    let text = section::config_schema(bytes).map_err(|why| anyhow!(why))?;
    let schema = text.map(|text| Schema::parse("its schema", text)).transpose();
    schema.map_err(|errors| anyhow!(errors.first()))
}

impl From<Import> for Interface {
    fn from(import: Import) -> Self {
        let name = import.interface.rsplit('/').next().unwrap_or_default();
        Self {
            interface: name.split('@').next().unwrap_or_default().to_owned(),
            functions: import.functions,
        }
    }
}

impl Report {
    fn text(&self) -> String {
        let mut text = format!("{}: {} {}\n", self.file, self.name, self.version);
        let mut line = |key: &str, value: &str| {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{:<10}{value}", format!("{key}:"));
        };
        line("about", &self.about);
        line("size", &format!("{} bytes", self.size));
        line("sha256", &self.sha256);
        self.signed.lines().iter().for_each(|said| line("signed", said));
        line("contract", &format!("{}, which this gateway takes", self.contract));
        line("hooks", &self.hooks.join(", "));
        if self.imports.is_empty() {
            line("imports", "nothing");
        }
        for import in &self.imports {
            let functions = match import.functions.as_slice() {
                [] => "types only".to_owned(),
                functions => functions.join(", "),
            };
            line("imports", &format!("{} ({functions})", import.interface));
        }
        line(
            "pure",
            match self.pure {
                true => "yes: it learns nothing beside what it is called with, and leaves nothing behind",
                false => "no: by what it imports it learns more than it is called with, or leaves something behind",
            },
        );
        if !self.grants.is_empty() {
            let grants: Vec<String> = self.grants.iter().map(|grant| format!("{grant:?}")).collect();
            line("needs", &format!("grant {}", grants.join(" ")));
        }
        for memory in &self.memories {
            let most = match memory.maximum {
                Some(most) => format!("at most {most}"),
                None => "no bound of its own".to_owned(),
            };
            line("memory", &format!("{} bytes at first, {most}", memory.minimum));
        }
        match &self.config {
            None => line("config", "it does not say what that may be"),
            Some(schema) if schema.names().next().is_none() => line("config", "nothing can be said in it"),
            Some(schema) => {
                text.push_str("config:\n");
                text.push_str(&schema.documentation(4));
            }
        }
        text
    }
}

fn hook_names(hooks: Hooks) -> Vec<&'static str> {
    let all = [
        (hooks.predicates, "predicates"),
        (hooks.limiter, "limiter"),
        (hooks.request_filter, "request-filter"),
        (hooks.call_answered, "call-answered"),
        (hooks.request_body_filter, "request-body-filter"),
        (hooks.response_filter, "response-filter"),
        (hooks.response_body_filter, "response-body-filter"),
        (hooks.access_log, "access-log"),
        (hooks.connection_filter, "connection-filter"),
    ];
    all.into_iter().filter_map(|(has, name)| has.then_some(name)).collect()
}

/// Everything that can be granted, by the name of its interface, which is also that of the grant.
const ALL_GRANTS: [(Grant, &str); 7] = [
    (Grant::Buckets, "buckets"),
    (Grant::Counters, "counters"),
    (Grant::Kv, "kv"),
    (Grant::Metrics, "metrics"),
    (Grant::Log, "log"),
    (Grant::Clock, "clock"),
    (Grant::Random, "random"),
];

/// Bytes of memory that a component may have while it is asked who it is: what a tool may take of a developer's machine.
const MOST_MEMORY: u64 = 1 << 30;

/// Every `0.1.x` is one contract; see docs/reference/contract-versions.md.
const CONTRACT: &str = "0.1.";
