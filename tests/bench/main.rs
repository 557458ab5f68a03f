//! The side-by-side bench: haproxy, nginx and the gateway, one worker each, in front of the same nginx, under the same load,
//! in turns. README.md beside this file says what is measured and why it is fair.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a bench stops where it stands; nobody depends on it"
)]

mod load;
mod proxies;
mod report;

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::{Parser, ValueEnum};
use gateway_tests::peer::pause;
use gateway_tests::process::{tree_cpu, tree_resident};

use crate::proxies::{Product, Proxy, Scenario, Upstream};
use crate::report::{Report, Round};

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
        let report = run(scenario, &arguments, &gateway);
        print!("{report}");
        good &= report.is_good();
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(scenario: Scenario, arguments: &Arguments, gateway: &std::path::Path) -> Report {
    // With two cores or more the proxy has one to itself; upstream and load share the rest.
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let pinned = !arguments.no_pinning && cpus > 1;
    let others = format!("1-{}", cpus - 1);
    let proxy_prefix: &[&str] = if pinned { &["taskset", "-c", "0"] } else { &[] };
    let other_prefix: &[&str] = if pinned { &["taskset", "-c", &others] } else { &[] };

    let upstream = Upstream::start(other_prefix);
    let proxies: Vec<Proxy> = arguments
        .only
        .iter()
        .map(|&product| Proxy::start(product, scenario, &upstream, gateway, proxy_prefix))
        .collect();
    let time = Duration::from_secs(arguments.seconds);
    let mut report = Report::new(scenario, arguments.connections, time, pinned);
    for round in 0..arguments.rounds {
        for turn in 0..proxies.len() {
            let proxy = &proxies[(round + turn) % proxies.len()];
            let warm_up = if arguments.quick { 0 } else { 1 };
            if warm_up > 0 {
                load::run(
                    scenario,
                    proxy,
                    other_prefix,
                    arguments.connections,
                    Duration::from_secs(warm_up),
                );
            }
            let before = tree_cpu(proxy.pid());
            let outcome = load::run(scenario, proxy, other_prefix, arguments.connections, time);
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
    own.parent()
        .and_then(std::path::Path::parent)
        .unwrap()
        .join("release/gateway")
}
