//! `gateway plugin new`: writes the project of a plugin that builds, runs and turns a request away before its author has changed
//! a line. What it writes is in the folders beside this file, as files that tests compile and run.

mod name;
mod sdk;
mod template;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};

use name::Name;
use sdk::Sdk;
pub use template::{Hook, Language};

/// What is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct New {
    /// The plugin's name.
    pub name: String,
    /// What it is written in.
    pub language: Language,
    /// What it is asked.
    pub hook: Hook,
    /// Where it goes; a folder of the plugin's name in the current one where that is none.
    pub folder: Option<PathBuf>,
    /// Where the SDK is, for Rust; looked for where that is none.
    pub sdk: Option<PathBuf>,
}

/// Does it, and tells the user what to do next.
pub fn run(wanted: &New) -> ExitCode {
    let said = new(wanted).and_then(|next| Ok(io::stdout().write_all(next.as_bytes())?));
    match said {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gateway: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Writes a project into a folder that is new or empty; answers what to do next.
///
/// # Errors
/// The name is none for a plugin; the SDK is not found; or the folder has something in it or cannot be written to. Only in the
/// last case may anything have been written.
pub fn new(wanted: &New) -> Result<String> {
    let name = Name::parse(&wanted.name)?;
    let files = template::files(wanted.language, wanted.hook);
    let sdk = match (wanted.language, &wanted.sdk) {
        (Language::Rust, path) => Some(Sdk::find(path.as_deref())?),
        (_, None) => None,
        (_, Some(_)) => bail!("the SDK is for plugins in Rust: leave `--sdk` out"),
    };
    let folder = match &wanted.folder {
        Some(folder) => folder.clone(),
        None => PathBuf::from(name.as_str()),
    };
    make(&folder)?;
    let sdk = sdk.map(|sdk| sdk.seen_from(&folder)).transpose()?;
    for (path, text) in &files {
        let mut text = name.put_into(text);
        if let Some(sdk) = &sdk {
            text = text.replace(SDK, sdk);
        }
        write(&folder.join(path), &text)?;
    }
    Ok(next(wanted, &name, &folder))
}

/// Makes a folder, or takes one that is there and empty.
fn make(folder: &Path) -> Result<()> {
    let shown = folder.display();
    match fs::read_dir(folder) {
        Ok(mut entries) => {
            ensure!(
                entries.next().is_none(),
                "{shown} is not empty, and nothing in it is overwritten: name a folder that is new or empty"
            );
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {shown}"))
        }
        Err(error) => Err(error).with_context(|| format!("cannot write into {shown}")),
    }
}

/// Writes a file that is not there yet, not even if somebody has made one meanwhile.
fn write(file: &Path, text: &str) -> Result<()> {
    let cannot = || format!("cannot write {}", file.display());
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).with_context(cannot)?;
    }
    let mut new = fs::File::create_new(file).with_context(cannot)?;
    new.write_all(text.as_bytes()).with_context(cannot)
}

/// What an author does with what has been written.
fn next(wanted: &New, name: &Name, folder: &Path) -> String {
    let (title, language) = (name.as_str(), wanted.language.title());
    let mut text = format!("{title}: a plugin in {language}, asked as {}\n\n", wanted.hook.name());
    let mut command = |line: &str| text.extend(["    ", line, "\n"]);
    command(&format!("cd {}", quoted(folder)));
    wanted.language.build_lines().iter().for_each(|line| command(line));
    command(&format!("gateway plugin test {}.wasm", name.as_crate()));
    command("gateway run gateway.kdl                      # and in another terminal:");
    template::trials(wanted.hook).for_each(command);
    text
}

/// A path as a shell takes it, and `cd` no option.
fn quoted(path: &Path) -> String {
    let text = match path.as_os_str().as_encoded_bytes().first() {
        Some(b'-') => format!("./{}", path.display()),
        _ => path.display().to_string(),
    };
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '/' | '.' | '_' | '-');
    match text.chars().all(is_plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

/// Where the SDK is, in templates.
const SDK: &str = "@sdk@";

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
