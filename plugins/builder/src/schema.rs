//! The schema of a plugin's configuration: `config.schema.kdl` in its crate's folder, and a custom section of the component.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::Component;

/// Adds a component's schema to it, when it has one.
///
/// # Errors
/// It cannot be read.
pub fn add(workspace: &Path, wanted: &Component, component: &mut Vec<u8>) -> Result<()> {
    if let Some(schema) = read(workspace, wanted)? {
        let name = SECTION.as_bytes();
        let content = [&length(name.len()), name, schema.as_bytes()].concat();
        component.push(CUSTOM);
        component.extend_from_slice(&length(content.len()));
        component.extend_from_slice(&content);
    }
    Ok(())
}

/// A component's schema, when it has one.
///
/// # Errors
/// It cannot be read.
pub fn read(workspace: &Path, component: &Component) -> Result<Option<String>> {
    let file = file(workspace, component);
    match fs::read_to_string(&file) {
        // A checkout with other line ends has the same schema.
        Ok(text) => Ok(Some(text.replace("\r\n", "\n"))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("{}", file.display())),
    }
}

fn file(workspace: &Path, component: &Component) -> PathBuf {
    workspace
        .join("plugins")
        .join(component.plugin)
        .join("config.schema.kdl")
}

/// As WebAssembly writes lengths: seven bits to a byte, the lowest first (LEB128).
fn length(mut length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        // Seven bits fit a byte.
        let byte = u8::try_from(length & 0x7f).unwrap_or_default();
        length >>= 7;
        if length == 0 {
            bytes.push(byte);
            return bytes;
        }
        bytes.push(byte | 0x80);
    }
}

/// As the gateway looks for it.
const SECTION: &str = "gateway:config-schema";

/// What a custom section begins with.
const CUSTOM: u8 = 0;
