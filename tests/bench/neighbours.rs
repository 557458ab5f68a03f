//! What a tenant's plugin that does its worst costs another tenant: rounds beside a quiet neighbour and beside a hostile one take
//! turns in one gateway, whose one worker both share.

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use gateway_tests::peer::{Peer, free_address, prefixed};
use gateway_tests::{Client, get, guest};
use tempfile::TempDir;

use crate::load::percentiles;

/// Prints for each kind of neighbour how it moves the 99th percentile. Whether all requests were answered as they should be.
pub(crate) fn run(gateway: &Path, prefix: &[&str], rounds: usize, time: Duration) -> bool {
    println!("## neighbours\n");
    println!(
        "{VICTIMS} connections of one tenant, {NEIGHBOURS} of its neighbour, a request each {} ms; {rounds} rounds of {} s.\n",
        PACE.as_millis(),
        time.as_secs()
    );
    println!("| neighbour | p99 beside a quiet one, µs | p99 beside this one, µs | ratio |");
    println!("|---|---|---|---|");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut good = true;
    for (what, hostile) in hostile() {
        let (_peer, _directory, address) = start(gateway, prefix, &hostile);
        let (mut quiet, mut loud) = (Vec::new(), Vec::new());
        // Until the hostile one has used up what it may, and both have been seen.
        runtime.block_on(round(address, "hostile.example", WARM_UP));
        for n in 0..rounds {
            for turn in 0..2 {
                let is_hostile = (n + turn) % 2 == 1;
                let neighbour = if is_hostile { "hostile.example" } else { "quiet.example" };
                let (p99, as_expected) = runtime.block_on(round(address, neighbour, time));
                good &= as_expected;
                if is_hostile { &mut loud } else { &mut quiet }.push(p99);
            }
        }
        let (quiet, loud) = (median(quiet), median(loud));
        println!("| {what} | {quiet:.0} | {loud:.0} | {:.3} |", loud / quiet);
    }
    println!();
    good
}

/// The 99th percentile, in microseconds, of one tenant's requests while a neighbour has some of its own; and whether each got the
/// answer that its plugin gives, and none another's.
async fn round(address: SocketAddr, neighbour: &'static str, time: Duration) -> (f64, bool) {
    let end = Instant::now() + time;
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            let noise: Vec<_> = (0..NEIGHBOURS)
                .map(|_| tokio::task::spawn_local(asking(address, neighbour, 503, end)))
                .collect();
            let victims: Vec<_> = (0..VICTIMS)
                .map(|_| tokio::task::spawn_local(asking(address, "victim.example", 204, end)))
                .collect();
            let (mut times, mut good) = (Vec::new(), true);
            for victim in victims {
                let (took, as_expected) = victim.await.unwrap();
                times.extend(took);
                good &= as_expected;
            }
            for noise in noise {
                good &= noise.await.unwrap().1;
            }
            (percentiles(times).1.unwrap_or(f64::NAN), good)
        })
        .await
}

/// How long each of one connection's requests took, in microseconds, and whether all had this status.
async fn asking(address: SocketAddr, host: &'static str, status: u16, end: Instant) -> (Vec<f64>, bool) {
    let mut client = Client::connect(address).await;
    let mut ticks = tokio::time::interval(PACE);
    let (mut times, mut good) = (Vec::new(), true);
    while Instant::now() < end {
        ticks.tick().await;
        let begun = Instant::now();
        let answer = client.ask(get("/").host(host)).await;
        times.push(begun.elapsed().as_secs_f64() * 1e6);
        good &= answer.status == status;
    }
    (times, good)
}

/// A gateway of one worker with three tenants: the one that is measured, a quiet neighbour, and the hostile one.
fn start(gateway: &Path, prefix: &[&str], hostile: &[u8]) -> (Peer, TempDir, SocketAddr) {
    let directory = tempfile::tempdir().unwrap();
    let address = free_address();
    let answering = |status| guest::filter(&format!("(call $reply (i32.const {status}) (i32.const 0))"), "");
    for (name, component) in [
        ("victim.wasm", &*answering(204)),
        ("quiet.wasm", &*answering(503)),
        ("hostile.wasm", hostile),
    ] {
        std::fs::write(directory.path().join(name), component).unwrap();
    }
    let config = directory.path().join("config.kdl");
    let text = include_str!("configs/neighbours.kdl").replace("@LISTEN", &address.to_string());
    std::fs::write(&config, text).unwrap();
    let out = |name| File::create(directory.path().join(name)).unwrap();
    let mut command = prefixed(prefix, &gateway.to_string_lossy());
    command.arg("run").arg("-c").arg(config);
    command.stdout(out("access.log")).stderr(out("events.log"));
    (Peer::start(&mut command, address), directory, address)
}

/// What a plugin can do to those beside it. Each ends in a 503, by its failure or by its own word.
fn hostile() -> Vec<(&'static str, Vec<u8>)> {
    let log = r#"(import "gateway:policy/log@0.1.0" "write" (func $log (param i32 i32 i32)))"#;
    let facts = guest::FACTS;
    let chatty = format!(
        r#"{log} ;; end of imports
        (func (export "gateway:policy/request-filter@0.1.0#on-request") {facts} (result i32)
          (local $i i32)
          (local.set $i (i32.const 2000))
          (loop (call $log (i32.const 2) (i32.const 1024) (i32.const 20))
            (br_if 0 (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))
          (call $reply (i32.const 503) (i32.const 0)))
        (func (export "gateway:policy/response-filter@0.1.0#on-response") {facts} (result i32) (call $none))"#
    );
    let eating = "(drop (memory.grow (i32.const 100)))
        (memory.fill (i32.const 8192) (i32.const 1) (i32.const 4000000)) (unreachable)";
    vec![
        ("looping", guest::filter("(call $loop) (call $none)", "")),
        ("trapping", guest::filter("(unreachable)", "")),
        ("memory-eating", guest::filter(eating, "")),
        ("chatty", guest::component("header-rewrite", &chatty)),
    ]
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Connections of the tenant that is measured: some thousand requests a second, which is far from what a worker can do.
const VICTIMS: usize = 16;

/// Connections of its neighbour.
const NEIGHBOURS: usize = 4;

/// Between two requests of a connection.
const PACE: Duration = Duration::from_millis(15);

const WARM_UP: Duration = Duration::from_secs(2);
