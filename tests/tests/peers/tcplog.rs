//! How connections end, as HAProxy's log and the gateway's tell it: the letters that docs/haproxy.md compares.

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use gateway_tests::peer::{Peer, free_address};
use gateway_tests::{Client, Gateway, Server, blackhole, eventually, refusing};
use tokio::net::TcpStream;

/// A way to end, and what both logs have of it: the server, bytes to the client, and who ended it in which phase.
const CASES: [(&str, &str); 10] = [
    ("ends", "s 2 --"),
    ("resets", "s 2 CD"),
    ("is-silent", "s 2 cD"),
    ("is-reset", "s 0 SD"),
    ("waits", "s 0 sD"),
    ("is-refused", "s 0 SC"),
    ("hangs", "s 0 sC"),
    ("has-nobody", "<NOSRV> 0 SC"),
    ("is-denied", "<NOSRV> 0 PR"),
    ("queues", "<NOSRV> 0 sQ"),
];

#[cfg_attr(not(feature = "peers"), ignore = "needs haproxy: --features peers")]
#[tokio::test]
async fn ends_of_connections_have_haproxys_letters() {
    let echo = Server::echo().await;
    let resetting = Server::start(|mut wire, _| async move {
        wire.some().await?;
        wire.reset();
        Ok(())
    })
    .await;
    let silent = Server::start(|mut wire, _| async move {
        wire.some().await?;
        std::future::pending().await
    })
    .await;
    let (refused, _refused) = refusing();
    let (hole, _hole) = blackhole().await;
    let server = |case: &str| match case {
        "is-reset" => resetting.address(),
        "waits" | "queues" => silent.address(),
        "is-refused" | "has-nobody" => refused,
        "hangs" => hole,
        _ => echo.address(),
    };

    let mut config = String::from(
        "global\n log stdout format raw local0\ndefaults\n mode tcp\n log global\n option tcplog\n retries 0\n timeout connect 1s\n \
         timeout client 1s\n timeout server 1s\n timeout queue 500ms\n",
    );
    let mut text = String::from(
        r#"
        process { workers 1; log "stdout" format="text" }
        defaults { mode "tcp"; retries 0; timeout connect="1s" client="1s" server="1s" queue="500ms" }
        "#,
    );
    let mut ports = Vec::new();
    for (case, _) in CASES {
        let (address, server) = (free_address(), server(case));
        // Whoever waits for the server is not to be late itself.
        let patient = matches!(case, "waits" | "hangs" | "queues");
        let (rule, rule_here) = match case {
            "is-denied" => (" tcp-request content reject\n", "deny;"),
            _ if patient => (" timeout client 30s\n", "timeout client=\"30s\";"),
            _ => ("", ""),
        };
        let (check, check_here) = match case {
            "has-nobody" => (" check inter 100 fall 1", "check \"tcp\" interval=\"100ms\" fall=1;"),
            _ => ("", ""),
        };
        let (most, most_here) = match case {
            "queues" => (" maxconn 1", " max-connections=1"),
            _ => ("", ""),
        };
        config += &format!("listen {case}\n bind {address}\n{rule} server s {server}{check}{most}\n");
        if case == "is-denied" {
            // A rule that always holds leaves nobody to lead anywhere.
            text += &format!("frontend \"{case}\" {{ bind \"127.0.0.1:0\"; {rule_here} }}\n");
        } else {
            text += &format!(
                "frontend \"{case}\" {{ bind \"127.0.0.1:0\"; {rule_here} default-backend \"{case}\" }}\n\
                 backend \"{case}\" {{ {check_here} server \"s\" \"{server}\"{most_here} }}\n"
            );
        }
        ports.push(address);
    }
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let _haproxy = Peer::haproxy(
        &[],
        folder.path(),
        &config,
        File::create(&log).unwrap().into(),
        ports[0],
    );
    let gateway = Gateway::kdl(&text).start().await;
    gateway.says("server is down").await;
    eventually("HAProxy knows that the server is down", async || {
        read(&log).contains("has-nobody/s is DOWN") || read(&log).contains("has-nobody has no server available")
    })
    .await;

    for ((case, expected), port) in CASES.into_iter().zip(ports) {
        let before = silent.connections();
        end(case, port, async || silent.connections() == before + 1).await;
        told(case, expected, async || read(&log)).await;
        let before = silent.connections();
        let address = gateway.address(case);
        end(case, address, async || silent.connections() == before + 1).await;
        told(case, expected, async || gateway.output()).await;
    }
}

/// Has a connection end in this way.
async fn end(case: &str, address: SocketAddr, mut is_held: impl AsyncFnMut() -> bool) {
    let mut holds_the_place = None;
    if case == "queues" {
        let mut client = Client::connect(address).await;
        client.send("hi").await;
        eventually("the only place is taken", async || is_held().await).await;
        holds_the_place = Some(client);
    }
    if case == "is-denied" {
        // The reset may come before the client knows that it is connected.
        if let Ok(stream) = TcpStream::connect(address).await {
            let _ = stream.try_write(b"hi");
            let _ = stream.readable().await;
        }
        return;
    }
    let mut client = Client::connect(address).await;
    let sent = client.try_send("hi").await;
    match case {
        "ends" | "resets" | "is-silent" => {
            sent.unwrap();
            assert_eq!(client.exactly(2).await, b"hi");
            match case {
                "ends" => {
                    client.half_close().await;
                    assert_eq!(client.rest().await, b"");
                }
                "resets" => client.reset(),
                _ => assert!(client.ends().await),
            }
        }
        _ => assert!(client.ends().await, "{case}"),
    }
    drop(holds_the_place);
}

/// Waits for the line of a case to be this.
async fn told(case: &str, expected: &str, mut log: impl AsyncFnMut() -> String) {
    let mut lines = Vec::new();
    let found = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            lines = ends(&log().await, case);
            if lines.iter().any(|line| line == expected) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(found.await.is_ok(), "{case}: {expected} is not among {lines:?}");
}

/// Server, bytes and letters of each line of a frontend.
fn ends(log: &str, case: &str) -> Vec<String> {
    let begin = format!(" {case} {case}/");
    let lines = log.lines().filter_map(|line| line.split_once(&begin));
    let fields = lines.map(|(_, rest)| {
        let words: Vec<&str> = rest.split(' ').collect();
        [words[0], words[2], words[3]].join(" ")
    });
    fields.collect()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}
