//! Process-wide settings.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use miette::SourceSpan;

use super::{At, Origin, Tracing};

/// `process { … }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// `workers 4`: worker threads; none means one per CPU that the process may use.
    pub workers: Option<NonZeroUsize>,
    /// `max-connections 50000`: client connections over all frontends; beyond it, accepting pauses.
    pub max_connections: usize,
    /// Where that stands; nowhere for the default.
    pub max_connections_at: Option<SourceSpan>,
    /// `user "nobody"`: whom the process runs as once it has opened everything.
    pub user: Option<At<String>>,
    /// `group "nogroup"`: its group; the user's own when nothing is said.
    pub group: Option<At<String>>,
    /// `chroot "/var/lib/gateway"`: all that it sees of the file system then.
    pub chroot: Option<At<PathBuf>>,
    /// `pid-file "/run/gateway.pid"`: where its number is written.
    pub pid_file: Option<At<PathBuf>>,
    /// `log "stdout" format="json"`: where access and event lines go.
    pub log: Log,
    /// `log "udp://10.0.0.9:514" name="audit"`: where lines of frontends go that name it.
    pub named_logs: Vec<NamedLog>,
    /// `tracing "http://127.0.0.1:4318"`: where spans go; nowhere unless said.
    pub tracing: Option<Tracing>,
    /// `policy memory="…" instances=… answers=…`: the pool that component instances come from.
    pub policy: PolicyPool,
    /// `compile-cache "/var/cache/gateway" size="256MiB"`: where compiled components are kept; nowhere unless said.
    pub compile_cache: Option<CompileCache>,
    /// `rate-limit-table entries=…`: how many token buckets are remembered at most.
    pub max_buckets: usize,
    /// `admin "/run/gateway/admin.sock"`: where operators are heard; nowhere unless said.
    pub admin: Option<AdminSocket>,
    /// `drain-timeout "30s"`: how long connections may go on after the signal to end.
    pub drain_timeout: Duration,
}

impl Process {
    /// How many workers there are.
    #[must_use]
    pub fn worker_threads(&self) -> usize {
        match self.workers {
            Some(workers) => workers.get(),
            None => std::thread::available_parallelism().map_or(1, usize::from),
        }
    }

    /// How many threads call heavy and slow plugins.
    #[must_use]
    pub fn heavy_threads(&self) -> usize {
        let said = self.policy.heavy_threads;
        said.unwrap_or_else(|| self.worker_threads().min(MOST_HEAVY_THREADS))
    }
}

/// Unless more are said. They stand behind the workers and take nothing that these want, so that there are as many: who is found to
/// be slow loses no CPU by it. But each has instances of its own, and so many have the work of most machines.
const MOST_HEAVY_THREADS: usize = 16;

/// `log "udp://10.0.0.9:514" name="audit"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedLog {
    /// Its name, unique among logs.
    pub name: Arc<str>,
    /// Where to, and how.
    pub log: Log,
}

/// One of the logs that a frontend's lines go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogTo {
    /// The process's own.
    Process,
    /// By position in [`Process::named_logs`].
    Named(usize),
}

/// `log "stdout" format="text"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Where lines go.
    pub target: LogTarget,
    /// How they look.
    pub format: LogFormat,
    /// Where it stands; nowhere when nothing was said.
    pub origin: Option<Origin>,
}

/// `admin "/run/gateway/admin.sock" mode="660" level="operator"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminSocket {
    /// The socket's path.
    pub path: PathBuf,
    /// Its permissions, as of a file.
    pub mode: u32,
    /// What may be done there.
    pub level: AdminLevel,
    /// Where it stands; none where that does not matter.
    pub origin: Option<Origin>,
}

/// What may be done on an admin socket, each with all that is before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AdminLevel {
    /// Look.
    User,
    /// Change servers' weights and states.
    Operator,
    /// End sessions.
    Admin,
}

/// Where log lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, appended to.
    File(PathBuf),
    /// A syslog server.
    Syslog {
        /// Where it is.
        server: SyslogServer,
        /// What lines are filed under.
        facility: Facility,
        /// `syslog=`: what stands before each line; by where it goes unless said.
        header: SyslogHeader,
    },
}

/// How a syslog message begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyslogHeader {
    /// `<134>1 2026-02-06T12:14:14.655Z host gateway 4711 - - `.
    Rfc5424,
    /// `<134>Feb  6 12:14:14 host gateway[4711]: `, and without the host where the server is on this machine, as syslog(3)
    /// writes it: that is what journald and rsyslog read there.
    Rfc3164,
}

/// Where a syslog server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyslogServer {
    /// `/dev/log` or `unix://PATH`: a datagram socket on this machine.
    Unix(PathBuf),
    /// `udp://IP:PORT`: datagrams.
    Udp(SocketAddr),
    /// `tcp://IP:PORT`: a stream, with octet counting (RFC 6587).
    Tcp(SocketAddr),
}

impl fmt::Display for SyslogServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Udp(address) => write!(f, "udp://{address}"),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

/// The facilities of RFC 5424, section 6.2.1, under HAProxy's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "their names say all there is to say")]
pub enum Facility {
    Kern = 0,
    User = 1,
    Mail = 2,
    Daemon = 3,
    Auth = 4,
    Syslog = 5,
    Lpr = 6,
    News = 7,
    Uucp = 8,
    Cron = 9,
    Auth2 = 10,
    Ftp = 11,
    Ntp = 12,
    Audit = 13,
    Alert = 14,
    Cron2 = 15,
    Local0 = 16,
    Local1 = 17,
    Local2 = 18,
    Local3 = 19,
    Local4 = 20,
    Local5 = 21,
    Local6 = 22,
    Local7 = 23,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One line of text, fields in HAProxy's order.
    Text,
    /// One JSON object a line.
    Json,
}

/// Bounds of the pool that component instances come from, over all workers, and of what is remembered of their answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyPool {
    /// Component instances alive at once.
    pub instances: u32,
    /// Linear memory an instance may have at most, in bytes; a plugin's own `limit memory=` may only be smaller.
    pub memory: u64,
    /// Linear memory that all instances of plugins may have together, in bytes; those of one plugin or tenant may have half of it.
    pub total_memory: u64,
    /// Bytes of the gateway's own memory that are held for plugins; likewise.
    pub host_memory: u64,
    /// Answers remembered of a component that can only say the same again, for each worker and place.
    pub answers: usize,
    /// Threads that call heavy and slow plugins, beside the workers; as many as there are workers when nothing is said.
    pub heavy_threads: Option<usize>,
    /// CPU time that a call of a plugin may take before its later ones are made beside the workers.
    pub slow_call: Duration,
    /// CPU time of one call of a plugin at most; a plugin's own `limit cpu=` may only be smaller.
    pub cpu: Duration,
    /// What it may take to compile a component.
    pub compile: CompileLimits,
}

/// `policy compile-cpu="1m" compile-memory="1GiB"`: what it may take to compile one component that is not of the gateway's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompileLimits {
    /// CPU time, in whole seconds.
    pub cpu: Duration,
    /// Bytes.
    pub memory: u64,
}

impl CompileLimits {
    /// A component with an interpreter of JavaScript or Python in it, of 12 to 18 MB, takes some 15 s and 500 MiB: a slower
    /// machine, and a bigger one, have room.
    pub const DEFAULT: Self = Self {
        cpu: Duration::from_secs(60),
        memory: 1 << 30,
    };
}

/// `compile-cache "/var/cache/gateway" size="256MiB"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompileCache {
    /// The folder.
    pub folder: PathBuf,
    /// Bytes in it at most.
    pub size: u64,
}
