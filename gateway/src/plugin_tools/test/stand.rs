//! A plugin on a test stand: compiled and attached as a file of fixtures says, with a clock of its own and nothing kept.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use anyhow::anyhow;

use crate::config::fixture::Fixture;
use crate::config::{Grant, MOST_TOOL_MEMORY, Plugin, Process};
use crate::plugin_tools::anatomy;
use crate::policy::{Clock, Component, Host, HostSettings, Instances, MAX_COMPONENT_BYTES, Measure};
use crate::regular_file;
use crate::snapshot::{Alone, BuildErrors};

/// A component's bytes, and what was compiled of it.
pub(in crate::plugin_tools) struct Workshop {
    /// Has the engine; every stand has a host of its own beside it.
    host: Arc<Host>,
    wasm: Vec<u8>,
    /// By what is granted.
    compiled: HashMap<Vec<Grant>, Arc<Component>>,
}

/// A plugin that can be asked.
pub(in crate::plugin_tools) struct Stand {
    pub(in crate::plugin_tools) clock: Clock,
    pub(in crate::plugin_tools) uses: Alone,
    pub(in crate::plugin_tools) instances: Instances,
    pub(in crate::plugin_tools) backends: Vec<Arc<str>>,
}

impl Workshop {
    /// Reads a component.
    ///
    /// # Errors
    /// When it cannot be read, or is no component: that is no file of fixtures' fault.
    pub(in crate::plugin_tools) fn open(component: &Path) -> anyhow::Result<Self> {
        let name = component.display();
        let wasm = regular_file::read(component, MAX_COMPONENT_BYTES).map_err(|error| match error.kind() {
            io::ErrorKind::FileTooLarge => anyhow!("{name}: a component has at most {MAX_COMPONENT_BYTES} bytes"),
            _ => anyhow!("cannot read {name}: {error}"),
        })?;
        anatomy::look(&wasm).map_err(|why| anyhow!("{name}: {why}"))?;
        let process = Process::default();
        let host = Host::new(HostSettings {
            memory: MOST_TOOL_MEMORY,
            ..HostSettings::new(process.policy, process.max_buckets)
        });
        Ok(Self {
            host,
            wasm,
            compiled: HashMap::new(),
        })
    }

    /// Sets up a plugin as its fixture says.
    ///
    /// # Errors
    /// As a configuration with this plugin would not be taken.
    pub(in crate::plugin_tools) fn stand(&mut self, fixture: &Fixture) -> Result<Stand, BuildErrors> {
        self.stand_as(fixture, &fixture.plugin)
    }

    /// Sets up a plugin of a fixture with another block.
    ///
    /// # Errors
    /// Likewise.
    pub(in crate::plugin_tools) fn stand_as(
        &mut self,
        fixture: &Fixture,
        plugin: &Plugin,
    ) -> Result<Stand, BuildErrors> {
        let component = match self.compiled.get(&plugin.grants) {
            Some(component) => Arc::clone(component),
            None => {
                let component = Alone::compile(&self.host, plugin, &self.wasm)?;
                self.compiled.insert(plugin.grants.clone(), Arc::clone(&component));
                component
            }
        };
        Alone::check(plugin, &self.wasm)?;
        let clock = Clock::standing_at(fixture.begins);
        let host = Alone::beside(&self.host, clock.clone())?;
        let uses = Alone::attach(&host, &component, plugin, &fixture.backends)?;
        // What is heavy has threads of its own in a gateway; here there is but one, which nobody else waits for.
        let mut instances = match plugin.heavy {
            Some(_) => Instances::of_crew(&host),
            None => Instances::new(&host),
        };
        instances.measure();
        Ok(Stand {
            clock,
            uses,
            instances,
            backends: fixture.backends.clone(),
        })
    }
}

impl Stand {
    /// What calls have cost since this was last asked.
    pub(super) fn measures(&mut self) -> Vec<Measure> {
        self.instances.take_measures()
    }

    /// Drops what is used up and makes ahead of need what a worker would.
    pub(in crate::plugin_tools) fn tidy(&mut self) {
        self.instances.upkeep();
        while self.instances.tend() {}
    }
}
