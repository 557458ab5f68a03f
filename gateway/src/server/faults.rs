//! What is in the way of a start, as faults of the configuration's text.

use std::io;

use miette::SourceSpan;

use super::identity::{Identity, access};
use crate::config::{AdminSocket, At, Code, Config, ConfigError, Log, LogTarget};
use crate::listener::{BindError, BindFault};
use crate::unix_socket::UnixSocketError;

/// What this machine would refuse of a configuration: users, groups and folders that are not there, and a log that cannot be
/// written. Nothing is opened that a running gateway would notice: no port, and no file is made.
pub fn check(config: &Config) -> Vec<ConfigError> {
    let mut errors = Identity::of(&config.process).err().unwrap_or_default();
    errors.extend(
        config
            .frontends
            .iter()
            .flat_map(|frontend| &frontend.binds)
            .filter_map(|bind| access(bind).err()),
    );
    let named = config.process.named_logs.iter().map(|named| &named.log);
    errors.extend(std::iter::once(&config.process.log).chain(named).filter_map(of_file));
    errors
}

/// What keeps a log from being written to its file.
fn of_file(log: &Log) -> Option<ConfigError> {
    let LogTarget::File(path) = &log.target else {
        return None;
    };
    let tried = match path.metadata() {
        Ok(_) => std::fs::OpenOptions::new().append(true).open(path).map(drop),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.metadata().map(drop),
            _ => Ok(()),
        },
        Err(error) => Err(error),
    };
    tried.err().map(|error| of_log(log, &error))
}

/// The log cannot be opened.
pub(super) fn of_log(log: &Log, error: &io::Error) -> ConfigError {
    let what = match &log.target {
        LogTarget::File(path) => path.display().to_string(),
        LogTarget::Stdout => "standard output".to_owned(),
        LogTarget::Stderr => "standard error".to_owned(),
        LogTarget::Syslog { server, .. } => server.to_string(),
    };
    let fault = ConfigError::new(Code::System, format!("the log {what} cannot be opened: {error}"));
    let fault = match &log.origin {
        Some(origin) => fault.label(origin.span, "cannot be written to"),
        None => fault,
    };
    fault.help(match error.kind() {
        io::ErrorKind::NotFound => "make its folder, or name another place",
        _ => "let the gateway write there, or name another place",
    })
}

/// An address cannot be listened on.
pub(super) fn of_bind(span: SourceSpan, error: &BindError) -> ConfigError {
    let (label, help) = match &error.source {
        BindFault::Ip(source) => {
            let help = match source.kind() {
                io::ErrorKind::AddrInUse => "`ss -ltnp` says who listens there: stop it, or take another port",
                io::ErrorKind::PermissionDenied => {
                    "start as root and name a `user` in `process`, or grant CAP_NET_BIND_SERVICE"
                }
                io::ErrorKind::AddrNotAvailable => "`ip address` says which addresses there are",
                _ => "take another address",
            };
            ("cannot be opened", help)
        }
        BindFault::Interface(_, source) => {
            let help = match source.kind() {
                io::ErrorKind::PermissionDenied => "start as root and name a `user` in `process`, or grant CAP_NET_RAW",
                _ => "`ip link` says which interfaces there are",
            };
            ("cannot be bound to its interface", help)
        }
        BindFault::Transparent(_) => {
            let help = "start as root and name a `user` in `process`, or grant CAP_NET_ADMIN";
            ("cannot be transparent", help)
        }
        BindFault::Unix(source) => (source.label(), source.help()),
    };
    ConfigError::new(Code::System, error.to_string())
        .label(span, label)
        .help(help)
}

/// The admin socket cannot be opened.
pub(super) fn of_admin_socket(socket: &AdminSocket, error: &UnixSocketError) -> ConfigError {
    let fault = ConfigError::new(Code::Io, format!("admin socket {}: {error}", socket.path.display()));
    let fault = match &socket.origin {
        Some(origin) => fault.label(origin.span, error.label()),
        None => fault,
    };
    fault.help(error.help())
}

/// The file with the process's number cannot be written.
pub(super) fn of_pid_file(path: &At<std::path::PathBuf>, error: &io::Error) -> ConfigError {
    ConfigError::new(
        Code::System,
        format!("{} cannot be written: {error}", path.value.display()),
    )
    .label(path.span, "the process's number was to stand there")
    .help("make its folder and let the gateway write there, or leave `pid-file` out")
}
