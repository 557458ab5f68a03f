//! `userlist`, and `http-request auth`: users and passwords become a plugin's, `plugin "users" builtin="basic-auth"`.

use std::collections::HashSet;

use super::Conversion;
use super::haproxy::{Line, Section};
use super::outline::Node;
use super::proxies::{Proxy, leave_out_section};
use super::stats::hash;
use super::words::{self, Polarity, Term};

/// The lists of a configuration, and the plugins that have come of them.
#[derive(Debug, Default)]
pub(super) struct Userlists {
    lists: Vec<Userlist>,
    plugins: Vec<(Asked, String)>,
}

#[derive(Debug)]
struct Userlist {
    name: String,
    users: Vec<User>,
}

#[derive(Debug, Clone)]
struct User {
    name: String,
    line: Line,
    password: Password,
    groups: HashSet<String>,
}

#[derive(Debug, Clone)]
enum Password {
    Plain(String),
    /// As `crypt` of the C library writes it.
    Hashed(String),
    None,
}

/// Who is let in, and what they are asked.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    list: String,
    /// One of these; everybody in the list where it is empty.
    groups: Vec<String>,
    realm: String,
}

impl Userlists {
    /// The lists that these sections declare.
    pub(super) fn of(sections: &[Section]) -> Self {
        let lists = sections.iter().filter(|section| section.kind == "userlist");
        Self {
            lists: lists.map(Userlist::of).collect(),
            plugins: Vec::new(),
        }
    }
}

impl Userlist {
    fn of(section: &Section) -> Self {
        let mut users: Vec<User> = Vec::new();
        for line in section.lines.iter().filter(|line| line.keyword() == "user") {
            let value = |key: &str| line.words.iter().skip_while(|word| *word != key).nth(1).cloned();
            let password = match (value("password"), value("insecure-password")) {
                (Some(hash), _) => Password::Hashed(hash),
                (None, Some(plain)) => Password::Plain(plain),
                (None, None) => Password::None,
            };
            let groups = value("groups").unwrap_or_default();
            users.push(User {
                name: line.word(1).unwrap_or_default().to_owned(),
                line: line.clone(),
                password,
                groups: groups.split(',').map(str::to_owned).collect(),
            });
        }
        for line in section.lines.iter().filter(|line| line.keyword() == "group") {
            let (Some(group), Some("users"), Some(members)) = (line.word(1), line.word(2), line.word(3)) else {
                continue;
            };
            for user in users
                .iter_mut()
                .filter(|user| members.split(',').any(|name| name == user.name))
            {
                user.groups.insert(group.to_owned());
            }
        }
        Self {
            name: section.name.clone().unwrap_or_default(),
            users,
        }
    }
}

impl Password {
    /// The hash that the plugin takes. Fails with the reason where it takes none of this.
    fn hash(&self) -> Result<String, String> {
        match self {
            Self::None => Err("nobody can log in without a password".to_owned()),
            Self::Plain(text) if text.len() > LONGEST_PASSWORD => {
                Err(format!("passwords have {LONGEST_PASSWORD} bytes at most"))
            }
            Self::Plain(text) => hash(text).ok_or_else(|| "the password could not be hashed".to_owned()),
            Self::Hashed(hash) => {
                let salted = hash.strip_prefix("$5$").or_else(|| hash.strip_prefix("$6$"));
                let rounds = salted.and_then(|rest| rest.strip_prefix("rounds=")?.split('$').next());
                let is_taken = rounds.is_none_or(|rounds| {
                    rounds
                        .parse()
                        .is_ok_and(|rounds: u32| (FEWEST_ROUNDS..=MOST_ROUNDS).contains(&rounds))
                });
                match salted {
                    Some(_) if is_taken => Ok(hash.clone()),
                    _ => Err(
                        "hashes are $5$ or $6$, of 1,000 to 20,000 rounds: make another one by `mkpasswd -m sha-512`"
                            .to_owned(),
                    ),
                }
            }
        }
    }
}

/// Says of the lists that no plugin has come of that they were left out.
pub(super) fn leave_out_unused(conversion: &mut Conversion, sections: &[Section]) {
    for section in sections.iter().filter(|section| section.kind == "userlist") {
        let name = section.name.as_deref().unwrap_or_default();
        let plugins = &conversion.userlists.plugins;
        if !plugins.iter().any(|(asked, _)| asked.list == name) {
            let reason = "no rule that asks its users has come over; passwords are a plugin's: plugin \"users\" builtin=\"basic-auth\"";
            leave_out_section(conversion, section, reason);
        }
    }
}

impl Proxy<'_> {
    /// `http-request auth realm Staff unless { http_auth(staff) }`
    pub(super) fn authenticate(&mut self, line: &Line, rest: &[String]) {
        let plugin = self
            .asked_of_users(line, rest)
            .and_then(|asked| self.users_plugin(line, asked));
        match plugin {
            Err(reason) => self.leave_out(line, &reason),
            Ok(plugin) => {
                self.say(line, Node::new("use-plugin").arg(plugin));
                self.note_what_is_answered_before(line);
            }
        }
    }

    /// Who is let in by a rule, where it keeps out everybody else. Fails with the reason.
    fn asked_of_users(&mut self, line: &Line, rest: &[String]) -> Result<Asked, String> {
        if self.section.kind == "backend" {
            return Err(format!(
                "a backend has no plugins: the frontends that lead to it have; {SAID}"
            ));
        }
        let (said, condition) = words::split_condition(rest);
        let realm = match said {
            [] => self.section.name.clone().unwrap_or_default(),
            [word, realm] if word == "realm" => realm.clone(),
            _ => return Err("it says more than a realm".to_owned()),
        };
        let (polarity, condition) = condition.ok_or("it lets nobody in")?;
        let terms = words::terms(condition)?;
        let criterion = match terms.as_slice() {
            [term] => self.asks_users(term, polarity == Polarity::If),
            _ => None,
        };
        if !self.exempt(line)?.is_empty() {
            return Err(ELSEWHERE.to_owned());
        }
        let (list, groups) = criterion.ok_or(ELSEWHERE)?;
        Ok(Asked { list, groups, realm })
    }

    /// The list and the groups that a term asks, where it is negated so.
    fn asks_users(&self, term: &Term<'_>, wants_negated: bool) -> Option<(String, Vec<String>)> {
        match term {
            Term::Anonymous { words, is_negated } if *is_negated == wants_negated => asked(words),
            Term::Named { name, is_negated } if *is_negated == wants_negated => {
                let lines = self.section.lines.iter();
                let mut acls = lines.filter(|line| line.keyword() == "acl" && line.word(1) == Some(name));
                let criterion = asked(acls.next()?.rest(2));
                criterion.filter(|_| acls.next().is_none())
            }
            _ => None,
        }
    }

    /// The name of the plugin that knows these users, which is said where there is none yet. Fails with the reason.
    fn users_plugin(&mut self, line: &Line, asked: Asked) -> Result<String, String> {
        let known = self
            .conversion
            .userlists
            .plugins
            .iter()
            .find(|(known, _)| *known == asked);
        if let Some((_, name)) = known {
            return Ok(name.clone());
        }
        let mut lists = self.conversion.userlists.lists.iter();
        let list = lists.find(|list| list.name == asked.list);
        let list = list.ok_or_else(|| format!("there is no userlist `{}`: {SAID}", asked.list))?;
        let is_meant =
            |user: &&User| asked.groups.is_empty() || asked.groups.iter().any(|group| user.groups.contains(group));
        let users: Vec<User> = list.users.iter().filter(is_meant).cloned().collect();
        let mut nodes = Vec::new();
        for user in users {
            match user.password.hash() {
                Ok(hash) => {
                    if let Password::Plain(_) = user.password {
                        let message = "the password was hashed, as it is written here";
                        self.conversion.note(user.line.number, message);
                    }
                    nodes.push(Node::new("user").prop("name", user.name).prop("hash", hash));
                }
                Err(reason) => {
                    let message = format!("`{}` was left out, and cannot log in: {reason}", user.name);
                    self.conversion.note(user.line.number, message);
                }
            }
        }
        if nodes.is_empty() {
            return Err(format!("nobody of `{}` could log in", asked.list));
        }
        let name = self.free_name(&asked);
        let outline = &mut self.conversion.outline;
        let mut add = |parent: Option<usize>, node: Node| outline.add(parent, node, line.number, &line.text);
        let plugin = add(None, Node::new("plugin").arg(&name).prop("builtin", "basic-auth"));
        add(
            Some(plugin),
            Node::new("on-failure").arg("deny").number_prop("status", 503),
        );
        let config = add(Some(plugin), Node::new("config"));
        add(Some(config), Node::new("realm").arg(&asked.realm));
        // HAProxy lets the servers see it.
        add(Some(config), Node::new("forward"));
        for node in nodes {
            add(Some(config), node);
        }
        let message = "one address may send 30 wrong passwords a minute here, and gets 429 beyond: see `attempts`";
        self.conversion.note(line.number, message);
        self.conversion.userlists.plugins.push((asked, name.clone()));
        Ok(name)
    }

    /// A name for a plugin that no other has.
    fn free_name(&self, asked: &Asked) -> String {
        let said = [&[asked.list.clone()][..], &asked.groups].concat().join("-");
        let said = said.replace(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c)), "_");
        let is_taken = |name: &String| self.conversion.userlists.plugins.iter().any(|(_, known)| known == name);
        let numbered = (2..).map(|number| format!("{said}-{number}"));
        let mut names = std::iter::once(said.clone()).chain(numbered);
        names.find(|name| !is_taken(name)).unwrap_or(said)
    }

    /// Says of rules behind one that asks for a password that they are asked before it here.
    fn note_what_is_answered_before(&mut self, line: &Line) {
        let answers = |other: &&Line| match other.keyword() {
            "redirect" => true,
            "http-request" => other.number > line.number && matches!(other.word(1), Some("redirect" | "return")),
            _ => false,
        };
        let section = self.section;
        for other in section.lines.iter().filter(answers) {
            let message = format!(
                "it answers without a password, which line {} asks for behind all rules",
                line.number
            );
            self.conversion.note(other.number, message);
        }
    }

    /// Whether an acl asks who somebody is, for rules that ask for a password alone.
    pub(super) fn is_of_authentication(&self, name: &str) -> bool {
        let section = self.section;
        let lines = || section.lines.iter();
        let mut acls = lines().filter(|line| line.keyword() == "acl" && line.word(1) == Some(name));
        let is_asking = acls.all(|acl| asked(acl.rest(2)).is_some());
        let names_it = |line: &&Line| line.words.iter().any(|word| word.trim_start_matches('!') == name);
        let mut naming = lines()
            .filter(|line| line.keyword() != "acl")
            .filter(names_it)
            .peekable();
        is_asking
            && naming.peek().is_some()
            && naming.all(|line| line.keyword() == "http-request" && line.word(1) == Some("auth"))
    }
}

/// `http_auth(list)`, `http_auth_group(list) one two`: the list, and the groups.
fn asked(criterion: &[String]) -> Option<(String, Vec<String>)> {
    let (fetch, groups) = criterion.split_first()?;
    let list = |name: &str| fetch.strip_prefix(name)?.strip_suffix(')').map(str::to_owned);
    match (list("http_auth("), list("http_auth_group(")) {
        (Some(list), _) if groups.is_empty() => Some((list, Vec::new())),
        (None, Some(list)) if !groups.is_empty() && !groups.iter().any(|group| group.starts_with('-')) => {
            Some((list, groups.to_vec()))
        }
        _ => None,
    }
}

/// How it is said here.
const SAID: &str = "plugin \"users\" builtin=\"basic-auth\" { … }, and `use-plugin` in the frontend";

const ELSEWHERE: &str = "a frontend's plugin sees all that comes there, and this rule is about a part of it: give that a frontend of its own, or \
                         hosts of their own and a `tenant` whose `use-plugin` has the condition";

/// Bytes of a password that the plugin takes.
const LONGEST_PASSWORD: usize = 128;

/// How often passwords are hashed that the plugin takes.
const FEWEST_ROUNDS: u32 = 1_000;
const MOST_ROUNDS: u32 = 20_000;
