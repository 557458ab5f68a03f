//! Other people's programs as peers: found, started, waited for, ended with everything they started.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::process::tree;

/// A running program. Ends when dropped, with its children.
pub struct Peer {
    name: String,
    child: Child,
}

impl Peer {
    /// Starts a program in the foreground and waits until it accepts connections at `address`.
    pub fn start(command: &mut Command, address: SocketAddr) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.stdin(Stdio::null()).spawn();
        let child = child.unwrap_or_else(|e| panic!("starting {name}: {e}{}", package(&name)));
        let mut peer = Self { name, child };
        peer.await_port(address);
        peer
    }

    /// Starts nginx with these directives as its whole configuration, its files in `directory`.
    pub fn nginx(prefix: &[&str], directory: &Path, configuration: &str, address: SocketAddr) -> Self {
        let file = directory.join("nginx.conf");
        let text = format!(
            "daemon off;\npid {0}/nginx.pid;\nerror_log {0}/error.log warn;\nuser root;\n{configuration}\n",
            directory.display()
        );
        std::fs::write(&file, text).unwrap();
        let mut command = prefixed(prefix, "nginx");
        command
            .arg("-e")
            .arg(directory.join("error.log"))
            .arg("-c")
            .arg(&file)
            .arg("-p")
            .arg(directory);
        Self::start(&mut command, address)
    }

    /// Starts haproxy with this configuration; its standard output goes to `log`.
    pub fn haproxy(prefix: &[&str], directory: &Path, configuration: &str, log: Stdio, address: SocketAddr) -> Self {
        let file = directory.join("haproxy.cfg");
        std::fs::write(&file, configuration).unwrap();
        let mut command = prefixed(prefix, "haproxy");
        command.arg("-db").arg("-f").arg(&file).stdout(log);
        Self::start(&mut command, address)
    }

    /// The process at the root of its tree.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn await_port(&mut self, address: SocketAddr) {
        let end = Instant::now() + Duration::from_secs(15);
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("{} did not start: {status}", self.name);
            }
            #[allow(clippy::disallowed_methods, reason = "no worker here to block")]
            if std::net::TcpStream::connect(address).is_ok() {
                return;
            }
            assert!(Instant::now() < end, "{} does not listen on {address}", self.name);
            pause(Duration::from_millis(10));
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let all = tree(self.child.id());
        // nginx's master ends its workers on SIGTERM; killed outright it would leave them.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let end = Instant::now() + Duration::from_secs(3);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < end {
            pause(Duration::from_millis(10));
        }
        for pid in all
            .into_iter()
            .skip(1)
            .filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?))
        {
            if Path::new(&format!("/proc/{}", pid.as_raw_nonzero())).exists() {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port on 127.0.0.1 that was free a moment ago, for programs that cannot be given port 0.
pub fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap()
}

/// A command run through others, as `taskset -c 0`.
pub fn prefixed(prefix: &[&str], program: &str) -> Command {
    let mut words = prefix.iter().copied().chain([program]);
    let mut command = Command::new(words.next().unwrap_or(program));
    command.args(words);
    command
}

/// Waits, in code that is not async.
#[allow(clippy::disallowed_methods, reason = "no worker here to block")]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

fn package(program: &str) -> &'static str {
    match program {
        "nginx" => "; install it: apt-get install nginx libnginx-mod-stream",
        "haproxy" => "; install it: apt-get install haproxy",
        "wrk" => "; install it: apt-get install wrk",
        "h2load" => "; install it: apt-get install nghttp2-client",
        "curl" => "; install it: apt-get install curl",
        "taskset" => "; install it: apt-get install util-linux",
        _ => "",
    }
}
