//! `gateway convert`: an HAProxy configuration in our words.

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use crate::convert;

/// Converts a file. The result goes to `out` or to standard output, what was not carried over as it was to standard error.
/// Exits with 0 when the result is valid.
pub fn run(file: &Path, out: Option<&Path>) -> ExitCode {
    let name = file.display();
    let text = match read(file) {
        Ok(text) => text,
        Err(error) => {
            eprintln!("gateway: {name}: {error}");
            return ExitCode::FAILURE;
        }
    };
    let converted = convert::haproxy(&text, |name| std::env::var(name).ok());
    for finding in &converted.findings {
        match finding.line {
            0 => eprintln!("{name}: {}", finding.message),
            line => eprintln!("{name}:{line}: {}", finding.message),
        }
    }
    let written = match out {
        Some(out) => std::fs::write(out, &converted.text),
        None => io::stdout().write_all(converted.text.as_bytes()),
    };
    if let Err(error) = written {
        eprintln!("gateway: cannot write the result: {error}");
        return ExitCode::FAILURE;
    }
    if converted.is_valid {
        ExitCode::SUCCESS
    } else {
        eprintln!("{name}: the result needs your hand before it is valid");
        ExitCode::FAILURE
    }
}

fn read(file: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    std::fs::File::open(file)?
        .take(MOST_BYTES + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(io::Error::other("longer than 16 MiB"));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::other("not UTF-8"))
}

/// As much as a configuration of ours may have.
const MOST_BYTES: u64 = 16 << 20;
