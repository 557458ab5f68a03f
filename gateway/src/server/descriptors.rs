//! Whether the process may have as many files open as its connections take.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::{Code, Config, ConfigError, Mode};
use crate::proxy::relay::{MOST_PIPES, allow_pipes};

/// Makes the limit on open files large enough for `config`. Where that is not possible, there are fewer pipes; and where that is
/// not enough, says so at `max-connections`; the default, which nobody asked for, is lowered instead.
pub(super) fn fit(config: &mut Config, workers: usize) -> Result<(), ConfigError> {
    let others = others(config, workers);
    let idle = idle(config, workers);
    let connections = config.process.max_connections;
    // Idle connections were in use once.
    let beside_pipes = others + idle.min(connections) + FOR_A_CONNECTION * connections;
    let pipes = FOR_A_PIPE * MOST_PIPES * workers;
    let needed = beside_pipes + pipes;
    let granted = raise(needed);
    // A stream without one is copied: that costs more, and fails nobody. So whoever says how many connections there may be has them.
    let left = granted.saturating_sub(beside_pipes);
    let pipes = match config.process.max_connections_at {
        Some(_) if granted >= beside_pipes => pipes.min(left),
        _ if granted >= needed => pipes,
        _ => pipes.min(granted / PART_FOR_PIPES),
    };
    allow_pipes(pipes / (FOR_A_PIPE * workers));
    if granted >= beside_pipes + pipes {
        return Ok(());
    }
    let left = granted.saturating_sub(others + pipes);
    let fits = match left / (FOR_A_CONNECTION + 1) {
        few if few <= idle => few,
        _ => (left - idle) / FOR_A_CONNECTION,
    };
    if let (None, 1..) = (config.process.max_connections_at, fits) {
        config.process.max_connections = fits;
        return Ok(());
    }
    let message =
        format!("{connections} connections take {needed} open files, and the process may have {granted} of them");
    let error = ConfigError::new(Code::System, message);
    let error = match config.process.max_connections_at {
        Some(span) => error.label(span, "more than there can be"),
        None => error,
    };
    Err(error.help(match fits {
        0 => format!("raise the limit to {needed}: LimitNOFILE= of systemd, or `ulimit -n`"),
        _ => format!("write at most {fits}, or raise the limit to {needed}: LimitNOFILE= of systemd, or `ulimit -n`"),
    }))
}

/// What is open beside the connections of clients and those to servers, in use or idle, and beside pipes.
fn others(config: &Config, workers: usize) -> usize {
    let binds: usize = config.frontends.iter().map(|frontend| frontend.binds.len()).sum();
    let stats: usize = config.stats.iter().map(|stats| stats.binds.len()).sum();
    let checks: usize = config.backends.iter().map(|backend| backend.servers.len()).sum();
    // A worker's duplicate of each socket, and the one that it is a duplicate of.
    RESERVE + 2 * binds * workers + stats + checks
}

/// Connections to servers that may be kept for reuse.
fn idle(config: &Config, workers: usize) -> usize {
    let backends = config.backends.iter().filter(|backend| backend.mode == Mode::Http);
    backends
        .map(|backend| backend.servers.len() * workers * backend.pool.max_idle)
        .sum()
}

/// Raises the limit to what is needed, or as far as that goes; root may raise the hard limit, too. Answers how far.
fn raise(needed: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let needed = needed as u64;
    let hard = limit.maximum.unwrap_or(u64::MAX);
    if hard < needed {
        let both = Rlimit {
            current: Some(needed),
            maximum: Some(needed),
        };
        if setrlimit(Resource::Nofile, both).is_ok() {
            return usize::try_from(needed).unwrap_or(usize::MAX);
        }
    }
    // All of it: a reload may want more, and the soft limit of most systems, 1024, is for programs that use `select`.
    let soft = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let granted = match setrlimit(Resource::Nofile, soft) {
        Ok(()) => hard,
        Err(_) => limit.current.unwrap_or(u64::MAX),
    };
    usize::try_from(granted).unwrap_or(usize::MAX)
}

/// Both of its ends.
const FOR_A_PIPE: usize = 2;

/// Of the open files that there may be, where they are not enough, pipes have this part at most.
const PART_FOR_PIPES: usize = 4;

/// The client's side and the server's.
const FOR_A_CONNECTION: usize = 2;

/// Standard streams, log, pollers, the resolver's sockets, components being compiled, scrapes: some tens, and room.
const RESERVE: usize = 128;
