//! Lines that may stand in `defaults` too: each is one node, in whichever section it stands.

use super::defaults::half_of_retries;
use super::haproxy::Line;
use super::options::Options;
use super::outline::Node;
use super::proxies::Proxy;
use super::{persistence, protocols, servers, words};

impl Proxy<'_> {
    /// What may stand in `defaults` too. False when the line is none of that.
    pub(super) fn setting(&mut self, line: &Line) -> bool {
        if self.transform(line) {
            return true;
        }
        let first = line.word(1).unwrap_or_default();
        let node = match (line.keyword(), first) {
            ("mode", mode) => Node::new("mode").arg(mode),
            ("timeout", "connect" | "client" | "server" | "http-request" | "http-keep-alive" | "queue" | "tunnel") => {
                let time = line.word(2).unwrap_or_default();
                let time = match words::is_no_time(time) {
                    true => {
                        let message =
                            format!("`timeout {first} 0` is for ever, and {LONGEST_TIMEOUT} the longest here");
                        self.conversion.note(line.number, message);
                        LONGEST_TIMEOUT.to_owned()
                    }
                    false => words::duration(time),
                };
                Node::new("timeout").prop(first, time)
            }
            // Said with the check, of which `defaults` have none.
            ("timeout", "check") | ("option", "httpchk" | "tcp-check") | ("http-check" | "tcp-check", _)
                if self.section.kind == "defaults" =>
            {
                self.conversion.note(line.number, IN_EACH_CHECK);
                return true;
            }
            ("option", option) if protocols::is_option(option) => {
                match self.section.kind.as_str() {
                    // Read together with the check.
                    "backend" | "listen" => {}
                    "defaults" => self.conversion.note(line.number, IN_EACH_CHECK),
                    _ => self.leave_out(line, IN_EACH_CHECK),
                }
                return true;
            }
            ("timeout", "check") => return true,
            ("maxconn", number) => match number.parse() {
                Ok(number) => Node::new("max-connections").number(number),
                Err(_) => return false,
            },
            ("rate-limit", "sessions") => match line.word(2).and_then(|rate| rate.parse::<u32>().ok()) {
                Some(rate) if rate > 0 => Node::new("max-connection-rate").arg(format!("{rate}/s")),
                // HAProxy's 0 is no limit.
                Some(_) => return true,
                None => return false,
            },
            ("retries", number) => match number.parse() {
                Ok(number) => Node::new("retries")
                    .number(number)
                    .prop("redispatch", self.redispatch()),
                Err(_) => return false,
            },
            ("option", "redispatch") if self.says("retries") => return true,
            // Three, as HAProxy without `retries`.
            ("option", "redispatch") => Node::new("retries").number(3).prop("redispatch", self.redispatch()),
            ("no", "option") if half_of_retries(line).is_some() => {
                if self.says("retries") {
                    return true;
                }
                Node::new("retries").number(3).prop("redispatch", self.redispatch())
            }
            ("option", "http-server-close") if self.section.kind == "frontend" => {
                self.leave_out(
                    line,
                    "connections to servers are the backend's: `server-close` there, or in `defaults`",
                );
                return true;
            }
            // `httpclose` says as much, and more.
            ("option", "http-server-close") if self.has_option("httpclose") || self.has_option("forceclose") => {
                return true;
            }
            ("option", "http-server-close") => Node::new("server-close"),
            ("option", "httpclose" | "forceclose") => {
                // One request a connection, on both sides.
                if self.section.kind != "backend" {
                    self.say(line, Node::new("http-keep-alive").number_prop("max-requests", 1));
                }
                if matches!(self.section.kind.as_str(), "backend" | "defaults") {
                    self.say(line, Node::new("server-close"));
                }
                return true;
            }
            ("option", "allbackups") => Node::new("all-backups"),
            ("option", "clitcpka" | "srvtcpka" | "tcpka") => {
                let message = "not needed: TCP keep-alive is on for both sides; `tcp-keep-alive` sets its times";
                self.conversion.note(line.number, message);
                return true;
            }
            ("log", target) if target != "global" => {
                let reason =
                    "declare it with a name, process { log \"…\" name=\"audit\" }, and name it here: log \"audit\"";
                self.leave_out(line, reason);
                return true;
            }
            // How lines look is settled by the frontend's mode; that there are lines is the default.
            ("option", "httplog") if line.word(2) == Some("clf") => {
                let message = "`clf` was left out: lines look as those of `option httplog` do, or as `log-format` says";
                self.conversion.note(line.number, message);
                return true;
            }
            ("log", "global") | ("option", "tcplog" | "httplog") => return true,
            // What it says last of that, it says of all of the section.
            ("enabled" | "disabled", "") => return true,
            // Read together with the check.
            ("option", "httpchk" | "tcp-check") => return true,
            (
                "option",
                "splice-auto" | "splice-request" | "splice-response" | "http-keep-alive" | "tcp-smart-accept"
                | "tcp-smart-connect" | "http-no-delay" | "abortonclose" | "log-health-checks" | "contstats",
            ) => {
                self.conversion
                    .note(line.number, "not needed: it is how the gateway works");
                return true;
            }
            (keyword, _) if keep_alive(keyword).is_some() => return self.keep_alive(line),
            // Said at the servers.
            ("default-server", _) if self.section.kind == "defaults" => return true,
            ("backlog", _) => {
                self.leave_out(line, "each `bind` says it: backlog=1024");
                return true;
            }
            ("balance", way) => servers::balance(self.section, way, line),
            ("source", from) => {
                let options = Options::of(line.rest(2));
                match servers::Source::of(from, &options) {
                    Some(source) => {
                        source.note(self, line, &options);
                        source.node()
                    }
                    None => return false,
                }
            }
            // Said with `balance`.
            ("hash-type", _) => return true,
            ("errorfile", status) => match status.parse() {
                Ok(status) => Node::new("error-page")
                    .number(status)
                    .arg(line.word(2).unwrap_or_default()),
                Err(_) => return false,
            },
            ("errorfiles", _) => return self.pages(line),
            ("http-error", _) => return self.page(line),
            ("stick", _) => return persistence::stick(self, line),
            // Said with `stick`, where there is one.
            ("stick-table", _) if self.says("stick") => return true,
            ("stick-table", _) => return self.counting_table(line),
            ("retry-on", _) => {
                let (early, words): (Vec<_>, Vec<_>) = line.rest(1).iter().partition(|word| **word == "0rtt-rejected");
                if !early.is_empty() {
                    let message = "`0rtt-rejected` was left out: no early data is sent to servers";
                    self.conversion.note(line.number, message);
                }
                match words.as_slice() {
                    // What is not named is not retried, connections that fail among it.
                    [] => Node::new("retry-on").arg("none"),
                    words => words
                        .iter()
                        .fold(Node::new("retry-on"), |node, word| match word.parse() {
                            Ok(status) => node.number(status),
                            Err(_) => node.arg(*word),
                        }),
                }
            }
            ("http-reuse", reuse) => Node::new("pool").prop("reuse", reuse),
            ("cookie", _) => {
                persistence::cookie(self, line);
                return true;
            }
            _ => return false,
        };
        self.say(line, node);
        true
    }

    fn has_option(&self, name: &str) -> bool {
        let mut options = self.section.lines.iter().filter(|line| line.keyword() == "option");
        options.any(|line| line.word(1) == Some(name))
    }

    /// `clitcpka-idle` and the like, of which ours has all in one node.
    fn keep_alive(&mut self, line: &Line) -> bool {
        let all = self.section.lines.iter();
        let all: Vec<&Line> = all.filter(|line| keep_alive(line.keyword()).is_some()).collect();
        if all.first().is_none_or(|first| first.number != line.number) {
            // The first one has said it.
            return true;
        }
        let mut node = Node::new("tcp-keep-alive");
        for property in ["idle", "interval", "count"] {
            let mut said = all.iter().filter(|line| keep_alive(line.keyword()) == Some(property));
            let Some(value) = said.next().and_then(|line| line.word(1)) else {
                continue;
            };
            if let Some(other) = said.find(|line| line.word(1) != Some(value)) {
                let message = "of two sides that differ, `defaults` here say the first for both";
                self.conversion.note(other.number, message);
            }
            node = match value.parse() {
                Ok(number) if property == "count" => node.number_prop(property, number),
                // Seconds, other than everywhere else.
                Ok(seconds) => node.prop(property, format!("{seconds}s")),
                Err(_) => node.prop(property, value),
            };
        }
        self.say(line, node);
        true
    }

    /// Which retries go to another server: none without `option redispatch`, each with 1 behind it. Without a number the last; but where
    /// servers take turns, and nobody belongs to one, HAProxy goes to the next at once.
    fn redispatch(&self) -> &'static str {
        let option = |line: &&Line| half_of_retries(line) == Some("redispatch");
        let Some(said) = self.section.lines.iter().rfind(option) else {
            return "off";
        };
        match said.word(2) {
            _ if said.keyword() != "option" => "off",
            Some("1") => "each",
            None | Some("-1") if self.servers_take_turns() => "each",
            _ => "last",
        }
    }

    fn servers_take_turns(&self) -> bool {
        let lines = &self.section.lines;
        let balance = lines.iter().rfind(|line| line.keyword() == "balance");
        let way = balance.and_then(|line| line.word(1)).unwrap_or("roundrobin");
        let persists = lines.iter().any(|line| matches!(line.keyword(), "cookie" | "stick"));
        !persists && (matches!(way, "roundrobin" | "static-rr") || way.starts_with("random"))
    }
}

/// What `defaults` say of checks.
const IN_EACH_CHECK: &str = "each backend's `check` says it here";

/// In the place of none.
pub(super) const LONGEST_TIMEOUT: &str = "24d";

/// What `clitcpka-idle`, `srvtcpka-intvl` and the like are called.
fn keep_alive(keyword: &str) -> Option<&'static str> {
    let of = keyword.strip_prefix("cli").or_else(|| keyword.strip_prefix("srv"))?;
    Some(match of {
        "tcpka-idle" => "idle",
        "tcpka-intvl" => "interval",
        "tcpka-cnt" => "count",
        _ => return None,
    })
}
