//! Servers, their names and their checks.

use std::sync::Arc;
use std::time::Duration;

use super::*;

#[test]
fn names_are_read_and_the_servers_of_a_template_share_theirs() {
    let config = config(
        r#"
        resolver timeout="200ms" hold="1m" { nameserver "10.0.0.2" "[::1]:5353" }
        frontend "a" { bind "127.0.0.1:0"; default-backend "x" }
        backend "x" {
            server "s" "DB.Internal.:80" { tls }
            server-template "t" "_http._tcp.app.internal" count=2
        }
        "#,
    );
    assert_eq!(
        config.resolver.nameservers,
        ["10.0.0.2:53".parse().unwrap(), "[::1]:5353".parse().unwrap()]
    );
    assert_eq!(config.resolver.hold, Some(Duration::from_secs(60)));
    let servers = &config.backends[0].servers;
    let names: Vec<&str> = servers.iter().map(|server| &*server.name).collect();
    assert_eq!(names, ["s", "t-1", "t-2"]);
    let [
        ServerAddress::Name(db),
        ServerAddress::Name(one),
        ServerAddress::Name(two),
    ] = [0, 1, 2].map(|i| servers[i].address.clone())
    else {
        panic!("not names")
    };
    assert_eq!(db.to_string(), "db.internal:80");
    assert_eq!(
        servers[0].tls.as_ref().unwrap().sni,
        Some("db.internal".try_into().unwrap())
    );
    assert_eq!(one.to_string(), "_http._tcp.app.internal");
    assert!(Arc::ptr_eq(&one, &two));
}

#[test]
fn a_check_is_read() {
    let config = config(
        r#"
        frontend "a" { bind "127.0.0.1:0"; default-backend "x" }
        backend "x" {
            server "s" "10.0.0.1:80"
            check "http" interval="5s" timeout="1s" {
                send "HEAD" "/health?full=1" host="app.example:8080"
                expect status="204,300-399"
            }
        }
        "#,
    );
    let check = config.backends[0].check.clone().unwrap();
    let schedule = check.schedule;
    assert_eq!((schedule.rise, schedule.fall), (2, 3));
    assert_eq!(
        (schedule.timeout, schedule.down_interval),
        (Duration::from_secs(1), Duration::from_secs(5))
    );
    let CheckKind::Http(http) = check.kind else {
        panic!("not over http")
    };
    assert_eq!((&*http.method, &*http.uri), ("HEAD", "/health?full=1"));
    assert_eq!(http.host.as_deref(), Some("app.example:8080"));
    let status = HttpTest::Status(vec![(204, 204), (300, 399)]);
    assert_eq!(
        http.expects,
        [HttpExpect {
            negated: false,
            test: status
        }]
    );
}

#[test]
fn the_steps_of_a_check_keep_their_order() {
    let config = config(
        r##"
        frontend "a" { mode "tcp"; bind "127.0.0.1:0"; default-backend "x" }
        backend "x" {
            mode "tcp"
            server "s" "10.0.0.1:80"
            observe "connect" error-limit=3 on-error="mark-down"
            check "tcp" port=81 address="::1" fast-interval="500ms" down-interval="10s" initial="fully-down" {
                expect regex="^220[ -]"
                send "QUIT\r\n"
                send hex="00 ff"
                expect prefix="221"
                expect contains-hex="0D0a"
            }
        }
        "##,
    );
    let check = config.backends[0].check.clone().unwrap();
    let CheckKind::Tcp(steps) = check.kind else {
        panic!("not over tcp")
    };
    let [
        CheckStep::Expect(Expect::Regex(greeting)),
        CheckStep::Send(quit),
        CheckStep::Send(binary),
        CheckStep::Expect(Expect::Prefix(bye)),
        CheckStep::Expect(Expect::Contains(end)),
    ] = &steps[..]
    else {
        panic!("other steps: {steps:?}")
    };
    assert_eq!(greeting.0.as_str(), "^220[ -]");
    assert_eq!((&quit[..], &binary[..]), (&b"QUIT\r\n"[..], &[0, 0xff][..]));
    assert_eq!((&bye[..], &end[..]), (&b"221"[..], &b"\r\n"[..]));
    assert_eq!(check.target.port, Some(81));
    assert_eq!(check.target.address, Some("::1".parse().unwrap()));
    assert_eq!(check.schedule.initial, InitialState::FullyDown);
    assert_eq!(check.schedule.fast_interval, Duration::from_millis(500));
    assert_eq!(check.schedule.down_interval, Duration::from_secs(10));
    let observe = check.observe.unwrap();
    assert_eq!((observe.error_limit, observe.on_error), (3, OnError::MarkDown));
}

#[test]
fn where_connections_come_from_is_the_servers_own_before_its_backends() {
    let config = config(
        r#"
        defaults { source "192.0.2.1" interface="eth0" }
        frontend "a" { bind "10.0.0.1:80" interface="eth0"; bind "10.0.0.1:80" interface="eth1" transparent; default-backend "x" }
        backend "x" {
            server "a" "10.0.0.1:80"
            server "b" "10.0.0.2:80" source="client-ip" tcp-user-timeout="30s"
            server "c" "10.0.0.3:80" interface="eth1"
        }
        "#,
    );
    let address = SourceAddress::Address("192.0.2.1".parse().unwrap());
    let servers = &config.backends[0].servers;
    let said = servers
        .iter()
        .map(|server| (server.source, server.interface.as_deref()));
    assert_eq!(
        said.collect::<Vec<_>>(),
        [
            (Some(address), Some("eth0")),
            (Some(SourceAddress::ClientIp), Some("eth0")),
            (Some(address), Some("eth1")),
        ]
    );
    assert_eq!(servers[1].user_timeout, Some(Duration::from_secs(30)));
    let binds = &config.frontends[0].binds;
    assert_eq!(binds[1].socket.interface.as_deref(), Some("eth1"));
    assert!(binds[1].socket.transparent && !binds[0].socket.transparent);
}

#[test]
fn what_is_wrong_with_what_sockets_are_told_is_said() {
    let text = r#"
        process { user "nobody" }
        frontend "a" { BINDS; default-backend "x" }
        backend "x" { SERVERS }
    "#;
    let server = r#"server "s" "10.0.0.1:80""#;
    let bind = r#"bind "127.0.0.1:80""#;
    for (binds, servers, said) in [
        (
            r#"bind "unix:/run/a.sock" mss=1400"#,
            server,
            "which a UNIX socket has not",
        ),
        (
            r#"bind "127.0.0.1:80" interface="a-name-that-is-long""#,
            server,
            "has to be the name of an interface",
        ),
        (r#"bind "abns@web""#, server, "has to say that it is a UNIX socket"),
        (
            r#"bind "127.0.0.1:80" interface="eth0"; bind "127.0.0.1:80""#,
            server,
            "is listened on twice",
        ),
        (
            bind,
            r#"source "client-ip"; server "s" "10.0.0.1:80""#,
            "a right that `user` gives up",
        ),
        (
            bind,
            r#"source interface="eth0/1"; server "s" "10.0.0.1:80""#,
            "has to be the name of an interface",
        ),
        (
            bind,
            r#"server "s" "echo" interface="eth0""#,
            "`interface=` does nothing: this server is not reached over a network",
        ),
    ] {
        let found = faults(&text.replace("BINDS", binds).replace("SERVERS", servers));
        assert!(found.contains(said), "{binds}, {servers}: {found}");
    }
}
