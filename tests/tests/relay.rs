//! TCP mode: how bytes are moved. Bulk and chatty streams, resets, what a relay holds, and what it counts.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::time::Duration;

use gateway_tests::process::{descriptors, limit_descriptors};
use gateway_tests::{Client, Gateway, Server, eventually, within};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PLAIN: &str = r#"
    frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; default-backend "app" }
    backend "app" { mode "tcp"; server "app-1" "@app" }
"#;

#[tokio::test]
async fn large_streams_pass_both_ways_at_once() {
    const SIZE: usize = 32 << 20;
    let app = Server::start(|mut wire, _| async move {
        let mut got = 0;
        while got < SIZE {
            let bytes = wire.some().await?;
            got += bytes.len();
            wire.send(&bytes).await?;
        }
        wire.half_close().await
    })
    .await;
    let gateway = Gateway::kdl(PLAIN).with("@app", app.address()).start().await;
    let before = gateway.resident();

    let address = gateway.address("raw");
    let (mut reader, mut writer) = tokio::net::TcpStream::connect(address).await.unwrap().into_split();
    let block: Vec<u8> = (0..SIZE).map(|n| (n * 7 % 253) as u8).collect();
    let expected = block.clone();
    let sender = tokio::spawn(async move {
        writer.write_all(&block).await.unwrap();
        writer.shutdown().await.unwrap();
    });
    let mut back = Vec::new();
    let reading = async {
        reader.read_to_end(&mut back).await.unwrap();
    };
    within(Duration::from_secs(60), "everything back", reading).await;
    sender.await.unwrap();

    assert!(back == expected, "{} bytes came back, or others", back.len());
    let spliced = gateway.metrics().await.get("gateway_relay_spliced_bytes_total", &[]);
    assert!(spliced.unwrap() > SIZE as f64, "{spliced:?} of {} bytes", 2 * SIZE);
    let grown = gateway.resident().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes more");
}

#[tokio::test]
async fn a_bulk_stream_without_a_pipe_is_copied_until_there_are_pipes_again() {
    const SIZE: usize = 8 << 20;
    let app = Server::echo().await;
    let gateway = Gateway::kdl(&format!("process {{ workers 1 }}{PLAIN}"))
        .with("@app", app.address())
        .start()
        .await;
    let spliced = async || {
        let metrics = gateway.metrics().await;
        metrics.get("gateway_relay_spliced_bytes_total", &[]).unwrap()
    };
    let mut client = tokio::net::TcpStream::connect(gateway.address("raw")).await.unwrap();
    let block = noise(SIZE, 5);
    // There and back, both at once.
    let mut comes_back = async |size: usize| {
        let (mut reader, mut writer) = client.split();
        let mut back = vec![0; size];
        let (sent, read) = tokio::join!(writer.write_all(&block[..size]), reader.read_exact(&mut back));
        sent.unwrap();
        read.unwrap();
        assert!(back == block[..size], "other bytes came back");
    };
    // Both connections stand.
    comes_back(1).await;

    let enough = limit_descriptors(gateway.pid(), 3);
    within(Duration::from_secs(60), "everything back", comes_back(SIZE)).await;
    limit_descriptors(gateway.pid(), enough);
    assert_eq!(spliced().await, 0.0, "bytes went through a pipe that was not to be had");

    // The system is asked again, after so many transfers.
    eventually("the kernel moves bytes again", async || {
        comes_back(SIZE).await;
        spliced().await > 0.0
    })
    .await;
}

#[tokio::test]
async fn a_slow_reader_costs_no_memory() {
    const SIZE: u64 = 1 << 30;
    let app = Server::start(|mut wire, _| async move {
        let block = vec![b'x'; 1 << 20];
        for _ in 0..SIZE >> 20 {
            wire.send(&block).await?;
        }
        Ok(())
    })
    .await;
    let gateway = Gateway::kdl(PLAIN).with("@app", app.address()).start().await;
    let mut client = gateway.connect("raw").await;
    client.exactly(1).await;
    let before = gateway.resident();

    let (mut highest, mut read) = (before, 1);
    for step in 0..64 {
        if step < 5 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        highest = highest.max(gateway.resident());
        read += client.skip(SIZE / 64).await;
    }

    assert_eq!(read, SIZE);
    assert!(highest - before < 16 << 20, "{} bytes more", highest - before);
}

/// Bytes that a generator of that seed makes.
fn noise(size: usize, seed: u32) -> Vec<u8> {
    let mut state = seed;
    (0..size / 4)
        .flat_map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_le_bytes()
        })
        .collect()
}

#[tokio::test]
async fn a_half_close_in_the_middle_of_a_bulk_stream_loses_nothing() {
    const SIZE: usize = 24 << 20;
    // Reads all while it sends as much; whoever sends less ends first, and the other goes on.
    for (up, down) in [(SIZE / 8, SIZE), (SIZE, SIZE / 8)] {
        let (digest, digested) = tokio::sync::oneshot::channel();
        let digest = std::sync::Mutex::new(Some(digest));
        let app = Server::start(move |mut wire, _| {
            let digest = digest.lock().unwrap().take().unwrap();
            async move {
                let mut sum = Sha256::new();
                let block = noise(down, 2);
                for part in block.chunks(1 << 20) {
                    wire.send(part).await?;
                    if up > down {
                        sum.update(&wire.exactly(1 << 20).await?);
                    }
                }
                wire.half_close().await?;
                sum.update(&wire.rest().await?);
                digest.send(sum.finalize()).unwrap();
                Ok(())
            }
        })
        .await;
        let gateway = Gateway::kdl(PLAIN).with("@app", app.address()).start().await;

        let mut client = gateway.connect("raw").await;
        let sent = noise(up, 1);
        let mut sum = Sha256::new();
        for part in sent.chunks(1 << 20) {
            client.send(part).await;
            if down > up {
                sum.update(client.exactly(1 << 20).await);
            }
        }
        client.half_close().await;
        sum.update(client.rest().await);

        assert_eq!(sum.finalize(), Sha256::digest(noise(down, 2)));
        assert_eq!(digested.await.unwrap(), Sha256::digest(sent));
    }
}

#[tokio::test]
async fn a_clients_reset_reaches_the_server_as_a_reset() {
    for bulk in [0, 8 << 20] {
        let (ended, end) = tokio::sync::oneshot::channel();
        let ended = std::sync::Mutex::new(Some(ended));
        let app = Server::start(move |mut wire, _| {
            let ended = ended.lock().unwrap().take().unwrap();
            async move {
                wire.exactly(2 + bulk).await?;
                wire.send("got").await?;
                let _ = ended.send(wire.rest().await.map_err(|error| error.kind()));
                Ok(())
            }
        })
        .await;
        let gateway = Gateway::kdl(PLAIN).with("@app", app.address()).start().await;

        let mut client = gateway.connect("raw").await;
        client.send(vec![1; 2 + bulk]).await;
        client.exactly(3).await;
        client.reset();

        assert_eq!(end.await.unwrap().unwrap_err(), std::io::ErrorKind::ConnectionReset);
        gateway
            .metric_is("gateway_server_in_flight", &[("server", "app-1")], 0.0)
            .await;
    }
}

#[tokio::test]
async fn a_servers_reset_reaches_the_client_as_a_reset() {
    for bulk in [0, 8 << 20] {
        let app = Server::start(move |mut wire, _| async move {
            wire.send(vec![1; bulk]).await?;
            wire.exactly(2).await?;
            wire.reset();
            Ok(())
        })
        .await;
        let gateway = Gateway::kdl(PLAIN).with("@app", app.address()).start().await;

        let mut client = gateway.connect("raw").await;
        client.exactly(bulk).await;
        client.send("go").await;
        assert!(client.is_reset().await, "an end that is no reset");
    }
}

#[tokio::test]
async fn a_server_that_ends_in_order_ends_the_client_in_order() {
    let app = Server::start(|mut wire, _| async move { wire.send("bye").await }).await;
    let gateway = Gateway::kdl(PLAIN).with("@app", app.address()).start().await;

    let mut client = gateway.connect("raw").await;
    assert!(!client.is_reset().await);
}

#[tokio::test]
async fn connections_leave_no_descriptors_behind() {
    let app = Server::start(|mut wire, _| async move {
        let bytes = wire.exactly(200_000).await?;
        wire.send(&bytes).await
    })
    .await;
    let gateway = Gateway::kdl(PLAIN).with("@app", app.address()).start().await;
    let block = noise(200_000, 3);
    let turn = async |kind: usize| {
        let mut client = gateway.connect("raw").await;
        client.send(&block).await;
        // One in three breaks off with the answer still to come.
        match kind % 3 {
            0 => assert!(client.exactly(block.len()).await == block),
            1 => client.reset(),
            _ => drop(client),
        }
    };
    for kind in 0..30 {
        turn(kind).await;
    }
    let current = ("gateway_frontend_current_connections", [("frontend", "raw")]);
    gateway.metric_is(current.0, &current.1, 0.0).await;
    let before = descriptors(gateway.pid());

    for kind in 0..300 {
        turn(kind).await;
    }
    gateway.metric_is(current.0, &current.1, 0.0).await;
    // The worker keeps some pipes for the next stream.
    eventually("the descriptors to be closed", async || {
        descriptors(gateway.pid()) <= before + 8
    })
    .await;
}

#[tokio::test]
async fn an_idle_tunnel_stays_and_its_bytes_are_counted_while_it_lives() {
    let app = Server::echo().await;
    let gateway = Gateway::kdl(PLAIN).with("@app", app.address()).start().await;
    let mut tunnels = Vec::new();
    for _ in 0..50 {
        tunnels.push(gateway.connect("raw").await);
    }
    let talk = async |tunnel: &mut Client| {
        tunnel.send("ping").await;
        assert_eq!(tunnel.exactly(4).await, b"ping");
    };
    for tunnel in &mut tunnels {
        talk(tunnel).await;
    }
    tokio::time::sleep(Duration::from_millis(1100)).await;
    for tunnel in &mut tunnels {
        talk(tunnel).await;
    }
    let from = [("frontend", "raw")];
    gateway
        .metric_is("gateway_frontend_received_bytes_total", &from, 400.0)
        .await;
    gateway
        .metric_is("gateway_frontend_current_connections", &from, 50.0)
        .await;
    let spliced = gateway.metrics().await.get("gateway_relay_spliced_bytes_total", &[]);
    assert_eq!(spliced, Some(0.0), "messages are not worth a pipe");
}

#[tokio::test]
async fn a_backends_own_tunnel_timeout_goes_before_what_others_say() {
    let app = Server::echo().await;
    let gateway = Gateway::kdl(
        r#"
        frontend "short" { mode "tcp"; bind "127.0.0.1:0"; default-backend "short" }
        frontend "long" {
            mode "tcp"
            bind "127.0.0.1:0"
            timeout tunnel="300ms"
            use-backend "other" { source "192.0.2.1" }
            default-backend "long"
        }
        backend "short" { mode "tcp"; timeout tunnel="300ms"; server "s" "@app" }
        backend "long" { mode "tcp"; timeout tunnel="1h"; server "s" "@app" }
        backend "other" { mode "tcp"; server "s" "@app" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;
    let mut long = gateway.connect("long").await;
    long.send("ping").await;
    assert_eq!(long.exactly(4).await, b"ping");
    let mut short = gateway.connect("short").await;
    short.send("ping").await;
    assert_eq!(short.exactly(4).await, b"ping");
    // Long before `client=` and `server=`, which are twenty seconds.
    assert!(short.ends().await);
    tokio::time::sleep(Duration::from_millis(600)).await;
    long.send("ping").await;
    assert_eq!(long.exactly(4).await, b"ping");
}

#[tokio::test]
async fn the_system_looks_after_silent_connections_when_told_so() {
    let kdl = |inherited: &str, client: &str, server: &str| {
        format!(
            r#"
            defaults {{ mode "tcp"; timeout server="{inherited}" }}
            frontend "raw" {{
                mode "tcp"
                bind "127.0.0.1:0"
                {client}
                use-backend "never" {{ port 1 }}
                default-backend "app"
            }}
            backend "app" {{
                mode "tcp"
                {server}
                server "app-1" "@app"
            }}
            // What the frontend says of tunnels holds here, whatever the other backend says.
            backend "never" {{ mode "tcp"; server "never-1" "@app" }}
            "#
        )
    };
    let off = r#"tcp-keep-alive "off""#;
    let hour = r#"timeout server="1h""#;
    for (inherited, client, server, probed) in [
        ("20s", off, off, (false, false)),
        ("20s", "", hour, (true, true)),
        ("20s", r#"tcp-keep-alive idle="10s""#, off, (true, false)),
        // Silent connections end before the first probe.
        ("1h", off, r#"timeout server="20s""#, (false, false)),
        (
            "1h",
            off,
            r#"timeout server="20s"; tcp-keep-alive idle="10s" count=3"#,
            (false, true),
        ),
        // A tunnel may be silent for longer, whoever says so.
        ("20s", r#"tcp-keep-alive "off"; timeout tunnel="1h""#, "", (false, true)),
        (
            "1h",
            r#"tcp-keep-alive "off"; timeout tunnel="1h""#,
            r#"timeout tunnel="20s""#,
            (false, false),
        ),
    ] {
        let app = Server::echo().await;
        let gateway = Gateway::kdl(&kdl(inherited, client, server))
            .with("@app", app.address())
            .start()
            .await;
        let mut connection = gateway.connect("raw").await;
        connection.send("ping").await;
        connection.exactly(4).await;
        let (frontend, app) = (gateway.address("raw").port(), app.address().port());
        let client_port = connection.address().port();
        eventually("the timers", async || {
            let sides = (
                is_probed(|local, remote| local == frontend && remote == client_port),
                is_probed(|_, remote| remote == app),
            );
            sides == (Some(probed.0), Some(probed.1))
        })
        .await;
    }
}

/// Whether the connection between these ports has a keep-alive timer (proc(5), `/proc/net/tcp`); none while it is not seen,
/// or has a timer of another kind.
fn is_probed(is_it: impl Fn(u16, u16) -> bool) -> Option<bool> {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    table.lines().skip(1).find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let port = |word: &str| u16::from_str_radix(word.rsplit(':').next()?, 16).ok();
        let is_open = words[3] == "01";
        match words[5].split(':').next() {
            Some("02") if is_open && is_it(port(words[1])?, port(words[2])?) => Some(true),
            Some("00") if is_open && is_it(port(words[1])?, port(words[2])?) => Some(false),
            _ => None,
        }
    })
}
