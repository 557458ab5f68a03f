//! `process { … }`.

mod log;
mod uses;

use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::plugin_limits::{CPU, MAX_CPU, TOTAL_MEMORY};
use super::settings::{MAX_CONNECTIONS, TIMEOUT_RANGE};
use super::{elsewhere, or_none};
use crate::address::MOST_LISTENING_PATH;
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{
    AdminLevel, AdminSocket, CompileCache, CompileLimits, Log, LogFormat, LogTarget, PolicyPool, Process,
};
use crate::config::reader::{At, Block, Node, Value};
use crate::config::units;
use log::read_logs;
pub(super) use uses::{Said, Uses};

impl Default for Process {
    fn default() -> Self {
        Self {
            workers: None,
            max_connections: DEFAULT_MAX_CONNECTIONS,
            max_connections_at: None,
            user: None,
            group: None,
            chroot: None,
            pid_file: None,
            log: Log {
                target: LogTarget::Stdout,
                format: LogFormat::Text,
                origin: None,
            },
            named_logs: Vec::new(),
            tracing: None,
            policy: PolicyPool {
                instances: DEFAULT_INSTANCES,
                memory: DEFAULT_INSTANCE_MEMORY,
                total_memory: DEFAULT_TOTAL_MEMORY,
                host_memory: DEFAULT_HOST_MEMORY,
                answers: DEFAULT_ANSWERS,
                heavy_threads: None,
                slow_call: DEFAULT_SLOW_CALL,
                compile: CompileLimits::DEFAULT,
                cpu: MAX_CPU,
            },
            compile_cache: None,
            max_buckets: DEFAULT_MAX_BUCKETS,
            admin: None,
            drain_timeout: DEFAULT_DRAIN_TIMEOUT,
        }
    }
}

/// The process-wide settings; the defaults when nothing is said.
pub(super) fn process(node: Option<Node<'_>>) -> (Option<Process>, Said) {
    let mut said = Said::default();
    let process = match node {
        Some(node) => read(node, &mut said),
        None => Some(Process::default()),
    };
    (process, said)
}

fn read(mut node: Node<'_>, said: &mut Said) -> Option<Process> {
    let mut process = Process::default();
    let block = node.required_block();
    node.finish();
    let mut block = block?;
    if let Some(mut node) = block.one("workers") {
        let value = node
            .argument("a number of workers")
            .and_then(|value| value.integer(WORKERS));
        process.workers = value.and_then(|value| NonZeroUsize::new(usize::try_from(value).ok()?));
        node.finish();
    }
    if let Some(mut node) = block.one("max-connections") {
        let value = node.argument("a number of connections").and_then(|value| {
            process.max_connections_at = Some(value.span());
            value.integer(MAX_CONNECTIONS)
        });
        set(
            &mut process.max_connections,
            value.and_then(|value| usize::try_from(value).ok()),
        );
        node.finish();
    }
    identity(&mut process, &mut block);
    if let Some(mut node) = block.one("pid-file") {
        process.pid_file = node.argument("the file's path").and_then(|value| path(&value));
        node.finish();
    }
    read_logs(&mut process, block.many("log"));
    if let Some(node) = block.one("tracing") {
        said.tracing = Some(node.span());
        process.tracing = super::tracing::tracing(node);
    }
    if let Some(mut node) = block.one("policy") {
        said.policy = Some(node.span());
        node.require_entries();
        let instances = node.property("instances").and_then(|value| value.integer(INSTANCES));
        set(
            &mut process.policy.instances,
            instances.and_then(|value| u32::try_from(value).ok()),
        );
        set(
            &mut process.policy.memory,
            node.property("memory").and_then(|value| value.size(INSTANCE_MEMORY)),
        );
        let cpu = node.property("cpu").and_then(|value| value.duration(CPU));
        set(&mut process.policy.cpu, cpu);
        let answers = node.property("answers").and_then(|value| value.integer(ANSWERS));
        set(
            &mut process.policy.answers,
            answers.and_then(|value| usize::try_from(value).ok()),
        );
        let threads = node.property("heavy-threads");
        let slow_call = node.property("slow-call");
        let total_memory = node.property("total-memory");
        let host_memory = node.property("host-memory");
        said.beside =
            [&threads, &slow_call, &total_memory, &host_memory].map(|value| value.as_ref().map(|value| value.span()));
        set(
            &mut process.policy.host_memory,
            host_memory.and_then(|value| value.size(HOST_MEMORY)),
        );
        set(
            &mut process.policy.slow_call,
            slow_call.and_then(|value| value.duration(SLOW_CALL)),
        );
        let least = process.policy.memory.saturating_mul(2);
        process.policy.total_memory = match total_memory {
            None => DEFAULT_TOTAL_MEMORY.max(least),
            Some(value) => match value.size(TOTAL_MEMORY) {
                Some(bytes) if bytes < least => {
                    value.fail::<()>(
                        "`total-memory` is less than two instances may have",
                        "no plugin could have what `memory=` gives one",
                        format!(
                            "a plugin may have half of it: write {} or more",
                            units::show_size(least)
                        ),
                    );
                    bytes
                }
                Some(bytes) => bytes,
                None => DEFAULT_TOTAL_MEMORY,
            },
        };
        let threads = threads.and_then(|value| value.integer(HEAVY_THREADS));
        process.policy.heavy_threads = threads.and_then(|value| usize::try_from(value).ok());
        let compile = &mut process.policy.compile;
        set(
            &mut compile.cpu,
            node.property("compile-cpu")
                .and_then(|value| value.duration(COMPILE_CPU)),
        );
        set(
            &mut compile.memory,
            node.property("compile-memory")
                .and_then(|value| value.size(COMPILE_MEMORY)),
        );
        node.finish();
    }
    if let Some(mut node) = block.one("compile-cache") {
        said.compile_cache = Some(node.span());
        let folder = node.argument("the folder's path").and_then(|value| path(&value));
        let size = node.property("size").map(|value| value.size(CACHE_SIZE));
        process.compile_cache = folder.map(|folder| CompileCache {
            folder: folder.value,
            size: size.flatten().unwrap_or(DEFAULT_CACHE_SIZE),
        });
        node.finish();
    }
    if let Some(mut node) = block.one("rate-limit-table") {
        said.rate_limit_table = Some(node.span());
        let entries = node.required_property("entries");
        let entries = entries.and_then(|value| value.integer(MAX_BUCKETS));
        set(
            &mut process.max_buckets,
            entries.and_then(|value| usize::try_from(value).ok()),
        );
        node.finish();
    }
    if let Some(node) = block.one("admin") {
        process.admin = admin(node);
    }
    if let Some(mut node) = block.one("drain-timeout") {
        let value = node
            .argument("a duration")
            .and_then(|value| value.duration(TIMEOUT_RANGE));
        set(&mut process.drain_timeout, value);
        node.finish();
    }
    block.finish(elsewhere);
    Some(process)
}

/// Where operators are heard.
fn admin(mut node: Node<'_>) -> Option<AdminSocket> {
    let origin = Some(node.origin());
    let path = node.argument("the socket's path").and_then(|value| socket_path(&value));
    let mode = node.property("mode").map(|value| socket_mode(&value));
    let level = node.property("level").map(|value| value.choice(ADMIN_LEVELS));
    node.finish();
    Some(AdminSocket {
        path: path?,
        mode: or_none(mode)?.unwrap_or(DEFAULT_SOCKET_MODE),
        level: or_none(level)?.unwrap_or(DEFAULT_ADMIN_LEVEL),
        origin,
    })
}

/// Who may connect to a UNIX socket, as for `chmod`.
pub(super) fn socket_mode(value: &Value<'_>) -> Option<u32> {
    let mode = u32::from_str_radix(value.text()?, 8).ok().filter(|mode| *mode <= 0o777);
    mode.or_else(|| {
        value.fail(
            "the mode is not one of a file",
            "three octal digits",
            "write it as for chmod: mode=\"660\"",
        )
    })
}

fn socket_path(value: &Value<'_>) -> Option<PathBuf> {
    let text = value.text()?;
    if !text.contains('/') || text.ends_with('/') {
        return value.fail(
            "an admin socket is a path with a slash in it, and not a folder",
            "not a path of a socket",
            "write it as \"/run/gateway/admin.sock\"",
        );
    }
    let path = value.context().path(text);
    if path.as_os_str().len() > MOST_LISTENING_PATH {
        return value.fail(
            "the system does not know sockets with so long a path",
            format!("longer than {MOST_LISTENING_PATH} bytes with its folder"),
            "use a shorter one, as \"/run/gateway/admin.sock\"",
        );
    }
    Some(path)
}

fn set<T>(slot: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *slot = value;
    }
}

/// `user "…" group="…"` and `chroot "…"`.
fn identity(process: &mut Process, block: &mut Block<'_>) {
    let user = block.one("user");
    let has_user = user.is_some();
    if let Some(mut node) = user {
        let user = node.argument("the user's name");
        process.user = user.and_then(|value| Some(value.at(value.name()?.to_owned())));
        let group = node.property("group");
        process.group = group.and_then(|value| Some(value.at(value.name()?.to_owned())));
        node.finish();
    }
    if let Some(mut node) = block.one("chroot") {
        let span = node.span();
        process.chroot = node.argument("the folder's path").and_then(|value| path(&value));
        if !has_user {
            let error = ConfigError::new(Code::Conflict, "`chroot` keeps nobody in without `user`");
            let error = error.label(span, "root can walk out");
            node.fail(error.help("write whom the gateway is to run as: user \"gateway\""));
        }
        node.finish();
    }
}

fn path(value: &Value<'_>) -> Option<At<PathBuf>> {
    let text = value.text()?;
    Some(value.at(value.context().path(text)))
}

/// Two file descriptors a connection (client and server) stay well below the 65,536 that service managers commonly give.
pub const DEFAULT_MAX_CONNECTIONS: usize = 20_000;
/// Warm instances: a slot per worker and attached component, and some that are being replaced. They are reserved address
/// space, not memory, so plenty costs little.
const DEFAULT_INSTANCES: u32 = 1_000;
/// What a plugin that parses and matches needs many times over.
pub const DEFAULT_INSTANCE_MEMORY: u64 = 16 << 20;

/// With answers of a kilobyte, 64 KiB for each worker and place; with usual ones, a tenth of that. What comes often enough to be
/// worth remembering has room among so many.
const DEFAULT_ANSWERS: usize = 64;
/// As many instances of small plugins (1.1 MiB) as a plugin may have by `instances=`, for two of them, or 128 that have all of their
/// 16 MiB: more than any configuration that we know has at once, and what a machine with some gigabytes can spare.
const DEFAULT_TOTAL_MEMORY: u64 = 2 << 30;
/// Half of it are 256 of the longest replies or bodies, none of which anybody takes.
const DEFAULT_HOST_MEMORY: u64 = 512 << 20;
/// Half of the least is what one call may have the gateway copy.
const HOST_MEMORY: RangeInclusive<u64> = 4 << 20..=1 << 40;
/// A hundred times what a call of a usual plugin takes, a fraction of what anybody notices, and what neighbours wait for
/// now and then.
const DEFAULT_SLOW_CALL: Duration = Duration::from_micros(250);
/// The shortest is what it takes to hand a call over; none may take longer than the longest.
const SLOW_CALL: RangeInclusive<Duration> = Duration::from_micros(20)..=MAX_CPU;
/// More than any machine has CPUs only wait for each other.
const HEAVY_THREADS: RangeInclusive<u64> = 1..=1_024;
/// The system counts whole seconds of it.
const COMPILE_CPU: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
const COMPILE_MEMORY: RangeInclusive<u64> = 64 << 20..=1 << 40;

/// A component of some hundred kilobytes becomes about a megabyte of machine code: hundreds of them.
const DEFAULT_CACHE_SIZE: u64 = 256 << 20;
const CACHE_SIZE: RangeInclusive<u64> = 1 << 20..=1 << 40;
/// A bucket with its key takes about 150 bytes: 40 MB when full.
const DEFAULT_MAX_BUCKETS: usize = 262_144;
/// Most requests are over by then, and service managers commonly wait 90 s before they use force.
const DEFAULT_DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// The gateway's own user, unless more are let in: who may reach the admin socket may take servers out of service.
pub(super) const DEFAULT_SOCKET_MODE: u32 = 0o600;
/// As HAProxy's.
const DEFAULT_ADMIN_LEVEL: AdminLevel = AdminLevel::Operator;
const ADMIN_LEVELS: &[(&str, AdminLevel)] = &[
    ("user", AdminLevel::User),
    ("operator", AdminLevel::Operator),
    ("admin", AdminLevel::Admin),
];
/// More workers than any machine has CPUs only wait for each other.
const WORKERS: RangeInclusive<u64> = 1..=1_024;
const INSTANCES: RangeInclusive<u64> = 1..=100_000;
/// What the components that come with the gateway need, to all that 32 bits can address.
const INSTANCE_MEMORY: RangeInclusive<u64> = 4 << 20..=4 << 30;

/// Each seat has 16 bytes, whether there is an answer in it or not.
const ANSWERS: RangeInclusive<u64> = 0..=65_536;
const MAX_BUCKETS: RangeInclusive<u64> = 1_000..=100_000_000;
