//! The upstream and the three proxies: the same job said in three languages.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use clap::ValueEnum;
use gateway_tests::peer::{Peer, free_address, prefixed};
use tempfile::TempDir;

use crate::handshakes::Key;

/// What is asked of the proxies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// HTTP/1.1, keep-alive on both sides, a small response, access log and metrics on; load from wrk.
    H1,
    /// The same with load from h2load.
    H1H2load,
    /// The same with so many requests a second and no more: latency without a queue; load from h2load.
    H1Rate,
    /// ACLs, header edits, a path rewrite and a rate limit that passes; load from wrk.
    Policy,
    /// As `policy`, with none of the answers known to the gateway: it asks its components each time.
    PolicyAsked,
    /// As `h1`, with a connection for each request; load from wrk.
    H1Conn,
    /// As `h1`, with large bodies, four at once.
    H1Bulk,
    /// As `h1`, the client in TLS; load from wrk.
    Tls,
    /// As `tls`, in HTTP/2 with eight streams a connection; load from h2load.
    H2,
    /// As `tls`, with a connection and a whole handshake for each request.
    Handshake,
    /// The same with an RSA key.
    HandshakeRsa,
    /// TCP relay; small requests and responses on long-lived connections; load from wrk.
    Tcp,
    /// TCP relay; a connection for each request; load from wrk.
    Conn,
    /// TCP relay; one connection, and the same without a proxy: what the proxy adds to the median latency.
    Latency,
    /// TCP relay; streams of a gigabyte from the server to the client.
    Bulk,
    /// TCP relay; ten thousand connections that are silent.
    Idle,
    /// The gateway alone: what a tenant's plugin that does its worst costs another tenant.
    Neighbours,
}

impl Scenario {
    /// What is counted.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::H1
            | Self::H1H2load
            | Self::H1Rate
            | Self::Policy
            | Self::PolicyAsked
            | Self::Tls
            | Self::H2
            | Self::Neighbours => "request",
            Self::Tcp | Self::Latency => "message",
            Self::Conn | Self::H1Conn | Self::Idle => "connection",
            Self::Handshake | Self::HandshakeRsa => "handshake",
            Self::Bulk | Self::H1Bulk => "MiB",
        }
    }

    /// Whether it is large pieces that are moved, so many of them that a turn is as long as they take.
    pub(crate) fn is_bulk(self) -> bool {
        matches!(self, Self::Bulk | Self::H1Bulk)
    }

    /// What the proxies show in TLS; none where it is not spoken.
    fn key(self) -> Option<Key> {
        match self {
            Self::Tls | Self::H2 | Self::Handshake => Some(Key::P256),
            Self::HandshakeRsa => Some(Key::Rsa2048),
            _ => None,
        }
    }
}

/// A program in the comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Product {
    /// What the others are measured against.
    Haproxy,
    /// nginx, its stream module for TCP.
    Nginx,
    /// This project.
    Gateway,
}

/// What answers behind all three.
pub(crate) struct Upstream {
    _nginx: Option<(Peer, TempDir)>,
    pub(crate) address: SocketAddr,
}

impl Upstream {
    /// A server that runs already.
    pub(crate) fn at(address: SocketAddr) -> Self {
        Self { _nginx: None, address }
    }

    /// An nginx that answers small requests.
    pub(crate) fn nginx(prefix: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let address = free_address();
        // A kilobyte: a small response that is no toy.
        let configuration = format!(
            r#"worker_processes 1;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 300s;
    server {{
        listen {address} backlog=1024;
        default_type text/plain;
        location / {{ return 200 "{}"; }}
    }}
}}"#,
            "x".repeat(1024)
        );
        Self {
            _nginx: Some((
                Peer::nginx(prefix, directory.path(), &configuration, address),
                directory,
            )),
            address,
        }
    }
}

/// A running proxy.
pub(crate) struct Proxy {
    pub(crate) product: Product,
    pub(crate) address: SocketAddr,
    peer: Peer,
    directory: TempDir,
}

impl Proxy {
    pub(crate) fn start(
        product: Product,
        scenario: Scenario,
        upstream: &Upstream,
        gateway: &Path,
        prefix: &[&str],
        connections: usize,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let address = free_address();
        let text = fill(template(product, scenario), address, upstream.address, directory.path())
            .replace("@ANSWERS", if scenario == Scenario::PolicyAsked { "0" } else { "64" })
            .replace("@CONNECTIONS", &(connections + 100).to_string())
            .replace("@DESCRIPTORS", &(2 * connections + 400).to_string());
        if let Some(key) = scenario.key() {
            key.write(directory.path());
        }
        // In a folder of its own, as everywhere: the gateway watches those that certificates are in.
        std::fs::create_dir(directory.path().join("log")).unwrap();
        let log = || Stdio::from(File::create(directory.path().join("log/access.log")).unwrap());
        let peer = match product {
            Product::Haproxy => Peer::haproxy(prefix, directory.path(), &text, log(), address),
            Product::Nginx => Peer::nginx(prefix, directory.path(), &text, address),
            Product::Gateway => {
                let config = directory.path().join("config.kdl");
                std::fs::write(&config, text).unwrap();
                let mut command = prefixed(prefix, &gateway.to_string_lossy());
                let events = File::create(directory.path().join("log/events.log")).unwrap();
                command.arg("run").arg("-c").arg(config).stdout(log()).stderr(events);
                Peer::start(&mut command, address)
            }
        };
        Self {
            product,
            address,
            peer,
            directory,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.peer.pid()
    }

    /// Lines of its access log: proof that it was on.
    pub(crate) fn log_lines(&self) -> usize {
        let path: PathBuf = self.directory.path().join("log/access.log");
        let log = std::fs::read(path).unwrap_or_default();
        log.iter().filter(|&&byte| byte == b'\n').count()
    }
}

fn template(product: Product, scenario: Scenario) -> &'static str {
    use Product::{Gateway, Haproxy, Nginx};
    use Scenario::{
        Bulk, Conn, H1, H1Bulk, H1Conn, H1H2load, H1Rate, H2, Handshake, HandshakeRsa, Idle, Latency, Neighbours,
        Policy, PolicyAsked, Tcp, Tls,
    };
    match (product, scenario) {
        (_, Neighbours) => include_str!("configs/neighbours.kdl"),
        (Haproxy, H1 | H1H2load | H1Rate | H1Conn) => include_str!("configs/h1.haproxy.cfg"),
        (Haproxy, H1Bulk) => include_str!("configs/h1-bulk.haproxy.cfg"),
        (Haproxy, Tls | H2 | Handshake | HandshakeRsa) => include_str!("configs/tls.haproxy.cfg"),
        (Haproxy, Policy | PolicyAsked) => include_str!("configs/policy.haproxy.cfg"),
        (Haproxy, Tcp | Conn | Latency) => include_str!("configs/tcp.haproxy.cfg"),
        (Haproxy, Bulk) => include_str!("configs/bulk.haproxy.cfg"),
        (Haproxy, Idle) => include_str!("configs/idle.haproxy.cfg"),
        (Nginx, H1 | H1H2load | H1Rate | H1Conn) => include_str!("configs/h1.nginx.conf"),
        (Nginx, H1Bulk) => include_str!("configs/h1-bulk.nginx.conf"),
        (Nginx, Tls | H2 | Handshake | HandshakeRsa) => include_str!("configs/tls.nginx.conf"),
        (Nginx, Policy | PolicyAsked) => include_str!("configs/policy.nginx.conf"),
        (Nginx, Tcp | Conn | Latency | Bulk) => include_str!("configs/tcp.nginx.conf"),
        (Nginx, Idle) => include_str!("configs/idle.nginx.conf"),
        (Gateway, H1 | H1H2load | H1Rate | H1Conn | H1Bulk) => include_str!("configs/h1.kdl"),
        (Gateway, Tls | H2 | Handshake | HandshakeRsa) => include_str!("configs/tls.kdl"),
        (Gateway, Policy | PolicyAsked) => include_str!("configs/policy.kdl"),
        (Gateway, Tcp | Conn | Latency | Bulk) => include_str!("configs/tcp.kdl"),
        (Gateway, Idle) => include_str!("configs/idle.kdl"),
    }
}

fn fill(template: &str, listen: SocketAddr, upstream: SocketAddr, directory: &Path) -> String {
    template
        .replace("@LISTEN", &listen.to_string())
        .replace("@UPSTREAM", &upstream.to_string())
        .replace("@STATS", &free_address().to_string())
        .replace("@MODULES", "/usr/lib/nginx/modules")
        .replace("@DIR", &directory.to_string_lossy())
}
