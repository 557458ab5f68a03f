//! Configurations of plugins, held against the schemas that their components ship with.

use crate::config;
use crate::config::schema::Schema;
use crate::policy::section;
use crate::snapshot::{BuildError, PluginAt};

/// What in a configuration does not fit its component's schema, or that the schema is none; nothing where there is none.
/// `config` is what the component is to get.
pub(super) fn misfits(plugin: &config::Plugin, wasm: &[u8], config: &str) -> Vec<BuildError> {
    let schema = match section::config_schema(wasm) {
        Ok(None) => return Vec::new(),
        Ok(Some(text)) => Schema::parse("its schema", text).map_err(|errors| errors.first()),
        Err(message) => Err(message),
    };
    match schema {
        Ok(schema) => {
            // It was written by this gateway.
            let config = serde_json::from_str(config).unwrap_or_default();
            let faults = schema.check(&config, &plugin.config_places).into_iter();
            let of_plugin = |fault| BuildError::Setting {
                plugin: plugin.name.clone(),
                origin: plugin.origin.clone(),
                fault,
            };
            faults.map(of_plugin).collect()
        }
        Err(message) => {
            let plugin = PluginAt::of(plugin);
            vec![BuildError::Schema { plugin, message }]
        }
    }
}
