//! `set-host`: the host that servers are asked for in place of the client's, on the way to one backend.

use gateway_plugin_template::Place;
use http::HeaderValue;

use super::AclAnswers;
use crate::authority::is_authority;
use crate::config::{self, BackendId, Condition, Conditional, RequestEdit};
use crate::policy::maps::Maps;
use crate::policy::{Exchange, Values};

/// Another host for requests.
#[derive(Debug)]
pub struct HostRewrite {
    when: Option<Condition>,
    to: To,
}

#[derive(Debug)]
enum To {
    Fixed(HeaderValue),
    Values(Values),
}

impl HostRewrite {
    /// Those between a frontend and a backend, in their order; none when there are none. The error is a defect of a text.
    pub(super) fn all(
        frontend: &config::Frontend,
        backend: &config::Backend,
        id: BackendId,
        maps: &Maps,
    ) -> Result<Option<Box<[Self]>>, String> {
        let first = frontend.first_acl(id);
        let own = frontend.request_edits.iter().map(|edit| (edit, 0));
        let theirs = backend.request_edits.iter().map(|edit| (edit, first));
        let mut all = Vec::new();
        for (Conditional { edit, when, .. }, first) in own.chain(theirs) {
            let RequestEdit::SetHost(to) = edit.named(&frontend.name, &backend.name) else {
                continue;
            };
            let fixed = to.as_plain().and_then(|text| HeaderValue::from_str(text).ok());
            all.push(Self {
                when: when.as_ref().map(|when| config::shifted(when, first)),
                to: match fixed {
                    Some(value) => To::Fixed(value),
                    None => To::Values(Values::new(&to, maps)?),
                },
            });
        }
        Ok((!all.is_empty()).then(|| all.into()))
    }

    /// Whether it is to be made.
    pub fn holds(&self, answers: &AclAnswers) -> bool {
        self.when.as_ref().is_none_or(|when| answers.hold(when))
    }

    /// The host for this request; none when what its text has become is none.
    pub fn host(&self, exchange: &Exchange) -> Option<HeaderValue> {
        let values = match &self.to {
            To::Fixed(value) => return Some(value.clone()),
            To::Values(values) => values,
        };
        let mut text = Vec::new();
        values.write(exchange, Place::Header, &mut text);
        let is_host = !text.is_empty() && is_authority(&text);
        is_host.then(|| HeaderValue::from_bytes(&text).ok())?
    }
}
