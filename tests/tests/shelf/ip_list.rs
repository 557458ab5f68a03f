use std::fmt::Write as _;

use gateway_tests::{Client, Gateway, HttpServer, Server, get};

use crate::shelf;

#[tokio::test]
async fn a_list_of_a_hundred_thousand_networks_comes_from_a_file() {
    let mut list = "# all but this machine\n".to_owned();
    for number in 0..100_000_u32 {
        let [_, b, c, d] = (number << 4).to_be_bytes();
        writeln!(list, "{}.{b}.{c}.{d}/28", 20 + number % 64).unwrap();
    }
    list.push_str("127.0.0.2/31\n");
    let app = HttpServer::answering("x").await;
    let plugin = r#"plugin "shelf" builtin="ip-list" {
        limit cpu="1s"; on-failure "deny" status=503
        config { status 451; except "127.0.0.3" }
        config-file "network" "blocked.txt"
    }"#;
    let gateway = shelf(plugin, &app).file("blocked.txt", list).start().await;

    assert_eq!(gateway.ask("web", get("/")).await.status, 200);
    for (from, status) in [([127, 0, 0, 2], 451), ([127, 0, 0, 3], 200), ([127, 0, 0, 4], 200)] {
        let mut client = Client::connect_from(gateway.address("web"), from).await;
        assert_eq!(client.ask(get("/")).await.status, status, "{from:?}");
    }
}

#[tokio::test]
async fn an_acl_asks_for_it_and_tcp_connections_are_closed_by_it() {
    let app = HttpServer::answering("x").await;
    let echo = Server::echo().await;
    let gateway = Gateway::kdl(
        r#"
        plugin "office" builtin="ip-list" { limit cpu="1s"; on-failure "deny"; config { network "127.0.0.2" } }
        frontend "web" {
            bind "127.0.0.1:0"
            acl "office" { plugin "office" predicate="listed" }
            deny status=403 unless="office"
            default-backend "app"
        }
        frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; use-plugin "office"; default-backend "echo" }
        backend "app" { server "s" "@app" }
        backend "echo" { mode "tcp"; server "s" "@echo" }
    "#,
    )
    .with("@app", app.address())
    .with("@echo", echo.address())
    .start()
    .await;

    assert_eq!(gateway.ask("web", get("/")).await.status, 403);
    let mut office = Client::connect_from(gateway.address("web"), [127, 0, 0, 2]).await;
    assert_eq!(office.ask(get("/")).await.status, 200);
    assert!(Client::is_turned_away(gateway.address("raw"), [127, 0, 0, 2]).await);
    let mut other = Client::connect_from(gateway.address("raw"), [127, 0, 0, 3]).await;
    other.send("hello").await;
    assert_eq!(other.exactly(5).await, b"hello");
}

#[tokio::test]
async fn a_file_that_cannot_be_used_stops_the_start_and_is_pointed_at() {
    let app = HttpServer::answering("x").await;
    let plugin = r#"plugin "shelf" builtin="ip-list" { limit cpu="1s"; on-failure "deny"; config-file "network" "blocked.txt" }"#;
    for (content, part) in [
        (None, "blocked.txt"),
        (
            Some(&b"10.0.0.0/8\nnonsense\n"[..]),
            "line 2: \"nonsense\" is no network",
        ),
        (Some(b"\xff"), "not UTF-8"),
    ] {
        let builder = shelf(plugin, &app);
        let builder = match content {
            Some(content) => builder.file("blocked.txt", content),
            None => builder,
        };
        let refused = builder.refused().await;
        assert_eq!(refused.code, Some(1));
        assert!(refused.output.contains(part), "{part}: {}", refused.output);
    }
}
