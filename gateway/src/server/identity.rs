//! Whom the gateway runs as, and what it sees of the file system: `process { user "…" group="…"; chroot "…" }`.
//!
//! Given up after everything that needs it has been opened (sockets, log, certificates, components) and before any worker
//! runs. What is opened later has to be possible then: a reload reads the configuration and what it names, and opens new
//! sockets; a log socket that was made anew is found under its path.

use std::path::{Path, PathBuf};

use miette::SourceSpan;
use nix::errno::Errno;
use nix::unistd::{
    Gid, Group, Uid, User, chdir, chroot, getegid, geteuid, getresgid, getresuid, setgid, setgroups, setuid,
};

use crate::config::{At, Bind, Code, ConfigError, Process};
use crate::unix_socket::Access;

/// What the process becomes.
#[derive(Debug)]
pub(super) struct Identity {
    ids: Option<(Uid, Gid)>,
    root: Option<PathBuf>,
}

/// A step that the system refused.
#[derive(Debug, thiserror::Error)]
#[error("cannot give up root: {step}: {source}")]
pub struct IdentityError {
    step: &'static str,
    source: Errno,
}

impl Identity {
    /// What `process` says, as this machine has it: names looked up, folders looked at. With all that is wrong.
    pub(super) fn of(process: &Process) -> Result<Self, Vec<ConfigError>> {
        let mut errors = Vec::new();
        let user = process.user.as_ref().map(find_user).transpose();
        let user = user.map_err(|error| errors.push(error)).ok().flatten();
        let group = process.group.as_ref().map(find_group).transpose();
        let group = group.map_err(|error| errors.push(error)).ok().flatten();
        let root = process.chroot.as_ref();
        if let Some(root) = root
            && !root.value.is_dir()
        {
            let message = format!("{} is not a folder", root.value.display());
            let error = ConfigError::new(Code::System, message).label(root.span, "there is no such folder");
            errors.push(error.help("make an empty folder that root owns, as /var/lib/gateway"));
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Self {
            ids: user.map(|(uid, gid)| (uid, group.unwrap_or(gid))),
            // Its name without links tells which files lie in it.
            root: root.map(|root| root.value.canonicalize().unwrap_or_else(|_| root.value.clone())),
        })
    }

    /// The folder that is the root of the file system once this is [assumed](Self::assume), named without links.
    pub(super) fn root(&self) -> Option<&Path> {
        self.root.as_deref()
    }

    /// Whether this process may become that. Which it may is not seen by `gateway check`: it seldom runs as root.
    pub(super) fn is_possible(&self, process: &Process) -> Result<(), ConfigError> {
        if self.is_reached() || geteuid().is_root() {
            return Ok(());
        }
        let (what, span): (_, SourceSpan) = match (&process.chroot, &process.user) {
            (Some(root), _) => ("chroot", root.span),
            (None, Some(user)) => ("user", user.span),
            (None, None) => return Ok(()),
        };
        let error = ConfigError::new(
            Code::System,
            format!("`{what}` needs root, and the gateway was not started as root"),
        );
        Err(error
            .label(span, "cannot be done")
            .help("start it as root, or leave this to the service manager: User= and RootDirectory= of systemd"))
    }

    /// Becomes it: chroot → setgid → setgroups → setuid, for all threads, and makes sure that there is no way back.
    pub(super) fn assume(&self) -> Result<(), IdentityError> {
        if self.is_reached() {
            return Ok(());
        }
        let failed = |step| move |source| IdentityError { step, source };
        if let Some(root) = &self.root {
            chroot(root).map_err(failed("chroot"))?;
            // What lies outside could be reached through the folder that one is in.
            chdir("/").map_err(failed("chdir"))?;
        }
        let Some((uid, gid)) = self.ids else { return Ok(()) };
        setgid(gid).map_err(failed("setgid"))?;
        setgroups(&[]).map_err(failed("setgroups"))?;
        setuid(uid).map_err(failed("setuid"))?;
        let (users, groups) = (
            getresuid().map_err(failed("getresuid"))?,
            getresgid().map_err(failed("getresgid"))?,
        );
        let changed = [users.real, users.effective, users.saved].iter().all(|id| *id == uid)
            && [groups.real, groups.effective, groups.saved]
                .iter()
                .all(|id| *id == gid);
        if !changed || setuid(Uid::from_raw(0)).is_ok() {
            return Err(failed("it is still root")(Errno::EPERM));
        }
        Ok(())
    }

    /// Whether there is nothing to do, as under a service manager that has done it.
    fn is_reached(&self) -> bool {
        self.root.is_none() && self.ids.is_none_or(|(uid, gid)| uid == geteuid() && gid == getegid())
    }
}

/// Who may connect to a bind that is a UNIX socket, with the numbers that users and groups have on this machine.
pub(super) fn access(bind: &Bind) -> Result<Access, ConfigError> {
    Ok(Access {
        mode: bind.access.mode,
        user: bind
            .access
            .user
            .as_ref()
            .map(known_user)
            .transpose()?
            .map(|user| user.uid.as_raw()),
        group: bind.access.group.as_ref().map(find_group).transpose()?.map(Gid::as_raw),
    })
}

/// A user by name or number.
fn known_user(user: &At<String>) -> Result<User, ConfigError> {
    let known = match user.value.parse() {
        Ok(number) => User::from_uid(Uid::from_raw(number)),
        Err(_) => User::from_name(&user.value),
    };
    known.ok().flatten().ok_or_else(|| {
        let error = ConfigError::new(Code::System, format!("there is no user {:?}", user.value));
        error
            .label(user.span, "this machine does not know it")
            .help("make it, as with `useradd --system gateway`, or name another one")
    })
}

/// Whom the gateway may run as: its id and its group.
fn find_user(user: &At<String>) -> Result<(Uid, Gid), ConfigError> {
    let known = known_user(user)?;
    if known.uid.is_root() {
        let error = ConfigError::new(Code::System, format!("user {:?} is root", user.value));
        return Err(error
            .label(user.span, "gives nothing up")
            .help("name a user that may do nothing special"));
    }
    Ok((known.uid, known.gid))
}

fn find_group(group: &At<String>) -> Result<Gid, ConfigError> {
    let known = match group.value.parse() {
        Ok(number) => Group::from_gid(Gid::from_raw(number)),
        Err(_) => Group::from_name(&group.value),
    };
    match known {
        Ok(Some(known)) => Ok(known.gid),
        _ => {
            let error = ConfigError::new(Code::System, format!("there is no group {:?}", group.value));
            Err(error
                .label(group.span, "this machine does not know it")
                .help("make it, as with `groupadd --system gateway`, or leave it out: the user's own is taken"))
        }
    }
}
