//! `process { … }` and `stats { … }`.

use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::settings::{MAX_CONNECTIONS, TIMEOUT_RANGE};
use super::{Scope, bind, elsewhere};
use crate::config::model::{Log, LogFormat, LogTarget, PolicyPool, Process, Stats};
use crate::config::reader::{Node, Value};
use crate::config::suggest;

impl Default for Process {
    fn default() -> Self {
        Self {
            workers: None,
            max_connections: DEFAULT_MAX_CONNECTIONS,
            log: Log {
                target: LogTarget::Stdout,
                format: LogFormat::Text,
            },
            policy: PolicyPool {
                instances: DEFAULT_INSTANCES,
                memory: DEFAULT_INSTANCE_MEMORY,
            },
            max_buckets: DEFAULT_MAX_BUCKETS,
            drain_timeout: DEFAULT_DRAIN_TIMEOUT,
        }
    }
}

/// The process-wide settings; the defaults when nothing is said.
pub(super) fn process(node: Option<Node<'_>>) -> Option<Process> {
    let mut process = Process::default();
    let Some(mut node) = node else { return Some(process) };
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
        let value = node
            .argument("a number of connections")
            .and_then(|value| value.integer(MAX_CONNECTIONS));
        set(
            &mut process.max_connections,
            value.and_then(|value| usize::try_from(value).ok()),
        );
        node.finish();
    }
    if let Some(mut node) = block.one("log") {
        let target = node.argument("where log lines go").and_then(|value| log_target(&value));
        set(&mut process.log.target, target);
        let format = node.property("format").and_then(|value| value.choice(LOG_FORMATS));
        set(&mut process.log.format, format);
        node.finish();
    }
    if let Some(mut node) = block.one("policy") {
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
        node.finish();
    }
    if let Some(mut node) = block.one("rate-limit-table") {
        let entries = node.required_property("entries");
        let entries = entries.and_then(|value| value.integer(MAX_BUCKETS));
        set(
            &mut process.max_buckets,
            entries.and_then(|value| usize::try_from(value).ok()),
        );
        node.finish();
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

/// Where `/metrics` is served.
pub(super) fn stats(scope: &mut Scope<'_>, mut node: Node<'_>) -> Option<Stats> {
    let origin = node.origin();
    let block = node.required_block();
    let span = node.span();
    node.finish();
    let mut block = block?;
    let nodes = block.many("bind");
    bind::require(scope.ctx, "`stats`", span, &nodes);
    let mut binds = Vec::new();
    for mut bind in nodes {
        let address = bind.argument("an address").and_then(|value| scope.binds.take(&value));
        binds.extend(address);
        bind.finish();
    }
    block.finish(elsewhere);
    Some(Stats { binds, origin })
}

fn set<T>(slot: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *slot = value;
    }
}

/// A file's path has to have a slash in it, so that a slip of `stdout` does not become a file.
fn log_target(value: &Value<'_>) -> Option<LogTarget> {
    let text = value.text()?;
    match text {
        "stdout" => Some(LogTarget::Stdout),
        "stderr" => Some(LogTarget::Stderr),
        "/dev/log" => value.fail(
            "syslog is not spoken yet",
            "this is syslog's socket",
            "write \"stdout\" and let the service manager keep the lines, or name a file",
        ),
        path if path.ends_with('/') => value.fail("the log's path is a folder", "ends with a slash", "name a file"),
        path if path.contains('/') => Some(LogTarget::File(value.context().path(path))),
        word => {
            let help = suggest::did_you_mean(word, &["stdout", "stderr"], || {
                Some(format!(
                    "write \"stdout\", \"stderr\", or a path with a slash in it, as \"./{}\"",
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

const LOG_FORMATS: &[(&str, LogFormat)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];

/// Two file descriptors a connection (client and server) stay well below the 65,536 that service managers commonly give.
const DEFAULT_MAX_CONNECTIONS: usize = 20_000;
/// Warm instances: a slot per worker and attached component, and some that are being replaced. They are reserved address
/// space, not memory, so plenty costs little.
const DEFAULT_INSTANCES: u32 = 1_000;
/// What a plugin that parses and matches needs many times over.
const DEFAULT_INSTANCE_MEMORY: u64 = 16 << 20;
/// A bucket with its key takes about 150 bytes: 40 MB when full.
const DEFAULT_MAX_BUCKETS: usize = 262_144;
/// Most requests are over by then, and service managers commonly wait 90 s before they use force.
const DEFAULT_DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// More workers than any machine has CPUs only wait for each other.
const WORKERS: RangeInclusive<u64> = 1..=1_024;
const INSTANCES: RangeInclusive<u64> = 1..=100_000;
/// What the components that come with the gateway need, to all that 32 bits can address.
const INSTANCE_MEMORY: RangeInclusive<u64> = 4 << 20..=4 << 30;
const MAX_BUCKETS: RangeInclusive<u64> = 1_000..=100_000_000;
