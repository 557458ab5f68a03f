//! `gateway ctl`: one command to a running gateway, by its admin socket.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use crate::admin::is_refusal;

/// Sends a command and writes what is answered: on standard error, with a failure, when it was refused.
pub fn run(socket: &Path, command: &[String]) -> ExitCode {
    match ask(socket, &command.join(" ")) {
        Ok(answer) if is_refusal(&answer) => {
            eprintln!("gateway: {}", answer.trim_end());
            ExitCode::FAILURE
        }
        Ok(answer) => {
            // Whoever reads may have seen enough.
            let _ = io::stdout().write_all(answer.trim_end_matches('\n').as_bytes());
            if !answer.trim_end().is_empty() {
                let _ = io::stdout().write_all(b"\n");
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("gateway: {}: {error}", socket.display());
            if let Some(help) = help(&error) {
                eprintln!("gateway: {help}");
            }
            ExitCode::FAILURE
        }
    }
}

fn ask(socket: &Path, command: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(command.replace('\n', " ").as_bytes())?;
    stream.write_all(b"\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// What may be done about it.
fn help(error: &io::Error) -> Option<&'static str> {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Some(
            "no gateway listens there: is it running, with `admin` in its `process`? `-s PATH` names another socket",
        ),
        io::ErrorKind::PermissionDenied => {
            Some("the socket's mode does not let you in: become the gateway's user, or see `admin … mode=`")
        }
        _ => None,
    }
}

/// A gateway that does not answer by then is not well.
const PATIENCE: Duration = Duration::from_secs(10);
