//! The fields by which a plugin tells servers who somebody is: what clients send in them does not meet a server where the plugin is skipped
//! when it fails, nor behind their content.

use std::sync::Arc;

use http::HeaderName;
use serde_json::Value;

use crate::config::{BuiltIn, ComponentSource, Plugin};

/// Those that its block names, and those that the configuration of a component of the shelf does.
pub(super) fn headers(plugin: &Plugin, config: &str) -> Arc<[HeaderName]> {
    let mut names = plugin.identity_headers.value.clone();
    if let ComponentSource::BuiltIn(built_in) = plugin.component.value {
        // The gateway has written it, and its component reads it.
        let config = serde_json::from_str(config).unwrap_or_default();
        names.extend(
            said(built_in, &config)
                .into_iter()
                .filter_map(|name| name.as_str()?.parse().ok()),
        );
    }
    names.into()
}

fn said(built_in: BuiltIn, config: &Value) -> Vec<&Value> {
    match built_in {
        BuiltIn::ApiKey => config.get("client-header").into_iter().collect(),
        BuiltIn::BasicAuth => config.get("user-header").into_iter().collect(),
        BuiltIn::JwtAuth => match config.get("claim") {
            Some(Value::Array(claims)) => claims.iter().filter_map(|claim| claim.get("header")).collect(),
            Some(claim) => claim.get("header").into_iter().collect(),
            None => Vec::new(),
        },
        BuiltIn::BotFilter
        | BuiltIn::CanaryRoute
        | BuiltIn::Cors
        | BuiltIn::IpList
        | BuiltIn::Maintenance
        | BuiltIn::RequestId
        | BuiltIn::SecurityHeaders => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_of_the_shelf_say_in_their_configuration_what_they_tell_servers() {
        let said = |built_in, config| {
            let config: Value = serde_json::from_str(config).unwrap_or_default();
            let names = said(built_in, &config);
            names
                .into_iter()
                .filter_map(Value::as_str)
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(said(BuiltIn::BasicAuth, r#"{"user-header": "x-user"}"#), "x-user");
        assert_eq!(said(BuiltIn::ApiKey, r#"{"client-header": "x-client"}"#), "x-client");
        let one = r#"{"claim": {"claim": "sub", "header": "x-user"}}"#;
        assert_eq!(said(BuiltIn::JwtAuth, one), "x-user");
        let two = r#"{"claim": [{"claim": "sub", "header": "x-user"}, {"claim": "roles", "header": "x-roles"}]}"#;
        assert_eq!(said(BuiltIn::JwtAuth, two), "x-user x-roles");
        assert_eq!(said(BuiltIn::JwtAuth, "{}"), "");
    }
}
