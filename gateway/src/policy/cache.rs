//! Compiled components on disk, so that a start need not compile them again.
//!
//! What is read here runs as machine code of this process, outside every sandbox. So only what the gateway has written itself
//! is believed: the folder belongs to whom the process runs as (or to root) and nobody else may enter it, and each file carries a
//! proof made with a key that lies in the same folder and is nobody else's either. The proof is over the component's digest
//! and over the engine's version and settings, too: a file cannot stand in for another.
//!
//! A file that does not hold up is dropped and made anew: that costs time and nothing else.

mod own_file;

use std::fs::{self, DirBuilder, File};
use std::hash::{Hash, Hasher};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::process::{geteuid, getpid};
use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use super::compiler::MAX_CODE;
use crate::config::CompileCache;
use crate::crypto::{MAC_KEY, MAC_TAG, MacKey};
use own_file::{is_ours, read, write_new};

/// The folder.
pub(super) struct Cache {
    folder: PathBuf,
    size: u64,
    key: MacKey,
}

/// Why the folder is not used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The system refuses something.
    #[error("{}: {source}", path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others could have written there.
    #[error("{}: {why}", path.display())]
    Unsafe {
        /// What.
        path: PathBuf,
        /// How.
        why: String,
    },
}

/// Whether root looks at a folder that is another user's. Root does not run what lies there, and whom the gateway will run as is
/// somebody else: a service manager may have made the folder for him.
#[must_use]
pub fn is_of_another(settings: &CompileCache) -> bool {
    geteuid().is_root() && fs::symlink_metadata(&settings.folder).is_ok_and(|found| found.uid() != 0)
}

impl Cache {
    /// Takes a folder into use; makes it when it is not there, and its key with it.
    pub(super) fn open(settings: &CompileCache) -> Result<Self, CacheError> {
        let folder = settings.folder.clone();
        let failed = |source| CacheError::Io {
            path: folder.clone(),
            source,
        };
        match DirBuilder::new().mode(0o700).create(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => {}
        }
        // Not what a link leads to: whoever made the link could lead it elsewhere.
        let found = fs::symlink_metadata(&folder).map_err(failed)?;
        let refused = |why: String| CacheError::Unsafe {
            path: folder.clone(),
            why,
        };
        if !found.is_dir() {
            return Err(refused("this is no folder".to_owned()));
        }
        is_ours(&found).map_err(refused)?;
        let key = MacKey::new(&key(&folder)?);
        let cache = Self {
            folder,
            size: settings.size,
            key,
        };
        // What cannot be tidied up now is no reason not to use the rest.
        if let Err(error) = cache.make_room("") {
            tracing::warn!("{}: old files are not removed: {error}", cache.folder.display());
        }
        Ok(cache)
    }

    /// The compiled component with this digest, if it is there and holds up.
    pub(super) fn load(&self, engine: &Engine, digest: &[u8; 32]) -> Option<Component> {
        let name = Name::new(engine, digest);
        let path = self.folder.join(name.file());
        let bytes = match read(&path, MAX_FILE) {
            Ok(bytes) => bytes,
            Err(CacheError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!("a compiled component is not used, and compiled again: {error}");
                return None;
            }
        };
        let code = self.proven(&name, &bytes);
        let component = code.and_then(|code| {
            // SAFETY: these are bytes that `serialize` of this version of the engine has made, with these settings: the proof says
            // that the gateway wrote them, under the name of exactly these. Nobody else can have made it: the key lies in a folder that
            // nobody but this user, and root, may enter.
            #[allow(unsafe_code, reason = "machine code that this gateway compiled itself; see above")]
            let component = unsafe { Component::deserialize(engine, code) };
            component.ok()
        });
        if component.is_none() {
            tracing::warn!("{} is not what was written there: compiled again", path.display());
            let _ = fs::remove_file(&path);
        } else {
            // So that what is used stays when room is made.
            let _ = File::options()
                .write(true)
                .open(&path)
                .and_then(|file| file.set_modified(SystemTime::now()));
        }
        component
    }

    /// Keeps a compiled component. What has not been used for longest makes room for it.
    pub(super) fn store(&self, engine: &Engine, digest: &[u8; 32], component: &Component) {
        if let Err(error) = self.try_store(engine, digest, component) {
            tracing::warn!("a compiled component is not kept: {error}");
        }
    }

    fn try_store(&self, engine: &Engine, digest: &[u8; 32], component: &Component) -> io::Result<()> {
        let code = component.serialize().map_err(io::Error::other)?;
        if code.len() as u64 + (MAGIC.len() + MAC_TAG) as u64 > self.size.min(MAX_FILE) {
            return Ok(());
        }
        let name = Name::new(engine, digest);
        let tag = self.key.tag(&[name.0.as_slice(), &code]);
        // Written whole beside its place first: whoever reads it meanwhile sees the old one or none.
        let beside = self.folder.join(format!("{}{}", getpid().as_raw_nonzero(), BESIDE));
        let _ = fs::remove_file(&beside);
        let written = write_new(&beside, &[MAGIC, &tag, &code]);
        let renamed = written.and_then(|()| fs::rename(&beside, self.folder.join(name.file())));
        if renamed.is_err() {
            let _ = fs::remove_file(&beside);
        }
        renamed?;
        self.make_room(&name.file())
    }

    /// Drops files, those that were used longest ago first, until the rest fits; and what a gateway has begun to write that ended
    /// meanwhile.
    fn make_room(&self, newest: &str) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let ends_with = |end: &str| name.to_str().is_some_and(|name| name.ends_with(end));
            let is_begun = ends_with(BESIDE) || ends_with(KEY_BESIDE);
            if !is_begun && !ends_with(SUFFIX) {
                continue;
            }
            // Another gateway that shares the folder may take it away at any time.
            let Ok(found) = entry.metadata() else { continue };
            let changed = found.modified()?;
            if !is_begun {
                files.push((changed, found.len(), entry.path()));
            } else if changed.elapsed().is_ok_and(|age| age > ABANDONED) {
                let _ = fs::remove_file(entry.path());
            }
        }
        files.sort();
        let mut size: u64 = files.iter().map(|(_, size, _)| size).sum();
        for (_, bytes, path) in files {
            if size <= self.size {
                break;
            }
            if !path.ends_with(newest) {
                fs::remove_file(&path)?;
                size -= bytes;
            }
        }
        Ok(())
    }

    /// The code in a file, if the gateway wrote it under this name.
    fn proven<'a>(&self, name: &Name, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let rest = bytes.strip_prefix(MAGIC)?;
        let (tag, code) = rest.split_at_checked(MAC_TAG)?;
        self.key.is_tag(tag, &[name.0.as_slice(), code]).then_some(code)
    }
}

/// What a file is known by: the component, and what compiled it.
struct Name([u8; 32]);

impl Name {
    fn new(engine: &Engine, digest: &[u8; 32]) -> Self {
        let mut hasher = Sha256Hasher(Sha256::new());
        engine.precompile_compatibility_hash().hash(&mut hasher);
        hasher.write(digest);
        Self(hasher.0.finalize().into())
    }

    fn file(&self) -> String {
        let mut name = String::with_capacity(2 * self.0.len() + SUFFIX.len());
        for byte in self.0 {
            for digit in [byte >> 4, byte & 15] {
                name.extend(char::from_digit(u32::from(digit), 16));
            }
        }
        name + SUFFIX
    }
}

/// What wasmtime hashes, collected.
struct Sha256Hasher(Sha256);

impl Hasher for Sha256Hasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let hash = self.0.clone().finalize();
        hash.iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    }
}

/// The key of a folder, made when there is none.
fn key(folder: &Path) -> Result<[u8; MAC_KEY], CacheError> {
    let path = folder.join("key");
    let failed = |source| CacheError::Io {
        path: path.clone(),
        source,
    };
    for _ in 0..2 {
        match read(&path, MAC_KEY as u64) {
            Ok(bytes) => {
                return bytes.try_into().map_err(|_| CacheError::Unsafe {
                    path: path.clone(),
                    why: "this is no key of a cache: remove it, and another one is made".to_owned(),
                });
            }
            Err(CacheError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let key = MacKey::random().ok_or_else(|| failed(io::Error::other("there is no randomness")))?;
        let beside = folder.join(format!("{}{KEY_BESIDE}", getpid().as_raw_nonzero()));
        let _ = fs::remove_file(&beside);
        write_new(&beside, &[&key]).map_err(failed)?;
        // Of two gateways that start at once one has the say.
        let linked = fs::hard_link(&beside, &path);
        let _ = fs::remove_file(&beside);
        match linked {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => {}
        }
    }
    Err(failed(io::Error::other("the key is there and cannot be read")))
}

/// What each file begins with; another number for another way of writing them.
const MAGIC: &[u8] = b"gateway compiled component 1\n";
const SUFFIX: &str = ".code";
const BESIDE: &str = ".part";
const KEY_BESIDE: &str = ".key";

/// After so long nobody is writing a file any more: it takes a second, and minutes on the worst of disks.
const ABANDONED: Duration = Duration::from_secs(600);

/// Bytes of one file: the most machine code that is taken, and what stands in front of it.
const MAX_FILE: u64 = MAX_CODE + (MAGIC.len() + MAC_TAG) as u64;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::policy::guests::GUEST;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn settings(folder: &Path) -> CompileCache {
        CompileCache {
            folder: folder.to_owned(),
            size: 1 << 30,
        }
    }

    fn opened() -> (tempfile::TempDir, Cache, Engine, Component) {
        let temporary = tempfile::tempdir().unwrap();
        let cache = Cache::open(&settings(&temporary.path().join("cache"))).unwrap();
        let engine = Engine::default();
        let component = Component::from_binary(&engine, &GUEST.component()).unwrap();
        (temporary, cache, engine, component)
    }

    fn only_file(cache: &Cache) -> PathBuf {
        let files = fs::read_dir(&cache.folder).unwrap().map(|entry| entry.unwrap().path());
        let mut code = files.filter(|path| path.to_str().unwrap().ends_with(SUFFIX));
        let file = code.next().unwrap();
        assert!(code.next().is_none());
        file
    }

    #[test]
    fn what_was_kept_is_there_again_for_the_same_component_and_engine_only() {
        let (_folder, cache, engine, component) = opened();
        assert!(cache.load(&engine, &[1; 32]).is_none());
        cache.store(&engine, &[1; 32], &component);
        assert!(cache.load(&engine, &[1; 32]).is_some());
        assert!(cache.load(&engine, &[2; 32]).is_none());
        let other = Engine::new(wasmtime::Config::new().epoch_interruption(true)).unwrap();
        assert!(cache.load(&other, &[1; 32]).is_none());
        // Another process has the same key.
        let again = Cache::open(&settings(&cache.folder)).unwrap();
        assert!(again.load(&engine, &[1; 32]).is_some());
    }

    #[test]
    fn a_file_that_the_gateway_did_not_write_is_not_run() {
        let (_folder, cache, engine, component) = opened();
        cache.store(&engine, &[1; 32], &component);
        let file = only_file(&cache);
        let good = fs::read(&file).unwrap();
        let flip = |at: usize| {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            bytes
        };
        let raw = component.serialize().unwrap();
        let bad: [(&str, Vec<u8>); 7] = [
            ("empty", Vec::new()),
            ("cut", good[..good.len() - 1].to_vec()),
            ("another beginning", flip(0)),
            ("another proof", flip(MAGIC.len())),
            ("another first byte of code", flip(MAGIC.len() + MAC_TAG)),
            ("another last byte of code", flip(good.len() - 1)),
            ("code without a proof", raw.clone()),
        ];
        for (what, bytes) in bad {
            fs::write(&file, bytes).unwrap();
            assert!(cache.load(&engine, &[1; 32]).is_none(), "{what}");
            assert!(!file.exists(), "{what} is dropped");
            cache.store(&engine, &[1; 32], &component);
        }
        // The file of one component under the name of another.
        let name = Name::new(&engine, &[2; 32]).file();
        fs::copy(&file, cache.folder.join(name)).unwrap();
        assert!(cache.load(&engine, &[2; 32]).is_none());
        // Proven by another folder's key.
        let (_elsewhere, other, ..) = opened();
        other.store(&engine, &[1; 32], &component);
        fs::copy(only_file(&other), &file).unwrap();
        assert!(cache.load(&engine, &[1; 32]).is_none());
    }

    #[test]
    fn what_others_could_have_written_is_not_read() {
        let (folder, cache, engine, component) = opened();
        cache.store(&engine, &[1; 32], &component);
        let file = only_file(&cache);
        for mode in [0o620, 0o602, 0o640, 0o604] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            assert!(cache.load(&engine, &[1; 32]).is_none(), "{mode:o}");
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
            assert!(cache.load(&engine, &[1; 32]).is_some());
        }
        // A link to a file of ours is not the file.
        let moved = folder.path().join("moved");
        fs::rename(&file, &moved).unwrap();
        symlink(&moved, &file).unwrap();
        assert!(cache.load(&engine, &[1; 32]).is_none());

        for mode in [0o770, 0o707, 0o750, 0o705] {
            fs::set_permissions(&cache.folder, fs::Permissions::from_mode(mode)).unwrap();
            let refused = Cache::open(&settings(&cache.folder)).err().unwrap().to_string();
            assert!(refused.contains("others than its owner"), "{refused}");
        }
        fs::set_permissions(&cache.folder, fs::Permissions::from_mode(0o700)).unwrap();
        let link = folder.path().join("link");
        symlink(&cache.folder, &link).unwrap();
        assert!(Cache::open(&settings(&link)).is_err());
        // A key that others may read is no secret.
        let key = cache.folder.join("key");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Cache::open(&settings(&cache.folder)).is_err());
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&key, "short").unwrap();
        assert!(Cache::open(&settings(&cache.folder)).is_err());
    }

    #[test]
    fn what_was_used_longest_ago_makes_room() {
        let (_folder, mut cache, engine, component) = opened();
        cache.store(&engine, &[1; 32], &component);
        let size = fs::metadata(only_file(&cache)).unwrap().len();
        cache.size = 2 * size + size / 2;
        let age = |digest: u8, seconds: u64| {
            let path = cache.folder.join(Name::new(&engine, &[digest; 32]).file());
            let then = SystemTime::now() - Duration::from_secs(seconds);
            File::options()
                .write(true)
                .open(path)
                .unwrap()
                .set_modified(then)
                .unwrap();
        };
        age(1, 100);
        cache.store(&engine, &[2; 32], &component);
        age(2, 200);
        // The second is older, but was used since.
        assert!(cache.load(&engine, &[2; 32]).is_some());
        cache.store(&engine, &[3; 32], &component);
        let has = |digest: u8| cache.load(&engine, &[digest; 32]).is_some();
        assert_eq!([has(1), has(2), has(3)], [false, true, true]);
        // What is larger than all that may be kept is not kept.
        cache.size = size / 2;
        cache.store(&engine, &[4; 32], &component);
        assert!(!cache.folder.join(Name::new(&engine, &[4; 32]).file()).exists());
    }

    #[test]
    fn what_was_begun_and_left_is_removed_and_what_is_being_written_is_not() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().join("cache");
        drop(Cache::open(&settings(&folder)).unwrap());
        let begun = |name: &str, age: u64| {
            let file = File::create(folder.join(name)).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        };
        begun("1.part", 7200);
        begun("1.key", 7200);
        begun("2.part", 1);
        begun("mine", 7200);
        Cache::open(&settings(&folder)).unwrap();
        let mut left: Vec<_> = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["2.part", "key", "mine"]);
    }
}
