//! Which rules end connections, and when each can be decided.

use crate::config::{self, Acl, AclTest, Mode};
use crate::snapshot::Ending;

/// Whether a condition asks for more than addresses and the time.
pub(super) fn needs_more(frontend: &config::Frontend, when: &config::Condition) -> bool {
    let late = |(i, acl): (usize, &Acl)| match &acl.test {
        AclTest::Match(test) => when.names(i) && !test.needs_only_addresses(),
        AclTest::Plugin { .. } => when.names(i),
        AclTest::Servers(_) => false,
    };
    frontend.acls.iter().enumerate().any(late)
}

/// The rules of a frontend that end connections, by when they are decided.
pub(super) struct Endings {
    /// By the addresses alone.
    pub(super) early: Vec<Ending>,
    /// In TCP mode: when the connection's protocol begins.
    pub(super) late: Vec<Ending>,
}

impl Endings {
    pub(super) fn of(frontend: &config::Frontend) -> Self {
        let rejects = frontend.rejects.iter().map(|reject| Ending {
            when: Some(reject.when.clone()),
            line: reject.origin.line,
        });
        let mut rules = Self {
            early: rejects.collect(),
            late: Vec::new(),
        };
        // In HTTP mode rules answer requests; in TCP mode all of them are a `deny`.
        let denies = frontend.rules.iter().filter(|_| frontend.mode == Mode::Tcp);
        for deny in denies {
            let rule = Ending {
                when: deny.when.clone(),
                line: deny.origin.line,
            };
            match rule.when.as_ref().is_some_and(|when| needs_more(frontend, when)) {
                true => rules.late.push(rule),
                false => rules.early.push(rule),
            }
        }
        rules
    }

    /// Whether an acl is asked about when the protocol begins, or later.
    pub(super) fn asks_late(&self, frontend: &config::Frontend, acl: usize) -> bool {
        match frontend.mode {
            Mode::Http => true,
            Mode::Tcp => {
                let routes = frontend
                    .routes
                    .iter()
                    .filter_map(|route| route.when.as_ref())
                    .any(|when| when.names(acl));
                let logs = frontend.log_choice.as_ref().and_then(|choice| choice.when.as_ref());
                let logs = logs.is_some_and(|when| when.names(acl));
                routes || logs || self.late.iter().any(|rule| rule.names(acl))
            }
        }
    }
}
