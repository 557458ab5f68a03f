//! Persistence by cookies, beside HAProxy: what a request's cookie means, what the server sees of it and what the client is told
//! is the same, and cookies of the one are good with the other.

use std::process::Stdio;

use gateway_tests::peer::{Peer, free_address};
use gateway_tests::{Answer, Client, Gateway, HttpServer, RequestText, get, post};

/// What a client gets, and what the server saw of its cookies.
#[derive(Debug, PartialEq, Eq)]
struct Exchange {
    server: String,
    told: Vec<String>,
    seen: Vec<String>,
}

#[cfg_attr(not(feature = "peers"), ignore = "needs haproxy: --features peers")]
#[tokio::test]
async fn cookies_mean_and_become_the_same_as_with_haproxy() {
    let cookies = [
        "",
        "SID=a",
        "SID=b",
        "x=1; SID=b; y=2",
        "SID=zzz",
        "SID=",
        "SID=a~abc",
        "SID=b~abc; x=1",
        "SID=zzz~abc",
        "SID=a; SID=b",
        "SID=zzz; SID=b",
        "SID=a|SZX+7|SZX+7",
        "SID=a|SZX+7",
        "SID=a|//////",
        "x=\"1;2\"; SID=a",
        "SID=a;",
    ];
    for sets in [false, true] {
        let servers = [app("a", sets).await, app("b", sets).await];
        for (haproxys, ours) in [
            ("", ""),
            ("indirect", "indirect"),
            ("insert", "insert"),
            ("insert indirect", "insert indirect"),
            ("insert postonly indirect", "insert postonly indirect"),
            ("insert preserve", "insert preserve"),
            ("insert indirect preserve", "insert indirect preserve"),
            ("rewrite", "rewrite"),
            ("prefix", "prefix"),
            (
                "insert indirect httponly secure domain .example.net attr SameSite=Lax",
                r#"insert indirect httponly secure domain=".example.net" samesite="lax""#,
            ),
            (
                "insert indirect maxidle 30m maxlife 8h",
                r#"insert indirect max-idle="30m" max-life="8h""#,
            ),
            ("insert maxidle 30m", r#"insert max-idle="30m""#),
            ("insert maxlife 8h", r#"insert max-life="8h""#),
        ] {
            let (haproxy, gateway) = both(&servers, haproxys, ours).await;
            for cookie in cookies {
                for request in [get("/"), post("/", "")] {
                    let ask = async |address| ask(address, &servers, with(request.clone(), cookie)).await;
                    let (theirs, own) = (ask(haproxy.1).await, ask(gateway.address("web")).await);
                    // Where balancing decided, each may have taken another.
                    let same = theirs == own || nameless(&theirs) == nameless(&own);
                    assert!(same, "{haproxys}: {cookie}\nhaproxy {theirs:?}\ngateway {own:?}");
                }
            }
        }
    }
}

#[cfg_attr(not(feature = "peers"), ignore = "needs haproxy: --features peers")]
#[tokio::test]
async fn what_the_one_has_set_the_other_understands() {
    let servers = [app("a", false).await, app("b", false).await];
    let haproxys = "insert indirect maxidle 30m maxlife 8h";
    let (haproxy, gateway) = both(&servers, haproxys, r#"insert indirect max-idle="30m" max-life="8h""#).await;
    let ways = [(haproxy.1, gateway.address("web")), (gateway.address("web"), haproxy.1)];
    for (one, other) in ways {
        for _ in 0..4 {
            let first = Client::connect(one).await.ask(get("/")).await;
            let cookie = first
                .header("set-cookie")
                .unwrap()
                .split(';')
                .next()
                .unwrap()
                .to_owned();
            let life = cookie.rsplit_once('|').unwrap().1;
            for _ in 0..3 {
                let next = Client::connect(other).await.ask(with(get("/"), &cookie)).await;
                assert_eq!(next.text(), first.text());
                // At most the date of when it was last seen is new.
                let told = next.header("set-cookie");
                assert!(told.is_none_or(|told| told.contains(&format!("|{life};"))), "{told:?}");
            }
        }
    }
}

/// A server that says its name, and sets the cookie itself if told so.
async fn app(name: &'static str, sets: bool) -> HttpServer {
    HttpServer::start(move |_| {
        let answer = Answer::ok(name);
        match sets {
            true => answer
                .header("Set-Cookie", "SID=abc; Path=/x; HttpOnly")
                .header("Set-Cookie", "o=1"),
            false => answer,
        }
    })
    .await
}

type HaProxy = (Peer, std::net::SocketAddr, tempfile::TempDir);

async fn both(servers: &[HttpServer; 2], haproxys: &str, ours: &str) -> (HaProxy, Gateway) {
    let directory = tempfile::tempdir().unwrap();
    let address = free_address();
    let [a, b] = servers.each_ref().map(|server| server.address());
    let configuration = format!(
        "defaults\n  mode http\n  timeout connect 5s\n  timeout client 20s\n  timeout server 20s\n\
         frontend web\n  bind {address}\n  default_backend app\n\
         backend app\n  cookie SID {haproxys}\n  server a {a} cookie a\n  server b {b} cookie b\n"
    );
    let peer = Peer::haproxy(&[], directory.path(), &configuration, Stdio::null(), address);
    let gateway = Gateway::kdl(&format!(
        r#"
        process {{ workers 1 }}
        frontend "web" {{ bind "127.0.0.1:0"; default-backend "app" }}
        backend "app" {{ cookie "SID" {ours}; server "a" "{a}" cookie="a"; server "b" "{b}" cookie="b" }}
    "#
    ))
    .start()
    .await;
    ((peer, address, directory), gateway)
}

fn with(request: RequestText, cookie: &str) -> RequestText {
    match cookie {
        "" => request,
        cookie => request.header("Cookie", cookie),
    }
}

async fn ask(address: std::net::SocketAddr, servers: &[HttpServer; 2], request: RequestText) -> Exchange {
    let response = Client::connect(address).await.ask(request).await;
    assert_eq!(response.status, 200);
    let server = response.text().to_owned();
    let seen = servers[usize::from(server == "b")].last();
    Exchange {
        told: response.headers.all("set-cookie").map(dateless).collect(),
        seen: seen.headers.all("cookie").map(str::to_owned).collect(),
        server,
    }
}

/// The value without its dates, which are the clock's.
fn dateless(told: &str) -> String {
    match told.split_once('|') {
        Some((value, dates)) => {
            let (dates, attributes) = dates.split_once(';').unwrap_or((dates, ""));
            let count = dates.split('|').count();
            format!("{value}|{count} dates;{attributes}")
        }
        None => told.to_owned(),
    }
}

/// The exchange without which server it was.
fn nameless(exchange: &Exchange) -> Vec<String> {
    let told = exchange.told.iter();
    let told = told.map(|told| told.replacen(&format!("SID={}", exchange.server), "SID=?", 1));
    told.chain(exchange.seen.iter().cloned()).collect()
}
