//! Load, and what the generator says about it.

use std::net::SocketAddr;
use std::process::{Output, Stdio};
use std::time::Duration;

use gateway_tests::peer::prefixed;

use crate::proxies::Scenario;

/// What a generator saw in one run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcome {
    pub(crate) requests: u64,
    /// Socket errors, time-outs and every status but 2xx.
    pub(crate) errors: u64,
    pub(crate) seconds: f64,
    /// Microseconds; not every generator says them.
    pub(crate) p50: Option<f64>,
    pub(crate) p99: Option<f64>,
}

/// Loads what listens there for that long.
pub(crate) fn run(
    scenario: Scenario,
    address: SocketAddr,
    prefix: &[&str],
    connections: usize,
    time: Duration,
) -> Outcome {
    let seconds = time.as_secs().max(1);
    match scenario {
        Scenario::H1H2load => h2load(prefix, &["--h1"], &url(scenario, address), connections, seconds),
        Scenario::H1Rate => h2load(
            prefix,
            &["--h1", "--rps", RATE],
            &url(scenario, address),
            connections,
            seconds,
        ),
        Scenario::H2 => h2load(prefix, &["-m", STREAMS], &url(scenario, address), connections, seconds),
        Scenario::Conn | Scenario::H1Conn => wrk(
            prefix,
            &url(scenario, address),
            connections,
            seconds,
            &["Connection: close"],
        ),
        _ => wrk(prefix, &url(scenario, address), connections, seconds, &[]),
    }
}

/// A request with what browsers send, so that heads are not smaller than in life.
const HEADERS: [&str; 6] = [
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Language: en-GB,en;q=0.5",
    "Accept-Encoding: gzip, deflate, br, zstd",
    "Cookie: session=0123456789abcdef; theme=dark",
    "X-Debug: 1",
];

/// Requests a second of each connection: with 64 of them a quarter of what one worker does, so that requests find it idle.
const RATE: &str = "50";

/// Streams of a connection at once: what a page asks for beside itself.
const STREAMS: &str = "8";

fn url(scenario: Scenario, address: SocketAddr) -> String {
    let path = match scenario {
        Scenario::Policy | Scenario::PolicyAsked => "/old/items?page=2",
        _ => "/items?page=2",
    };
    let scheme = match scenario {
        Scenario::Tls | Scenario::H2 => "https",
        _ => "http",
    };
    format!("{scheme}://{address}{path}")
}

fn wrk(prefix: &[&str], url: &str, connections: usize, seconds: u64, more: &[&str]) -> Outcome {
    let mut command = prefixed(prefix, "wrk");
    command.args(["-t1", "--latency", "--timeout", "5s"]);
    command.arg(format!("-c{connections}")).arg(format!("-d{seconds}s"));
    for header in HEADERS.iter().chain(more) {
        command.args(["-H", header]);
    }
    parse_wrk(&text(command.arg(url).stderr(Stdio::inherit()).output()))
}

fn h2load(prefix: &[&str], how: &[&str], url: &str, connections: usize, seconds: u64) -> Outcome {
    let mut command = prefixed(prefix, "h2load");
    let times = tempfile::NamedTempFile::new().unwrap();
    command
        .args(how)
        .arg("-t1")
        .arg(format!("-c{connections}"))
        .arg(format!("-D{seconds}"))
        .arg("--log-file")
        .arg(times.path());
    for header in HEADERS {
        command.args(["-H", header]);
    }
    let mut outcome = parse_h2load(&text(command.arg(url).stderr(Stdio::inherit()).output()), seconds);
    // A line a request: when it began, its status, how long it took.
    let times = std::fs::read_to_string(times.path()).unwrap_or_default();
    let took = |line: &str| line.split('\t').nth(2).and_then(|took| took.parse().ok());
    (outcome.p50, outcome.p99) = percentiles(times.lines().filter_map(took).collect());
    outcome
}

/// The median and the time within which 99 of 100 were done.
pub(crate) fn percentiles(mut times: Vec<f64>) -> (Option<f64>, Option<f64>) {
    times.sort_by(f64::total_cmp);
    let at = |part: usize| times.get(times.len() * part / 100).copied();
    (at(50), at(99))
}

fn text(output: std::io::Result<Output>) -> String {
    let output = output.unwrap_or_else(|e| panic!("the load generator: {e}; apt-get install wrk nghttp2-client"));
    assert!(output.status.success(), "the load generator: {}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn parse_wrk(text: &str) -> Outcome {
    let mut outcome = Outcome::default();
    for line in text.lines().map(str::trim) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [count, "requests", "in", time, ..] => {
                outcome.requests = count.parse().unwrap();
                outcome.seconds = micros(time.trim_end_matches(',')) / 1e6;
            }
            ["50%", time] => outcome.p50 = Some(micros(time)),
            ["99%", time] => outcome.p99 = Some(micros(time)),
            ["Non-2xx", .., count] => outcome.errors += count.parse::<u64>().unwrap(),
            ["Socket", "errors:", counts @ ..] => {
                let numbers = counts
                    .iter()
                    .filter_map(|word| word.trim_end_matches(',').parse::<u64>().ok());
                outcome.errors += numbers.sum::<u64>();
            }
            _ => {}
        }
    }
    outcome
}

fn parse_h2load(text: &str, seconds: u64) -> Outcome {
    let mut outcome = Outcome {
        seconds: seconds as f64,
        ..Outcome::default()
    };
    for line in text.lines() {
        let numbers = |text: &str| -> Vec<u64> {
            text.split(|c: char| !c.is_ascii_digit())
                .filter_map(|word| word.parse().ok())
                .collect()
        };
        if let Some(rest) = line.strip_prefix("requests: ") {
            // total, started, done, succeeded, failed, errored, timeout
            let counts = numbers(rest);
            outcome.requests = counts[2];
            outcome.errors += counts[4] + counts[5] + counts[6];
        } else if let Some(rest) = line.strip_prefix("status codes: ") {
            outcome.errors += other_statuses(rest);
        }
    }
    outcome
}

/// `123 2xx, 0 3xx, 0 4xx, 0 5xx`: the sum of all but the first.
fn other_statuses(text: &str) -> u64 {
    let counts = text.split(", ").filter_map(|part| part.split_once(' '));
    counts
        .filter(|(_, class)| *class != "2xx")
        .filter_map(|(count, _)| count.parse::<u64>().ok())
        .sum()
}

/// `1.23ms`, `456.00us`, `2.00s`, `1.00m`.
fn micros(text: &str) -> f64 {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().unwrap();
    match unit {
        "us" => number,
        "ms" => number * 1e3,
        "s" => number * 1e6,
        "m" => number * 60e6,
        _ => panic!("{text:?} is no time"),
    }
}
