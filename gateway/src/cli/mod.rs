//! The command line: what may be said, and how answers look.

pub mod check;
pub mod convert;
pub mod ctl;

mod plugin;
mod plugin_lock;
mod plugin_signatures;
mod reload;

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::address::{Address, UnixAddress};
use crate::config::{CompileLimits, Config, ConfigErrors, DEFAULT_MAX_CONNECTIONS, Mode, Source};
use crate::policy::{COMPILE_COMMAND, CompileRequest};
use crate::server::{Faults, OpenPort, RunError, StartError};
pub use plugin::PluginCommand;
pub use reload::ConfigFile;

/// What the user wants.
#[derive(Debug)]
pub enum Command {
    /// Run the gateway.
    Run {
        /// The configuration.
        config: PathBuf,
    },
    /// Check a configuration.
    Check {
        /// The configuration.
        config: PathBuf,
        /// How findings are written.
        format: check::Format,
        /// Whether the limits of plugins are shown.
        explain: bool,
    },
    /// Make a configuration of HAProxy's.
    Convert {
        /// HAProxy's.
        file: PathBuf,
        /// Where ours goes; standard output when not said.
        out: Option<PathBuf>,
    },
    /// Tell a running gateway something.
    Ctl {
        /// Its admin socket.
        socket: PathBuf,
        /// The words.
        command: Vec<String>,
    },
    /// Help an author or an operator of plugins.
    Plugin(PluginCommand),
    /// Compile a component for another process of this program.
    Compile(CompileRequest),
}

/// Reads the command line. Ends the process when it is wrong or asks for help.
pub fn parse() -> Command {
    match plain_run(env::args_os().skip(1)) {
        Some(config) => Command::Run { config },
        None => Args::parse().command(),
    }
}

/// The file of `run -c FILE`, by which services are started, read without the parser of all that can be said: to build that takes a
/// megabyte and more of program and tables, which would stay in memory for as long as the service runs.
fn plain_run(mut words: impl Iterator<Item = OsString>) -> Option<PathBuf> {
    let (verb, flag, file) = (words.next()?, words.next()?, words.next()?);
    let is_run = verb == "run" && (flag == "-c" || flag == "--config") && words.next().is_none();
    let is_file = !file.is_empty() && !file.as_encoded_bytes().starts_with(b"-");
    (is_run && is_file).then(|| file.into())
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// The gateway does not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The gateway ended by itself.
    #[error(transparent)]
    Run(#[from] RunError),
}

impl Failure {
    /// The gateway did not start. What is in the configuration's way is a fault of its text.
    pub fn of_start(error: StartError, source: &Source) -> Self {
        match error {
            StartError::Build(errors) => Self::Config(errors.locate(source)),
            StartError::Faults(Faults(errors)) => Self::Config(source.errors(errors)),
            other => Self::Start(other),
        }
    }
}

/// Tells the user how it went.
pub fn report(result: Result<(), Failure>) -> ExitCode {
    let Err(failure) = result else {
        return ExitCode::SUCCESS;
    };
    match failure {
        Failure::Config(errors) => check::print(&errors),
        // As asked.
        Failure::Start(ended @ StartError::Ended) => {
            eprintln!("gateway: {ended}");
            return ExitCode::SUCCESS;
        }
        other => eprintln!("gateway: {other}"),
    }
    ExitCode::FAILURE
}

/// Says where the gateway listens, and what to try. On standard error, so that a log on standard output stays a log.
pub fn announce(path: &Path, config: &Config, ports: &[OpenPort]) {
    eprintln!("gateway {} with {}", env!("CARGO_PKG_VERSION"), path.display());
    for port in ports {
        eprintln!("listening on {port}");
    }
    if rustix::process::geteuid().is_root() && config.process.user.is_none() {
        eprintln!("running as root: `user` in `process` gives that up");
    }
    let connections = config.process.max_connections;
    if config.process.max_connections_at.is_none() && connections < DEFAULT_MAX_CONNECTIONS {
        eprintln!("the limit on open files is low: at most {connections} connections at once");
    }
    for line in suggestions(config, ports) {
        eprintln!("try: {line}");
    }
    eprintln!("ready");
}

/// Three commands that show something, made from what is configured.
fn suggestions(config: &Config, ports: &[OpenPort]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut http = ports.iter().filter(|port| port.protocol == "http");
    if let Some((port, url)) = http.find_map(|port| Some((port, url(&port.address)?))) {
        let frontend = config
            .frontends
            .iter()
            .find(|frontend| port.frontend.as_deref() == Some(&*frontend.name) && frontend.mode == Mode::Http);
        lines.push(format!("curl {url}/"));
        for prefix in frontend
            .into_iter()
            .flat_map(|frontend| path_prefixes(&frontend.acls))
            .take(1)
        {
            lines.push(format!("curl -i {url}{prefix}"));
        }
    }
    if let Some(port) = ports.iter().find(|port| port.protocol == "stats") {
        let user = if config.stats.as_ref().is_some_and(|stats| !stats.logins.is_empty()) {
            "-u USER "
        } else {
            ""
        };
        lines.push(format!(
            "curl {user}http://{}/stats.json, or / in a browser",
            port.address
        ));
        lines.push(format!("curl {user}http://{}/metrics", port.address));
    }
    lines
}

/// Where curl finds it, without a path; none where it cannot.
fn url(address: &Address) -> Option<String> {
    Some(match address {
        Address::Unix(unix) => match &**unix {
            UnixAddress::Path(path) => format!("--unix-socket {} http://localhost", path.display()),
            UnixAddress::Abstract(name) => format!("--abstract-unix-socket {name} http://localhost"),
            UnixAddress::Padded(_) => return None,
        },
        Address::Ip(address) => format!("http://{address}"),
    })
}

fn path_prefixes(acls: &[crate::config::Acl]) -> impl Iterator<Item = &str> {
    use crate::config::{AclTest, Match, Text};
    acls.iter().filter_map(|acl| match &acl.test {
        AclTest::Match(Match::Path(Text::Prefix(prefixes))) => prefixes.first().map(String::as_str),
        AclTest::Match(Match::All(all)) => all.iter().find_map(|one| match one {
            Match::Path(Text::Prefix(prefixes)) => prefixes.first().map(String::as_str),
            _ => None,
        }),
        _ => None,
    })
}

/// A load balancer and reverse proxy whose policy is WebAssembly.
#[derive(Debug, Parser)]
#[command(name = "gateway", version, about, args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// The configuration to run.
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
}

impl Args {
    fn command(self) -> Command {
        match self.verb {
            None => Command::Run { config: self.config },
            Some(Verb::Run { subject }) => Command::Run { config: subject.path() },
            Some(Verb::Check {
                subject,
                format,
                explain,
            }) => Command::Check {
                config: subject.path(),
                format,
                explain,
            },
            Some(Verb::Convert { file, out }) => Command::Convert { file, out },
            Some(Verb::Ctl { socket, command }) => Command::Ctl { socket, command },
            Some(Verb::Plugin(command)) => Command::Plugin(command),
            Some(Verb::Compile {
                reservation,
                cpu_seconds,
                most_memory,
            }) => Command::Compile(CompileRequest {
                reservation,
                limits: CompileLimits {
                    cpu: Duration::from_secs(cpu_seconds),
                    memory: most_memory,
                },
            }),
        }
    }
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the gateway; what `gateway` alone does too.
    Run {
        #[command(flatten)]
        subject: Subject,
    },
    /// Check a configuration and the certificates and components that it names: all errors at once. Exits 0 when there are
    /// none, else 1.
    Check {
        #[command(flatten)]
        subject: Subject,
        /// How findings are written.
        #[arg(long, value_enum, default_value_t = check::Format::Text)]
        format: check::Format,
        /// Say for each use of a plugin which limits hold there, and who has set them.
        #[arg(long)]
        explain: bool,
    },
    /// Make a configuration of HAProxy's. What has no counterpart stays in it as a comment, and is reported on standard error.
    /// Exits 0 when the result is valid, else 1.
    Convert {
        /// HAProxy's configuration, as haproxy.cfg.
        file: PathBuf,
        /// Where the result goes; standard output unless said.
        #[arg(short, long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Ask or tell a running gateway something, by its admin socket: `gateway ctl help` says what. Exits 0 when it was done.
    Ctl {
        /// The socket, as `process { admin "…" }` says.
        #[arg(short, long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
        socket: PathBuf,
        /// The command, as `show servers` or `set weight app/app-1 50%`.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// For authors of plugins.
    #[command(subcommand)]
    Plugin(PluginCommand),
    /// What the gateway tells another process of itself.
    #[command(name = COMPILE_COMMAND, hide = true)]
    Compile {
        reservation: u64,
        cpu_seconds: u64,
        most_memory: u64,
    },
}

/// The configuration that a command is about, said with `-c` or without.
#[derive(Debug, clap::Args)]
struct Subject {
    /// The configuration; config.kdl unless said.
    #[arg(value_name = "FILE", conflicts_with = "config")]
    file: Option<PathBuf>,
    /// The same.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Subject {
    fn path(self) -> PathBuf {
        self.file.or(self.config).unwrap_or_else(|| DEFAULT_CONFIG.into())
    }
}

/// What `gateway` runs when it is told nothing.
const DEFAULT_CONFIG: &str = "config.kdl";

/// Where `gateway ctl` looks for the admin socket when it is told nothing: where a service's runtime files are.
const DEFAULT_SOCKET: &str = "/run/gateway/admin.sock";

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    fn plainly(line: &str) -> Option<PathBuf> {
        plain_run(line.split(' ').map(OsString::from))
    }

    #[test]
    fn what_is_read_without_the_parser_is_what_the_parser_reads() {
        for line in ["run -c a.kdl", "run --config /etc/gateway/config.kdl", "run -c run"] {
            let args = Args::try_parse_from(["gateway"].into_iter().chain(line.split(' '))).unwrap();
            let Command::Run { config } = args.command() else {
                panic!("{line} does not run")
            };
            assert_eq!(plainly(line), Some(config), "{line}");
        }
    }

    #[test]
    fn all_else_is_left_to_the_parser() {
        for line in [
            "",
            "run",
            "run -c",
            "run -c ",
            "run -c -h",
            "run -c --",
            "run -h a.kdl",
            "run a.kdl",
            "run -c a.kdl -h",
            "check -c a.kdl",
            "-c a.kdl",
        ] {
            assert_eq!(plainly(line), None, "{line}");
        }
    }
}
