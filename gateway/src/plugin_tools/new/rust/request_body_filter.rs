//! Turns away requests whose body has a text that the operator does not want there.

use gateway_plugin_sdk::config::one_or_many;
use gateway_plugin_sdk::{
    BodyMode, ConfigError, Failure, Needs, Piece, PieceOutcome, PieceVerdict, Plugin, Reply, Request,
    RequestBodyFilter, plugin,
};
use serde::Deserialize;

/// What the operator writes in `config { … }`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The texts that no body may have: `forbid "<script"`.
    #[serde(deserialize_with = "one_or_many")]
    forbid: Vec<String>,
}

/// The plugin.
pub struct Scanner {
    forbidden: Vec<String>,
}

impl Plugin for Scanner {
    type Config = Config;
    const NAME: &'static str = "my-plugin";
    const ABOUT: &'static str = "Turns away requests whose body has a text that is not wanted.";

    fn configure(config: Config, _: &mut Needs) -> Result<Self, ConfigError> {
        if config.forbid.iter().any(|text| text.is_empty()) {
            return Err(ConfigError::new("every body has a text of no bytes").at("/forbid"));
        }
        Ok(Self {
            forbidden: config.forbid,
        })
    }
}

impl RequestBodyFilter for Scanner {
    fn on_request_body(&self, _: &Request<'_>) -> BodyMode {
        // The whole body comes at once, while its head is held: a text cannot lie across two pieces, and there may still be
        // a reply. A longer body is refused with 413; the operator's `limit body=` may allow less.
        BodyMode::Buffered { max: MOST }
    }

    fn on_request_piece(&self, piece: Piece) -> Result<PieceOutcome, Failure> {
        let is_in_it = |text: &String| piece.bytes.windows(text.len()).any(|part| part == text.as_bytes());
        let verdict = match self.forbidden.iter().any(is_in_it) {
            true => PieceVerdict::Reply(Reply::new(403).body("my-plugin does not take this\n")),
            false => PieceVerdict::Pass,
        };
        Ok(verdict.into())
    }
}

/// Bytes of a body that is looked at.
const MOST: u64 = 64 * 1024;

plugin!(Scanner: RequestBodyFilter);

#[cfg(test)]
mod tests {
    use gateway_plugin_sdk::test::{FilteredBody, Host, Request};

    use super::Scanner;

    #[test]
    fn a_body_with_a_text_that_is_not_wanted_is_turned_away_however_it_comes() {
        let plugin = Host::new().configure::<Scanner>(r#"{"forbid": "<script"}"#).unwrap();
        let request = Request::post("/");

        let refused = plugin.on_request_body(&request, &[b"hello <scr", b"ipt>"]).unwrap();
        assert!(matches!(refused, FilteredBody::Reply(reply) if reply.status() == 403));

        let passed = plugin.on_request_body(&request, &[b"hello ", b"world"]).unwrap();
        assert_eq!(passed, FilteredBody::Bytes(b"hello world".to_vec()));
    }

    #[test]
    fn a_text_of_no_bytes_is_a_mistake() {
        assert!(Host::new().configure::<Scanner>(r#"{"forbid": ""}"#).is_err());
    }
}
