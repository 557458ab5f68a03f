//! The gateway binary. The start-up story, and nothing else: parse, load, build, run, drain.

use std::path::Path;
use std::process::ExitCode;

use gateway::cli::{self, Command, ConfigFile, Failure};
use gateway::policy;
use gateway::server::{self, Server, StartError};
use gateway::telemetry;
use gateway::telemetry::log::LogSinks;
use gateway::telemetry::metrics::Registry;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    server::prefer_small_pages();
    policy::compile_apart();
    match cli::parse() {
        Command::Run { config } => cli::report(run(&config)),
        Command::Check {
            config,
            format,
            explain,
        } => cli::check::run(&config, format, explain),
        Command::Convert { file, out } => cli::convert::run(&file, out.as_deref()),
        Command::Ctl { socket, command } => cli::ctl::run(&socket, &command),
        Command::Plugin(command) => command.run(),
        Command::Compile(request) => policy::compile_for_another(&request),
    }
}

#[allow(clippy::result_large_err, reason = "made once, at the end")]
fn run(path: &Path) -> Result<(), Failure> {
    let mut file = ConfigFile::new(path);
    let config = file.read()?;
    let registry = Registry::new();
    let log = LogSinks::start(&config.process, &registry)
        .map_err(|(log, error)| file.failure(StartError::log(&log, &error)))?;
    telemetry::events::start(&config.process.log, log.own());
    let server = Server::start(config, &registry, log, &mut file).map_err(|error| file.failure(error))?;
    cli::announce(path, server.config(), &server.ports());
    // Reloads when it is told to; returns when it was told to end and has drained.
    server.run(&mut file)?;
    Ok(())
}
