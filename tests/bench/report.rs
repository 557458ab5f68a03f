//! Rounds into a table: medians, and ratios to haproxy of the same round.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use gateway_tests::process::CpuTicks;

use crate::load::Outcome;
use crate::proxies::{Product, Scenario};

/// One proxy's turn in one round.
pub(crate) struct Round {
    product: Product,
    outcome: Outcome,
    /// Microseconds of CPU per request.
    user: f64,
    system: f64,
    resident: u64,
}

impl Round {
    pub(crate) fn new(product: Product, outcome: Outcome, before: CpuTicks, after: CpuTicks, resident: u64) -> Self {
        let micros = |ticks: u64| ticks as f64 * TICK / outcome.requests.max(1) as f64;
        Self {
            product,
            user: micros(after.user - before.user),
            system: micros(after.system - before.system),
            resident,
            outcome,
        }
    }

    fn cpu(&self) -> f64 {
        self.user + self.system
    }
}

/// A scenario's results.
pub(crate) struct Report {
    scenario: Scenario,
    connections: usize,
    time: Duration,
    pinned: bool,
    rounds: BTreeMap<usize, Vec<Round>>,
    lines: BTreeMap<usize, usize>,
    /// Without a proxy, round by round.
    direct: Vec<Outcome>,
    /// Memory of each proxy before it was given anything to do.
    started: BTreeMap<usize, u64>,
}

impl Report {
    pub(crate) fn new(scenario: Scenario, connections: usize, time: Duration, pinned: bool) -> Self {
        Self {
            scenario,
            connections,
            time,
            pinned,
            rounds: BTreeMap::new(),
            lines: BTreeMap::new(),
            direct: Vec::new(),
            started: BTreeMap::new(),
        }
    }

    pub(crate) fn add(&mut self, round: Round) {
        self.rounds.entry(round.product as usize).or_default().push(round);
    }

    /// What the load saw without a proxy between.
    pub(crate) fn direct(&mut self, outcome: Outcome) {
        self.direct.push(outcome);
    }

    pub(crate) fn started(&mut self, product: Product, resident: u64) {
        self.started.insert(product as usize, resident);
    }

    pub(crate) fn logged(&mut self, product: Product, lines: usize) {
        self.lines.insert(product as usize, lines);
    }

    /// Every proxy served requests, and served all of them.
    pub(crate) fn is_good(&self) -> bool {
        let all = || self.rounds.values().flatten();
        all().all(|round| round.outcome.errors == 0 && round.outcome.requests > 0)
            && self.lines.values().all(|&lines| lines > 0)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rounds = self.rounds.values().map(Vec::len).max().unwrap_or(0);
        writeln!(
            f,
            "\n{:?}: {} connections, {rounds} rounds of {:?}, CPU a {}, {}",
            self.scenario,
            self.connections,
            self.time,
            self.scenario.unit(),
            if self.pinned {
                "proxy on CPU 0, the rest on the others"
            } else {
                "not pinned"
            }
        )?;
        writeln!(
            f,
            "{:8} {:>9} {:>8} {:>8} {:>8}  {:<22} {:>8} {:>8} {:>8} {:>7} {:>9}",
            "",
            "a second",
            "CPU us",
            "user",
            "system",
            "ratio (min-max)",
            "p50 us",
            "p99 us",
            "RSS MiB",
            "errors",
            "log lines"
        )?;
        let haproxy = self.rounds.get(&(Product::Haproxy as usize));
        for (key, rounds) in &self.rounds {
            let of = |value: fn(&Round) -> f64| median(rounds.iter().map(value));
            let time = |value: fn(&Round) -> Option<f64>| {
                let known: Vec<f64> = rounds.iter().filter_map(value).collect();
                if known.is_empty() {
                    "-".to_owned()
                } else {
                    format!("{:.0}", median(known))
                }
            };
            let ratio = match haproxy {
                Some(base) => ratio(rounds, base, self.measure()),
                None => "-".to_owned(),
            };
            let errors: u64 = rounds.iter().map(|round| round.outcome.errors).sum();
            writeln!(
                f,
                "{:8} {:>9.0} {:>8.2} {:>8.2} {:>8.2}  {:<22} {:>8} {:>8} {:>8.1} {:>7} {:>9}",
                format!("{:?}", rounds[0].product).to_lowercase(),
                of(|round| round.outcome.requests as f64 / round.outcome.seconds.max(0.001)),
                of(Round::cpu),
                of(|round| round.user),
                of(|round| round.system),
                ratio,
                time(|round| round.outcome.p50),
                time(|round| round.outcome.p99),
                rounds.iter().map(|round| round.resident).max().unwrap_or(0) as f64 / (1024.0 * 1024.0),
                errors,
                self.lines.get(key).copied().unwrap_or(0),
            )?;
        }
        self.write_more(f)
    }
}

impl Report {
    /// What the ratios are of.
    fn measure(&self) -> fn(&Round) -> f64 {
        match self.scenario {
            Scenario::Idle => |round| round.resident as f64,
            _ => Round::cpu,
        }
    }

    /// What one scenario alone has to say.
    fn write_more(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.direct.is_empty() {
            let direct = median(self.direct.iter().filter_map(|outcome| outcome.p50));
            writeln!(f, "without a proxy: p50 {direct:.1} us")?;
        }
        let haproxy = self.rounds.get(&(Product::Haproxy as usize));
        for rounds in self.rounds.values() {
            let product = format!("{:?}", rounds[0].product).to_lowercase();
            // That of one connection is what `adds` is about.
            if let Some(base) = haproxy.filter(|base| base[0].product != rounds[0].product)
                && self.scenario != Scenario::Latency
                && rounds.iter().chain(base).all(|round| round.outcome.p99.is_some())
            {
                let p50 = ratio(rounds, base, |round| round.outcome.p50.unwrap_or_default());
                let p99 = ratio(rounds, base, |round| round.outcome.p99.unwrap_or_default());
                writeln!(f, "{product:8} latency to haproxy's: p50 {p50}, p99 {p99}")?;
            }
            let added: Vec<f64> = rounds
                .iter()
                .zip(&self.direct)
                .filter_map(|(round, direct)| Some(round.outcome.p50? - direct.p50?))
                .collect();
            if !added.is_empty() {
                writeln!(f, "{product:8} adds {:.1} us", median(added))?;
            }
            if let Some(&started) = self.started.get(&(rounds[0].product as usize)) {
                let grown = rounds
                    .iter()
                    .map(|round| round.resident.saturating_sub(started) as f64 / round.outcome.requests.max(1) as f64);
                writeln!(
                    f,
                    "{product:8} {:.1} MiB before the first connection, {:.0} bytes for each",
                    started as f64 / (1024.0 * 1024.0),
                    median(grown),
                )?;
            }
        }
        Ok(())
    }
}

/// The median of the ratios round by round, so that a slow minute of the machine touches both sides of each.
fn ratio(rounds: &[Round], base: &[Round], measure: fn(&Round) -> f64) -> String {
    let ratios: Vec<f64> = rounds
        .iter()
        .zip(base)
        .map(|(a, b)| measure(a) / measure(b).max(0.001))
        .collect();
    let low = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let high = ratios.iter().copied().fold(0.0, f64::max);
    format!("{:.3} ({low:.3}-{high:.3})", median(ratios))
}

fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

/// Microseconds of a clock tick in /proc: USER_HZ is 100 on every Linux that Rust runs on.
const TICK: f64 = 10_000.0;
