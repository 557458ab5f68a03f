//! What operators say on the admin socket, in HAProxy's words, and what is answered.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use super::csv;
use super::desk::Says;
use crate::backend::{Backend, Ended, Server};
use crate::config::{AdminLevel, Mode};
use crate::telemetry::metrics::{Admin, Agent, Registry};

/// What commands act upon, and how far they may go.
#[derive(Debug)]
pub(super) struct Steering {
    level: AdminLevel,
    says: watch::Receiver<Arc<Says>>,
    registry: Arc<Registry>,
    started: Instant,
}

/// What came of a command.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// This is answered.
    Answer(String),
    /// Lines go on being read, or no longer.
    Prompt,
    /// The connection ends.
    Quit,
}

/// Why a command was not done.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    #[error("Permission denied: this takes level={:?}.", word(*.0))]
    Level(AdminLevel),
    #[error("Unknown command: {0:?}. Say help.")]
    Unknown(String),
    #[error("Unknown command: {said:?}. What there is: {known}.")]
    Unlike { said: String, known: String },
    #[error("Require 'backend/server'.")]
    NoName,
    #[error("No such backend.")]
    NoBackend,
    #[error("No such server.")]
    NoServer,
    #[error("A weight is 0 to 256, or a part of the configured one: 0% to 100%.")]
    Weight,
    #[error("A state is ready, drain or maint.")]
    State,
}

/// Whether an answer says that a command was not done, one of several perhaps: an empty line stands between their answers.
pub fn is_refusal(answer: &str) -> bool {
    let mut answers = answer.split("\n\n").map(str::trim_start);
    answers.any(|answer| REFUSALS.iter().any(|begin| answer.starts_with(begin)))
}

impl Steering {
    pub(super) fn new(level: AdminLevel, says: watch::Receiver<Arc<Says>>, registry: Arc<Registry>) -> Self {
        Self {
            level,
            says,
            registry,
            started: Instant::now(),
        }
    }

    /// Does what one command says. The answer ends with a line's end, unless there is none.
    pub(super) fn command(&self, text: &str) -> Outcome {
        let words: Vec<&str> = text.split_whitespace().collect();
        match &*words {
            [] => Outcome::Answer(String::new()),
            ["prompt"] => Outcome::Prompt,
            ["quit"] => Outcome::Quit,
            words => Outcome::Answer(match self.act(words) {
                Ok(answer) => answer,
                Err(refusal) => format!("{refusal}\n"),
            }),
        }
    }

    fn act(&self, words: &[&str]) -> Result<String, Refusal> {
        match words {
            ["help"] => Ok(HELP.to_owned()),
            ["show", "info"] => Ok(self.info()),
            ["show", "stat"] => {
                let says = Arc::clone(&self.says.borrow());
                Ok(csv::csv(&self.registry.stats(), &says))
            }
            ["show", "backend"] => Ok(self.backends()),
            ["show", "servers"] => Ok(self.servers(None)),
            ["show", "tenants"] => Ok(self.tenants()),
            ["show", "servers", name] => self.backend(name).map(|backend| self.servers(Some(&backend))),
            ["get", "weight", name] => {
                let (_, server) = self.server(name)?;
                let metrics = &server.metrics;
                Ok(format!(
                    "{} (initial {})\n",
                    metrics.weight(),
                    metrics.configured_weight()
                ))
            }
            ["set", "weight", name, weight] | ["set", "server", name, "weight", weight] => {
                self.set_weight(name, weight)
            }
            ["set", "server", name, "state", state] => {
                let state = STATES.iter().find(|known| known.word() == *state).ok_or(Refusal::State);
                self.set_state(name, *state?)
            }
            ["enable", "server", name] => self.set_state(name, Admin::Ready),
            ["disable", "server", name] => self.set_state(name, Admin::Maintenance),
            ["shutdown", "sessions", "server", name] => {
                self.needs(AdminLevel::Admin)?;
                let (backend, server) = self.server(name)?;
                let sessions = server.end_sessions(Ended::Ordered);
                tracing::warn!(
                    backend = &*backend.name,
                    server = &*server.name,
                    sessions,
                    "an operator ended the sessions"
                );
                Ok(String::new())
            }
            words => Err(Refusal::unknown(words)),
        }
    }

    fn set_weight(&self, name: &str, weight: &str) -> Result<String, Refusal> {
        self.needs(AdminLevel::Operator)?;
        let (backend, server) = self.server(name)?;
        let number = |text: &str, most: u16| text.parse::<u16>().ok().filter(|number| *number <= most);
        let weight = match weight.strip_suffix('%') {
            Some(percent) => {
                let percent = number(percent, 100).ok_or(Refusal::Weight)?;
                let whole = server.metrics.configured_weight();
                // A part of a weight of 1 is not nothing: only 0% is.
                u16::try_from((u32::from(whole) * u32::from(percent)).div_ceil(100)).map_err(|_| Refusal::Weight)?
            }
            None => number(weight, MOST_WEIGHT).ok_or(Refusal::Weight)?,
        };
        server.metrics.set_weight(weight);
        tracing::info!(
            backend = &*backend.name,
            server = &*server.name,
            weight,
            "an operator set the weight"
        );
        Ok(String::new())
    }

    fn set_state(&self, name: &str, state: Admin) -> Result<String, Refusal> {
        self.needs(AdminLevel::Operator)?;
        let (backend, server) = self.server(name)?;
        server.metrics.set_admin(state);
        let (backend, server) = (&*backend.name, &*server.name);
        tracing::info!(backend, server, state = state.word(), "an operator set the state");
        Ok(String::new())
    }

    fn needs(&self, level: AdminLevel) -> Result<(), Refusal> {
        if self.level >= level {
            Ok(())
        } else {
            Err(Refusal::Level(level))
        }
    }

    fn backend(&self, name: &str) -> Result<Arc<Backend>, Refusal> {
        let says = self.says.borrow();
        let backend = says.backends.iter().find(|backend| &*backend.name == name);
        backend.cloned().ok_or(Refusal::NoBackend)
    }

    /// By `backend/server`. Names may have slashes in them; then each way to read it is tried.
    fn server(&self, name: &str) -> Result<(Arc<Backend>, Arc<Server>), Refusal> {
        if !name.contains('/') {
            return Err(Refusal::NoName);
        }
        let mut refusal = Refusal::NoBackend;
        for (at, _) in name.match_indices('/') {
            let Ok(backend) = self.backend(&name[..at]) else {
                continue;
            };
            let server = backend.servers.iter().find(|server| *server.name == name[at + 1..]);
            if let Some(server) = server.cloned() {
                return Ok((backend, server));
            }
            refusal = Refusal::NoServer;
        }
        Err(refusal)
    }

    fn info(&self) -> String {
        let process = self.registry.process();
        let says = self.says.borrow();
        let backends = &says.backends;
        let in_flight: usize = backends.iter().map(|backend| backend.in_flight()).sum();
        let queued: usize = backends.iter().map(|backend| backend.metrics.queued()).sum();
        format!(
            "Name: gateway\nVersion: {}\nPid: {}\nUptime_sec: {}\nMaxconn: {}\nCurrConns: {}\nBackends: {}\n\
             InFlight: {in_flight}\nQueued: {queued}\n",
            env!("CARGO_PKG_VERSION"),
            std::process::id(),
            self.started.elapsed().as_secs(),
            says.max_connections,
            process.connections(),
            backends.len(),
        )
    }

    fn backends(&self) -> String {
        let mut text = "# name mode servers in_flight queue\n".to_owned();
        for backend in &self.says.borrow().backends {
            let mode = match backend.mode {
                Mode::Tcp => "tcp",
                Mode::Http => "http",
            };
            let (name, servers, queued) = (&backend.name, backend.servers.len(), backend.metrics.queued());
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name} {mode} {servers} {} {queued}", backend.in_flight());
        }
        text
    }

    fn tenants(&self) -> String {
        let mut text = "# tenant files fault\n".to_owned();
        let mut all = self.registry.all_tenant_files();
        all.sort_by(|one, other| one.tenant().cmp(other.tenant()));
        for files in all {
            let fault = Some(files.fault()).filter(|fault| !fault.is_empty());
            let (word, fault) = (files.in_force().word(), fault.unwrap_or_else(|| "-".to_owned()));
            let _ = writeln!(text, "{} {word} {fault}", files.tenant());
        }
        text
    }

    fn servers(&self, only: Option<&Arc<Backend>>) -> String {
        let mut text =
            "# backend server address health state weight initial in_flight max queue agent effective\n".to_owned();
        for backend in &self.says.borrow().backends {
            if only.is_some_and(|only| only.name != backend.name) {
                continue;
            }
            for server in &backend.servers {
                let metrics = &server.metrics;
                let _ = write!(text, "{} {} ", backend.name, server.name);
                let _ = match server.address() {
                    Some(address) => write!(text, "{address}"),
                    None => write!(text, "-"),
                };
                let health = match server.is_up() {
                    true if metrics.drains() => "drained",
                    true => "up",
                    false if metrics.is_ejected() => "ejected",
                    false if server.address().is_none() => "unresolved",
                    false => "down",
                };
                let max = server.max_connections().map_or(0, |max| max.get());
                let _ = writeln!(
                    text,
                    " {health} {} {} {} {} {max} {} {} {:.2}",
                    metrics.admin().word(),
                    metrics.weight(),
                    metrics.configured_weight(),
                    server.in_flight(),
                    backend.metrics.queued(),
                    backend.agent.as_ref().map_or("-".to_owned(), |_| said(metrics.agent())),
                    metrics.effective_weight(),
                );
            }
        }
        text
    }
}

impl Refusal {
    /// Nothing is called so; with what begins like it, as help has it.
    fn unknown(words: &[&str]) -> Self {
        let said = clip(&words.join(" "));
        let in_common = |usage: &str| {
            let both = usage.split(' ').zip(words);
            both.take_while(|(known, said)| known == *said).count()
        };
        let usages = || HELP.lines().filter_map(|line| line.split("  ").next());
        match usages().map(in_common).max() {
            Some(most @ 1..) => {
                let known: Vec<&str> = usages().filter(|&usage| in_common(usage) == most).collect();
                Self::Unlike {
                    said,
                    known: known.join("; "),
                }
            }
            _ => Self::Unknown(said),
        }
    }
}

/// What an agent says, in one word: `up,drain,50%`, and `,maxconn:30` behind it when the agent has a word on that.
fn said(agent: Agent) -> String {
    let health = if agent.up { "up" } else { "down" };
    let max = agent.max_connections.map(|max| format!(",maxconn:{max}"));
    let (state, max) = (agent.admin.word(), max.unwrap_or_default());
    format!("{health},{state},{}%{max}", agent.percent)
}

fn word(level: AdminLevel) -> &'static str {
    match level {
        AdminLevel::User => "user",
        AdminLevel::Operator => "operator",
        AdminLevel::Admin => "admin",
    }
}

/// The beginning of a text, for an answer that names it.
fn clip(text: &str) -> String {
    text.chars().take(MOST_ECHOED).collect()
}

const STATES: [Admin; 3] = [Admin::Ready, Admin::Drain, Admin::Maintenance];

/// How the texts of [`Refusal`] begin, and those of the socket.
const REFUSALS: [&str; 7] = [
    "Permission denied",
    "Unknown command",
    "Require ",
    "No such ",
    "A weight is",
    "A state is",
    "The line is",
];

/// As in the configuration.
const MOST_WEIGHT: u16 = 256;

/// Characters of a command that is not known.
const MOST_ECHOED: usize = 64;

const HELP: &str = "\
help                                        this
prompt                                      read further lines; again: no longer
quit                                        end the connection
show info                                   the process
show stat                                   the figures, as CSV in HAProxy's columns
show backend                                backends
show servers [BACKEND]                      servers: health, state, weight, load, agent
show tenants                                which of their files hold, and why not those that lie there
get weight BACKEND/SERVER                   its weight, and the configured one
set weight BACKEND/SERVER N|N%              level operator
set server BACKEND/SERVER weight N|N%       the same
set server BACKEND/SERVER state ready|drain|maint
enable server BACKEND/SERVER                state ready
disable server BACKEND/SERVER               state maint
shutdown sessions server BACKEND/SERVER     level admin
Commands may be joined by a semicolon.
";

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_is_known_for_one() {
        for refusal in [
            Refusal::Level(AdminLevel::Admin),
            Refusal::Unknown("x".into()),
            Refusal::unknown(&["show"]),
            Refusal::NoName,
            Refusal::NoBackend,
            Refusal::NoServer,
            Refusal::Weight,
            Refusal::State,
        ] {
            assert!(is_refusal(&refusal.to_string()), "{refusal}");
        }
        assert!(!is_refusal(HELP) && !is_refusal("\n") && !is_refusal("1 (initial 2)\n"));
        for several in [
            "\nNo such server.\n\n",
            "1 (initial 2)\n\nUnknown command: \"x\". Say help.\n\n",
        ] {
            assert!(is_refusal(several), "{several:?}");
        }
    }

    #[test]
    fn a_command_that_is_not_whole_is_told_how_it_goes_on() {
        let told = |words: &[&str]| Refusal::unknown(words).to_string();
        assert_eq!(
            told(&["set", "server", "app/app-1"]),
            "Unknown command: \"set server app/app-1\". What there is: set server BACKEND/SERVER weight N|N%; \
             set server BACKEND/SERVER state ready|drain|maint."
        );
        assert_eq!(
            told(&["disable", "frontend", "web"]),
            "Unknown command: \"disable frontend web\". What there is: disable server BACKEND/SERVER."
        );
        let all = told(&["show", "sess"]);
        assert!(all.contains("show info; show stat; show backend;"), "{all}");
        assert_eq!(
            told(&["clear", "counters"]),
            "Unknown command: \"clear counters\". Say help."
        );
    }
}
