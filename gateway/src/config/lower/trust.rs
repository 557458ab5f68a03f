//! `trust "ci" key="…"`, `trust "ci" file="ci.pub"`: keys that components have to be signed with.

use super::{Scope, section_name};
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::examples;
use crate::config::model::{ComponentSource, Config, KeySource, TrustList, TrustedKey};
use crate::config::reader::{At, Node, Value, said_twice};
use crate::signatures;

/// Reads the keys of one list. None when one of them cannot be used: without it, the list would say something else.
pub(super) fn trust(nodes: Vec<Node<'_>>) -> Option<Vec<TrustedKey>> {
    if let Some(node) = nodes.get(MAX_KEYS) {
        let error = ConfigError::new(
            Code::Value,
            format!("there are at most {MAX_KEYS} trusted keys in one place"),
        );
        let error = error.label(node.span(), "one too many");
        node.fail(error.help("each is tried on every component: have one that signs for several"));
    }
    let mut read: Vec<Option<TrustedKey>> = Vec::with_capacity(nodes.len());
    let mut said: Vec<(At<String>, Option<At<KeySource>>)> = Vec::new();
    for node in nodes.into_iter().take(MAX_KEYS) {
        read.push(trusted_key(node, &mut said));
    }
    read.into_iter().collect()
}

fn trusted_key(mut node: Node<'_>, before: &mut Vec<(At<String>, Option<At<KeySource>>)>) -> Option<TrustedKey> {
    let origin = node.origin();
    let name = section_name(&mut node, "the key's name");
    let (key, file) = (node.property("key"), node.property("file"));
    let key = match (key, file) {
        (Some(key), Some(file)) => {
            let error = ConfigError::new(Code::Conflict, "a key is said here, or is in a file");
            let error = error.label(file.span(), "a file").label(key.span(), "and a key");
            node.fail(error.help("leave one of them out"));
            None
        }
        (Some(key), None) => said_key(&key),
        (None, Some(file)) => file
            .text()
            .map(|path| file.at(KeySource::File(file.at(file.context().path(path))))),
        (None, None) => {
            let error = ConfigError::new(Code::Missing, "`trust` needs a key");
            let error = error.label(node.span(), "`key=` or `file=` has to follow");
            let example = examples::of("trust").unwrap_or_default();
            node.fail(error.help(format!("write {example}")));
            None
        }
    };
    if let Some(name) = name {
        if let Some((first, _)) = before.iter().find(|(first, _)| first.value == name.value) {
            let what = format!("the trusted key {:?}", name.value);
            node.fail(said_twice(&what, first.span, name.span));
        }
        let is_same = |known: &At<KeySource>| match (&known.value, key.as_ref().map(|key| &key.value)) {
            (KeySource::Said(known), Some(KeySource::Said(key))) => known == key,
            (KeySource::File(known), Some(KeySource::File(file))) => known.value == file.value,
            _ => false,
        };
        let mut known = before.iter().filter_map(|(_, key)| key.as_ref());
        if let (Some(first), Some(key)) = (known.find(|known| is_same(known)), &key) {
            node.fail(said_twice("this key", first.span, key.span));
        }
        before.push((name.at_owned(), key.clone()));
    }
    node.finish();
    Some(TrustedKey {
        name: name?.value.into(),
        key: key?.value,
        origin,
    })
}

fn said_key(value: &Value<'_>) -> Option<At<KeySource>> {
    let Some(key) = signatures::verifying_key(value.text()?) else {
        return value.fail(
            "this is no public key of Ed25519",
            "not the line of such a key",
            "write the line that `gateway plugin sign --new-key FILE` prints, which stands in FILE.pub; or name that with `file=`",
        );
    };
    Some(value.at(KeySource::Said(key)))
}

/// Reports keys that nothing has to be signed with.
pub(super) fn report_inert(scope: &Scope<'_>, config: &Config) {
    let is_under = |list: TrustList| {
        let mut files = config
            .plugins
            .iter()
            .filter(|plugin| matches!(plugin.component.value, ComponentSource::File(_)));
        files.any(|plugin| config.trust_list(plugin) == list)
    };
    // What stands in tenants' files today need not stand there tomorrow.
    let may_come = |list: TrustList| match list {
        TrustList::Top => config
            .tenants
            .iter()
            .any(|tenant| tenant.has_files && tenant.trust.is_empty()),
        TrustList::Tenant(tenant) => config.tenants[tenant].has_files,
    };
    let tenants = (0..config.tenants.len()).map(TrustList::Tenant);
    for list in std::iter::once(TrustList::Top).chain(tenants) {
        let Some(first) = config.trusted(list).first() else {
            continue;
        };
        if is_under(list) || may_come(list) {
            continue;
        }
        let (label, help) = match list {
            TrustList::Top => (
                "no plugin has to be signed with it",
                "leave it out: what ships with the gateway is trusted as it is, and tenants with `trust` of their own go by that",
            ),
            TrustList::Tenant(_) => (
                "this tenant has no plugin that is a file",
                "leave it out: what ships with the gateway is trusted as it is",
            ),
        };
        let error = ConfigError::new(Code::Inert, "`trust` does nothing here");
        scope.ctx.report(error.label(first.origin.span, label).help(help));
    }
}

/// Teams, machines, and those of them that are being changed: each is tried on each signature that has its name.
const MAX_KEYS: usize = 64;
