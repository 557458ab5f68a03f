//! The test host keeps the contract's rules.

use std::time::Duration;

use gateway_plugin_sdk::buckets::{self, Rate};
use gateway_plugin_sdk::config::one_or_many;
use gateway_plugin_sdk::needs::{ConnectionNeed, RequestNeed, ResponseNeed};
use gateway_plugin_sdk::test::{Connection, FilteredBody, Host, Measured, Request, Response};
use gateway_plugin_sdk::{
    AccessControl, AccessLog, Answer, Answers, BodyMode, Call, CallAnswered, CallError, ConfigError, ConnectionFilter,
    ConnectionVerdict, Failure, Needs, Outcome, Piece, PieceOutcome, PieceVerdict, Plugin, Reply, RequestBodyFilter,
    RequestEdits, RequestFilter, ResponseEdits, ResponseFilter, clock, counters, kv, log, metrics, plugin, tags,
};
use serde::Deserialize;

/// A plugin with every hook but one, that does as its configuration says.
struct Probe {
    does: String,
    tags: Vec<String>,
    cookie: RequestNeed,
    status: ResponseNeed,
    client: ConnectionNeed,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    does: String,
    #[serde(default, deserialize_with = "one_or_many")]
    tags: Vec<String>,
}

impl Plugin for Probe {
    type Config = Config;
    const NAME: &'static str = "probe";
    const ABOUT: &'static str = "Tries the host.";

    fn configure(config: Config, needs: &mut Needs) -> Result<Self, ConfigError> {
        if config.does == "refuse" {
            return Err(ConfigError::new("refused").at("/does"));
        }
        if config.does == "look at the request" {
            log::info("before any request");
            buckets::take(
                "b",
                b"",
                Rate {
                    tokens: 0,
                    period_ms: 1,
                    burst: 1,
                },
                1,
            );
        }
        Ok(Self {
            does: config.does,
            tags: config.tags,
            cookie: needs.request.cookie("a"),
            status: needs.response.status(),
            client: needs.connection.client_ip(),
        })
    }
}

impl AccessControl for Probe {
    fn predicates(&self) -> Vec<String> {
        self.tags.clone()
    }

    fn evaluate(&self, request: &gateway_plugin_sdk::Request<'_>) -> Answers {
        let cookies: Vec<&[u8]> = request.all(self.cookie).collect();
        self.tags.iter().map(|tag| cookies.contains(&tag.as_bytes())).collect()
    }
}

impl RequestFilter for Probe {
    fn on_request(
        &self,
        request: &gateway_plugin_sdk::Request<'_>,
        edits: &mut RequestEdits,
    ) -> Result<Outcome, Failure> {
        edits.set_header("x-a", "1")?;
        match self.does.as_str() {
            "fail" => Err(Failure::new("on purpose")),
            "break the head" => edits
                .set_header("x-b", "1\r\nx-c: 2")
                .map(|()| Outcome::Proceed)
                .map_err(Failure::from),
            "frame" => edits
                .set_header("Content-Length", "1")
                .map(|()| Outcome::Proceed)
                .map_err(Failure::from),
            "see" => {
                let head = request.head();
                let told = format!("{} {} {:?}", head.method(), head.authority(), head.header("x-a"));
                log::write(log::Level::Warn, &told);
                log::info(&format!("{}\n", clock::now().as_millis()));
                edits.set_path("/seen")?;
                edits.set_query(Some(b"by=probe"))?;
                Ok(Outcome::Proceed)
            }
            _ => Ok(Reply::new(403).header("X-Why", "because").body("no").into()),
        }
    }
}

impl ResponseFilter for Probe {
    fn on_response(
        &self,
        response: &gateway_plugin_sdk::Response<'_>,
        edits: &mut ResponseEdits,
    ) -> Result<Option<Reply>, Failure> {
        let status = response.text(self.status).unwrap_or_default();
        edits.add_header("x-status", format!("{status} {}", response.request().method()))?;
        edits.set_status(if self.does == "empty" { 204 } else { 418 })?;
        Ok(None)
    }
}

impl ConnectionFilter for Probe {
    fn on_connect(&self, connection: &gateway_plugin_sdk::Connection<'_>) -> ConnectionVerdict {
        match connection.ip(self.client) {
            Some(ip) if ip.is_loopback() => ConnectionVerdict::Accept,
            Some(_) => ConnectionVerdict::Route(connection.peer().to_string()),
            None => ConnectionVerdict::Refuse,
        }
    }
}

plugin!(Probe: AccessControl + RequestFilter + ResponseFilter + ConnectionFilter);

fn probe(host: &Host, does: &str) -> gateway_plugin_sdk::test::Tested<Probe> {
    host.configure(&format!(r#"{{"does": "{does}", "tags": ["1", "2", "3"]}}"#))
        .expect("a good configuration")
}

#[test]
fn configurations_are_read_and_refused() {
    let host = Host::new();
    let refused = |config: &str| {
        host.configure::<Probe>(config)
            .expect_err("a bad configuration")
            .to_string()
    };
    assert_eq!(refused(r#"{"does": "refuse"}"#), "/does: refused");
    assert!(refused(r#"{"dose": "x"}"#).contains("unknown field `dose`"));
    assert!(refused(r#"{"does": "x", "tags": [1]}"#).contains("expected a string"));
    assert!(refused(r#"{"does": "x", "tags": 1}"#).contains("expected a string"));
    let one: gateway_plugin_sdk::test::Tested<Probe> = host.configure(r#"{"does": "x", "tags": "1"}"#).expect("one");
    assert_eq!(
        one.evaluate(&Request::get("/").with_header("cookie", "a=1")).yes(),
        ["1"]
    );
}

#[test]
fn facts_are_what_was_declared() {
    let probe = probe(&Host::new(), "x");
    assert_eq!(probe.request_needs(), ["cookie:a"]);
    let request = Request::get("/")
        .with_header("cookie", "b=2; a=1")
        .with_header("cookie", "a=3");
    assert_eq!(probe.evaluate(&request).yes(), ["1", "3"]);
    assert!(!probe.evaluate(&request).holds("2"));
}

#[test]
fn edits_are_made_checked_and_discarded() {
    let host = Host::new();
    let request = Request::get("/x?y").with_header("x-a", "0");
    let seen = probe(&host, "see").on_request(&request).expect("no failure");
    assert_eq!(
        (seen.request.path().as_str(), seen.request.query().as_deref()),
        ("/seen", Some("by=probe"))
    );
    assert_eq!(seen.request.header("x-a"), ["1"]);
    let told = "GET gateway.example [[48]]".to_owned();
    assert_eq!(
        host.log()[0],
        (log::Level::Warn, told),
        "the head is shown without the running call's edits"
    );
    assert_eq!(host.log()[1].1, "1767225600000\\n", "control characters are escaped");

    assert_eq!(
        probe(&host, "fail").on_request(&request),
        Err(Failure::new("on purpose"))
    );
    let broken = probe(&host, "break the head")
        .on_request(&request)
        .expect_err("a bad value");
    assert!(broken.to_string().contains("no control characters"), "{broken}");
    assert!(
        probe(&host, "frame")
            .on_request(&request)
            .expect_err("not a plugin's")
            .to_string()
            .contains("framing")
    );

    let reply = probe(&host, "reply")
        .on_request(&request)
        .expect("no failure")
        .reply
        .expect("a reply");
    assert_eq!((reply.status(), reply.bytes()), (403, &b"no"[..]));
    assert_eq!(reply.headers(), [("x-why".to_owned(), b"because".to_vec())]);
}

#[test]
fn responses_are_edited_with_the_request_in_sight() {
    let host = Host::new();
    let response = probe(&host, "x")
        .on_response(&Request::post("/"), &Response::new(200))
        .expect("no failure");
    assert_eq!(
        (response.status(), response.header("x-status")),
        (418, vec!["200 POST".to_owned()])
    );
    assert!(
        probe(&host, "empty")
            .on_response(&Request::get("/"), &Response::new(200))
            .is_err()
    );
}

#[test]
fn connections_are_decided_on() {
    let probe = probe(&Host::new(), "x");
    assert_eq!(
        probe.on_connect(&Connection::new().from("127.0.0.1")),
        ConnectionVerdict::Accept
    );
    let proxied = Connection::new().from("198.51.100.7:1").through("10.0.0.1:2");
    assert_eq!(
        probe.on_connect(&proxied),
        ConnectionVerdict::Route("10.0.0.1:2".to_owned())
    );
}

#[test]
#[should_panic(expected = "the host traps: a rate's numbers are at least 1")]
fn what_would_trap_panics() {
    let _ = Host::new().configure::<Probe>(r#"{"does": "look at the request"}"#);
}

#[test]
#[should_panic(expected = "called outside a hook")]
fn the_host_answers_in_hooks_only() {
    clock::now();
}

#[test]
fn time_passes_when_the_test_says_so() {
    let host = Host::new();
    host.advance(Duration::from_secs(2));
    probe(&host, "see").on_request(&Request::get("/")).expect("no failure");
    assert_eq!(host.log()[1].1, "1767225602000\\n");
}

/// A plugin with the hooks for bodies, calls and logs.
struct Scanner {
    path: RequestNeed,
    status: gateway_plugin_sdk::needs::LogNeed,
}

const SEEN: u32 = 0;

impl Plugin for Scanner {
    type Config = Empty;
    const NAME: &'static str = "scanner";
    const ABOUT: &'static str = "Tries the rest of the host.";
    const METRICS: &'static [metrics::Metric] = &[metrics::Metric::counter("seen", "Exchanges seen.").labels(&[
        metrics::Label {
            name: "well",
            values: &["yes", "no"],
        },
    ])];

    fn configure(_: Empty, needs: &mut Needs) -> Result<Self, ConfigError> {
        Ok(Self {
            path: needs.request.path(),
            status: needs.log.status(),
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Empty {}

impl RequestFilter for Scanner {
    fn on_request(
        &self,
        request: &gateway_plugin_sdk::Request<'_>,
        edits: &mut RequestEdits,
    ) -> Result<Outcome, Failure> {
        edits.set_header("x-early", "1")?;
        tags::set("scanner.path", request.get(self.path).unwrap_or_default())?;
        match kv::get(b"known") {
            Some(_) => Ok(Outcome::Route("fast".to_owned())),
            None => Ok(Call::get("auth", "/check").state("s").into()),
        }
    }
}

impl CallAnswered for Scanner {
    fn on_answer(
        &self,
        _: &gateway_plugin_sdk::Request<'_>,
        answer: Result<Answer, CallError>,
        state: &[u8],
        edits: &mut RequestEdits,
    ) -> Result<Outcome, Failure> {
        let Ok(answer) = answer else {
            return Ok(Reply::new(503).into());
        };
        edits.set_header("x-state", state)?;
        kv::set(b"known", &answer.body, Some(Duration::from_secs(60))).map_err(|e| Failure::new(e.to_string()))?;
        counters::add(b"asked", 1).map_err(|e| Failure::new(e.to_string()))?;
        Ok(Outcome::Proceed)
    }
}

impl RequestBodyFilter for Scanner {
    fn on_request_body(&self, request: &gateway_plugin_sdk::Request<'_>) -> BodyMode {
        match request.get(self.path) {
            Some(b"/whole") => BodyMode::Buffered { max: 5 },
            Some(b"/held") => BodyMode::Held,
            _ => BodyMode::Streamed,
        }
    }

    fn on_request_piece(&self, piece: Piece) -> Result<PieceOutcome, Failure> {
        if piece.bytes == b"bad" {
            return Ok(PieceVerdict::Reply(Reply::new(422)).into());
        }
        let mut seen = piece.state;
        seen.push(b'0' + piece.bytes.len() as u8);
        let verdict = match piece.last {
            true => PieceVerdict::Replace(seen.clone()),
            false => PieceVerdict::Replace(Vec::new()),
        };
        Ok(PieceOutcome::from(verdict).with_state(seen))
    }
}

impl AccessLog for Scanner {
    fn on_log(&self, exchange: &gateway_plugin_sdk::Exchange<'_>) {
        let well = exchange.number(self.status).is_some_and(|status| status < 500);
        metrics::add(SEEN, u32::from(!well), 1);
    }
}

plugin!(Scanner: RequestFilter + CallAnswered + RequestBodyFilter + AccessLog);

#[test]
fn a_call_is_made_and_answered_and_what_is_kept_has_its_time() {
    let host = Host::new();
    let scanner = host.configure::<Scanner>("{}").expect("a good configuration");
    let request = Request::get("/a");
    let asked = scanner.on_request(&request).expect("no failure");
    let call = asked.call.expect("a call");
    assert_eq!((call.backend(), call.target()), ("auth", &b"/check"[..]));
    // Edits of a step that calls are dropped.
    assert!(asked.request.header("x-early").is_empty());
    let answer = Answer {
        status: 200,
        headers: Vec::new(),
        body: b"yes".to_vec(),
    };
    let went_on = scanner.on_answer(&request, &call, Ok(answer)).expect("no failure");
    assert_eq!(went_on.request.header("x-state"), ["s"]);
    let known = scanner.on_request(&request).expect("no failure");
    assert_eq!(
        (known.route.as_deref(), known.request.tag("scanner.path")),
        (Some("fast"), Some("/a".to_owned()))
    );
    host.advance(Duration::from_secs(60));
    assert!(scanner.on_request(&request).expect("no failure").call.is_some());
    let lost = scanner
        .on_answer(&request, &call, Err(CallError::Timeout))
        .expect("no failure");
    assert_eq!(lost.reply.expect("a reply").status(), 503);
}

#[test]
fn bodies_are_handed_over_as_they_are_wanted() {
    let host = Host::new();
    let scanner = host.configure::<Scanner>("{}").expect("a good configuration");
    let filtered = |path: &str, pieces: &[&[u8]]| scanner.on_request_body(&Request::post(path), pieces);
    // The last of what streams is empty, as the gateway hands it over.
    assert_eq!(
        filtered("/", &[b"a", b"bc", b"def"]),
        Ok(FilteredBody::Bytes(b"1230".to_vec()))
    );
    assert_eq!(
        filtered("/whole", &[b"a", b"bc"]),
        Ok(FilteredBody::Bytes(b"3".to_vec()))
    );
    assert_eq!(filtered("/whole", &[b"abc", b"def"]), Ok(FilteredBody::Aborted));
    assert_eq!(filtered("/held", &[b"bad"]), Ok(FilteredBody::Reply(Reply::new(422))));
    filtered("/", &[b"bad"]).expect_err("the head has gone");
}

#[test]
fn metrics_are_seen_by_the_test() {
    let host = Host::new();
    let scanner = host.configure::<Scanner>("{}").expect("a good configuration");
    for status in ["200", "503"] {
        scanner.on_log(&Request::get("/"), None, &[("status", status)]);
    }
    assert_eq!(
        host.measured(),
        [(0, 0, Measured::Added(1)), (0, 1, Measured::Added(1))]
    );
}
