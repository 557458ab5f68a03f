//! Other people's programs as peers: found, started, waited for, ended with everything they started.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::process::tree;

/// A running program. Ends when dropped, with its children.
pub struct Peer {
    name: String,
    child: Child,
    /// Where it writes, when that is not the test's output.
    log: Option<PathBuf>,
}

impl Peer {
    /// Starts a program in the foreground and waits until it accepts connections at `address`.
    pub fn start(command: &mut Command, address: SocketAddr) -> Self {
        Self::spawn(command, address, None)
    }

    /// As [`Self::start`]; what the program writes goes to the end of the file `log`, and is shown when it does not start.
    pub fn logging(command: &mut Command, address: SocketAddr, log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log).unwrap();
        command.stdout(file.try_clone().unwrap()).stderr(file);
        Self::spawn(command, address, Some(log.to_owned()))
    }

    fn spawn(command: &mut Command, address: SocketAddr, log: Option<PathBuf>) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.stdin(Stdio::null()).spawn();
        let child = child.unwrap_or_else(|e| panic!("starting {name}: {e}{}", package(&name)));
        let mut peer = Self { name, child, log };
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

    /// Stops it and its children where they are: it accepts, since the kernel does that, and does not answer.
    pub fn freeze(&self) {
        self.signal_tree(Signal::STOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal_tree(Signal::CONT);
    }

    /// Kills it and its children at once, as if its machine had died, and waits until it is gone.
    pub fn kill(mut self) {
        self.signal_tree(Signal::KILL);
        let _ = self.child.wait();
    }

    fn signal_tree(&self, signal: Signal) {
        for pid in tree(self.child.id()) {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, signal);
            }
        }
    }

    fn await_port(&mut self, address: SocketAddr) {
        let end = Instant::now() + Duration::from_secs(15);
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                let log = self.log.as_ref().and_then(|log| std::fs::read_to_string(log).ok());
                panic!("{} did not start: {status}\n{}", self.name, log.unwrap_or_default());
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
        self.thaw();
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

/// A command that runs as this user when the test runs as root: for programs that refuse root.
pub fn unprivileged(user: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    // Not runuser, which stays as the program's parent.
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", user, "--regid", user, "--clear-groups", "--inh-caps=-all"])
        .arg(program);
    command
}

/// What a program that ended had to say.
#[derive(Debug)]
pub struct Ran {
    /// The exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Ran {
    /// Its standard output, if it succeeded.
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }
}

/// Runs a program to its end, with this on its standard input. Kills it and fails after the limit.
pub async fn run(command: Command, input: impl Into<Vec<u8>>, limit: Duration) -> Ran {
    let input = input.into();
    tokio::task::spawn_blocking(move || run_blocking(command, input, limit))
        .await
        .unwrap()
}

fn run_blocking(mut command: Command, input: Vec<u8>, limit: Duration) -> Ran {
    let name = command.get_program().to_string_lossy().into_owned();
    let child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.unwrap_or_else(|e| panic!("starting {name}: {e}{}", package(&name)));
    let mut stdin = child.stdin.take().unwrap();
    std::thread::spawn(move || drop(stdin.write_all(&input)));
    let (stdout, stderr) = (read(child.stdout.take().unwrap()), read(child.stderr.take().unwrap()));
    let end = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > end {
            let _ = child.kill();
            let _ = child.wait();
            let written = (stdout.join().unwrap(), stderr.join().unwrap());
            panic!("{command:?} still ran after {limit:?}; it wrote {written:?}");
        }
        pause(Duration::from_millis(2));
    };
    Ran {
        code: status.code(),
        stdout: stdout.join().unwrap(),
        stderr: stderr.join().unwrap(),
    }
}

fn read(mut pipe: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
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
        "taskset" | "setpriv" => "; install it: apt-get install util-linux",
        "mariadb" | "mariadbd" | "mariadb-install-db" => "; install it: apt-get install mariadb-server mariadb-client",
        "redis-server" | "redis-cli" | "redis-benchmark" => "; install it: apt-get install redis-server redis-tools",
        "slapd" | "slapadd" | "ldapsearch" | "ldapwhoami" => "; install it: apt-get install slapd ldap-utils",
        "node" => "; install it: apt-get install node-ws",
        "chromium" => "; install it: apt-get install chromium",
        "rsyslogd" => "; install it: apt-get install rsyslog",
        "openssl" => "; install it: apt-get install openssl",
        _ => "",
    }
}
