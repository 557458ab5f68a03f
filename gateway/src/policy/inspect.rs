//! What a component is, for the tools: asked of the host that would run it, under the limits of a call.

use std::sync::{Arc, OnceLock};

use wasmtime::component::types::ComponentItem;

use super::budget::Budget;
use super::component::Component;
use super::failure::{PolicyError, one_line};
use super::host::Host;
use super::instance::Instance;
use super::log_budget::LogBudget;
use super::state::Identity;
use crate::config::{LogRate, PluginLimits, StateLimits};

/// Who a component says it is; texts are in one line, as they may be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Its name.
    pub name: String,
    /// Its own version.
    pub version: String,
    /// What it does.
    pub about: String,
    /// Whether it wants to be told the time with its calls, whatever its configuration says.
    pub wants_time: bool,
}

/// An interface of the host that a component uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// With package and version, as `gateway:policy/kv@0.1.0`.
    pub interface: String,
    /// The functions of it that are linked in; empty when only types are.
    pub functions: Vec<String>,
}

impl Component {
    /// Whether all that its answers can follow from is what it is called with and what its instance remembers, and answers are all
    /// that it leaves behind: it imports nothing that tells it anything, or takes anything but edits.
    #[must_use]
    pub const fn is_pure(&self) -> bool {
        !self.asks_the_host
    }

    /// The interfaces that it imports, and which of their functions.
    #[must_use]
    pub fn imports(&self) -> Vec<Import> {
        let engine = self.pre.engine();
        let ty = self.pre.component().component_type();
        let import = |name: &str, item: &ComponentItem| Import {
            interface: name.to_owned(),
            functions: match item {
                ComponentItem::ComponentInstance(instance) => instance
                    .exports(engine)
                    .filter(|(_, item)| matches!(item.ty, ComponentItem::ComponentFunc(_)))
                    .map(|(name, _)| name.to_owned())
                    .collect(),
                _ => Vec::new(),
            },
        };
        ty.imports(engine).map(|(name, item)| import(name, &item.ty)).collect()
    }
}

impl Host {
    /// Makes an instance and asks it who it is, without a configuration. Runs guest code: not for a worker thread.
    ///
    /// # Errors
    /// When it fails, runs past its limits, or exports what has another type than the contract says.
    pub fn describe(&self, component: &Component, limits: PluginLimits) -> Result<Description, PolicyError> {
        let label = &component.label;
        let failed = |failure: super::Failure| PolicyError::Failed {
            label: label.clone(),
            failure: failure.in_one_line(),
        };
        let identity = Arc::new(Identity {
            label: label.as_str().into(),
            tenant: None,
            namespace: self.namespace(label, None),
            counted: Arc::default(),
            shared: self.shared(label, StateLimits::DEFAULT, None),
            metrics: OnceLock::new(),
            lines: LogBudget::new(LogRate::DEFAULT),
            failures: LogBudget::new(LogRate::DEFAULT),
            changes: LogBudget::new(LogRate::OF_CHANGES),
        });
        let mut activity = self.activity()?;
        let made = Instance::new(self, component, &identity, limits, &Budget::unlimited(), &mut activity);
        let mut instance = made.map_err(|error| error.of(label))?;
        let said = instance.describe(limits, &mut activity).map_err(failed)?;
        Ok(Description {
            name: one_line(&said.name),
            version: one_line(&said.version),
            about: one_line(&said.about),
            wants_time: {
                let needs = &said.needs;
                let phases = [&needs.request, &needs.response, &needs.log, &needs.connection];
                let mut needs = phases.into_iter().flatten();
                needs.any(|need| need.starts_with("local-time:"))
            },
        })
    }
}
