//! `process { … }`.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use miette::SourceSpan;

use super::names::declared_twice;
use super::plugin_limits::{CPU, MAX_CPU, TOTAL_MEMORY};
use super::settings::{MAX_CONNECTIONS, TIMEOUT_RANGE};
use super::{elsewhere, logs, or_none};
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{
    AdminLevel, AdminSocket, Backend, CompileCache, CompileLimits, Facility, Frontend, Grant, Log, LogFormat,
    LogTarget, Mode, NamedLog, Plugin, PolicyPool, Process, RateLimit, SyslogHeader, SyslogServer, Tenant,
};
use crate::config::reader::{At, Block, Context, Node, Value, said_twice};
use crate::config::{suggest, units};

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

/// Where settings stand that are for something which need not be there.
#[derive(Default)]
pub(super) struct Said {
    policy: Option<SourceSpan>,
    /// `heavy-threads=`, `slow-call=`, `total-memory=` and `host-memory=`.
    beside: [Option<SourceSpan>; 4],
    compile_cache: Option<SourceSpan>,
    rate_limit_table: Option<SourceSpan>,
    tracing: Option<SourceSpan>,
}

/// What the rest of the configuration has.
#[derive(Clone, Copy)]
pub(super) struct Uses {
    /// Anything that is answered in a component, be it a plugin's or the gateway's own.
    pub(super) components: bool,
    /// A plugin.
    pub(super) plugins: bool,
    /// One that may come to run beside the workers.
    pub(super) plugins_beside: bool,
    /// Anything that has token buckets: rate limits, or a plugin that is granted them.
    pub(super) buckets: bool,
    /// A frontend in HTTP mode.
    pub(super) requests: bool,
}

impl Uses {
    /// What a configuration has; files of tenants may have anything that plugins have, and what a tenant decides is asked as plugins are.
    pub(super) fn of(
        frontends: &[Frontend],
        backends: &[Backend],
        plugins: &[Plugin],
        limits: &[RateLimit],
        tenants: &[Option<Tenant>],
    ) -> Self {
        let has_files = tenants.iter().flatten().any(|tenant| tenant.has_files);
        let asks_for_tenants = has_files || tenants.iter().flatten().any(|tenant| tenant.rules.is_any());
        let decides = |frontend: &Frontend| {
            !frontend.acls.is_empty() || !frontend.request_edits.is_empty() || !frontend.response_edits.is_empty()
        };
        let edits = |backend: &Backend| !backend.request_edits.is_empty() || !backend.response_edits.is_empty();
        Self {
            components: asks_for_tenants
                || !plugins.is_empty()
                || !limits.is_empty()
                || frontends.iter().any(decides)
                || backends.iter().any(edits),
            plugins: asks_for_tenants || !plugins.is_empty(),
            plugins_beside: asks_for_tenants || plugins.iter().any(|plugin| !plugin.stays_with_workers()),
            buckets: has_files
                || !limits.is_empty()
                || plugins.iter().any(|plugin| plugin.grants.contains(&Grant::Buckets)),
            requests: frontends.iter().any(|frontend| frontend.mode == Mode::Http),
        }
    }
}

impl Said {
    /// Reports settings for what the configuration does not have.
    pub(super) fn report_unused(&self, ctx: &Context<'_>, uses: Uses) {
        let nothing_runs = "there is no plugin, acl, rate limit or edit, and so no component";
        let no_plugin = "there is no plugin";
        let none_beside = "there is no plugin but of the gateway's own components, which the workers call";
        let [heavy_threads, slow_call, total_memory, host_memory] =
            self.beside.map(|said| said.filter(|_| uses.components));
        for (said, name, is_used, why) in [
            (self.policy, "policy", uses.components, nothing_runs),
            (self.compile_cache, "compile-cache", uses.components, nothing_runs),
            (heavy_threads, "heavy-threads", uses.plugins_beside, none_beside),
            (slow_call, "slow-call", uses.plugins_beside, none_beside),
            (total_memory, "total-memory", uses.plugins, no_plugin),
            (host_memory, "host-memory", uses.plugins, no_plugin),
            (
                self.rate_limit_table,
                "rate-limit-table",
                uses.buckets,
                "there is no rate limit",
            ),
            (
                self.tracing,
                "tracing",
                uses.requests,
                "there is no frontend in HTTP mode",
            ),
        ] {
            let Some(span) = said.filter(|_| !is_used) else {
                continue;
            };
            let error = ConfigError::new(Code::Inert, format!("`{name}` does nothing: {why}"));
            ctx.report(error.label(span, "for nothing").help("leave it out"));
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
    let mode = node.property("mode").map(|value| {
        let mode = u32::from_str_radix(value.text()?, 8).ok().filter(|mode| *mode <= 0o777);
        mode.or_else(|| {
            value.fail(
                "the mode is not one of a file",
                "three octal digits",
                "write it as for chmod: mode=\"660\"",
            )
        })
    });
    let level = node.property("level").map(|value| value.choice(ADMIN_LEVELS));
    node.finish();
    Some(AdminSocket {
        path: path?,
        mode: or_none(mode)?.unwrap_or(DEFAULT_ADMIN_MODE),
        level: or_none(level)?.unwrap_or(DEFAULT_ADMIN_LEVEL),
        origin,
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
    if path.as_os_str().len() > MOST_SOCKET_PATH {
        return value.fail(
            "the system does not know sockets with so long a path",
            format!("longer than {MOST_SOCKET_PATH} bytes with its folder"),
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

/// The log of the process itself, and those that frontends name.
fn read_logs(process: &mut Process, nodes: Vec<Node<'_>>) {
    let mut own: Option<SourceSpan> = None;
    let mut names: Vec<At<&str>> = Vec::new();
    for mut node in nodes {
        let (ctx, span) = (node.ctx, node.span());
        let Some(name) = node.property("name") else {
            match own {
                Some(first) => ctx.report(said_twice("`log` without a name", first, span)),
                None => own = Some(span),
            }
            log(&mut process.log, node);
            continue;
        };
        let name = name.name().map(|text| name.at(text));
        let mut named = Process::default().log;
        log(&mut named, node);
        let Some(name) = name else { continue };
        if name.value == logs::PROCESS {
            let error = ConfigError::new(Code::Value, "the log without a name is called \"process\"");
            ctx.report(error.label(name.span, "another one").help("choose another name"));
        } else if let Some(first) = names.iter().find(|known| known.value == name.value) {
            ctx.report(declared_twice("this log", first.span, name.span));
        } else if names.len() == MAX_LOGS {
            let error = ConfigError::new(Code::Value, format!("there are at most {MAX_LOGS} logs with names"));
            ctx.report(
                error
                    .label(span, "one too many")
                    .help("each has a thread of its own: let frontends share them"),
            );
        }
        names.push(name);
        process.named_logs.push(NamedLog {
            name: name.value.into(),
            log: named,
        });
    }
}

/// `log "/dev/log" facility="local0" syslog="rfc3164" format="json"`.
fn log(log: &mut Log, mut node: Node<'_>) {
    log.origin = Some(node.origin());
    let target = node.argument("where log lines go").and_then(|value| log_target(&value));
    let is_known = target.is_some();
    set(&mut log.target, target);
    let format = node.property("format").and_then(|value| value.choice(LOG_FORMATS));
    set(&mut log.format, format);
    let chosen_facility = node.property("facility");
    let chosen_header = node.property("syslog");
    let said = [
        ("facility", chosen_facility.as_ref()),
        ("syslog", chosen_header.as_ref()),
    ];
    let said = said.map(|(name, value)| (name, value.map(Value::span)));
    let chosen_facility = chosen_facility.and_then(|value| value.choice(FACILITIES));
    let chosen_header = chosen_header.and_then(|value| value.choice(SYSLOG_HEADERS));
    match &mut log.target {
        LogTarget::Syslog { facility, header, .. } => {
            set(facility, chosen_facility);
            set(header, chosen_header);
        }
        // What a wrong target was to be is not known.
        _ if !is_known => {}
        _ => {
            for (name, span) in said {
                let Some(span) = span else { continue };
                let error = ConfigError::new(Code::Inert, format!("`{name}` does nothing here"));
                let error = error.label(span, "lines go to no syslog server");
                node.fail(error.help("leave it out, or log to \"/dev/log\", \"udp://…\" or \"tcp://…\""));
            }
        }
    }
    node.finish();
}

/// A file's path has to have a slash in it, so that a slip of `stdout` does not become a file.
fn log_target(value: &Value<'_>) -> Option<LogTarget> {
    let text = value.text()?;
    match text {
        "stdout" => Some(LogTarget::Stdout),
        "stderr" => Some(LogTarget::Stderr),
        "/dev/log" => Some(syslog(SyslogServer::Unix("/dev/log".into()))),
        text if text.contains("://") => syslog_server(value, text).map(syslog),
        path if path.ends_with('/') => value.fail("the log's path is a folder", "ends with a slash", "name a file"),
        path if path.contains('/') => Some(LogTarget::File(value.context().path(path))),
        word => {
            let help = suggest::did_you_mean(word, &["stdout", "stderr"], || {
                Some(format!(
                    "write \"stdout\", \"stderr\", \"/dev/log\", or a path with a slash in it, as \"./{}\"",
                    word.escape_debug()
                ))
            });
            value.fail(
                "log lines cannot go there",
                "neither a stream nor a path",
                help.unwrap_or_default(),
            )
        }
    }
}

fn syslog(server: SyslogServer) -> LogTarget {
    LogTarget::Syslog {
        server,
        facility: DEFAULT_FACILITY,
        header: DEFAULT_HEADER,
    }
}

/// `unix:///run/syslog`, `udp://127.0.0.1:514` or `tcp://127.0.0.1:514`.
fn syslog_server(value: &Value<'_>, text: &str) -> Option<SyslogServer> {
    let (scheme, rest) = text.split_once("://")?;
    match scheme {
        "unix" if !rest.starts_with('/') || rest.ends_with('/') => value.fail(
            "this is no path of a socket",
            "has to begin with a slash and name a file",
            "write it as \"unix:///run/syslog.sock\"",
        ),
        "unix" => Some(SyslogServer::Unix(rest.into())),
        "udp" | "tcp" => match rest.parse::<SocketAddr>() {
            Ok(address) if address.port() != 0 && scheme == "udp" => Some(SyslogServer::Udp(address)),
            Ok(address) if address.port() != 0 => Some(SyslogServer::Tcp(address)),
            _ => value.fail(
                "a syslog server is named by an IP address and a port",
                "not an IP address and a port",
                format!("write it as \"{scheme}://127.0.0.1:514\" or \"{scheme}://[::1]:514\""),
            ),
        },
        _ => value.fail(
            "log lines cannot go there",
            "an unknown way",
            "write \"unix:///PATH\", \"udp://IP:PORT\" or \"tcp://IP:PORT\"",
        ),
    }
}

const FACILITIES: &[(&str, Facility)] = &[
    ("kern", Facility::Kern),
    ("user", Facility::User),
    ("mail", Facility::Mail),
    ("daemon", Facility::Daemon),
    ("auth", Facility::Auth),
    ("syslog", Facility::Syslog),
    ("lpr", Facility::Lpr),
    ("news", Facility::News),
    ("uucp", Facility::Uucp),
    ("cron", Facility::Cron),
    ("auth2", Facility::Auth2),
    ("ftp", Facility::Ftp),
    ("ntp", Facility::Ntp),
    ("audit", Facility::Audit),
    ("alert", Facility::Alert),
    ("cron2", Facility::Cron2),
    ("local0", Facility::Local0),
    ("local1", Facility::Local1),
    ("local2", Facility::Local2),
    ("local3", Facility::Local3),
    ("local4", Facility::Local4),
    ("local5", Facility::Local5),
    ("local6", Facility::Local6),
    ("local7", Facility::Local7),
];

/// What HAProxy's documentation and its packages use.
const DEFAULT_FACILITY: Facility = Facility::Local0;

const SYSLOG_HEADERS: &[(&str, SyslogHeader)] =
    &[("rfc5424", SyslogHeader::Rfc5424), ("rfc3164", SyslogHeader::Rfc3164)];

/// The same wherever lines go, and the one that has milliseconds, a time zone and a host name always.
const DEFAULT_HEADER: SyslogHeader = SyslogHeader::Rfc5424;

const LOG_FORMATS: &[(&str, LogFormat)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];

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

/// Who may reach it may take servers out of service: the gateway's own user, unless more are let in.
const DEFAULT_ADMIN_MODE: u32 = 0o600;
/// As HAProxy's.
const DEFAULT_ADMIN_LEVEL: AdminLevel = AdminLevel::Operator;
const ADMIN_LEVELS: &[(&str, AdminLevel)] = &[
    ("user", AdminLevel::User),
    ("operator", AdminLevel::Operator),
    ("admin", AdminLevel::Admin),
];
/// `sun_path` has 108 bytes with its end (unix(7)), and the socket is made beside its place, under a name that is longer
/// by this process's number.
const MOST_SOCKET_PATH: usize = 107 - 12;

/// More workers than any machine has CPUs only wait for each other.
const WORKERS: RangeInclusive<u64> = 1..=1_024;
const INSTANCES: RangeInclusive<u64> = 1..=100_000;
/// What the components that come with the gateway need, to all that 32 bits can address.
const INSTANCE_MEMORY: RangeInclusive<u64> = 4 << 20..=4 << 30;

/// Each seat has 16 bytes, whether there is an answer in it or not.
const ANSWERS: RangeInclusive<u64> = 0..=65_536;
const MAX_BUCKETS: RangeInclusive<u64> = 1_000..=100_000_000;
/// Each has a thread and a queue of 4 MiB.
const MAX_LOGS: usize = 16;
