//! What a component asks to be handed with each call, by phase: lists of [attributes](Attribute).

use std::sync::Arc;

use super::attribute::Attribute;
use super::bindings::exports::gateway::policy::lifecycle;
use super::failure::short_name;
use super::maps::Maps;

/// The attributes that a component is handed, by phase.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    /// For predicates, limiters and request filters.
    pub(crate) request: Vec<Attribute>,
    /// For response filters.
    pub(crate) response: Vec<Attribute>,
    /// For access logs.
    pub(crate) log: Vec<Attribute>,
    /// For connection filters.
    pub(crate) connection: Vec<Attribute>,
}

impl Needs {
    /// Parses the needs of `describe` and `configure`, in that order; those of the gateway's own components with its maps. An error is a need
    /// and what is wrong with it.
    pub(super) fn parse(
        described: &lifecycle::Needs,
        configured: &lifecycle::Needs,
        maps: Option<&Maps>,
        tenant: Option<&Arc<str>>,
    ) -> Result<Self, (String, &'static str)> {
        let parse = |phase, first: &[String], second: &[String]| {
            if first.len() + second.len() > MAX_NEEDS {
                return Err((
                    format!("{} attributes", first.len() + second.len()),
                    "is more than a phase may have",
                ));
            }
            let names = first.iter().chain(second);
            names
                .map(|name| {
                    if name.len() > MAX_NEED {
                        return Err((short_name(name), "is longer than an attribute's name may be"));
                    }
                    let attribute = match maps {
                        Some(maps) => Attribute::parse_with(name, phase, maps),
                        None => Attribute::parse(name, phase),
                    };
                    let attribute = attribute.and_then(|attribute| attribute.asked_by(tenant));
                    attribute.map_err(|why| (name.clone(), why))
                })
                .collect()
        };
        Ok(Self {
            request: parse(NeedPhase::Request, &described.request, &configured.request)?,
            response: parse(NeedPhase::Response, &described.response, &configured.response)?,
            log: parse(NeedPhase::Log, &described.log, &configured.log)?,
            connection: parse(NeedPhase::Connection, &described.connection, &configured.connection)?,
        })
    }

    /// The first that tells the time, which has to be granted wherever it is asked for.
    pub(super) fn time(&self) -> Option<String> {
        let phases = [&self.request, &self.response, &self.log, &self.connection];
        phases.into_iter().flatten().find_map(Attribute::time)
    }
}

/// When an attribute is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NeedPhase {
    Request,
    Response,
    Log,
    Connection,
}

/// Attributes that a component may ask for in one phase. Each is looked for in every exchange.
const MAX_NEEDS: usize = 256;

/// Bytes of an attribute's name: they are kept for as long as the component is attached, for each of its uses.
const MAX_NEED: usize = 512;
