//! Watching files and reading them again when they change, on a thread of its own.
//!
//! What the kernel tells (inotify) only says when to look: what has changed is found by the files' stamps. So it does not
//! matter how a file is replaced: written over, renamed into its place, or reached by a link that points elsewhere now (as
//! certbot and Kubernetes do). File systems that tell nothing (NFS) are looked at once a minute.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tracing::warn;

use super::Stamp;

/// Something that is made of files.
pub trait Watched: Send + Sync {
    /// All files that it is made of or may come to be.
    fn paths(&self) -> Vec<PathBuf>;

    /// Looks at them again, and takes up what has changed. Called now and then, whether anything has changed or not.
    fn refresh(&self);
}

/// Watches until it is dropped.
#[derive(Debug)]
pub struct Watcher {
    news: SyncSender<News>,
    ended: Arc<AtomicBool>,
}

/// Wakes the thread: something may have changed, or it is to end.
struct News;

impl Watcher {
    /// Starts watching; none when there is nothing to watch, or no thread for it.
    pub fn start(mut watched: Vec<Arc<dyn Watched>>) -> Option<Self> {
        // TLS to a server may have no file at all.
        watched.retain(|one| !one.paths().is_empty());
        let all = watched.len();
        watched.retain(|one| one.paths().iter().any(|path| Stamp::of(path).is_some()));
        if watched.len() < all {
            warn!("files of certificates are not there any more, as after `chroot`: their changes are not seen");
        }
        if watched.is_empty() {
            return None;
        }
        // One says all that more would say.
        let (news, incoming) = sync_channel(1);
        let ended = Arc::<AtomicBool>::default();
        let this = Self {
            news: news.clone(),
            ended: Arc::clone(&ended),
        };
        let started = std::thread::Builder::new()
            .name("certificates".to_owned())
            .spawn(move || run(&watched, &incoming, news, &ended));
        match started {
            Ok(_) => Some(this),
            Err(error) => {
                warn!(%error, "files of certificates are not watched; a reload reads them again");
                None
            }
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // One that it has not taken yet wakes it as well.
        let _ = self.news.try_send(News);
    }
}

fn run(watched: &[Arc<dyn Watched>], incoming: &Receiver<News>, news: SyncSender<News>, ended: &AtomicBool) {
    let mut kernel = Kernel::new(news);
    while !ended.load(Ordering::Relaxed) {
        // Watched first, looked at then: what changes in between is seen.
        kernel.watch(watched.iter().flat_map(|one| one.paths()));
        watched.iter().for_each(|one| one.refresh());
        match incoming.recv_timeout(LOOK) {
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {}
            // A certificate and its key come one after the other: until they have, they do not go together.
            Ok(News) => {
                let latest = Instant::now() + PATIENCE;
                while Instant::now() < latest && !ended.load(Ordering::Relaxed) {
                    if incoming.recv_timeout(QUIET).is_err() {
                        break;
                    }
                }
            }
        }
    }
}

/// What the kernel has been asked to tell.
struct Kernel {
    watcher: Option<RecommendedWatcher>,
    /// Which folder it was, as another one may come in its place.
    folders: HashMap<PathBuf, (u64, u64)>,
}

impl Kernel {
    fn new(news: SyncSender<News>) -> Self {
        let tell = move |event: notify::Result<notify::Event>| {
            let is_news = event.is_ok_and(|event| match event.kind {
                // Reading is none; having written is. A log in the folder is written all the time.
                EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
                EventKind::Modify(ModifyKind::Data(_)) => false,
                _ => true,
            });
            if is_news {
                // One that is not taken in yet says the same.
                let _ = news.try_send(News);
            }
        };
        let watcher = notify::recommended_watcher(tell);
        Self {
            watcher: watcher.inspect_err(say_so).ok(),
            folders: HashMap::new(),
        }
    }

    /// Watches the folders that these files are in, and no others any more.
    fn watch(&mut self, paths: impl Iterator<Item = PathBuf>) {
        let Some(watcher) = &mut self.watcher else { return };
        let mut found = HashSet::new();
        paths.for_each(|path| folders(&path, &mut found));
        let mut wanted = HashMap::with_capacity(found.len());
        for folder in found {
            // What is not there is looked for again at the next look.
            if let Ok(is) = std::fs::metadata(&folder) {
                wanted.insert(folder, (is.dev(), is.ino()));
            }
        }
        self.folders.retain(|folder, is| {
            let stays = wanted.get(folder) == Some(is);
            if !stays {
                let _ = watcher.unwatch(folder);
            }
            stays
        });
        for (folder, is) in wanted {
            if self.folders.contains_key(&folder) {
                continue;
            }
            match watcher.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.folders.insert(folder, is);
                }
                Err(error) if is_absent(&error) => {}
                Err(error) => {
                    say_so(&error);
                    self.watcher = None;
                    return;
                }
            }
        }
    }
}

fn is_absent(error: &notify::Error) -> bool {
    match &error.kind {
        notify::ErrorKind::PathNotFound => true,
        notify::ErrorKind::Io(error) => {
            matches!(
                error.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied
            )
        }
        _ => false,
    }
}

fn say_so(error: &notify::Error) {
    warn!(%error, "the kernel does not tell when files of certificates change: they are looked at every {LOOK:?}");
}

/// The folders in which something happens when the file at `path` becomes another one: its own, and those of every link on
/// the way to it.
fn folders(path: &Path, found: &mut HashSet<PathBuf>) {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        for part in path.ancestors().skip(1) {
            if let Some(above) = part.parent()
                && part.is_symlink()
            {
                found.insert(plainly(above));
            }
        }
        let Some(folder) = path.parent() else { return };
        found.insert(plainly(folder));
        match path.read_link() {
            Ok(target) => path = folder.join(target),
            Err(_) => return,
        }
    }
}

/// A folder under the one name that leads through no link: a link that points elsewhere later is another folder then.
fn plainly(folder: &Path) -> PathBuf {
    let folder = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    folder.canonicalize().unwrap_or_else(|_| folder.to_owned())
}

/// How often files are looked at that nothing has been told of; expiry, too, is noticed then.
const LOOK: Duration = Duration::from_secs(60);
/// After a change, how long nothing has to happen before files are looked at.
const QUIET: Duration = Duration::from_millis(200);
/// And how long that is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// As the kernel follows them.
const MOST_LINKS: usize = 40;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn every_folder_on_the_way_is_watched() {
        let root = tempfile::tempdir().unwrap();
        let root = &root.path().canonicalize().unwrap();
        for folder in ["live", "..2026"] {
            std::fs::create_dir(root.join(folder)).unwrap();
        }
        std::fs::write(root.join("..2026/tls.crt"), "").unwrap();
        symlink("..2026", root.join("..data")).unwrap();
        symlink("../..data/tls.crt", root.join("live/tls.crt")).unwrap();
        let mut found = HashSet::new();
        folders(&root.join("live/tls.crt"), &mut found);
        // Its own, the one in which the other link is swapped, and the one that it leads to.
        for folder in ["live", "", "..2026"] {
            assert!(
                found.contains(&root.join(folder).canonicalize().unwrap()),
                "{folder}: {found:?}"
            );
        }
    }
}
