//! The calls that answer a frontend's acls: of the gateway's own components, and of plugins.

use serde::Serialize;

use super::{Builder, Section};
use crate::config::{self, Acl, AclId, AclTest, At, PluginId, UsedPlugin};
use crate::policy::{AttachedAs, Attachment, first_party};
use crate::snapshot::{AclCall, AclCalls, BuildError};

#[derive(Serialize)]
struct AclConfig<'a> {
    predicates: Vec<NamedMatch<'a>>,
}

#[derive(Serialize)]
struct NamedMatch<'a> {
    name: &'a str,
    when: &'a config::Match,
}

impl Builder<'_> {
    /// One call for all of the gateway's own predicates (or several, where there are more than one call can answer), and
    /// one for each third-party plugin.
    pub(super) fn acls(&mut self, section: Section<'_>, is_asked: impl Fn(usize) -> bool) -> Option<AclCalls> {
        let mut calls = Vec::new();
        let mut servers = Vec::new();
        let component = match section.tenant {
            None => first_party::acl(self.config),
            Some(_) => first_party::acl_of(section.acls.iter()),
        };
        let own: Vec<_> = section
            .acls
            .iter()
            .enumerate()
            .filter(|(i, _)| is_asked(*i))
            .filter_map(|(i, acl)| match &acl.test {
                AclTest::Match(when) => Some((AclId(i), &*acl.name, when)),
                AclTest::Servers(up) => {
                    servers.push((AclId(i), *up));
                    None
                }
                AclTest::Plugin { .. } => None,
            })
            .collect();
        for chunk in own.chunks(PREDICATES_PER_CALL) {
            let config = AclConfig {
                predicates: chunk.iter().map(|(_, name, when)| NamedMatch { name, when }).collect(),
            };
            let attachment = self.attach_own(component, &section.frontend.name, &config, section);
            let answers = (0u32..).zip(chunk).map(|(bit, (id, ..))| (bit, *id)).collect();
            let compared = Vec::new();
            calls.push(attachment.map(|attachment| AclCall {
                attachment,
                answers,
                compared,
            }));
        }
        calls.extend(self.predicates(section, is_asked));
        let calls = calls.into_iter().collect::<Option<_>>()?;
        Some(AclCalls { calls, servers })
    }

    /// One call for each plugin that acls ask in the same way, however many of its predicates they ask for. Shadows come behind
    /// those whose answers theirs are compared with.
    fn predicates(&mut self, section: Section<'_>, is_asked: impl Fn(usize) -> bool) -> Vec<Option<AclCall>> {
        let mut calls: Vec<(UsedPlugin, Option<AclCall>)> = Vec::new();
        let acls = section.acls.iter().enumerate().filter(|(i, _)| is_asked(*i));
        for (i, acl, asked) in acls.flat_map(|(i, acl)| acl.test.plugins().map(move |asked| (i, acl, asked))) {
            let used = asked.used;
            let id = used.plugin.value;
            let position = calls
                .iter()
                .position(|(known, _)| known.is_as(&used))
                .unwrap_or_else(|| {
                    let granted = self.granted[id.0].clone();
                    let place = format!("acl {:?} of frontend {:?}", acl.name, section.frontend.name);
                    let attached = self.attach_plugin(id, (AttachedAs::Predicates, &place), Some(&used), granted);
                    let call = attached.map(|attachment| AclCall {
                        attachment,
                        answers: Vec::new(),
                        compared: Vec::new(),
                    });
                    calls.push((used, call));
                    calls.len() - 1
                });
            let Some(call) = &mut calls[position].1 else { continue };
            match self.predicate(&call.attachment, acl, id, asked.predicate.as_ref()) {
                Some(bit) if used.is_shadow => call.compared.push((bit, AclId(i), acl.name.clone())),
                Some(bit) => call.answers.push((bit, AclId(i))),
                None => calls.push((used, None)),
            }
        }
        calls.sort_by_key(|(used, _)| used.is_shadow);
        calls.into_iter().map(|(_, call)| call).collect()
    }

    /// The bit of a plugin's answer that an acl asks for.
    fn predicate(
        &mut self,
        attachment: &Attachment,
        acl: &Acl,
        plugin: PluginId,
        name: Option<&At<String>>,
    ) -> Option<u32> {
        let names = attachment.predicates();
        let bit = match name {
            None => (!names.is_empty()).then_some(0),
            Some(name) => names.iter().position(|known| *known == name.value),
        };
        let bit = bit.and_then(|bit| u32::try_from(bit).ok());
        // Of an acl at the top of the file, every frontend that asks it finds the same.
        let is_told = |error: &BuildError| matches!(error, BuildError::Predicate { acl: told, .. } if told.span == acl.origin.span);
        if bit.is_none() && !self.errors.iter().any(is_told) {
            self.errors.push(BuildError::Predicate {
                acl: acl.origin.clone(),
                plugin: self.config.plugins[plugin.0].name.clone(),
                name: name.cloned(),
                known: names.to_vec(),
            });
        }
        bit
    }
}

/// The WIT's limit: the answers of one call are the bits of one integer.
const PREDICATES_PER_CALL: usize = 64;
