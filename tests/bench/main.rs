//! The side-by-side bench: haproxy, nginx and the gateway, one worker each, in front of the same nginx, under the same load,
//! in turns. README.md beside this file says what is measured and why it is fair.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a bench stops where it stands; nobody depends on it"
)]

mod bodies;
mod handshakes;
mod load;
mod neighbours;
mod proxies;
mod report;
mod wires;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::{Parser, ValueEnum};
use gateway_tests::peer::pause;
use gateway_tests::process::{tree_cpu, tree_resident};

use crate::proxies::{Product, Proxy, Scenario, Upstream};
use crate::report::{Report, Round};
use crate::wires::Cpus;

/// haproxy, nginx and the gateway side by side.
#[derive(Parser)]
struct Arguments {
    /// What to run; everything when nothing is named.
    scenarios: Vec<Scenario>,
    /// One round of a second each, to see that everything works.
    #[arg(long)]
    quick: bool,
    /// Rounds per scenario; the order of the proxies rotates from one to the next.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Seconds of load per proxy and round.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Client connections.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Only these proxies.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Product>,
    /// A gateway built before; built from this workspace in release mode when not given.
    #[arg(long)]
    gateway: Option<PathBuf>,
    /// Leave the processes where the kernel puts them.
    #[arg(long)]
    no_pinning: bool,
}

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    if arguments.quick {
        (arguments.rounds, arguments.seconds) = (1, 1);
    }
    if arguments.scenarios.is_empty() {
        arguments.scenarios = Scenario::value_variants().to_vec();
    }
    if arguments.only.is_empty() {
        arguments.only = Product::value_variants().to_vec();
    }
    let gateway = match (&arguments.gateway, arguments.only.contains(&Product::Gateway)) {
        (Some(path), _) => path.clone(),
        (None, true) => build(),
        (None, false) => PathBuf::new(),
    };
    let mut good = true;
    for &scenario in &arguments.scenarios {
        if scenario == Scenario::Neighbours {
            // It is about one gateway, not about three proxies.
            if arguments.only.contains(&Product::Gateway) {
                let time = Duration::from_secs(arguments.seconds);
                good &= neighbours::run(&gateway, &Places::new(&arguments).proxy, arguments.rounds, time);
            }
            continue;
        }
        let report = run(scenario, &arguments, &gateway);
        print!("{report}");
        good &= report.is_good();
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(scenario: Scenario, arguments: &Arguments, gateway: &Path) -> Report {
    let places = Places::new(arguments);
    match scenario {
        Scenario::Idle => run_idle(arguments, gateway, &places),
        _ => run_turns(scenario, arguments, gateway, &places),
    }
}

/// What runs where.
struct Places {
    proxy: Vec<&'static str>,
    others: Vec<String>,
    cpus: Cpus,
}

impl Places {
    /// With two cores or more the proxy has one to itself; upstream and load share the rest.
    fn new(arguments: &Arguments) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        if arguments.no_pinning || cpus == 1 {
            return Self {
                proxy: Vec::new(),
                others: Vec::new(),
                cpus: None,
            };
        }
        Self {
            proxy: vec!["taskset", "-c", "0"],
            others: ["taskset".to_owned(), "-c".to_owned(), format!("1-{}", cpus - 1)].into(),
            cpus: Some(1..cpus),
        }
    }

    fn others(&self) -> Vec<&str> {
        self.others.iter().map(String::as_str).collect()
    }
}

/// The proxies run side by side and are loaded in turns.
fn run_turns(scenario: Scenario, arguments: &Arguments, gateway: &Path, places: &Places) -> Report {
    let others = places.others();
    let stream = if arguments.quick { QUICK_STREAM } else { STREAM };
    let bodies = if arguments.quick { 1 } else { BODIES };
    let upstream = match scenario {
        Scenario::Bulk => Upstream::at(wires::source(stream, places.cpus.clone())),
        Scenario::H1Bulk => Upstream::at(bodies::server(BODY, places.cpus.clone())),
        _ => Upstream::nginx(&others),
    };
    let connections = match scenario {
        Scenario::Bulk | Scenario::H1Bulk => STREAMS,
        // With the streams of each, 128 requests at once.
        Scenario::H2 | Scenario::Handshake | Scenario::HandshakeRsa => arguments.connections.div_ceil(4),
        Scenario::Latency => 1,
        _ => arguments.connections,
    };
    let proxies: Vec<Proxy> = arguments
        .only
        .iter()
        .map(|&product| Proxy::start(product, scenario, &upstream, gateway, &places.proxy, connections))
        .collect();
    let load = |address: SocketAddr, time: Duration| match scenario {
        Scenario::Bulk => wires::drink(address, STREAMS, stream, &places.cpus),
        Scenario::H1Bulk => bodies::fetch(address, STREAMS, bodies, BODY, &places.cpus),
        Scenario::Handshake | Scenario::HandshakeRsa => handshakes::shake(address, connections, time, &places.cpus),
        _ => load::run(scenario, address, &others, connections, time),
    };
    let time = Duration::from_secs(arguments.seconds);
    let mut report = Report::new(scenario, connections, time, places.cpus.is_some());
    for round in 0..arguments.rounds {
        if scenario == Scenario::Latency {
            report.direct(load(upstream.address, time));
        }
        for turn in 0..proxies.len() {
            let proxy = &proxies[(round + turn) % proxies.len()];
            if !arguments.quick && !scenario.is_bulk() {
                load(proxy.address, Duration::from_secs(1));
            }
            let before = tree_cpu(proxy.pid());
            let outcome = load(proxy.address, time);
            // Log lines and closing connections belong to the requests that caused them.
            pause(Duration::from_millis(150));
            let after = tree_cpu(proxy.pid());
            report.add(Round::new(
                proxy.product,
                outcome,
                before,
                after,
                tree_resident(proxy.pid()),
            ));
        }
    }
    // nginx writes its buffer once a second.
    pause(Duration::from_millis(1200));
    for proxy in &proxies {
        report.logged(proxy.product, proxy.log_lines());
    }
    report
}

/// Each proxy is started anew for its turn, since what an allocator has had it keeps.
fn run_idle(arguments: &Arguments, gateway: &Path, places: &Places) -> Report {
    // Proxy and bench have two descriptors a connection each.
    let descriptors = wires::raise_descriptor_limit(2 * IDLE as u64 + 2000);
    let most = usize::try_from(descriptors.saturating_sub(1000) / 2).unwrap_or(IDLE);
    let connections = most.min(if arguments.quick { QUICK_IDLE } else { IDLE });
    let upstream = Upstream::at(wires::echo(places.cpus.clone()));
    let mut report = Report::new(Scenario::Idle, connections, IDLE_SETTLES, places.cpus.is_some());
    for round in 0..arguments.rounds.min(IDLE_ROUNDS) {
        for turn in 0..arguments.only.len() {
            let product = arguments.only[(round + turn) % arguments.only.len()];
            let proxy = Proxy::start(product, Scenario::Idle, &upstream, gateway, &places.proxy, connections);
            pause(IDLE_SETTLES);
            report.started(product, tree_resident(proxy.pid()));
            let before = tree_cpu(proxy.pid());
            let (mut held, mut outcome) = wires::hold(proxy.address, connections);
            pause(IDLE_SETTLES);
            let (after, resident) = (tree_cpu(proxy.pid()), tree_resident(proxy.pid()));
            outcome.errors += (connections - held.alive()) as u64;
            report.add(Round::new(product, outcome, before, after, resident));
            drop(held);
            pause(Duration::from_millis(1200));
            report.logged(product, proxy.log_lines());
        }
    }
    report
}

/// Builds the gateway as users do, and says where it is.
fn build() -> PathBuf {
    let status = Command::new(env!("CARGO"))
        .args(["build", "--release", "--locked", "-p", "gateway", "--bin", "gateway"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .status()
        .unwrap();
    assert!(status.success(), "building the gateway: {status}");
    // This bench is target/PROFILE/bench.
    let own = std::env::current_exe().unwrap();
    own.parent().and_then(Path::parent).unwrap().join("release/gateway")
}

/// A stream of the bulk scenario.
const STREAM: u64 = 1 << 30;

/// The same with `--quick`.
const QUICK_STREAM: u64 = 64 << 20;

/// A body of the h1-bulk scenario.
const BODY: u64 = 100 << 20;

/// How many of them a connection carries in a turn.
const BODIES: usize = 10;

/// Streams at once.
const STREAMS: usize = 4;

/// Connections of the idle scenario.
const IDLE: usize = 10_000;

/// The same with `--quick`.
const QUICK_IDLE: usize = 500;

/// Memory does not vary as time does.
const IDLE_ROUNDS: usize = 3;

/// Until what was opened lies still.
const IDLE_SETTLES: Duration = Duration::from_millis(500);
