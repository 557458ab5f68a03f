//! `gateway plugin sign` and `verify`: signatures beside components, and keys to make and to check them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, ensure};
use sha2::{Digest, Sha256};

use super::replace::replace;
use crate::crypto::{SigningKey, VerifyingKey};
use crate::policy::MAX_COMPONENT_BYTES;
use crate::regular_file;
use crate::signatures::{self, Signatures};

/// What is to be signed, and by whom.
#[derive(Debug)]
pub struct Sign {
    /// Files of private keys.
    pub keys: Vec<PathBuf>,
    /// Where a new key goes, which signs as well.
    pub new_key: Option<PathBuf>,
    /// The components.
    pub components: Vec<PathBuf>,
}

/// What is to be verified, and who is believed.
#[derive(Debug)]
pub struct Verify {
    /// Files of public keys.
    pub keys: Vec<PathBuf>,
    /// The components.
    pub components: Vec<PathBuf>,
}

impl Sign {
    /// Signs, and tells the user how it went. Exits with 0 when all was signed, else with 1.
    pub fn run(&self) -> ExitCode {
        told(self.keys_at_hand().and_then(|keys| {
            let signed = self.components.iter().map(|component| sign(component, &keys));
            all(signed)
        }))
    }

    fn keys_at_hand(&self) -> Result<Vec<SigningKey>> {
        let keys = self.keys.iter().map(|path| Ok(signatures::read_signing_key(path)?));
        let mut keys = keys.collect::<Result<Vec<_>>>()?;
        if let Some(path) = &self.new_key {
            let (key, beside) = signatures::write_new_key(path)?;
            let public = key.verifying_key().context("the new key has no public half")?;
            print!("{}", made(path, &beside, public));
            keys.push(key);
        }
        Ok(keys)
    }
}

impl Verify {
    /// Looks whether each component is signed by one of the keys. Exits with 0 when all are, else with 1.
    pub fn run(&self) -> ExitCode {
        let keys = self.keys.iter().map(|path| Ok(signatures::read_verifying_key(path)?));
        told(keys.collect::<Result<Vec<_>>>().and_then(|keys| {
            let verified = self.components.iter().map(|component| self.verify(component, &keys));
            all(verified)
        }))
    }

    fn verify(&self, component: &Path, keys: &[VerifyingKey]) -> Result<String> {
        let sha256 = digest(component)?;
        let not_signed = || format!("{} is not signed by {}", component.display(), names(&self.keys, keys));
        let position = signatures::signer(component, &sha256, keys, regular_file::read).with_context(not_signed)?;
        Ok(format!(
            "{}: signed by {}\n",
            component.display(),
            names(&self.keys[position..=position], &keys[position..=position]),
        ))
    }
}

/// Signs one component; answers what is said of it.
fn sign(component: &Path, keys: &[SigningKey]) -> Result<String> {
    let sha256 = digest(component)?;
    let path = signatures::beside(component);
    let before = Signatures::read(component).context("take it away to sign anew")?;
    let is_kept = before.as_ref().is_none_or(|before| *before.sha256() == sha256);
    let mut signatures = match before {
        Some(before) if is_kept => before,
        _ => Signatures::new(sha256),
    };
    let mut said = String::new();
    if !is_kept {
        said = format!("{}: signatures of what was there before are gone\n", path.display());
    }
    for key in keys {
        let id = signatures
            .sign(key)
            .map_err(|why| anyhow!("{}: {why}", path.display()))?;
        said.push_str(&format!("{}: signed by {id}\n", path.display()));
    }
    replace(&path, signatures.to_string().as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(said)
}

/// The digest of what is, at a glance, WebAssembly: a key signs components, and no file that was named by mistake.
fn digest(component: &Path) -> Result<[u8; 32]> {
    let name = component.display();
    let bytes = regular_file::read(component, MAX_COMPONENT_BYTES).with_context(|| format!("cannot read {name}"))?;
    ensure!(bytes.starts_with(b"\0asm"), "{name} is not WebAssembly");
    Ok(Sha256::digest(&bytes).into())
}

/// What is said of a new key.
fn made(private: &Path, public: &Path, key: VerifyingKey) -> String {
    format!(
        "{private}: a new private key; whoever has it signs in your name\n\
         {public}: its public key, {id}\n\
         trust:   trust \"name\" key=\"{line}\"\n",
        private = private.display(),
        public = public.display(),
        id = key.id(),
        line = signatures::public_line(key),
    )
}

/// Files of keys, with what the keys are called in signatures.
fn names(files: &[PathBuf], keys: &[VerifyingKey]) -> String {
    let named = files.iter().zip(keys);
    let named: Vec<String> = named
        .map(|(file, key)| format!("{} ({})", file.display(), key.id()))
        .collect();
    named.join(" or ")
}

/// Does all of it, whatever becomes of a part: says what went well, and answers the errors as one.
fn all(results: impl Iterator<Item = Result<String>>) -> Result<()> {
    let mut errors = Vec::new();
    for result in results {
        match result {
            Ok(said) => print!("{said}"),
            Err(error) => errors.push(format!("{error:#}")),
        }
    }
    ensure!(errors.is_empty(), "{}", errors.join("\ngateway: "));
    Ok(())
}

fn told(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gateway: {error:#}");
            ExitCode::FAILURE
        }
    }
}
