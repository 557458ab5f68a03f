//! A name server with a table that tests change: it answers, lies, is slow or says nothing.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;

/// A record, with its TTL in seconds. Its owner is the name that was asked for, unless it says otherwise.
#[derive(Debug, Clone)]
pub enum Dns {
    /// An address.
    Ip(IpAddr, u32),
    /// A service: priority, weight, port and target.
    Srv(u16, u16, u16, &'static str, u32),
    /// The name is another one's (CNAME), whose records are not in the answer.
    Alias(&'static str),
    /// An address in a class that nobody asked for.
    Chaos(Ipv4Addr),
    /// An address of another name.
    Of(&'static str, Ipv4Addr),
    /// No record: whoever asks for the name is answered with SERVFAIL.
    Fails,
}

/// A name server on a free port of 127.0.0.1, over UDP and TCP.
pub struct DnsServer {
    address: SocketAddr,
    table: Arc<Mutex<Table>>,
    tasks: [JoinHandle<()>; 2],
}

#[derive(Default)]
struct Table {
    names: HashMap<String, Vec<Dns>>,
    mood: Mood,
    questions: HashMap<String, usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Mood {
    #[default]
    Answers,
    Silent,
    Fails,
}

impl DnsServer {
    /// Starts a server that knows no names.
    pub async fn start() -> Self {
        loop {
            let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let address = tcp.local_addr().unwrap();
            let Ok(udp) = UdpSocket::bind(address).await else {
                continue;
            };
            let table = Arc::<Mutex<Table>>::default();
            let tasks = [
                tokio::spawn(over_udp(udp, Arc::clone(&table))),
                tokio::spawn(over_tcp(tcp, Arc::clone(&table))),
            ];
            return Self { address, table, tasks };
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The name has these records now, and no others.
    pub fn set(&self, name: &str, records: &[Dns]) {
        let mut table = self.table.lock().unwrap();
        table.names.insert(name.to_owned(), records.to_vec());
    }

    /// The name has these addresses now, for a second.
    pub fn points(&self, name: &str, ips: &[&str]) {
        let records: Vec<Dns> = ips.iter().map(|ip| Dns::Ip(ip.parse().unwrap(), 1)).collect();
        self.set(name, &records);
    }

    /// There is no such name any more.
    pub fn forget(&self, name: &str) {
        self.table.lock().unwrap().names.remove(name);
    }

    /// It says nothing from now on.
    pub fn fall_silent(&self) {
        self.table.lock().unwrap().mood = Mood::Silent;
    }

    /// It answers everything with SERVFAIL from now on.
    pub fn fail(&self) {
        self.table.lock().unwrap().mood = Mood::Fails;
    }

    /// It answers again.
    pub fn recover(&self) {
        self.table.lock().unwrap().mood = Mood::Answers;
    }

    /// How many questions about a name came, of whatever kind.
    pub fn questions(&self, name: &str) -> usize {
        self.table.lock().unwrap().questions.get(name).copied().unwrap_or(0)
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn over_udp(socket: UdpSocket, table: Arc<Mutex<Table>>) {
    let mut question = [0; 1500];
    while let Ok((n, from)) = socket.recv_from(&mut question).await {
        let Some(mut answer) = answer(&table, &question[..n]) else {
            continue;
        };
        if answer.len() > 1200 {
            // Truncated: the rest is to be asked for over TCP.
            answer[2] |= 0x02;
            let end = end_of_question(&answer);
            answer.truncate(end);
            answer[6..8].fill(0);
        }
        let _ = socket.send_to(&answer, from).await;
    }
}

async fn over_tcp(listener: TcpListener, table: Arc<Mutex<Table>>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let table = Arc::clone(&table);
        tokio::spawn(async move {
            loop {
                let length = stream.read_u16().await?;
                let mut question = vec![0; usize::from(length)];
                stream.read_exact(&mut question).await?;
                let Some(answer) = answer(&table, &question) else {
                    continue;
                };
                stream.write_u16(u16::try_from(answer.len()).unwrap()).await?;
                stream.write_all(&answer).await?;
            }
            #[allow(unreachable_code)]
            io::Result::Ok(())
        });
    }
}

fn answer(table: &Mutex<Table>, question: &[u8]) -> Option<Vec<u8>> {
    if question.len() < 17 {
        return None;
    }
    let end = end_of_question(question);
    let name = name(&question[12..end - 4]);
    let kind = u16::from_be_bytes([question[end - 4], question[end - 3]]);
    let mut table = table.lock().unwrap();
    *table.questions.entry(name.clone()).or_default() += 1;
    let records = table.names.get(&name);
    let code = match table.mood {
        Mood::Silent => return None,
        Mood::Fails => 2,
        Mood::Answers if records.is_some_and(|records| records.iter().any(|record| matches!(record, Dns::Fails))) => 2,
        Mood::Answers if records.is_none() => 3,
        Mood::Answers => 0,
    };
    let records: Vec<&Dns> = records
        .into_iter()
        .flatten()
        .filter(|record| code == 0 && (record.kind() == kind || matches!(record, Dns::Alias(_))))
        .collect();
    // Id, "response, recursion available", one question, so many answers.
    let mut answer = question[..2].to_vec();
    answer.extend([0x81, 0x80 | code, 0, 1]);
    answer.extend(u16::try_from(records.len()).unwrap().to_be_bytes());
    answer.extend([0; 4]);
    answer.extend(&question[12..end]);
    for record in records {
        record.write(&mut answer);
    }
    Some(answer)
}

/// Past the name, type and class of the only question.
fn end_of_question(message: &[u8]) -> usize {
    let mut at = 12;
    while message[at] != 0 {
        at += usize::from(message[at]) + 1;
    }
    at + 5
}

fn name(mut labels: &[u8]) -> String {
    let mut name = String::new();
    while let [length, rest @ ..] = labels
        && *length > 0
    {
        let (label, rest) = rest.split_at(usize::from(*length));
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(&String::from_utf8_lossy(label).to_lowercase());
        labels = rest;
    }
    name
}

fn write_name(name: &str, out: &mut Vec<u8>) {
    for label in name.split('.') {
        out.push(u8::try_from(label.len()).unwrap());
        out.extend(label.as_bytes());
    }
    out.push(0);
}

impl Dns {
    fn kind(&self) -> u16 {
        match self {
            Self::Ip(IpAddr::V4(_), _) | Self::Chaos(_) | Self::Of(..) => 1,
            Self::Ip(IpAddr::V6(_), _) => 28,
            Self::Srv(..) => 33,
            Self::Alias(_) => 5,
            // Of none.
            Self::Fails => 0,
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Of(name, _) => write_name(name, out),
            // The name that was asked for.
            _ => out.extend([0xc0, 12]),
        }
        out.extend(self.kind().to_be_bytes());
        out.extend(if matches!(self, Self::Chaos(_)) { [0, 3] } else { [0, 1] });
        let (ttl, data) = match self {
            Self::Ip(IpAddr::V4(ip), ttl) => (*ttl, ip.octets().to_vec()),
            Self::Ip(IpAddr::V6(ip), ttl) => (*ttl, Ipv6Addr::octets(ip).to_vec()),
            Self::Chaos(ip) | Self::Of(_, ip) => (1, ip.octets().to_vec()),
            Self::Fails => (0, Vec::new()),
            Self::Alias(target) => {
                let mut data = Vec::new();
                write_name(target, &mut data);
                (1, data)
            }
            Self::Srv(priority, weight, port, target, ttl) => {
                let mut data = Vec::new();
                data.extend([*priority, *weight, *port].into_iter().flat_map(u16::to_be_bytes));
                write_name(target, &mut data);
                (*ttl, data)
            }
        };
        out.extend(ttl.to_be_bytes());
        out.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        out.extend(data);
    }
}
