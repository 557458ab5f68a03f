//! A gateway process: started from a KDL text, asked, watched, stopped.

use std::collections::HashMap;
use std::fmt::Display;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::client::Client;
use crate::message::{RequestText, Response, get};
use crate::process;
use crate::wire::eventually;

/// A gateway in the making: its configuration and the files beside it.
pub struct Builder {
    text: String,
    prefix: Vec<String>,
    env: Vec<(String, String)>,
    directory: TempDir,
}

impl Builder {
    /// Puts a value, mostly an address, in the place of a word of the configuration.
    #[must_use]
    pub fn with(mut self, word: &str, value: impl Display) -> Self {
        assert!(self.text.contains(word), "the configuration does not mention {word}");
        self.text = self.text.replace(word, &value.to_string());
        self
    }

    /// Writes a file beside the configuration, or in a folder there that is made for it.
    #[must_use]
    pub fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        std::fs::write(self.place(name), content).unwrap();
        self
    }

    /// The same for a builder that is used several times.
    pub fn beside(&self, name: &str, content: impl AsRef<[u8]>) -> &Self {
        std::fs::write(self.directory.path().join(name), content).unwrap();
        self
    }

    /// Makes a symbolic link beside the configuration.
    #[must_use]
    pub fn link(self, name: &str, to: &str) -> Self {
        std::os::unix::fs::symlink(to, self.place(name)).unwrap();
        self
    }

    /// Where a file beside the configuration, or in a folder there, belongs.
    fn place(&self, name: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).unwrap();
        }
        path
    }

    /// Writes a file that only its owner may read.
    #[must_use]
    pub fn secret(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        let path = self.directory.path().join(name);
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(path).unwrap();
        file.write_all(content.as_ref()).unwrap();
        self
    }

    /// Runs the gateway through another program, as `setpriv`.
    #[must_use]
    pub fn through(mut self, prefix: &[&str]) -> Self {
        self.prefix = prefix.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Gives the gateway an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Display) -> Self {
        self.env.push((name.to_owned(), value.to_string()));
        self
    }

    /// Starts the gateway and waits until it is ready.
    pub async fn start(self) -> Gateway {
        let mut gateway = self.launch();
        let end = Instant::now() + START_LIMIT;
        while !gateway.output.says(|line| line.trim_end().ends_with("ready")) {
            if let Some(status) = gateway.child.try_wait().unwrap() {
                panic!("the gateway did not start: {status}");
            }
            assert!(Instant::now() < end, "the gateway is not ready after {START_LIMIT:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for line in gateway.output.lines() {
            if let Some((name, address)) = listening(&line) {
                gateway.listeners.entry(name).or_default().push(address);
            }
        }
        gateway
    }

    /// Starts the gateway and waits for nothing.
    pub fn begin(self) -> Gateway {
        self.launch()
    }

    /// Runs a gateway that is expected to refuse this configuration.
    pub async fn refused(self) -> Stopped {
        self.launch().stopped_within(REFUSAL_LIMIT).await
    }

    /// Runs `gateway check` on the configuration.
    pub fn check(&self, arguments: &[&str]) -> Checked {
        let output = Command::new(binary())
            .args(["check", "-c"])
            .arg(self.write())
            .args(arguments)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        Checked {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn launch(self) -> Gateway {
        let config = self.write();
        let mut words = self.prefix.iter().map(PathBuf::from).chain([binary()]);
        let mut child = Command::new(words.next().unwrap())
            .args(words)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .arg("run")
            .arg("-c")
            .arg(&config)
            .current_dir(self.directory.path())
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("starting {}: {e}", binary().display()));
        let output = Output::default();
        let readers = vec![
            output.follow(child.stdout.take().unwrap()),
            output.follow(child.stderr.take().unwrap()),
        ];
        Gateway {
            child,
            config,
            output,
            readers,
            listeners: HashMap::new(),
            _directory: self.directory,
        }
    }

    fn write(&self) -> PathBuf {
        let path = self.directory.path().join("config.kdl");
        std::fs::write(&path, &self.text).unwrap();
        path
    }
}

/// A running gateway. Ends with the test, and fails it if it has panicked.
pub struct Gateway {
    child: Child,
    config: PathBuf,
    output: Output,
    readers: Vec<JoinHandle<()>>,
    listeners: HashMap<String, Vec<SocketAddr>>,
    _directory: TempDir,
}

impl Gateway {
    /// A gateway with this configuration, to which `PRELUDE` adds what it does not say itself.
    pub fn kdl(text: &str) -> Builder {
        let mut whole = String::new();
        for (node, default) in PRELUDE {
            if !text
                .lines()
                .any(|line| line.trim_start().split([' ', '{']).next() == Some(node))
            {
                whole.push_str(default);
                whole.push('\n');
            }
        }
        whole.push_str(text);
        Self::verbatim(&whole)
    }

    /// A gateway with exactly this configuration.
    pub fn verbatim(text: &str) -> Builder {
        Builder {
            text: text.to_owned(),
            prefix: Vec::new(),
            env: Vec::new(),
            directory: tempfile::tempdir().unwrap(),
        }
    }

    /// Where a frontend listens (its first bind).
    pub fn address(&self, frontend: &str) -> SocketAddr {
        self.addresses(frontend)[0]
    }

    /// Where a frontend listens, in the order of its binds.
    pub fn addresses(&self, frontend: &str) -> &[SocketAddr] {
        match self.listeners.get(frontend) {
            Some(addresses) => addresses,
            None => panic!("no listener {frontend:?} among {:?}", self.listeners),
        }
    }

    /// A connection to a frontend.
    pub async fn connect(&self, frontend: &str) -> Client {
        Client::connect(self.address(frontend)).await
    }

    /// Sends one request on a connection of its own.
    pub async fn ask(&self, frontend: &str, request: RequestText) -> Response {
        self.connect(frontend).await.ask(request).await
    }

    /// Sends bytes on a connection of their own, and reads until the gateway closes.
    pub async fn raw(&self, frontend: &str, bytes: impl AsRef<[u8]>) -> String {
        let mut client = self.connect(frontend).await;
        client.send(bytes).await;
        String::from_utf8_lossy(&client.rest().await).into_owned()
    }

    /// The metrics as they are now.
    pub async fn metrics(&self) -> Metrics {
        let response = self.ask("stats", get("/metrics").header("Connection", "close")).await;
        assert_eq!(response.status, 200, "{}", response.text());
        Metrics(response.text().to_owned())
    }

    /// Waits until a metric has this value.
    pub async fn metric_is(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        let mut last = None;
        let holds = async || {
            last = self.metrics().await.get(name, labels);
            last == Some(value)
        };
        let what = format!("{name}{labels:?} = {value}");
        if tokio::time::timeout(crate::PATIENCE, eventually(&what, holds))
            .await
            .is_err()
        {
            let all = self.metrics().await.0;
            panic!("{what}: it is {last:?}; metrics:\n{all}");
        }
    }

    /// Waits for that many access-log lines, and gives all there are. The configuration has to log as JSON.
    pub async fn access_log(&self, n: usize) -> Vec<Value> {
        eventually(&format!("{n} access-log lines"), async || {
            self.access_lines().len() >= n
        })
        .await;
        self.access_lines()
    }

    /// The access-log lines written until now.
    pub fn access_lines(&self) -> Vec<Value> {
        let lines = self.output.lines();
        let parsed = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        parsed.filter(|line| line.get("frontend").is_some()).collect()
    }

    /// Everything the gateway wrote until now, standard output and standard error together.
    pub fn output(&self) -> String {
        self.output.lines().join("\n")
    }

    /// Waits until the gateway has written a line that contains this.
    pub async fn says(&self, text: &str) {
        eventually(&format!("the gateway says {text:?}"), async || {
            self.output.says(|l| l.contains(text))
        })
        .await;
    }

    /// Writes a file beside the configuration while the gateway runs; one that is there keeps its mode.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self._directory.path().join(name), content).unwrap();
    }

    /// The text of its configuration.
    pub fn config(&self) -> String {
        std::fs::read_to_string(&self.config).unwrap()
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> u64 {
        process::resident(self.pid()).expect("the gateway is gone")
    }

    /// Sends SIGTERM: drain and end.
    pub fn terminate(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    /// Gives the gateway another configuration and sends SIGHUP. Answers whether it was taken up. The files beside the
    /// first configuration stay; those of `next` are not looked for.
    pub async fn reload(&self, next: &Builder) -> bool {
        let answers = || {
            let of = |text: &str| self.output.count(|line| line.contains(text));
            (of("reloaded"), of("reload refused"))
        };
        let before = answers();
        self.begin_reload(next);
        eventually("the answer to a reload", async || answers() != before).await;
        answers().0 > before.0
    }

    /// The same without waiting for the answer.
    pub fn begin_reload(&self, next: &Builder) {
        std::fs::write(&self.config, &next.text).unwrap();
        self.signal(rustix::process::Signal::HUP);
    }

    /// Where a frontend listens that was not there at the start.
    pub fn new_address(&self, frontend: &str) -> SocketAddr {
        let listening = |line: String| listening(&line).filter(|(name, _)| name == frontend);
        let found = self.output.lines().into_iter().rev().find_map(listening);
        found.unwrap_or_else(|| panic!("nothing listens for {frontend}")).1
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for the process to end by itself.
    pub async fn stopped(self) -> Stopped {
        self.stopped_within(STOP_LIMIT).await
    }

    async fn stopped_within(mut self, limit: Duration) -> Stopped {
        let end = Instant::now() + limit;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < end, "the gateway still runs after {limit:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        Stopped {
            code: status.code(),
            output: self.output(),
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        let output = self.output();
        if std::thread::panicking() {
            let config = std::fs::read_to_string(&self.config).unwrap_or_default();
            eprintln!("── configuration ──\n{config}\n── the gateway wrote ──\n{output}\n──");
        } else {
            assert!(!output.contains("panicked at"), "the gateway panicked:\n{output}");
        }
    }
}

/// How a gateway ended.
#[derive(Debug)]
pub struct Stopped {
    /// The exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// Everything it wrote.
    pub output: String,
}

/// What `gateway check` said.
#[derive(Debug)]
pub struct Checked {
    /// The exit code.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// A scrape of `/metrics`.
pub struct Metrics(pub String);

impl Metrics {
    /// The sum of a metric's samples that have all of these labels; none when there is no such sample.
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let samples = self.0.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (found, rest) = series.split_once('{').unwrap_or((series, ""));
            let has = |(key, value): &(&str, &str)| {
                let label = format!("{key}=\"{value}\"");
                rest.trim_end_matches('}').split(',').any(|part| part == label)
            };
            (found == name && labels.iter().all(has))
                .then(|| value.parse::<f64>().ok())
                .flatten()
        });
        samples.reduce(|a, b| a + b)
    }
}

/// A command of the gateway's, for what is asked of it without a server.
pub fn command() -> Command {
    let mut command = Command::new(binary());
    command.env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

/// The gateway that the tests run: the one built with them, or the one that GATEWAY_UNDER_TEST names.
pub(crate) fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("GATEWAY_UNDER_TEST") {
        return path.into();
    }
    // A test runs as target/PROFILE/deps/NAME-HASH; cargo builds this package's binaries before, in target/PROFILE.
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    profile.join("gateway-under-test")
}

/// `listening on http 127.0.0.1:8080 (frontend web)`; without the parenthesis, the kind is the name.
fn listening(line: &str) -> Option<(String, SocketAddr)> {
    let (_, rest) = line.split_once("listening on ")?;
    let mut words = rest.split_whitespace();
    let (kind, address) = (words.next()?, words.next()?.parse().ok()?);
    let name = rest
        .split_once("(frontend ")
        .and_then(|(_, tail)| tail.split(')').next());
    Some((name.unwrap_or(kind).to_owned(), address))
}

/// What a process wrote, line by line, as it comes.
#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<String>>>);

impl Output {
    fn follow(&self, pipe: impl Read + Send + 'static) -> JoinHandle<()> {
        let lines = Arc::clone(&self.0);
        std::thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while matches!(pipe.read_until(b'\n', &mut line), Ok(n) if n > 0) {
                let text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
                lines.lock().unwrap().push(text);
                line.clear();
            }
        })
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    fn count(&self, test: impl Fn(&str) -> bool) -> usize {
        self.0.lock().unwrap().iter().filter(|line| test(line)).count()
    }

    fn says(&self, test: impl Fn(&str) -> bool) -> bool {
        self.0.lock().unwrap().iter().any(|line| test(line))
    }
}

/// Nodes that a test's configuration gets unless it has such nodes itself.
const PRELUDE: [(&str, &str); 3] = [
    ("process", r#"process { workers 2; log "stdout" format="json" }"#),
    ("stats", r#"stats { bind "127.0.0.1:0" }"#),
    (
        "defaults",
        r#"defaults {
    mode "http"
    timeout connect="5s" client="20s" server="20s" http-request="10s" http-keep-alive="20s"
}"#,
    ),
];

/// A debug build compiles its components at the start.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A drain waits for what is under way.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// What is refused may have been compiled before: an interpreter of JavaScript takes half a minute of a busy machine.
const REFUSAL_LIMIT: Duration = Duration::from_secs(120);
