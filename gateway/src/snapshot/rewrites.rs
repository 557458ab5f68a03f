//! What the `header-rewrite` component is told: the edits on the way to a backend and back, and which of them are made only
//! when a condition holds.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::config::{self, Condition, Conditional, RequestEdit, ResponseEdit};

/// The component's configuration.
#[derive(Debug, Serialize)]
pub(super) struct RewriteConfig {
    pub(super) request: Vec<Written<RequestEdit>>,
    pub(super) response: Vec<Written<ResponseEdit>>,
    /// What the numbers of conditions stand for.
    #[serde(skip)]
    pub(super) conditions: Vec<Condition>,
}

/// An edit as the component reads it.
#[derive(Debug)]
pub(super) struct Written<E> {
    edit: E,
    condition: Option<usize>,
}

impl RewriteConfig {
    /// Of the edits between a frontend and a backend.
    pub(super) fn new(frontend: &config::Frontend, backend: &config::Backend) -> Self {
        let mut conditions = Vec::new();
        let request = frontend.request_edits.iter().chain(&backend.request_edits);
        let request = request
            .map(|edit| Written::new(edit, edit.edit.named(&frontend.name, &backend.name), &mut conditions))
            .collect();
        let response = backend.response_edits.iter().chain(&frontend.response_edits);
        let response = response
            .map(|edit| Written::new(edit, edit.edit.named(&frontend.name, &backend.name), &mut conditions))
            .collect();
        Self {
            request,
            response,
            conditions,
        }
    }
}

impl<E> Written<E> {
    fn new(of: &Conditional<E>, edit: E, conditions: &mut Vec<Condition>) -> Self {
        let condition = of.when.as_ref().map(|when| {
            let known = conditions.iter().position(|known| known == when);
            known.unwrap_or_else(|| {
                conditions.push(when.clone());
                conditions.len() - 1
            })
        });
        Self { edit, condition }
    }
}

impl<E: Serialize> Serialize for Written<E> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct When<'a, E> {
            condition: usize,
            edit: &'a E,
        }
        let Some(condition) = self.condition else {
            return self.edit.serialize(serializer);
        };
        let mut map = serializer.serialize_map(Some(1))?;
        let edit = &self.edit;
        map.serialize_entry("when", &When { condition, edit })?;
        map.end()
    }
}
