//! What observing a request costs: its log line and its counts, alone and with another worker counting the same.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use criterion::{Criterion, criterion_group, criterion_main};
use gateway::config::{Log, LogFormat, LogTarget};
use gateway::telemetry::access::{Counts, HttpRecord, HttpTimers, RequestLine, Termination};
use gateway::telemetry::log::{LogSink, Severity};
use gateway::telemetry::metrics::{FrontendMetrics, InFlight, LogCounts, Registry, ServerMetrics};

fn log_line(criterion: &mut Criterion) {
    for (name, format) in [("text", LogFormat::Text), ("json", LogFormat::Json)] {
        let log = Log {
            target: LogTarget::File("/dev/null".into()),
            format,
            origin: None,
        };
        let Ok(sink) = LogSink::start(&log, &Arc::new(LogCounts::default())) else {
            return;
        };
        let mut writer = sink.writer();
        let record = HttpRecord {
            client: Some(([10, 0, 1, 2], 33317).into()),
            destination: Some(([10, 0, 0, 1], 443).into()),
            started: SystemTime::now(),
            frontend: "web",
            tls: false,
            connection: &(),
            backend: Some("app"),
            server: Some("app-1"),
            timers: HttpTimers {
                request: Some(Duration::from_micros(10)),
                queue: Some(Duration::ZERO),
                connect: Some(Duration::ZERO),
                response: Some(Duration::from_micros(1069)),
                total: Duration::from_micros(1109),
            },
            status: Some(200),
            grpc: None,
            bytes_sent: 2750,
            bytes_received: 300,
            termination: Termination::default(),
            cookies: None,
            counts: Counts::default(),
            request: Some(RequestLine {
                method: "GET",
                host: Some(b"www.example.net"),
                target: b"/api/v1/things/1234?fields=name,size",
                version: http::Version::HTTP_11,
            }),
            tenant: None,
            reason: None,
            rule: None,
            rule_file: None,
            request_id: None,
            captures: None,
            tags: &[],
            format: None,
            to: None,
            severity: Severity::default(),
            trace: None,
        };
        criterion.bench_function(&format!("log line, {name}"), |bencher| {
            bencher.iter(|| writer.http(black_box(&record)));
        });
    }
}

fn count(frontend: &FrontendMetrics, server: &Arc<ServerMetrics>) {
    let under_way = InFlight::begin(server);
    server.response(Some(200), Duration::from_micros(900));
    frontend.response(Some(200), Duration::from_micros(1100));
    frontend.bytes(300, 2750);
    drop(under_way);
}

fn counts(criterion: &mut Criterion) {
    let registry = Registry::new();
    let frontend = registry.frontend("web");
    let server = registry.server(&registry.backend("app"), "app-1");
    criterion.bench_function("counts of a request", |bencher| {
        bencher.iter(|| count(black_box(&frontend), black_box(&server)));
    });
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                count(&frontend, &server);
            }
        });
        criterion.bench_function("counts of a request, contended", |bencher| {
            bencher.iter(|| count(black_box(&frontend), black_box(&server)));
        });
        stop.store(true, Ordering::Relaxed);
    });
}

criterion_group!(benches, log_line, counts);
criterion_main!(benches);
