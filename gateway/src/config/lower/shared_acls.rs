//! Acls at the top of the file, which conditions of all frontends and backends may name.
//!
//! They are read once, as far as that goes without knowing who asks. Whether a section can ask them, its use says.

use std::rc::Rc;

use miette::SourceSpan;

use super::Scope;
use super::acl::{self, Setting};
use super::names::Names;
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{Acl, AclTest, Match, Mode};
use crate::config::reader::{Context, Node};

/// The acls at the top of the file by their names; none for one that could not be read.
pub(super) type SharedAcls = Rc<Names<Option<Acl>>>;

/// Reads them.
pub(super) fn read(scope: &Scope<'_>, nodes: Vec<Node<'_>>) -> SharedAcls {
    let setting = Setting {
        section: "file",
        mode: Mode::Http,
        mode_span: None,
        tls: true,
        client_ca: true,
    };
    let mut names = Names::new("acl");
    for node in nodes {
        let read = acl::acl(scope, setting, node, None);
        match read.name {
            Some(name) => names.add(scope.ctx, name, read.acl),
            None => names.skip(read.span, None),
        }
    }
    names.into()
}

/// Reports acls of a section that have the names of such.
pub(super) fn report_shadows(ctx: &Context<'_>, shared: &Names<Option<Acl>>, own: &Names<()>, section: &str) {
    for (name, span) in own.each() {
        let Some((_, first)) = shared.position(name).and_then(|position| shared.get(position)) else {
            continue;
        };
        let error = ConfigError::new(Code::Duplicate, format!("two acls are called {name:?}"));
        let error = error
            .label(first, "this one is known everywhere")
            .label(span, format!("this one would hide it in its {section}"));
        ctx.report(error.help("give one of them another name, or leave this one out"));
    }
}

/// Whether a section of this kind can ask it. What is in the way is reported where it is asked, at `asked`.
pub(super) fn check(ctx: &Context<'_>, acl: &Acl, asked: SourceSpan, setting: Setting) -> Option<()> {
    let (asks_request, asks_tls, asks_certificate) = match &acl.test {
        AclTest::Plugin { .. } => (true, false, false),
        AclTest::Servers(_) => (false, false, false),
        AclTest::Match(test) => (
            asks(test, &|part| !is_of_connection(part)),
            asks(test, &|part| match part {
                Match::Tls | Match::Fact(_) => true,
                // In TCP mode also those of TLS that passes through.
                Match::Sni(_) | Match::Alpn(_) => setting.mode == Mode::Http,
                _ => false,
            }),
            asks(
                test,
                &|part| matches!(part, Match::Fact(fact) if fact.name.is_of_certificate()),
            ),
        ),
    };
    let declared = acl.origin.span;
    if asks_request && setting.mode == Mode::Tcp {
        let error = ConfigError::new(Code::Mode, format!("the acl {:?} needs HTTP mode", acl.name));
        let mut error = error
            .label(asked, "asked of connections here")
            .label(declared, "asks about a request");
        if let Some(mode) = setting.mode_span {
            error = error.label(mode, "the mode is TCP because of this");
        }
        ctx.report(error.help("ask another acl here"));
        return None;
    }
    let missing = match (asks_tls && !setting.tls, asks_certificate && !setting.client_ca) {
        (true, _) => (
            "asks about TLS",
            "give a bind of this frontend a certificate: bind \"0.0.0.0:443\" { tls cert=\"bundle.pem\" }",
        ),
        (false, true) => (
            "asks about the client's certificate",
            "say whose are believed: tls cert=\"bundle.pem\" { client-ca \"ca.pem\" }",
        ),
        (false, false) => return Some(()),
    };
    let error = ConfigError::new(
        Code::Inert,
        format!("what the acl {:?} asks for is never there here", acl.name),
    );
    let error = error.label(asked, "asked here").label(declared, missing.0);
    ctx.report(error.help(missing.1));
    None
}

/// Whether a part of it is such.
fn asks(test: &Match, is_such: &impl Fn(&Match) -> bool) -> bool {
    match test {
        Match::All(parts) | Match::Any(parts) => parts.iter().any(|part| asks(part, is_such)),
        Match::Not(part) => asks(part, is_such),
        part => is_such(part),
    }
}

fn is_of_connection(part: &Match) -> bool {
    part.needs_only_addresses() || matches!(part, Match::Tls | Match::Sni(_) | Match::Alpn(_) | Match::Fact(_))
}
