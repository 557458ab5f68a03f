//! Puts another text in the place of one, in the texts that servers answer with.

use gateway_plugin_sdk::needs::ResponseNeed;
use gateway_plugin_sdk::{
    BodyMode, ConfigError, Failure, Needs, Piece, PieceOutcome, PieceVerdict, Plugin, Response, ResponseBodyFilter,
    plugin,
};
use serde::Deserialize;

/// What the operator writes in `config { … }`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The text that is looked for: `replace "app-1"`.
    replace: String,
    /// What stands in its place then: `by "a server"`.
    by: String,
}

/// The plugin.
pub struct Replacer {
    text: Vec<u8>,
    by: Vec<u8>,
    content_type: ResponseNeed,
    coding: ResponseNeed,
}

impl Plugin for Replacer {
    type Config = Config;
    const NAME: &'static str = "my-plugin";
    const ABOUT: &'static str = "Puts another text in the place of one in what servers answer.";

    fn configure(config: Config, needs: &mut Needs) -> Result<Self, ConfigError> {
        if !(1..=MOST).contains(&config.replace.len()) {
            return Err(ConfigError::new("a text to look for has 1 to 1,000 bytes").at("/replace"));
        }
        Ok(Self {
            text: config.replace.into(),
            by: config.by.into(),
            // These come along with each call, and cost nothing to read.
            content_type: needs.response.response_header("content-type"),
            coding: needs.response.response_header("content-encoding"),
        })
    }
}

impl ResponseBodyFilter for Replacer {
    fn on_response_body(&self, response: &Response<'_>) -> BodyMode {
        let is_text = response
            .text(self.content_type)
            .is_some_and(|name| name.starts_with("text/"));
        // What is compressed cannot be read here, and passes unseen.
        match is_text && response.get(self.coding).is_none() {
            true => BodyMode::Streamed,
            false => BodyMode::Skip,
        }
    }

    fn on_response_piece(&self, piece: Piece) -> Result<PieceOutcome, Failure> {
        // Pieces are as the network brings them: the text may lie across two. So an end in which it may have begun is held
        // back, and comes again with the next piece. The last piece may be empty.
        let mut bytes = piece.state;
        bytes.extend_from_slice(&piece.bytes);
        let (goes_on, held) = self.replaced(&bytes, piece.last);
        Ok(PieceOutcome::from(PieceVerdict::Replace(goes_on)).with_state(held))
    }
}

impl Replacer {
    /// What goes on of some bytes, and what is held back.
    fn replaced(&self, bytes: &[u8], last: bool) -> (Vec<u8>, Vec<u8>) {
        let mut goes_on = Vec::with_capacity(bytes.len());
        let mut rest = bytes;
        while let Some(at) = rest.windows(self.text.len()).position(|part| part == self.text) {
            goes_on.extend_from_slice(&rest[..at]);
            goes_on.extend_from_slice(&self.by);
            rest = &rest[at + self.text.len()..];
        }
        let held = if last { 0 } else { rest.len().min(self.text.len() - 1) };
        let (goes, stays) = rest.split_at(rest.len() - held);
        goes_on.extend_from_slice(goes);
        (goes_on, stays.to_vec())
    }
}

/// Bytes of the text: so much is held back of each piece at most.
const MOST: usize = 1_000;

plugin!(Replacer: ResponseBodyFilter);

#[cfg(test)]
mod tests {
    use gateway_plugin_sdk::test::{FilteredBody, Host, Request, Response};

    use super::Replacer;

    #[test]
    fn a_text_is_replaced_wherever_pieces_end() {
        let config = r#"{"replace": "app-1", "by": "a server"}"#;
        let plugin = Host::new().configure::<Replacer>(config).unwrap();
        let request = Request::get("/");
        let response = Response::new(200).with_header("content-type", "text/plain");
        let whole = b"app-1, app-2, apapp-1".as_slice();

        for end in 0..=whole.len() {
            let (first, second) = whole.split_at(end);
            let filtered = plugin
                .on_response_body(&request, &response, &[first, second, b""])
                .unwrap();
            let expected = b"a server, app-2, apa server".to_vec();
            assert_eq!(filtered, FilteredBody::Bytes(expected), "{end}");
        }
    }

    #[test]
    fn what_is_no_text_passes_unseen() {
        let config = r#"{"replace": "app-1", "by": "a server"}"#;
        let plugin = Host::new().configure::<Replacer>(config).unwrap();
        let image = Response::new(200).with_header("content-type", "image/png");
        let compressed = Response::new(200)
            .with_header("content-type", "text/plain")
            .with_header("content-encoding", "gzip");
        for response in [image, compressed] {
            let filtered = plugin
                .on_response_body(&Request::get("/"), &response, &[b"app-1"])
                .unwrap();
            assert_eq!(filtered, FilteredBody::Bytes(b"app-1".to_vec()));
        }
    }

    #[test]
    fn a_text_of_no_bytes_is_a_mistake() {
        let config = r#"{"replace": "", "by": "a server"}"#;
        assert!(Host::new().configure::<Replacer>(config).is_err());
    }
}
