//! What a tenant decides of requests for its hosts, and in `connection { … }` of connections for them: acls of its own, and the rules that
//! ask them, in its block and in its files. Nobody else's conditions know these acls, and these know nobody else's.

use std::ops::RangeInclusive;

use miette::SourceSpan;

use super::acl::{self, Setting};
use super::acls::Acls;
use super::condition::{self, Unconditional, When};
use super::names::Names;
use super::plugin::{self, Owner};
use super::used_plugins::{self, used_plugins};
use super::{MAX_ACLS, Scope, edits, routes, rules, template};
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{
    Acl, AclTest, Condition, Conditional, EditsHeaders, Mode, Origin, REGEX_COMPARISONS, Replace, Route, RouteTo,
    RuleQuota, TenantRules, UsedPlugin, most_written_in_a_call,
};
use crate::config::reader::{Block, Node};

/// What stands in the block of a tenant, or in its files, in order.
#[derive(Default)]
pub(super) struct Said<'a> {
    pub(super) plugins: Vec<Node<'a>>,
    of_requests: Decided<'a>,
    /// `connection { … }`
    of_connections: Decided<'a>,
    /// Where the first of these stands.
    connection: Option<SourceSpan>,
}

/// What is decided in frontends of one mode.
#[derive(Default)]
struct Decided<'a> {
    uses: Vec<Node<'a>>,
    acls: Vec<Node<'a>>,
    rules: Vec<Node<'a>>,
    routes: Vec<Node<'a>>,
    requests: Vec<Node<'a>>,
    responses: Vec<Node<'a>>,
}

/// What was read.
pub(super) struct Read {
    pub(super) of_requests: ReadRules,
    pub(super) of_connections: ReadRules,
    /// Where the block, not the files, asks for the number of a request.
    pub(super) request_id: Option<SourceSpan>,
}

/// What was read of what is decided in frontends of one mode.
pub(super) struct ReadRules {
    pub(super) uses: Vec<Option<UsedPlugin>>,
    /// None where something of it could not be read.
    pub(super) rules: Option<TenantRules>,
}

impl Read {
    /// Of what could not be read.
    pub(super) fn nothing() -> Self {
        let nothing = || ReadRules {
            uses: vec![None],
            rules: None,
        };
        Self {
            of_requests: nothing(),
            of_connections: nothing(),
            request_id: None,
        }
    }
}

impl<'a> Said<'a> {
    pub(super) fn of(block: &mut Block<'a>) -> Self {
        let connection = block.one("connection");
        Self {
            plugins: block.many("plugin"),
            of_requests: Decided {
                uses: block.many("use-plugin"),
                acls: block.many("acl"),
                rules: block.any(&["deny", "redirect", "return"]),
                routes: block.many("use-backend"),
                requests: block.one("request").into_iter().collect(),
                responses: block.one("response").into_iter().collect(),
            },
            connection: connection.as_ref().map(Node::span),
            of_connections: connection.map(Decided::of_connections).unwrap_or_default(),
        }
    }

    /// This, and behind it that.
    pub(super) fn add(&mut self, other: Self) {
        self.plugins.extend(other.plugins);
        self.of_requests.add(other.of_requests);
        self.of_connections.add(other.of_connections);
        self.connection = self.connection.or(other.connection);
    }

    /// Where something is said that is for frontends of this mode alone, and what.
    pub(super) fn only_in(&self, mode: Mode) -> Option<(&'a str, SourceSpan)> {
        match mode {
            Mode::Http => self.of_requests.each().map(|node| (node.name(), node.span())).next(),
            Mode::Tcp => self.connection.map(|span| ("connection", span)),
        }
    }
}

impl<'a> Decided<'a> {
    /// `connection { acl "office" { source "192.0.2.0/24" }; deny unless="office" }`
    fn of_connections(mut node: Node<'a>) -> Self {
        let block = node.required_block();
        node.finish();
        let Some(mut block) = block else { return Self::default() };
        let decided = Self {
            uses: block.many("use-plugin"),
            acls: block.many("acl"),
            rules: block.many("deny"),
            routes: block.many("use-backend"),
            requests: Vec::new(),
            responses: Vec::new(),
        };
        block.finish(not_of_connections);
        decided
    }

    /// This, and behind it that.
    fn add(&mut self, other: Self) {
        self.uses.extend(other.uses);
        self.acls.extend(other.acls);
        self.rules.extend(other.rules);
        self.routes.extend(other.routes);
        self.requests.extend(other.requests);
        self.responses.extend(other.responses);
    }

    /// All of it, the kinds one behind the other.
    fn each(&self) -> impl Iterator<Item = &Node<'a>> {
        let decides = self.uses.iter().chain(&self.acls).chain(&self.rules);
        decides.chain(&self.routes).chain(&self.requests).chain(&self.responses)
    }

    /// Where the last of it stands.
    fn last(&self) -> Option<SourceSpan> {
        self.each().map(Node::span).max_by_key(SourceSpan::offset)
    }
}

/// Why `connection` does not say this.
fn not_of_connections(name: &str) -> Option<&'static str> {
    match name {
        "reject" => Some("write `deny`: whose connection it is shows when the client has said whom it asks for"),
        "redirect" | "return" | "request" | "response" => {
            Some("a connection has no request: write it beside `connection`, for frontends in HTTP mode")
        }
        "plugin" => Some("declare it beside `connection`, and write use-plugin in here"),
        _ => None,
    }
}

/// `quota acls=64 rules=100 patterns=1000`: what a `quota` says of it.
pub(super) fn quota(node: &mut Node<'_>) -> RuleQuota {
    let mut number = |key, range: RangeInclusive<u64>, default| {
        let said = node.property(key).and_then(|value| value.integer(range));
        said.and_then(|said| usize::try_from(said).ok()).unwrap_or(default)
    };
    let default = RuleQuota::DEFAULT;
    RuleQuota {
        acls: number("acls", 0..=MAX_ACLS as u64, default.acls),
        rules: number("rules", RULES, default.rules),
        patterns: number("patterns", PATTERNS, default.patterns),
    }
}

/// Reads what a tenant decides: what stands in its block, then what stands in its files, where there are such.
pub(super) fn read(
    scope: &Scope<'_>,
    owner: &Owner<'_>,
    (block, files): (Said<'_>, Said<'_>),
    has_files: bool,
    quota: RuleQuota,
) -> Read {
    let ctx = scope.ctx;
    ctx.begin_tenant(quota.patterns / REGEX_COMPARISONS, quota.patterns * LISTED);
    let of_requests = (block.of_requests, files.of_requests);
    let of_requests = read_rules(scope, owner, SETTING, of_requests, has_files, quota);
    let request_id = template::take_request_ids(ctx).find(|at| ctx.folder(*at).is_none());
    let of_connections = (block.of_connections, files.of_connections);
    let of_connections = read_rules(scope, owner, OF_CONNECTIONS, of_connections, has_files, quota);
    ctx.end_tenant();
    let all: Vec<_> = [&of_requests, &of_connections]
        .into_iter()
        .filter_map(|read| read.rules.as_ref())
        .collect();
    report_too_much(scope, &all, quota);
    Read {
        of_requests,
        of_connections,
        request_id,
    }
}

fn read_rules(
    scope: &Scope<'_>,
    owner: &Owner<'_>,
    setting: Setting,
    (block, files): (Decided<'_>, Decided<'_>),
    has_files: bool,
    quota: RuleQuota,
) -> ReadRules {
    let ctx = scope.ctx;
    // The files stand behind the configuration, whatever the order of what is read of them.
    let last = [&block, &files]
        .into_iter()
        .filter_map(Decided::last)
        .max_by_key(SourceSpan::offset);
    let in_block = block.acls.len();
    let nodes: Vec<_> = block.acls.into_iter().chain(files.acls).collect();
    report_more(scope, nodes.get(quota.acls), ("acls", quota.acls), "acls");
    let mut names = Names::new("acl");
    let mut read = Vec::with_capacity(nodes.len());
    for (position, node) in nodes.into_iter().take(quota.acls).enumerate() {
        let acl = acl::acl(scope, setting, node, Some(owner));
        match acl.name {
            Some(name) => {
                names.add(ctx, name, ());
                // Files may ask what stands in the block, today or tomorrow.
                if has_files && position < in_block {
                    names.use_it(name.value);
                }
            }
            // Keeps the positions of the names those of the acls.
            None => names.skip(acl.span, ()),
        }
        read.push(acl.acl);
    }
    let acls = Acls::new(scope, names, setting);
    report_more(
        scope,
        block.rules.iter().chain(&files.rules).nth(quota.rules),
        ("rules", quota.rules),
        "rules",
    );
    // Each by itself: what the operator writes before them makes no fault of what the files say.
    let of_block = rules::rules(scope, &acls, block.rules).rules;
    let of_files = rules::rules(scope, &acls, files.rules).rules;
    let routes = [block.routes, files.routes].map(|nodes| routes(scope, owner, &acls, nodes));
    let tenant = used_plugins::OfTenant::new(owner, &acls);
    let uses = block.uses.into_iter().chain(files.uses).collect();
    let uses = used_plugins(scope, uses, Some(&tenant));
    let conditions = tenant.into_conditions();
    let requests = block.requests.into_iter().chain(files.requests);
    let request_edits = edits_of(scope, requests, |node| edits::request(Some(node), &acls));
    let responses = block.responses.into_iter().chain(files.responses);
    let response_edits = edits_of(scope, responses, |node| edits::response(Some(node), &acls));
    if let Some(last) = last {
        edits::report_too_many_conditions(ctx, ("tenant", last), &request_edits, &response_edits);
    }
    let implied = acls.finish(usize::MAX).into_iter().map(Some);
    let rules = || {
        let (mut rules, of_files) = (of_block?, of_files?);
        rules.extend(of_files);
        let routes = routes.into_iter().flatten().collect::<Option<_>>()?;
        Some(TenantRules {
            acls: read.into_iter().chain(implied).collect::<Option<_>>()?,
            rules,
            routes,
            uses: conditions,
            request_edits,
            response_edits,
            last: last.map(|span| ctx.origin(span)),
        })
    };
    ReadRules { uses, rules: rules() }
}

/// `use-backend "acme-api" if="api"`: to backends that the operator has given the tenant, in order.
fn routes(scope: &Scope<'_>, owner: &Owner<'_>, acls: &Acls<'_>, nodes: Vec<Node<'_>>) -> Vec<Option<Route>> {
    let mut routes = Vec::with_capacity(nodes.len());
    let mut last: Option<Unconditional> = None;
    for mut node in nodes {
        if let Some(last) = last {
            let never = (node.name(), node.span(), "comes after");
            condition::report_never_reached(node.ctx, never, last, condition::MOVE_ON);
        }
        let (origin, span) = (node.origin(), node.span());
        let to = node.argument("the backend's name").and_then(|value| {
            let backend = routes::backend(scope, acls.setting, &value)?;
            plugin::report_strange(&value, backend, owner.backends(scope.ctx.folder(span).is_some()));
            Some(RouteTo::Backend(backend))
        });
        let when = match condition::when_with_block(&mut node, acls) {
            When::If(when) => when.map(Some),
            When::Always => {
                let does = "it takes all";
                last = Some(Unconditional { span, does });
                Some(None)
            }
        };
        node.finish();
        let route = || {
            Some(Route {
                to: to?,
                when: when?,
                origin,
            })
        };
        routes.push(route());
    }
    routes
}

/// The edits of all these blocks. They are made in one call, which takes no more of them than a frontend and a backend have together: a
/// call that asked for more would fail, each time.
fn edits_of<'a, E: EditsHeaders>(
    scope: &Scope<'_>,
    blocks: impl Iterator<Item = Node<'a>>,
    mut read: impl FnMut(Node<'a>) -> Vec<Conditional<E>>,
) -> Vec<Conditional<E>> {
    let most = edits::MAX_EDITS_TOGETHER;
    let mut all = Vec::new();
    let mut is_too_long = false;
    for node in blocks {
        let (span, name, before) = (node.span(), node.name(), all.len());
        all.extend(read(node));
        is_too_long = is_too_long
            || edits::report_too_much(
                scope.ctx,
                span,
                name,
                most_written_in_a_call(all.iter(), ("", "")),
                None,
            );
        if all.len() > most && before <= most {
            let message = format!("this tenant has at most {most} edits in all its `{name}`");
            let error = ConfigError::new(Code::Value, message);
            let error = error.label(span, format!("{} with these", all.len()));
            scope.ctx.report(error.help("have fewer, or let a plugin make them"));
        }
        // Those beyond have been reported: nobody goes through them any more.
        all.truncate(most + 1);
    }
    all
}

fn report_more(scope: &Scope<'_>, over: Option<&Node<'_>>, (key, most): (&str, usize), what: &str) {
    if let Some(node) = over {
        let error = ConfigError::new(Code::Value, format!("this tenant has at most {most} {what}"));
        let error = error.label(node.span(), "one too many");
        scope.ctx.report(error.help(format!(
            "have fewer, or let the operator allow more with `quota {key}=` in the `tenant` block"
        )));
    }
}

/// What can be counted only when all has been read. Where files say something it is theirs: what stands in the block alone is counted
/// when there are none.
fn report_too_much(scope: &Scope<'_>, all: &[&TenantRules], quota: RuleQuota) {
    let acls = || all.iter().flat_map(|rules| &rules.acls);
    let of_acls = acls().map(|acl| match &acl.test {
        AclTest::Match(test) => test.comparisons(),
        asking @ AclTest::Plugin { .. } => asking.plugins().count(),
        AclTest::Servers(_) => 1,
    });
    let of_requests = all.iter().flat_map(|rules| &rules.request_edits);
    let of_requests = of_requests.filter_map(|edit| edit.edit.replace());
    let of_responses = all.iter().flat_map(|rules| &rules.response_edits);
    let of_responses = of_responses.filter_map(|edit| edit.edit.replace());
    let of_edits = of_requests.chain(of_responses).map(Replace::comparisons);
    let terms = all.iter().flat_map(|rules| rules.conditions()).map(Condition::terms);
    let patterns = of_acls.chain(of_edits).chain(terms).sum();
    let last = |acl: &Acl| acl.origin.span.offset();
    let of_acl = acls().max_by_key(|acl| last(acl)).map(|acl| &acl.origin);
    let of_rule = all.iter().filter_map(|rules| rules.last.as_ref());
    let of_rule = of_rule.max_by_key(|origin| origin.span.offset());
    let report = |at: Option<&Origin>, key: &str, most: usize, has: usize, label: String| {
        if let (true, Some(at)) = (has > most, at) {
            let message = format!("this tenant decides by more than its `quota {key}={most}`");
            let error = ConfigError::new(Code::Value, message).label(at.span, label);
            scope.ctx.report(error.help(format!(
                "have fewer, or let the operator allow more with `quota {key}=` in the `tenant` block"
            )));
        }
    };
    let acls = acls().count();
    report(
        of_acl,
        "acls",
        quota.acls,
        acls,
        format!("there are {acls} with this one, those counted that have no name"),
    );
    let of = |rules: &&TenantRules| {
        rules.rules.len() + rules.routes.len() + rules.request_edits.len() + rules.response_edits.len()
    };
    let all: usize = all.iter().map(of).sum();
    let label = format!("there are {all} with this one, `use-backend` and edits counted");
    report(of_rule, "rules", quota.rules, all, label);
    report(
        of_rule,
        "patterns",
        quota.patterns,
        patterns,
        format!("they have {patterns} values and names in all; a regular expression counts as {REGEX_COMPARISONS}"),
    );
}

/// Which frontends name the tenant, and what their binds speak, is not known yet.
const SETTING: Setting = Setting {
    section: "tenant",
    mode: Mode::Http,
    mode_span: None,
    tls: true,
    client_ca: true,
};

/// The same of what a tenant decides of connections.
const OF_CONNECTIONS: Setting = Setting {
    mode: Mode::Tcp,
    ..SETTING
};

const RULES: RangeInclusive<u64> = 0..=10_000;
const PATTERNS: RangeInclusive<u64> = 0..=100_000;

/// Lines of lists that are read for each comparison that a tenant may have: a value that stands there again counts once, and is read
/// again.
const LISTED: usize = 10;
