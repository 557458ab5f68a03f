//! UNIX sockets: clients that come over them, servers that are reached over them, and their files.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use gateway_tests::tls::Authority;
use gateway_tests::{Answer, Builder, Client, Gateway, HttpServer, Server, eventually, get, post};
use tempfile::TempDir;

/// A folder for sockets, and the place of one in it.
fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("web.sock");
    (folder, socket)
}

/// A gateway that listens at a path.
fn web(said: &str, path: &Path, app: &HttpServer) -> Builder {
    let text = r#"
        frontend "web" {
            bind "unix:@path" @said
            forwarded-for
            default-backend "app"
        }
        backend "app" { server "app-1" "@app" }
    "#;
    Gateway::kdl(text)
        .with("@path", path.display())
        .with("@said", said)
        .with("@app", app.address())
}

/// Answers with the clients that it was told of.
async fn telling() -> HttpServer {
    HttpServer::start(|request| {
        let told: Vec<_> = request.headers.all("x-forwarded-for").collect();
        Answer::ok(told.join(", "))
    })
    .await
}

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().mode() & 0o777
}

#[tokio::test]
async fn clients_come_over_a_unix_socket() {
    let (_folder, path) = place();
    let app = telling().await;
    let gateway = web(r#"mode="660""#, &path, &app).start().await;
    assert_eq!(mode(&path), 0o660);

    let mut client = Client::connect_unix(&path).await;
    for _ in 0..2 {
        // Nobody has said who it is, and what it says itself is not the last word.
        let request = get("/").header("X-Forwarded-For", "192.0.2.7");
        assert_eq!(client.ask(request).await.text(), "192.0.2.7, unknown");
    }
    let body = "x".repeat(300_000);
    assert_eq!(client.ask(post("/", body.as_str())).await.status, 200);
    assert_eq!(app.last().body.len(), body.len());
    for line in gateway.access_log(3).await {
        assert_eq!(
            (&line["client"], &line["destination"]),
            (&"unix:1".into(), &"unix:1".into())
        );
    }
}

#[tokio::test]
async fn who_comes_over_a_unix_socket_is_in_no_network() {
    let (_folder, path) = place();
    let app = telling().await;
    let text = r#"
        frontend "web" {
            bind "unix:@path"
            deny { source "0.0.0.0/0" "::/0" }
            deny { destination "0.0.0.0/0" "::/0" }
            deny { port "1-65535" }
            deny { source-port "1-65535" }
            deny status=421 { not { source "0.0.0.0/0" "::/0" }; path "/elsewhere" }
            limit "per-ip"
            max-connections-per-source 1
            forwarded-headers "x-forwarded-port" "x-real-ip"
            forwarded "for" by="address"
            default-backend "app"
        }
        rate-limit "per-ip" { key "client-ip"; allow "3/h" }
        backend "app" { balance "source"; stick "client-ip" expire="1m"; server "app-1" "@app"; server "app-2" "@app" }
    "#;
    let builder = Gateway::kdl(text)
        .with("@path", path.display())
        .with("@app", app.address());
    let _gateway = builder.start().await;

    let mut clients = [Client::connect_unix(&path).await, Client::connect_unix(&path).await];
    for client in &mut clients {
        assert_eq!(client.ask(get("/")).await.status, 200);
        let seen = app.last().headers;
        assert_eq!(seen.get("forwarded"), Some("for=unknown;by=unknown"));
        assert_eq!((seen.get("x-forwarded-port"), seen.get("x-real-ip")), (None, None));
    }
    assert_eq!(clients[0].ask(get("/elsewhere")).await.status, 421);
    // All of them count together.
    assert_eq!(clients[0].ask(get("/")).await.status, 429);
}

#[tokio::test]
async fn a_proxy_before_a_unix_socket_is_believed_when_it_is_trusted() {
    let app = HttpServer::start(|request| Answer::ok(request.headers.get("x-real-ip").unwrap_or("nobody"))).await;
    for (trusted, [client, last, nobody]) in [
        (r#""unix""#, ["192.0.2.7", "192.0.2.7", "unknown"]),
        (r#""10.0.0.0/8""#, ["nobody", "unknown", "unknown"]),
    ] {
        let (_folder, path) = place();
        let text = r#"
            frontend "web" {
                bind "unix:@path"
                trusted-proxies @trusted client-ip="x-forwarded-for"
                forwarded-for
                forwarded-headers "x-real-ip"
                default-backend "app"
            }
            backend "app" { server "app-1" "@app" }
        "#;
        let builder = Gateway::kdl(text)
            .with("@path", path.display())
            .with("@trusted", trusted);
        let _gateway = builder.with("@app", app.address()).start().await;
        let request = get("/").header("X-Forwarded-For", "192.0.2.7");
        let mut proxy = Client::connect_unix(&path).await;
        assert_eq!(proxy.ask(request).await.text(), client);
        // A proxy that is believed has said it all, and has no address of its own to add.
        let told = || app.last().headers.all("x-forwarded-for").collect::<Vec<_>>().join(", ");
        assert_eq!(told(), last);
        assert_eq!(proxy.ask(get("/")).await.status, 200);
        assert_eq!(told(), nobody);
    }
}

#[tokio::test]
async fn a_socket_that_was_left_behind_is_replaced_and_one_in_use_is_not() {
    let (_folder, path) = place();
    let app = telling().await;
    let served = UnixListener::bind(&path).unwrap();
    let stopped = web("", &path, &app).refused().await;
    assert!(
        stopped.output.contains("another process answers there"),
        "{}",
        stopped.output
    );
    assert!(path.exists());
    drop(served);

    let gateway = web("", &path, &app).start().await;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(Client::connect_unix(&path).await.ask(get("/")).await.status, 200);
    gateway.terminate();
    assert_eq!(gateway.stopped().await.code, Some(0));
    assert!(!path.exists());

    std::fs::write(&path, "precious").unwrap();
    let stopped = web("", &path, &app).refused().await;
    assert!(
        stopped.output.contains("there is a file that is no socket"),
        "{}",
        stopped.output
    );
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}

#[tokio::test]
async fn what_has_taken_the_place_of_a_socket_stays_when_the_gateway_ends() {
    let (_folder, path) = place();
    let app = telling().await;
    let gateway = web("", &path, &app).start().await;
    std::fs::remove_file(&path).unwrap();
    let _others = UnixListener::bind(&path).unwrap();
    gateway.terminate();
    assert_eq!(gateway.stopped().await.code, Some(0));
    assert!(std::fs::symlink_metadata(&path).unwrap().file_type().is_socket());
}

#[tokio::test]
async fn a_reload_keeps_a_socket_and_takes_one_away_that_is_gone() {
    let (folder, path) = place();
    let (one, two) = (HttpServer::answering("one").await, HttpServer::answering("two").await);
    let gateway = web("", &path, &one).start().await;
    let inode = std::fs::metadata(&path).unwrap().ino();
    let mut before = Client::connect_unix(&path).await;
    assert_eq!(before.ask(get("/")).await.text(), "one");

    assert!(gateway.reload(&web(r#"mode="606""#, &path, &two)).await);
    assert_eq!(before.ask(get("/")).await.text(), "two");
    assert_eq!(Client::connect_unix(&path).await.ask(get("/")).await.text(), "two");
    assert_eq!((std::fs::metadata(&path).unwrap().ino(), mode(&path)), (inode, 0o606));

    let next = folder.path().join("next.sock");
    assert!(gateway.reload(&web("", &next, &one)).await);
    assert_eq!(Client::connect_unix(&next).await.ask(get("/")).await.text(), "one");
    assert!(!path.exists());
}

#[tokio::test]
async fn servers_on_unix_sockets_are_reached_and_checked() {
    let (_folder, path) = place();
    let app = telling().await;
    let text = r#"
        frontend "outer" { bind "127.0.0.1:0"; default-backend "inner" }
        frontend "tunnel" { mode "tcp"; bind "127.0.0.1:0"; default-backend "raw" }
        frontend "inner" { bind "unix:@path"; default-backend "app" }
        backend "inner" {
            check "http" interval="50ms" { send "GET" "/check"; expect status=200 }
            server "inner-1" "unix:@path"
        }
        backend "raw" { mode "tcp"; check "tcp" interval="50ms"; server "raw-1" "unix:@path" }
        backend "app" { server "app-1" "@app" }
    "#;
    let builder = Gateway::kdl(text)
        .with("@path", path.display())
        .with("@app", app.address());
    let gateway = builder.start().await;
    // The server behind is asked by checks, too, at any time.
    let last_host = || {
        let asked = app.requests().into_iter().rev().find(|request| request.target == "/");
        asked.and_then(|request| request.headers.get("host").map(str::to_owned))
    };
    for frontend in ["outer", "tunnel"] {
        let mut client = gateway.connect(frontend).await;
        for _ in 0..2 {
            assert_eq!(client.ask(get("/").host("app.example")).await.status, 200, "{frontend}");
            assert_eq!(last_host().as_deref(), Some("app.example"));
        }
        let body = "x".repeat(300_000);
        assert_eq!(client.ask(post("/", body.as_str())).await.status, 200, "{frontend}");
    }
    // One without a name is asked for as others do over such sockets.
    let answer = gateway.raw("outer", "GET / HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.") && answer.contains(" 200 "), "{answer}");
    assert_eq!(last_host().as_deref(), Some("localhost"));
    for backend in ["inner", "raw"] {
        let server = format!("{backend}-1");
        let labels = [("backend", backend), ("server", server.as_str())];
        gateway.metric_is("gateway_server_up", &labels, 1.0).await;
    }
}

#[tokio::test]
async fn a_server_whose_socket_is_not_there_is_one_that_refuses() {
    let (_folder, path) = place();
    let text = r#"
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { retries 0; server "app-1" "unix:@path" }
    "#;
    let gateway = Gateway::kdl(text).with("@path", path.display()).start().await;
    assert_eq!(gateway.ask("web", get("/")).await.status, 503);
    // A file without anybody behind it.
    drop(UnixListener::bind(&path).unwrap());
    assert_eq!(gateway.ask("web", get("/")).await.status, 503);
    let lines = gateway.access_log(2).await;
    assert!(lines.iter().all(|line| line["termination"] == "SC"), "{lines:?}");
}

#[tokio::test]
async fn a_server_whose_queue_is_full_is_waited_for() {
    let (_folder, path) = place();
    // A listener with room for one, which is taken.
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    socket.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
    socket.listen(0).unwrap();
    let _first = tokio::net::UnixStream::connect(&path).await.unwrap();
    let text = r#"
        frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { mode "tcp"; server "app-1" "unix:@path" }
    "#;
    let gateway = Gateway::kdl(text).with("@path", path.display()).start().await;
    let mut client = gateway.connect("raw").await;
    client.send("hello").await;
    let listener = std::os::fd::OwnedFd::from(socket);
    let listener = UnixListener::from(listener);
    let came = tokio::task::spawn_blocking(move || {
        use std::io::Read;
        let _first = listener.accept().unwrap();
        let (mut second, _) = listener.accept().unwrap();
        let mut came = [0; 5];
        second.read_exact(&mut came).unwrap();
        came
    });
    assert_eq!(&came.await.unwrap(), b"hello");
}

#[tokio::test]
async fn proxy_headers_go_over_unix_sockets_both_ways() {
    for version in ["v1", "v2"] {
        let (_folder, path) = place();
        let app = telling().await;
        let text = r#"
            frontend "outer" { bind "127.0.0.1:0"; default-backend "inner" }
            frontend "inner" { bind "unix:@path" accept-proxy; forwarded-for; default-backend "app" }
            backend "inner" { check "tcp" interval="50ms"; server "inner-1" "unix:@path" send-proxy="@version" }
            backend "app" { server "app-1" "@app" }
        "#;
        let builder = Gateway::kdl(text)
            .with("@path", path.display())
            .with("@version", version);
        let gateway = builder.with("@app", app.address()).start().await;
        let mut client = Client::connect_from(gateway.address("outer"), [127, 0, 0, 9]).await;
        assert_eq!(client.ask(get("/")).await.text(), "127.0.0.9", "{version}");
        let labels = [("backend", "inner"), ("server", "inner-1")];
        gateway.metric_is("gateway_server_up", &labels, 1.0).await;
    }
}

#[tokio::test]
async fn of_a_client_on_a_unix_socket_servers_are_told_that_it_is_unknown() {
    for (version, expected) in [
        ("v1", &b"PROXY UNKNOWN\r\n"[..]),
        ("v2", &b"\r\n\r\n\0\r\nQUIT\n\x21\x31\x00\xd8\0"[..]),
    ] {
        let (_folder, path) = place();
        let server = Server::echo().await;
        let text = r#"
            frontend "raw" { mode "tcp"; bind "unix:@path"; default-backend "app" }
            backend "app" { mode "tcp"; server "app-1" "@app" send-proxy="@version" }
        "#;
        let builder = Gateway::kdl(text)
            .with("@path", path.display())
            .with("@version", version);
        let _gateway = builder.with("@app", server.address()).start().await;
        let mut client = Client::connect_unix(&path).await;
        client.send("hello").await;
        client.half_close().await;
        assert!(client.rest().await.ends_with(b"hello"));
        let seen = server.seen(0);
        assert!(seen.starts_with(expected), "{version}: {seen:?}");
    }
}

#[tokio::test]
async fn tls_is_spoken_over_unix_sockets() {
    let (_folder, path) = place();
    let app = HttpServer::answering("app").await;
    let authority = Authority::new();
    let issued = authority.issue(&["app.example"]);
    let text = r#"
        frontend "outer" { bind "127.0.0.1:0"; default-backend "inner" }
        frontend "inner" { bind "unix:@path" { tls cert="app.pem" }; default-backend "app" }
        backend "inner" { server "inner-1" "unix:@path" { tls ca="ca.pem" sni="app.example" } }
        backend "app" { server "app-1" "@app" }
    "#;
    let builder = Gateway::kdl(text)
        .with("@path", path.display())
        .with("@app", app.address());
    let builder = builder
        .file("ca.pem", authority.pem())
        .secret("app.pem", issued.bundle());
    let gateway = builder.start().await;
    assert_eq!(gateway.ask("outer", get("/")).await.text(), "app");
}

#[tokio::test]
async fn a_socket_in_the_abstract_namespace_has_no_file() {
    let app = HttpServer::answering("app").await;
    let text = r#"
        frontend "outer" { bind "127.0.0.1:0"; default-backend "inner" }
        frontend "inner" { bind "unix:@NAME"; default-backend "app" }
        backend "inner" { server "inner-1" "unix:@NAME" }
        backend "app" { server "app-1" "%app" }
    "#;
    // Of one name, each in its way, and so of two.
    let mut gateways = Vec::new();
    for way in ["unix:@", "abns:"] {
        let name = format!("{way}gateway-test-{}", std::process::id());
        let named = || Gateway::kdl(text).with("unix:@NAME", &name).with("%app", app.address());
        let gateway = named().start().await;
        assert_eq!(gateway.ask("outer", get("/")).await.text(), "app");
        let stopped = named().refused().await;
        assert!(
            stopped.output.contains("another process answers there"),
            "{}",
            stopped.output
        );
        gateways.push(gateway);
    }
}

#[tokio::test]
async fn connections_to_servers_come_from_the_address_that_is_said() {
    let app = HttpServer::answering("app").await;
    let inner = r#"
        frontend "inner" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { server "app-1" "@app" }
    "#;
    let inner = Gateway::kdl(inner).with("@app", app.address()).start().await;
    let outer = r#"
        defaults {
            mode "http"
            timeout connect="5s" client="20s" server="20s"
            source "127.0.0.5"
        }
        frontend "web" { bind "127.0.0.1:0"; acl "own" { path "/own" }; acl "none" { path "/none" }; use-backend "own" if="own"; use-backend "none" if="none"; default-backend "inner" }
        backend "inner" { check "http" interval="50ms" { send "GET" "/check" }; server "inner-1" "@inner" }
        backend "own" { server "own-1" "@inner" source="127.0.0.6" }
        backend "none" { source "off"; server "none-1" "@inner" }
    "#;
    let outer = Gateway::kdl(outer).with("@inner", inner.address("inner")).start().await;
    for target in ["/", "/own", "/none"] {
        assert_eq!(outer.ask("web", get(target)).await.text(), "app");
    }
    let client = |target: &str| {
        let lines = inner.access_lines();
        let line = lines.iter().find(|line| line["target"] == target)?;
        Some(line["client"].as_str()?.rsplit_once(':')?.0.to_owned())
    };
    for (target, expected) in [
        ("/", "127.0.0.5"),
        ("/own", "127.0.0.6"),
        ("/none", "127.0.0.1"),
        ("/check", "127.0.0.5"),
    ] {
        eventually(target, async || client(target).is_some()).await;
        assert_eq!(client(target).as_deref(), Some(expected), "{target}");
    }
}

#[tokio::test]
async fn connections_to_servers_come_from_their_clients_where_that_is_said() {
    // Only root may connect from where others are.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let app = HttpServer::answering("app").await;
    let inner = r#"
        frontend "inner" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { server "app-1" "@app" }
    "#;
    let inner = Gateway::kdl(inner).with("@app", app.address()).start().await;
    let outer = r#"
        defaults { timeout connect="5s" client="20s" server="20s"; source "client-ip" interface="lo" }
        frontend "web" { bind "127.0.0.1:0"; default-backend "inner" }
        frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; default-backend "own" }
        backend "inner" { check "http" interval="50ms" { send "GET" "/check" }; server "inner-1" "@inner" }
        backend "own" { mode "tcp"; source "off"; server "own-1" "@inner" source="client-ip" tcp-user-timeout="30s" }
    "#;
    let outer = Gateway::kdl(outer).with("@inner", inner.address("inner")).start().await;
    // By turns: a connection that was opened for one of them serves no other.
    let mut clients = Vec::new();
    for host in [8, 9] {
        clients.push(Client::connect_from(outer.address("web"), [127, 0, 0, host]).await);
    }
    for target in ["/one-8", "/one-9", "/two-8", "/two-9"] {
        let client = usize::from(target.ends_with('9'));
        assert_eq!(clients[client].ask(get(target)).await.text(), "app");
    }
    let mut raw = Client::connect_from(outer.address("raw"), [127, 0, 0, 9]).await;
    assert_eq!(raw.ask(get("/raw")).await.text(), "app");

    let client = |target: &str| {
        let lines = inner.access_lines();
        let line = lines.iter().find(|line| line["target"] == target)?;
        Some(line["client"].as_str()?.rsplit_once(':')?.0.to_owned())
    };
    for (target, expected) in [
        ("/one-8", "127.0.0.8"),
        ("/one-9", "127.0.0.9"),
        ("/two-8", "127.0.0.8"),
        ("/two-9", "127.0.0.9"),
        ("/raw", "127.0.0.9"),
        // It is for no client.
        ("/check", "127.0.0.1"),
    ] {
        eventually(target, async || client(target).is_some()).await;
        assert_eq!(client(target).as_deref(), Some(expected), "{target}");
    }
}

#[tokio::test]
async fn an_interface_that_the_machine_does_not_have_is_the_gateways_fault() {
    let app = HttpServer::answering("app").await;
    let text = r#"
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { retries 0; source interface="not-there"; server "app-1" "@app" }
    "#;
    let gateway = Gateway::kdl(text).with("@app", app.address()).start().await;
    assert_eq!(gateway.ask("web", get("/")).await.status, 503);
    gateway.says("the gateway lacks what connections to servers take").await;
}

#[tokio::test]
async fn a_source_that_the_machine_does_not_have_is_the_gateways_fault() {
    let app = HttpServer::answering("app").await;
    let text = r#"
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { retries 0; source "192.0.2.1"; server "app-1" "@app" }
    "#;
    let gateway = Gateway::kdl(text).with("@app", app.address()).start().await;
    assert_eq!(gateway.ask("web", get("/")).await.status, 503);
    gateway.says("the gateway lacks what connections to servers take").await;
}
