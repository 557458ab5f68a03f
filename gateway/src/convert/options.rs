//! Options behind the address of a `bind` or a `server`.

use super::haproxy::Section;

/// The options of all `default-server` lines.
pub(super) fn default_server(section: &Section) -> Options<'_> {
    let lines = section.lines.iter().filter(|line| line.keyword() == "default-server");
    Options(lines.flat_map(|line| Options::of(line.rest(1)).0).collect())
}

/// Words after a server or bind: flags, and keys with a value.
#[derive(Debug, Clone, Default)]
pub(super) struct Options<'a>(Vec<(&'a str, Option<&'a str>)>);

impl<'a> Options<'a> {
    pub(super) fn of(words: &'a [String]) -> Self {
        let mut options = Vec::new();
        let mut words = words.iter().map(String::as_str);
        while let Some(word) = words.next() {
            let value = if WITH_VALUE.contains(&word) { words.next() } else { None };
            options.push((word, value));
        }
        Self(options)
    }

    /// With those of `defaults` behind its own, but for what these take back: `no-ssl`.
    pub(super) fn over(mut self, defaults: &Self) -> Self {
        let takes_back = |name: &str| TAKEN_BACK.contains(&name) && self.has(&format!("no-{name}"));
        let inherited = defaults.0.iter().copied().filter(|(name, _)| !takes_back(name));
        let inherited: Vec<_> = inherited.collect();
        self.0.extend(inherited);
        self.0
            .retain(|(name, _)| name.strip_prefix("no-").is_none_or(|of| !TAKEN_BACK.contains(&of)));
        self
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(known, _)| *known == key)
    }

    pub(super) fn value(&self, key: &str) -> Option<&'a str> {
        self.0
            .iter()
            .find(|(known, _)| *known == key)
            .and_then(|(_, value)| *value)
    }

    pub(super) fn send_proxy(&self) -> Option<&'static str> {
        if self.has("send-proxy-v2") || self.has("send-proxy-v2-ssl") || self.has("send-proxy-v2-ssl-cn") {
            Some("v2")
        } else {
            self.has("send-proxy").then_some("v1")
        }
    }

    /// All values of an option, in their order.
    pub(super) fn values(&self, key: &str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(known, _)| *known == key)
            .filter_map(|(_, value)| *value)
    }

    /// The options of these names.
    pub(super) fn named(&self, names: &[&str]) -> impl Iterator<Item = (&'a str, Option<&'a str>)> + use<'a> {
        let options = self.0.iter().filter(|(name, _)| names.contains(name));
        options.copied().collect::<Vec<_>>().into_iter()
    }

    /// The options of none of these names.
    pub(super) fn others(&self, known: &[&str]) -> impl Iterator<Item = (&'a str, Option<&'a str>)> + use<'a> {
        let options = self.0.iter().filter(|(name, _)| !known.contains(name));
        options.copied().collect::<Vec<_>>().into_iter()
    }
}

/// Options of `default-server` that a server does without where it says `no-` before them.
const TAKEN_BACK: [&str; 9] = [
    "agent-check",
    "backup",
    "check",
    "check-ssl",
    "send-proxy",
    "send-proxy-v2",
    "send-proxy-v2-ssl",
    "send-proxy-v2-ssl-cn",
    "ssl",
];

/// Options that a value follows.
const WITH_VALUE: [&str; 85] = [
    "addr",
    "agent-addr",
    "agent-inter",
    "agent-port",
    "agent-send",
    "alpn",
    "backlog",
    "ca-file",
    "ca-ignore-err",
    "ca-sign-file",
    "ca-verify-file",
    "check-alpn",
    "check-proto",
    "check-sni",
    "check-via-socks4-port",
    "ciphers",
    "ciphersuites",
    "comment",
    "cookie",
    "crl-file",
    "crt",
    "crt-ignore-err",
    "crt-list",
    "curves",
    "downinter",
    "ecdhe",
    "error-limit",
    "fall",
    "fastinter",
    "gid",
    "group",
    "id",
    "init-addr",
    "inter",
    "interface",
    "level",
    "log-proto",
    "maxconn",
    "maxqueue",
    "meth",
    "mode",
    "mss",
    "name",
    "namespace",
    "nice",
    "npn",
    "observe",
    "on-error",
    "on-marked-down",
    "on-marked-up",
    "pool-low-conn",
    "pool-max-conn",
    "pool-purge-delay",
    "port",
    "prefix",
    "process",
    "proto",
    "proxy-v2-options",
    "redir",
    "resolve-net",
    "resolve-opts",
    "resolve-prefer",
    "resolvers",
    "rise",
    "severity-output",
    "shard",
    "slowstart",
    "sni",
    "socks4",
    "source",
    "ssl-max-ver",
    "ssl-min-ver",
    "tcp-ut",
    "thread",
    "tls-ticket-keys",
    "track",
    "uid",
    "uri",
    "user",
    "usesrc",
    "ver",
    "verify",
    "verifyhost",
    "weight",
    "ws",
];
