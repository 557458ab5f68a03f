//! Where requests and connections go, ready to be asked.

use std::collections::HashMap;
use std::sync::Arc;

use gateway_plugin_template::Place;

use super::AclAnswers;
use crate::config::{self, BackendId, Condition, Template, TemplatePart};
use crate::policy::maps::Maps;
use crate::policy::{Exchange, Values};

/// `use-backend`.
#[derive(Debug)]
pub struct Route {
    /// When; none means always.
    when: Option<Condition>,
    to: To,
}

#[derive(Debug)]
enum To {
    Backend(BackendId),
    /// To the backend whose name this comes out as.
    Named(Box<Values>, HashMap<Box<[u8]>, BackendId>),
}

/// A value of a map that should name a backend, and names none.
#[derive(Debug)]
pub(super) struct Nameless {
    /// The map.
    pub(super) map: Arc<str>,
    /// The line of its file; 0 for the map's default.
    pub(super) line: usize,
    /// What the name would be.
    pub(super) name: String,
}

impl Route {
    /// Of what was configured. `backends` has the names of all backends. The error is an attribute that there is not.
    pub(super) fn new(
        route: &config::Route,
        frontend: &str,
        backends: &[config::Backend],
        maps: &Maps,
    ) -> Result<Self, String> {
        let to = match &route.to {
            config::RouteTo::Backend(backend) => To::Backend(*backend),
            config::RouteTo::Named { name, backends: ids } => {
                let named = ids.iter().map(|id| (backends[id.0].name.as_bytes().into(), *id));
                To::Named(
                    Box::new(Values::new(&name.named(frontend, None), maps)?),
                    named.collect(),
                )
            }
        };
        let when = route.when.clone();
        Ok(Self { when, to })
    }

    /// Where it leads, if it does.
    pub(super) fn leads(&self, answers: &AclAnswers, exchange: &Exchange) -> Option<BackendId> {
        if !self.when.as_ref().is_none_or(|when| answers.hold(when)) {
            return None;
        }
        match &self.to {
            To::Backend(backend) => Some(*backend),
            To::Named(name, backends) => {
                let mut text = Vec::with_capacity(NAME);
                name.write(exchange, Place::Text, &mut text);
                backends.get(text.as_slice()).copied()
            }
        }
    }

    /// Whether it asks for what a ClientHello says that passes through.
    pub(super) fn reads_client_hello(&self) -> bool {
        matches!(&self.to, To::Named(name, _) if name.reads_client_hello())
    }

    /// The values of maps that this could only lead nowhere with.
    pub(super) fn nameless(&self, route: &config::Route, frontend: &str, maps: &Maps) -> Vec<Nameless> {
        let (To::Named(_, backends), config::RouteTo::Named { name, .. }) = (&self.to, &route.to) else {
            return Vec::new();
        };
        let Some((before, map, behind)) = around_a_map(&name.named(frontend, None), maps) else {
            return Vec::new();
        };
        let mut nameless = Vec::new();
        for (line, value) in map.values() {
            let name = [before.as_bytes(), value, behind.as_bytes()].concat();
            if !backends.contains_key(name.as_slice()) {
                nameless.push(Nameless {
                    map: Arc::clone(map.name()),
                    line,
                    name: String::from_utf8_lossy(&name).into_owned(),
                });
            }
        }
        nameless.truncate(MOST_NAMELESS);
        nameless
    }
}

/// What stands before and behind the only variable of a text, when it is looked up in a map.
fn around_a_map<'a>(name: &Template, maps: &'a Maps) -> Option<(String, &'a Arc<crate::policy::maps::Map>, String)> {
    let (mut before, mut behind, mut found) = (String::new(), String::new(), None);
    for part in &name.0 {
        match (part, &found) {
            (TemplatePart::Text(text), None) => before.push_str(text),
            (TemplatePart::Text(text), Some(_)) => behind.push_str(text),
            (TemplatePart::Fact(fact), None) => {
                let (map, _) = fact.strip_prefix("map:")?.split_once(':')?;
                found = Some(maps.get(map)?);
            }
            _ => return None,
        }
    }
    Some((before, found?, behind))
}

/// Room for most names.
const NAME: usize = 64;
/// Of one route: whoever has more of them has the wrong map.
const MOST_NAMELESS: usize = 10;
