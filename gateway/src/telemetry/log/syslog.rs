//! Lines to a syslog server: messages of RFC 5424 or RFC 3164 in datagrams (RFC 5426), or over TCP with octet counting
//! (RFC 6587).
//!
//! Runs in the log's thread and may wait. A server that is gone is tried again with growing pauses while lines wait in
//! the queue; one that takes nothing is given up after [`WRITE_TIMEOUT`] and connected to anew.

use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use rustix::net::{RecvFlags, recv};

use super::{Closing, Lines, Lost, Target, pause_unless};
use crate::config::{Facility, SyslogHeader, SyslogServer};
use crate::telemetry::clock::{Dates, LocalDates};

/// A syslog server and the way to it.
#[derive(Debug)]
pub(super) struct Syslog {
    server: SyslogServer,
    facility: Facility,
    header: Header,
    connection: Option<Connection>,
    /// Messages being sent.
    out: Vec<u8>,
    /// Where each of them ends.
    ends: Vec<usize>,
    closing: Closing,
    is_gone: bool,
}

/// How urgent a line is: the severities of RFC 5424, section 6.2.1, that the gateway has a use for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Severity {
    /// Something failed.
    Error = 3,
    /// Something is not as it should be.
    Warning = 4,
    /// Access lines, too.
    #[default]
    Info = 6,
    /// What only somebody who looks for a fault reads.
    Debug = 7,
}

/// What stands before a line, behind the priority.
#[derive(Debug)]
enum Header {
    /// RFC 5424, section 6.
    Rfc5424 {
        dates: Dates,
        /// ` HOSTNAME APP-NAME PROCID - - `: no MSGID and no structured data.
        origin: Vec<u8>,
    },
    /// RFC 3164, section 4.1.
    Rfc3164 {
        dates: LocalDates,
        /// ` HOSTNAME TAG[PID]: `. Without the name where the server is on this machine: syslog(3) writes none, and who reads
        /// such a socket would take it for the tag.
        origin: Vec<u8>,
    },
}

#[derive(Debug)]
enum Connection {
    Unix(UnixDatagram),
    Udp(UdpSocket),
    Tcp(TcpStream),
}

impl Syslog {
    /// The way to a server. A socket in the file system is opened now, before a `chroot` hides it; one that is not there yet
    /// is tried again later.
    pub(super) fn new(server: &SyslogServer, facility: Facility, header: SyslogHeader, closing: Closing) -> Self {
        let mut syslog = Self {
            server: server.clone(),
            facility,
            header: Header::new(header, server),
            connection: None,
            out: Vec::new(),
            ends: Vec::new(),
            closing,
            is_gone: false,
        };
        if let SyslogServer::Unix(path) = server {
            match connect_unix(path) {
                Ok(socket) => syslog.connection = Some(Connection::Unix(socket)),
                Err(error) => syslog.complain(&error),
            }
        }
        syslog
    }

    /// Says it once, where it can be read: on standard error.
    fn complain(&mut self, error: &io::Error) {
        if !self.is_gone {
            let text = format!(
                "gateway: log {}: {error}; lines wait for it, and are dropped when they are too many\n",
                self.server
            );
            let _ = io::stderr().write_all(text.as_bytes());
        }
        self.is_gone = true;
    }

    /// Makes messages of lines: each line is one, an event is one whatever stands in it.
    fn format(&mut self, lines: &Lines) {
        self.out.clear();
        self.ends.clear();
        let now = SystemTime::now();
        let text = lines.bytes.strip_suffix(b"\n").unwrap_or(&lines.bytes);
        if lines.count == 1 {
            self.push(lines.severity, now, text);
        } else {
            for line in text.split(|&byte| byte == b'\n') {
                self.push(lines.severity, now, line);
            }
        }
    }

    fn push(&mut self, severity: Severity, now: SystemTime, text: &[u8]) {
        let start = self.out.len();
        let priority = self.facility as u8 * 8 + severity as u8;
        self.out.push(b'<');
        self.out
            .extend_from_slice(itoa::Buffer::new().format(priority).as_bytes());
        self.out.push(b'>');
        self.header.push(&mut self.out, now);
        let most = match self.server {
            SyslogServer::Tcp(_) => usize::MAX,
            SyslogServer::Unix(_) | SyslogServer::Udp(_) => LONGEST_DATAGRAM,
        };
        let room = most.saturating_sub(self.out.len() - start);
        let text = &text[..text.len().min(room)];
        self.out
            .extend(text.iter().map(|&byte| if byte == b'\n' { b' ' } else { byte }));
        if let SyslogServer::Tcp(_) = self.server {
            // RFC 6587, section 3.4.1: MSG-LEN SP SYSLOG-MSG.
            let mut length = itoa::Buffer::new();
            let length = length.format(self.out.len() - start).as_bytes();
            let head = length.iter().copied().chain([b' ']);
            self.out.splice(start..start, head);
        }
        self.ends.push(self.out.len());
    }

    fn connect(&self) -> io::Result<Connection> {
        Ok(match &self.server {
            SyslogServer::Unix(path) => Connection::Unix(connect_unix(path)?),
            SyslogServer::Udp(address) => {
                let any: SocketAddr = match address {
                    SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                    SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
                };
                let socket = UdpSocket::bind(any)?;
                socket.connect(address)?;
                Connection::Udp(socket)
            }
            SyslogServer::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, CONNECT_TIMEOUT)?;
                stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
                Connection::Tcp(stream)
            }
        })
    }

    /// Makes a socket for datagrams where there is none. Where that cannot be done (no route, an address that is not allowed),
    /// trying again at once would only spin and the lines are not worth a wait: the next ones try again.
    fn reach(&mut self) -> io::Result<()> {
        if let (SyslogServer::Udp(_), None) = (&self.server, &self.connection) {
            self.connection = Some(self.connect()?);
        }
        Ok(())
    }

    /// Sends messages from number `done` on; `done` counts those that went out.
    fn send(&mut self, done: &mut usize) -> io::Result<()> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect()?,
        };
        connection.send(&self.out, &self.ends, done)?;
        self.connection = Some(connection);
        Ok(())
    }
}

impl Target for Syslog {
    fn write(&mut self, lines: &Lines) -> Result<(), Lost> {
        self.format(lines);
        let (mut done, mut lost) = (0, 0);
        let mut pause = SHORTEST_PAUSE;
        // A server that was restarted is there again: the first failure of an old connection costs no pause.
        let mut was_connected = self.connection.is_some();
        loop {
            if let Err(error) = self.reach() {
                self.complain(&error);
                let lines = lost + (self.ends.len() - done) as u64;
                return Err(Lost { lines, error });
            }
            let error = match self.send(&mut done) {
                Ok(()) if lost > 0 => {
                    return Err(Lost {
                        lines: lost,
                        error: io::ErrorKind::HostUnreachable.into(),
                    });
                }
                Ok(()) => {
                    if std::mem::take(&mut self.is_gone) {
                        tracing::info!("log {} is there again", self.server);
                    }
                    return Ok(());
                }
                Err(error) => error,
            };
            if self.closing.is_set() {
                let lines = lost + (self.ends.len() - done) as u64;
                return Err(Lost { lines, error });
            }
            // A datagram that goes nowhere is gone, and so is one that the server cannot take at all.
            if matches!(self.server, SyslogServer::Udp(_)) || error.raw_os_error() == Some(EMSGSIZE) {
                self.complain(&error);
                (done, lost) = ((done + 1).min(self.ends.len()), lost + 1);
            } else if !std::mem::take(&mut was_connected) {
                self.complain(&error);
                pause_unless(&self.closing, pause);
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }

    fn name(&self) -> Option<String> {
        None
    }
}

impl Header {
    fn new(header: SyslogHeader, server: &SyslogServer) -> Self {
        let pid = std::process::id();
        match header {
            SyslogHeader::Rfc5424 => Self::Rfc5424 {
                dates: Dates::default(),
                origin: format!(" {} gateway {pid} - - ", host()).into_bytes(),
            },
            SyslogHeader::Rfc3164 => {
                let host = match server {
                    SyslogServer::Unix(_) => String::new(),
                    SyslogServer::Udp(_) | SyslogServer::Tcp(_) => format!(" {}", host()),
                };
                Self::Rfc3164 {
                    dates: LocalDates::of_the_machine(),
                    origin: format!("{host} gateway[{pid}]: ").into_bytes(),
                }
            }
        }
    }

    fn push(&mut self, out: &mut Vec<u8>, now: SystemTime) {
        let origin = match self {
            Self::Rfc5424 { dates, origin } => {
                out.extend_from_slice(b"1 ");
                dates.push_iso(out, now);
                origin
            }
            Self::Rfc3164 { dates, origin } => {
                dates.push(out, now);
                origin
            }
        };
        out.extend_from_slice(origin);
    }
}

impl Connection {
    fn send(&mut self, out: &[u8], ends: &[usize], done: &mut usize) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => {
                if has_ended(stream) {
                    return Err(io::ErrorKind::ConnectionReset.into());
                }
                let start = (*done).checked_sub(1).map_or(0, |last| ends[last]);
                let mut written = start;
                let deadline = Instant::now() + WRITE_TIMEOUT;
                while written < out.len() {
                    // The timeout is for one write; a server that takes a byte a second is none.
                    if Instant::now() > deadline {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                    match stream.write(&out[written..]) {
                        Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                        Ok(more) => written += more,
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                            return Err(io::ErrorKind::TimedOut.into());
                        }
                        Err(error) => return Err(error),
                    }
                    // A message that was cut is sent again, whole, on another connection.
                    *done = ends.partition_point(|&end| end <= written);
                }
            }
            Self::Unix(_) | Self::Udp(_) => {
                while let Some(&end) = ends.get(*done) {
                    let start = (*done).checked_sub(1).map_or(0, |last| ends[last]);
                    self.send_datagram(&out[start..end])?;
                    *done += 1;
                }
            }
        }
        Ok(())
    }

    fn send_datagram(&self, message: &[u8]) -> io::Result<()> {
        let send = || match self {
            Self::Unix(socket) => socket.send(message),
            Self::Udp(socket) => socket.send(message),
            Self::Tcp(_) => Ok(0),
        };
        loop {
            match (send(), self) {
                (Ok(_), _) => return Ok(()),
                (Err(error), _) if error.kind() == io::ErrorKind::Interrupted => {}
                // The ICMP answer to an earlier datagram, now told: this one may arrive.
                (Err(error), Self::Udp(_)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    return send().map(drop);
                }
                (Err(error), _) => return Err(error),
            }
        }
    }
}

fn connect_unix(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    // A server that reads nothing fills its queue; then sending waits.
    socket.set_write_timeout(Some(WRITE_TIMEOUT))?;
    Ok(socket)
}

/// Whether the server has closed: writing would succeed once more, into nothing.
fn has_ended(stream: &TcpStream) -> bool {
    let mut byte = [0u8];
    match recv(stream, byte.as_mut_slice(), RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((_, length)) => length == 0,
        Err(error) => error != rustix::io::Errno::AGAIN && error != rustix::io::Errno::INTR,
    }
}

/// HOSTNAME, in printable ASCII (RFC 5424, section 6).
fn host() -> String {
    let name = rustix::system::uname();
    let bytes = name.nodename().to_bytes().iter();
    let printable: String = bytes
        .filter(|byte| byte.is_ascii_graphic())
        .take(255)
        .map(|&byte| char::from(byte))
        .collect();
    match printable.is_empty() {
        true => "-".to_owned(),
        false => printable,
    }
}

/// Linux' number for a message that is too long for its socket.
const EMSGSIZE: i32 = 90;

/// What fits in a UDP datagram over IPv4, less 20 bytes of IP and 8 of UDP. What is longer is cut.
const LONGEST_DATAGRAM: usize = 65_507;

/// Connecting to a server in the neighbourhood takes a millisecond; meanwhile lines wait in the queue.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a server may take nothing. Shorter pauses, as of a server that rotates its files, only fill the queue.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// Between two attempts to reach a server that is gone: at first and at most.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    fn syslog(server: SyslogServer) -> Syslog {
        Syslog::new(&server, Facility::Local3, SyslogHeader::Rfc5424, Closing::default())
    }

    fn lines(text: &str, count: u64, severity: Severity) -> Lines {
        Lines {
            bytes: text.as_bytes().to_vec(),
            count,
            severity,
        }
    }

    #[test]
    fn messages_over_tcp_are_counted_in_octets() {
        let mut syslog = syslog(SyslogServer::Tcp(([127, 0, 0, 1], 1).into()));
        syslog.format(&lines("one\ntwo\n", 2, Severity::Info));
        let text = String::from_utf8(syslog.out.clone()).unwrap();
        let mut rest = &*text;
        for expected in ["one", "two"] {
            let (length, after) = rest.split_once(' ').unwrap();
            let (message, more) = after.split_at(length.parse().unwrap());
            // local3 is 19, info is 6.
            assert!(message.starts_with("<158>1 2"), "{message}");
            let origin = format!("Z {} gateway {} - - {expected}", host(), std::process::id());
            assert!(message.ends_with(&origin), "{message}");
            rest = more;
        }
        assert_eq!(rest, "");
        assert_eq!(syslog.ends.len(), 2);
    }

    #[test]
    fn an_event_is_one_message_whatever_stands_in_it() {
        let mut syslog = syslog(SyslogServer::Udp(([127, 0, 0, 1], 1).into()));
        syslog.format(&lines("a\nb\n", 1, Severity::Warning));
        let text = String::from_utf8(syslog.out.clone()).unwrap();
        assert!(text.starts_with("<156>1 "), "{text}");
        assert!(text.ends_with(" - - a b"), "{text}");
    }

    #[test]
    fn messages_of_rfc_3164_name_the_host_to_servers_that_are_elsewhere() {
        let pid = std::process::id();
        for (server, origin) in [
            (
                SyslogServer::Unix("/nowhere/at/all".into()),
                format!(" gateway[{pid}]: line"),
            ),
            (
                SyslogServer::Udp(([127, 0, 0, 1], 1).into()),
                format!(" {} gateway[{pid}]: line", host()),
            ),
        ] {
            let mut syslog = Syslog::new(&server, Facility::Local3, SyslogHeader::Rfc3164, Closing::default());
            syslog.format(&lines("line\n", 1, Severity::Info));
            let text = String::from_utf8(syslog.out.clone()).unwrap();
            // `Feb  6 12:14:14` is of one length on every day.
            let (head, rest) = text.split_at("<158>".len() + 15);
            assert!(
                head.starts_with("<158>") && head.ends_with(|c: char| c.is_ascii_digit()),
                "{text}"
            );
            assert_eq!(rest, origin);
        }
    }

    #[test]
    fn datagrams_that_can_go_nowhere_are_lost_and_not_waited_for() {
        let (done, is_done) = std::sync::mpsc::channel();
        // A broadcast needs a permission that the gateway does not ask for: connecting fails, each time.
        let mut syslog = syslog(SyslogServer::Udp((Ipv4Addr::BROADCAST, 514).into()));
        std::thread::spawn(move || {
            for count in [2, 1] {
                let text = "line\n".repeat(count);
                let lost = syslog.write(&lines(&text, count as u64, Severity::Info)).unwrap_err();
                done.send(lost.lines).unwrap();
            }
        });
        for lost in [2, 1] {
            assert_eq!(is_done.recv_timeout(Duration::from_secs(10)), Ok(lost));
        }
    }

    #[test]
    fn a_line_that_no_datagram_can_carry_is_cut() {
        let mut syslog = syslog(SyslogServer::Udp(([127, 0, 0, 1], 1).into()));
        syslog.format(&lines(&"x".repeat(100_000), 1, Severity::Info));
        assert_eq!(syslog.out.len(), LONGEST_DATAGRAM);
    }
}
