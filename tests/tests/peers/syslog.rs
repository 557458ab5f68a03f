//! rsyslog, which has to understand what the gateway sends it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use gateway_tests::peer::{Peer, free_address};
use gateway_tests::{Gateway, Server, eventually};
use serde_json::Value;
use tempfile::TempDir;

#[cfg_attr(not(feature = "peers"), ignore = "needs rsyslog: --features peers")]
#[tokio::test]
async fn rsyslog_understands_every_line_over_every_transport() {
    let rsyslog = Rsyslog::start();
    let app = Server::echo().await;
    let socket = format!("unix://{}", rsyslog.socket().display());
    let targets = [
        format!("udp://{}", rsyslog.udp),
        format!("tcp://{}", rsyslog.tcp),
        socket,
    ];
    for target in targets {
        let gateway = Gateway::kdl(
            r#"
            process { workers 1; log "@target" format="json" facility="local3" syslog="rfc5424" }
            frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; default-backend "app" }
            backend "app" { mode "tcp"; server "app-1" "@app" }
        "#,
        )
        .with("@target", &target)
        .with("@app", app.address())
        .start()
        .await;
        let mut clients = Vec::new();
        for _ in 0..10 {
            let mut client = gateway.connect("raw").await;
            client.send("hello").await;
            assert_eq!(client.exactly(5).await, b"hello");
            clients.push(client.address().to_string());
        }

        let pid = gateway.pid().to_string();
        eventually(&format!("ten lines by {target}"), async || {
            let lines = rsyslog.lines();
            let ours = lines.iter().filter(|line| line.process == pid);
            clients.iter().all(|client| {
                ours.clone().any(|line| {
                    line.head == "local3.info 1 gateway"
                        && line.message["client"] == *client
                        && line.message["server"] == "app-1"
                })
            })
        })
        .await;
    }
}

#[cfg_attr(not(feature = "peers"), ignore = "needs rsyslog: --features peers")]
#[tokio::test]
async fn rsyslog_takes_messages_of_rfc_3164_without_being_told() {
    let rsyslog = Rsyslog::start();
    let app = Server::echo().await;
    // As `/dev/log` is read: with the parser for what syslog(3) writes.
    let socket = format!("unix://{}", rsyslog.common_socket().display());
    for (target, syslog) in [
        (format!("udp://{}", rsyslog.udp), "syslog=\"rfc3164\""),
        (format!("tcp://{}", rsyslog.tcp), "syslog=\"rfc3164\""),
        // The gateway need not be told either.
        (socket, ""),
    ] {
        let gateway = Gateway::kdl(
            r#"
            process { workers 1; log "@target" format="json" facility="local3" @syslog }
            frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; default-backend "app" }
            backend "app" { mode "tcp"; server "app-1" "@app" }
        "#,
        )
        .with("@target", &target)
        .with("@syslog", syslog)
        .with("@app", app.address())
        .start()
        .await;
        let mut client = gateway.connect("raw").await;
        client.send("hello").await;
        assert_eq!(client.exactly(5).await, b"hello");
        let address = client.address().to_string();
        drop(client);

        let name = rustix::system::uname();
        let name = name.nodename().to_str().unwrap();
        let pid = gateway.pid().to_string();
        eventually(&format!("the line by {target}"), async || {
            rsyslog.lines().iter().any(|line| {
                line.head == "local3.info 0 gateway"
                    && line.tag == format!("gateway[{pid}]:")
                    && line.process == pid
                    && line.host.eq_ignore_ascii_case(name)
                    && line.message["client"] == address
            })
        })
        .await;
    }
}

/// What rsyslog made of a message.
struct Line {
    /// Facility and severity, version, application.
    head: String,
    host: String,
    /// Of RFC 3164.
    tag: String,
    process: String,
    message: Value,
}

struct Rsyslog {
    udp: SocketAddr,
    tcp: SocketAddr,
    directory: TempDir,
    _peer: Peer,
}

impl Rsyslog {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().display();
        let (udp, tcp) = (free_address(), free_address());
        let configuration = format!(
            "global(workDirectory=\"{path}\" maxMessageSize=\"64k\" parser.escapeControlCharactersOnReceive=\"off\")\n\
             module(load=\"imudp\")\nmodule(load=\"imtcp\")\nmodule(load=\"imuxsock\" SysSock.Use=\"off\")\n\
             template(name=\"t\" type=\"string\" string=\"%syslogfacility-text%.%syslogseverity-text% \
             %protocol-version% %app-name%|%hostname%|%syslogtag%|%procid%|%msg%\\n\")\n\
             ruleset(name=\"r\") {{ action(type=\"omfile\" file=\"{path}/received\" template=\"t\") }}\n\
             input(type=\"imudp\" address=\"127.0.0.1\" port=\"{}\" ruleset=\"r\")\n\
             input(type=\"imtcp\" address=\"127.0.0.1\" port=\"{}\" ruleset=\"r\")\n\
             input(type=\"imuxsock\" Socket=\"{path}/socket\" useSpecialParser=\"off\" parseHostname=\"on\" ruleset=\"r\")\n\
             input(type=\"imuxsock\" Socket=\"{path}/common\" ruleset=\"r\")\n",
            udp.port(),
            tcp.port(),
        );
        let file = directory.path().join("rsyslog.conf");
        std::fs::write(&file, configuration).unwrap();
        let mut command = Command::new("rsyslogd");
        command
            .arg("-n")
            .arg("-f")
            .arg(file)
            .arg("-i")
            .arg(directory.path().join("pid"));
        Self {
            _peer: Peer::logging(&mut command, tcp, &directory.path().join("log")),
            directory,
            udp,
            tcp,
        }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    /// One that is read as `/dev/log` is.
    fn common_socket(&self) -> PathBuf {
        self.directory.path().join("common")
    }

    fn lines(&self) -> Vec<Line> {
        let text = std::fs::read_to_string(self.directory.path().join("received")).unwrap_or_default();
        let parsed = text.lines().filter_map(|line| {
            let mut parts = line.splitn(5, '|');
            Some(Line {
                head: parts.next()?.to_owned(),
                host: parts.next()?.to_owned(),
                tag: parts.next()?.to_owned(),
                process: parts.next()?.to_owned(),
                message: serde_json::from_str(parts.next()?.trim()).ok()?,
            })
        });
        parsed.collect()
    }
}
