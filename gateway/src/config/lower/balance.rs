//! `balance "leastconn"`.

use super::persistence;
use super::settings::wrong_mode;
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{Balance, HashOf, Mode, Spread};
use crate::config::reader::{At, Node};

/// What of a request is hashed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Hashed {
    Header,
    Query,
    Cookie,
    Uri,
}

/// `balance "leastconn"`, `balance "source" consistent`, or `balance "header" name="X-Session-Id"`.
pub(super) fn balance(mut node: Node<'_>, mode: Option<At<Mode>>) -> (Option<At<Balance>>, Option<HashOf>) {
    let consistent = node.flag("consistent");
    let value = node.argument("the way to choose a server");
    let way = value.and_then(|value| Some(value.at(value.choice(BALANCES)?)));
    let hashed = way.and_then(|way| match way.value {
        Way::Hash(hashed) => Some(At {
            value: hashed,
            span: way.span,
        }),
        Way::Of(_) => None,
    });
    if let Some(hashed) = hashed {
        if let Some(mode) = mode.filter(|mode| mode.value == Mode::Tcp) {
            node.fail(wrong_mode("this `balance`", hashed.span, mode.span));
        }
        let spread = consistent.map_or(Spread::Modulo, |_| Spread::Consistent);
        let of = persistence::hash_of(&mut node, hashed, spread);
        node.finish();
        let (spread, of) = of.unzip();
        let balance = spread.map(|spread| At {
            value: Balance::Hash(spread),
            span: hashed.span,
        });
        return (balance, of);
    }
    let balance = way.and_then(|way| match way.value {
        Way::Of(balance) => Some(At {
            value: balance,
            span: way.span,
        }),
        Way::Hash(_) => None,
    });
    let read = balance.map(|balance| match (balance.value, consistent) {
        (Balance::Source(_), Some(_)) => At {
            value: Balance::Source(Spread::Consistent),
            span: balance.span,
        },
        (_, Some(flag)) => {
            let error = ConfigError::new(Code::Inert, "`consistent` does nothing here");
            node.fail(
                error
                    .label(flag, "says how a hash becomes a server")
                    .label(balance.span, "does not hash")
                    .help("leave it out, or write: balance \"source\" consistent"),
            );
            balance
        }
        (_, None) => balance,
    });
    node.finish();
    (read, None)
}

/// A way to choose a server, as it is written.
#[derive(Clone, Copy)]
enum Way {
    Of(Balance),
    Hash(Hashed),
}

const BALANCES: &[(&str, Way)] = &[
    ("roundrobin", Way::Of(Balance::RoundRobin)),
    ("leastconn", Way::Of(Balance::LeastConn)),
    ("random", Way::Of(Balance::Random)),
    ("source", Way::Of(Balance::Source(Spread::Modulo))),
    ("first", Way::Of(Balance::First)),
    ("header", Way::Hash(Hashed::Header)),
    ("query", Way::Hash(Hashed::Query)),
    ("cookie", Way::Hash(Hashed::Cookie)),
    ("uri", Way::Hash(Hashed::Uri)),
];
