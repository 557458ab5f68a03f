//! From the configuration's texts to those that are put together for each message.

use gateway_plugin_sdk::needs::{List, Need, RequestNeed, ResponseNeed};
use gateway_plugin_sdk::{Request, Response};
use gateway_plugin_template::{Facts, Kind, Piece, Text};

use crate::config::{Part, Template};

/// A text whose facts are asked for.
pub(crate) fn text<Phase>(template: Template, needs: &mut List<Phase>) -> Text<Need<Phase>> {
    template.0.into_iter().map(|part| piece(part, needs)).collect()
}

/// A part of a text.
pub(crate) fn piece<Phase>(part: Part, needs: &mut List<Phase>) -> Piece<Need<Phase>> {
    match part {
        Part::Text(text) => Piece::Text(text),
        Part::Fact(name) => Piece::Fact(needs.attribute(&name), Kind::of(&name)),
    }
}

/// What is known of a message.
pub(crate) struct Known<'a, Message>(pub(crate) &'a Message);

impl Facts<RequestNeed> for Known<'_, Request<'_>> {
    fn get(&self, need: RequestNeed) -> Option<&[u8]> {
        self.0.get(need)
    }

    fn all(&self, need: RequestNeed) -> impl Iterator<Item = &[u8]> {
        self.0.all(need)
    }
}

impl Facts<ResponseNeed> for Known<'_, Response<'_>> {
    fn get(&self, need: ResponseNeed) -> Option<&[u8]> {
        self.0.get(need)
    }

    fn all(&self, need: ResponseNeed) -> impl Iterator<Item = &[u8]> {
        self.0.all(need)
    }
}
