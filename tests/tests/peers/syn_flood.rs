//! SYNs from senders that never answer, far more than any queue holds, in a network of the test's own.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsFd;
use std::process::Command;
use std::time::{Duration, Instant};

use gateway_tests::process::descriptors;
use gateway_tests::{Gateway, Server};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};
use socket2::{Domain, Protocol, Socket, Type};

/// Where the flood goes.
const FLOODED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Whom the answers go to: there is a way to them, and nobody at its end.
const SENDERS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
const BACKLOG: usize = 256;
/// Two hundred times what the queue holds.
const SYNS: u32 = 51_200;

#[cfg_attr(not(feature = "peers"), ignore = "needs root and iproute2: --features peers")]
#[tokio::test]
async fn a_flood_of_syns_holds_up_nobody_and_costs_no_memory() {
    let _network = Network::enter();
    let echo = Server::echo().await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1 }
        frontend "flooded" { mode "tcp"; bind "192.0.2.1:0" backlog=256; default-backend "well" }
        frontend "calm" { mode "tcp"; bind "127.0.0.1:0"; default-backend "well" }
        backend "well" { mode "tcp"; server "s" "@echo" }
    "#,
    )
    .with("@echo", echo.address())
    .start()
    .await;
    let port = gateway.address("flooded").port();
    is_served(&gateway).await;
    let (memory, files) = (gateway.resident(), descriptors(gateway.pid()));

    // The thread is in the same network as the one that starts it.
    let flood = std::thread::spawn(move || flood(port));
    let mut rounds = 0;
    while !flood.is_finished() || rounds == 0 {
        is_served(&gateway).await;
        rounds += 1;
    }
    assert_eq!(flood.join().unwrap(), SYNS);
    let waiting = half_open();
    assert!(
        waiting >= BACKLOG,
        "{waiting} half-open: the flood did not come through"
    );
    assert!(waiting <= BACKLOG + 1, "{waiting} half-open connections are held");
    let cookies = counter("SyncookiesSent");
    assert!(
        cookies > u64::from(SYNS) / 2,
        "{cookies} cookies: the queue was not full"
    );
    // While it is full.
    is_served(&gateway).await;
    let grown = gateway.resident().saturating_sub(memory);
    assert!(grown < 1 << 20, "{grown} bytes for connections that are none");
    assert!(descriptors(gateway.pid()) <= files + 8);
}

/// Others are served, through the port that is flooded and beside it.
async fn is_served(gateway: &Gateway) {
    let begun = Instant::now();
    for frontend in ["flooded", "calm"] {
        let mut client = gateway.connect(frontend).await;
        client.send("hello").await;
        assert_eq!(client.exactly(5).await, b"hello");
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

/// A network namespace for this thread, and for whom it starts.
struct Network(String);

impl Network {
    fn enter() -> Self {
        let name = format!("gateway-{}", std::process::id());
        let network = Self(name.clone());
        ip(&["netns", "add", &name]);
        for words in [
            ["link", "set", "lo", "up"].as_slice(),
            &["address", "add", &format!("{FLOODED}/32"), "dev", "lo"],
            &["route", "add", &format!("{SENDERS}/15"), "dev", "lo"],
        ] {
            ip(&[&["-n", &name], words].concat());
        }
        let file = File::open(format!("/run/netns/{name}")).unwrap();
        move_into_thread_name_spaces(file.as_fd(), ThreadNameSpaceType::NETWORK).unwrap();
        network
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        ip(&["netns", "delete", &self.0]);
    }
}

fn ip(words: &[&str]) {
    let done = Command::new("ip").args(words).status();
    let done = done.unwrap_or_else(|e| panic!("ip: {e}; apt-get install iproute2"));
    assert!(done.success(), "ip {}", words.join(" "));
}

/// Sends [`SYNS`] of them, each from an address and port of its own, and says how many went out.
fn flood(port: u16) -> u32 {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(WHOLE_PACKETS))).unwrap();
    let to = SocketAddrV4::new(FLOODED, 0).into();
    let mut sent = 0;
    for number in 0..SYNS {
        let from = Ipv4Addr::from_bits(SENDERS.to_bits() + 1 + number);
        let packet = syn(from, 1024 + (number % 60_000) as u16, port, number);
        match socket.send_to(&packet, &to) {
            Ok(_) => sent += 1,
            // The kernel's own queue is full for a moment.
            Err(error) if error.kind() == std::io::ErrorKind::OutOfMemory => {}
            Err(error) => panic!("SYN {number}: {error}"),
        }
    }
    sent
}

/// `IPPROTO_RAW`: the sender writes the IP header, too (raw(7)).
const WHOLE_PACKETS: i32 = 255;

/// An IPv4 packet (RFC 791) with a TCP segment (RFC 9293) that asks for a connection.
fn syn(from: Ipv4Addr, source: u16, port: u16, sequence: u32) -> Vec<u8> {
    let mut segment = Vec::with_capacity(20);
    segment.extend(source.to_be_bytes());
    segment.extend(port.to_be_bytes());
    segment.extend(sequence.to_be_bytes());
    segment.extend([0; 4]);
    // Five words of header, SYN, the largest window.
    segment.extend([5 << 4, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
    let mut summed = Vec::with_capacity(32);
    summed.extend(from.octets());
    summed.extend(FLOODED.octets());
    summed.extend([0, 6, 0, 20]);
    summed.extend(&segment);
    segment[16..18].copy_from_slice(&checksum(&summed).to_be_bytes());
    // The kernel fills in the length, the number and the checksum.
    let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0];
    packet.extend(from.octets());
    packet.extend(FLOODED.octets());
    packet.extend(segment);
    packet
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Connections in SYN_RECV (proc(5), `/proc/net/tcp`).
fn half_open() -> usize {
    let table = std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
    let states = table.lines().skip(1).filter_map(|line| line.split_whitespace().nth(3));
    states.filter(|state| *state == "03").count()
}

/// One of the kernel's own counters of this network.
fn counter(name: &str) -> u64 {
    let table = std::fs::read_to_string("/proc/thread-self/net/netstat").unwrap();
    let mut lines = table.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let at = names.split_whitespace().position(|word| word == name).unwrap();
    values.split_whitespace().nth(at).unwrap().parse().unwrap()
}
