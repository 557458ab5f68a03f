//! The process and its surroundings: where its log goes, whom it runs as, and what the service manager hears of it.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use gateway_tests::{Gateway, Server, eventually, peer::pause};

/// A gateway in TCP mode before this server, with this `process`.
async fn gateway(process: &str, app: SocketAddr) -> Gateway {
    let text = format!(
        r#"
        process {{ {process} }}
        frontend "raw" {{ mode "tcp"; bind "127.0.0.1:0"; default-backend "app" }}
        backend "app" {{ mode "tcp"; server "app-1" "@app" }}
    "#
    );
    Gateway::kdl(&text).with("@app", app).start().await
}

/// A connection that is served and ends.
async fn session(gateway: &Gateway) {
    assert_eq!(gateway.connect("raw").await.rest().await, b"hello");
}

async fn greeter() -> Server {
    Server::start(|mut wire, _| async move {
        wire.send("hello").await?;
        wire.half_close().await?;
        wire.rest().await.map(drop)
    })
    .await
}

/// Messages as they come in, from a thread that reads them.
struct Inbox(Receiver<String>);

impl Inbox {
    fn datagrams(mut receive: impl FnMut(&mut [u8]) -> std::io::Result<usize> + Send + 'static) -> Self {
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while let Ok(n) = receive(&mut buffer) {
                let text = String::from_utf8(buffer[..n].to_vec()).unwrap();
                if sender.send(text).is_err() {
                    return;
                }
            }
        });
        Self(receiver)
    }

    /// A syslog socket at this path.
    fn unix(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        Self::datagrams(move |buffer| socket.recv(buffer))
    }

    /// Frames of one connection to this listener: RFC 6587's octet counting.
    fn frames(listener: TcpListener) -> Self {
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = BufReader::new(stream.unwrap());
                loop {
                    let mut length = Vec::new();
                    if stream.read_until(b' ', &mut length).unwrap_or(0) == 0 {
                        break;
                    }
                    let length: usize = String::from_utf8(length).unwrap().trim_end().parse().unwrap();
                    let mut message = vec![0; length];
                    if stream.read_exact(&mut message).is_err() {
                        break;
                    }
                    if sender.send(String::from_utf8(message).unwrap()).is_err() {
                        return;
                    }
                }
            }
        });
        Self(receiver)
    }

    /// Waits for a message with this in it.
    async fn with(&self, text: &str) -> String {
        let mut found = None;
        let mut all = Vec::new();
        eventually(&format!("a message with {text:?}"), async || {
            while let Ok(message) = self.0.try_recv() {
                if message.contains(text) && found.is_none() {
                    found = Some(message.clone());
                }
                all.push(message);
            }
            found.is_some()
        })
        .await;
        found.unwrap()
    }
}

/// The header's fields and the message: PRI, VERSION, TIMESTAMP, HOSTNAME, APP-NAME, PROCID, MSGID, SD, MSG.
fn fields(message: &str) -> Vec<&str> {
    message.splitn(8, ' ').collect()
}

#[tokio::test]
async fn lines_and_events_go_to_the_syslog_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let inbox = Inbox::unix(&path);
    let app = greeter().await;
    let gateway = gateway(
        &format!("workers 1; log \"unix://{}\" facility=\"local3\"", path.display()),
        app.address(),
    )
    .await;
    session(&gateway).await;

    let line = inbox.with(" raw app/app-1 ").await;
    let header = fields(&line);
    // local3 is 19; access lines are info, 6.
    assert_eq!(header[0], "<158>1", "{line}");
    assert!(header[1].ends_with('Z') && header[1].contains('T'), "{line}");
    assert_eq!(header[2], rustix::system::uname().nodename().to_str().unwrap());
    assert_eq!((header[3], header[4]), ("gateway", &*gateway.pid().to_string()));
    assert_eq!((header[5], header[6]), ("-", "-"));
    assert!(header[7].starts_with("127.0.0.1:"), "{line}");
    assert!(!line.contains('\n'));

    gateway.terminate();
    let event = inbox.with("draining").await;
    assert!(event.starts_with("<158>1 "), "{event}");
    assert!(!gateway.output().contains("draining"), "events go to the log only");
}

#[tokio::test]
async fn events_have_their_severity() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let target = socket.local_addr().unwrap();
    let inbox = Inbox::datagrams(move |buffer| socket.recv(buffer));
    let gateway = Gateway::kdl(&format!(
        r#"
        process {{ log "udp://{target}" format="json" }}
        frontend "raw" {{ mode "tcp"; bind "127.0.0.1:0"; default-backend "app" }}
        backend "app" {{ mode "tcp"; server "app-1" "127.0.0.1:1"; check "tcp" interval="20ms" fall=1 }}
    "#
    ))
    .start()
    .await;
    gateway.metric_is("gateway_server_up", &[], 0.0).await;
    let event = inbox.with("\"level\":\"warn\"").await;
    // local0 is 16; warning is 4.
    assert!(event.starts_with("<132>1 "), "{event}");
    let value: serde_json::Value = serde_json::from_str(fields(&event)[7]).unwrap();
    assert_eq!(value["server"], "app-1", "{event}");
}

#[tokio::test]
async fn a_syslog_socket_that_is_made_anew_is_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let app = greeter().await;
    // Not there at the start: said once, and no reason not to serve.
    let gateway = gateway(&format!("workers 1; log \"unix://{}\"", path.display()), app.address()).await;
    session(&gateway).await;
    gateway.says("lines wait for it").await;

    let first = UnixDatagram::bind(&path).unwrap();
    first.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut buffer = vec![0; 1 << 16];
    let n = first.recv(&mut buffer).unwrap();
    assert!(String::from_utf8_lossy(&buffer[..n]).contains(" raw app/app-1 "));

    drop(first);
    std::fs::remove_file(&path).unwrap();
    let second = Inbox::unix(&path);
    session(&gateway).await;
    second.with(" raw app/app-1 ").await;
    assert_eq!(gateway.output().matches("lines wait for it").count(), 1);
}

#[tokio::test]
async fn lines_over_tcp_survive_a_restart_of_the_server() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap();
    let app = greeter().await;
    let gateway = gateway(&format!("workers 1; log \"tcp://{target}\""), app.address()).await;
    session(&gateway).await;
    let (mut stream, _) = listener.accept().unwrap();
    let mut start = [0; 64];
    stream.read_exact(&mut start).unwrap();
    let text = String::from_utf8_lossy(&start).into_owned();
    assert!(text.split_once(' ').unwrap().1.starts_with("<134>1 "), "{text}");
    // The server goes away, and lines are written meanwhile.
    drop((stream, listener));
    session(&gateway).await;
    gateway.says("lines wait for it").await;
    session(&gateway).await;

    let listener = TcpListener::bind(target).unwrap();
    let inbox = Inbox::frames(listener);
    inbox.with(" raw app/app-1 ").await;
    inbox.with(" raw app/app-1 ").await;
    gateway.metric_is("gateway_log_lines_dropped_total", &[], 0.0).await;
}

#[tokio::test]
async fn a_log_that_nobody_reads_holds_nothing_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap();
    let app = greeter().await;
    // Refused connections are many and short, and each is a line.
    let text = format!(
        r#"
        process {{ workers 1; log "tcp://{target}" }}
        frontend "raw" {{ mode "tcp"; bind "127.0.0.1:0"; default-backend "app" }}
        frontend "noise" {{ mode "http"; bind "127.0.0.1:0"; deny; default-backend "web" }}
        backend "app" {{ mode "tcp"; server "app-1" "@app" }}
        backend "web" {{ server "web-1" "127.0.0.1:1" }}
    "#
    );
    let gateway = Gateway::kdl(&text).with("@app", app.address()).start().await;
    session(&gateway).await;
    // Accepted and never read.
    let (_stream, _) = listener.accept().unwrap();
    let address = gateway.address("noise");
    let flood = std::thread::spawn(move || {
        // Lines of 8 KB fill the socket's buffers and the queue.
        let request = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(8_000));
        for _ in 0..10 {
            #[allow(clippy::disallowed_methods, reason = "no worker here")]
            let mut stream = TcpStream::connect(address).unwrap();
            let mut answer = vec![0; 1 << 16];
            for _ in 0..200 {
                use std::io::Write;
                stream.write_all(request.as_bytes()).unwrap();
                let n = stream.read(&mut answer).unwrap();
                assert!(answer[..n].starts_with(b"HTTP/1.1 403"));
            }
        }
    });
    while !flood.is_finished() {
        session(&gateway).await;
        pause(Duration::from_millis(5));
    }
    flood.join().unwrap();
    eventually("dropped lines are counted", async || {
        let metrics = gateway.metrics().await;
        metrics.get("gateway_log_lines_dropped_total", &[("reason", "queue-full")]) > Some(0.0)
    })
    .await;
    session(&gateway).await;
}
