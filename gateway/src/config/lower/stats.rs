//! `stats { bind "127.0.0.1:8404"; … }`.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::acl::{distinct, network};
use super::{Scope, bind, elsewhere, monitor, or_none};
use crate::config::model::{Login, Stats};
use crate::config::reader::{At, Node, Value, said_twice};

/// Reads the node.
pub(super) fn stats(scope: &mut Scope<'_>, mut node: Node<'_>) -> Option<Stats> {
    let origin = node.origin();
    let block = node.required_block();
    let span = node.span();
    node.finish();
    let mut block = block?;
    let nodes = block.many("bind");
    let has_binds = !nodes.is_empty();
    let mut binds = Vec::new();
    for mut bind in nodes {
        let address = bind.argument("an address").and_then(|value| scope.binds.take(&value));
        binds.extend(address);
        bind.finish();
    }
    let allow = block.one("allow").map(|mut node| {
        let networks = node.some_arguments("an address or a network");
        node.finish();
        distinct(networks, network).filter(|networks| !networks.is_empty())
    });
    let logins = logins(block.many("auth"));
    let refresh = block.one("refresh").map(|mut node| {
        let refresh = node.argument("a time");
        node.finish();
        refresh?.duration(REFRESH)
    });
    let hide_version = block.one("hide-version").map(Node::finish).is_some();
    let monitor = block.one("monitor").map(|node| monitor::monitor(scope, node, PATHS));
    if block.finish(elsewhere) && !has_binds && !scope.ctx.is_unread("bind") {
        bind::report_none(scope.ctx, "`stats`", span);
    }
    Some(Stats {
        binds,
        allow: or_none(allow)?.unwrap_or_default(),
        logins: logins?,
        refresh: or_none(refresh)?,
        hide_version,
        monitor: or_none(monitor)?,
        origin,
    })
}

/// `auth "ops" password="$6$…"`, any number.
fn logins(nodes: Vec<Node<'_>>) -> Option<Vec<Login>> {
    let mut logins: Vec<At<Login>> = Vec::new();
    let mut well = true;
    for mut node in nodes {
        let user = node.argument("the user's name").and_then(|value| user(&value));
        let hash = node.required_property("password").and_then(|value| hash(&value));
        let (Some(user), Some(password)) = (user, hash) else {
            well = false;
            node.finish();
            continue;
        };
        match logins.iter().find(|known| known.value.user == user.value) {
            Some(first) => {
                node.fail(said_twice("this user", first.span, user.span));
                well = false;
            }
            None => logins.push(At {
                span: user.span,
                value: Login {
                    user: user.value,
                    password,
                },
            }),
        }
        node.finish();
    }
    well.then(|| logins.into_iter().map(|login| login.value).collect())
}

/// What can stand before the colon of credentials (RFC 7617, section 2).
fn user(value: &Value<'_>) -> Option<At<String>> {
    let text = value.text()?;
    if text.is_empty() || text.contains(':') || text.chars().any(char::is_control) {
        return value.fail(
            "a user's name has no colon and no control characters, and is not empty",
            "cannot be said in a request",
            "write another name, as \"ops\"",
        );
    }
    Some(value.at(text.to_owned()))
}

fn hash(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    match is_hash(text) {
        true => Some(text.to_owned()),
        false => value.fail(
            "a password is written as crypt(3) has it, with SHA-256 ($5$) or SHA-512 ($6$)",
            "not such a hash",
            "make it with `openssl passwd -6`, which asks for the password, and copy what it prints",
        ),
    }
}

/// `$6$rounds=5000$salt$hash`, or without the rounds.
fn is_hash(text: &str) -> bool {
    let is_b64 = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"./".contains(&byte))
    };
    let mut parts = text.split('$');
    let (Some(""), Some(kind @ ("5" | "6")), Some(mut salt)) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    if let Some(rounds) = salt.strip_prefix("rounds=") {
        let (Ok(rounds), Some(next)) = (rounds.parse(), parts.next()) else {
            return false;
        };
        if !ROUNDS.contains(&rounds) {
            return false;
        }
        salt = next;
    }
    let (Some(hash), None) = (parts.next(), parts.next()) else {
        return false;
    };
    let length = if kind == "5" { 43 } else { 86 };
    (1..=16).contains(&salt.len()) && is_b64(salt) && hash.len() == length && is_b64(hash)
}

/// What is served beside the monitor.
const PATHS: &[&str] = &["/", "/;csv", "/stats.csv", "/stats.json", "/metrics"];
/// More often, and a browser that is left open is a load; less often, and nobody waits for it.
const REFRESH: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
/// Of the hash. A million take a second.
const ROUNDS: RangeInclusive<u32> = 1_000..=1_000_000;

#[cfg(test)]
mod tests {
    use super::is_hash;

    #[test]
    fn hashes_are_known_by_their_form() {
        let (short, long) = ("a".repeat(43), "b".repeat(86));
        for (text, is_one) in [
            (format!("$6$salt${long}"), true),
            (format!("$5$rounds=10000$saltsaltsaltsalt${short}"), true),
            (format!("$6$rounds=999${long}"), false),
            (format!("$6$rounds=2000000$salt${long}"), false),
            (format!("$6$salt${short}"), false),
            (format!("$6$saltsaltsaltsalts${long}"), false),
            (format!("$1$salt${long}"), false),
            (format!("$6$salt${long}$"), false),
            ("secret".to_owned(), false),
            (String::new(), false),
        ] {
            assert_eq!(is_hash(&text), is_one, "{text}");
        }
    }
}
