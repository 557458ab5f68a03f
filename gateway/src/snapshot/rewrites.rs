//! What the `header-rewrite` component is told: the edits on the way to a backend and back, and which of them are made only
//! when a condition holds.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::config::{
    self, BackendId, Conditional, EditCondition, HeaderReplace, Matched, Replace, ReplaceFrom, RequestEdit,
    ResponseEdit, Template,
};
use crate::policy::path_captures;

/// The component's configuration.
#[derive(Debug, Serialize)]
pub(super) struct RewriteConfig {
    pub(super) request: Vec<Written<RequestEdit>>,
    pub(super) response: Vec<Written<ResponseEdit>>,
    /// What the numbers of conditions stand for.
    #[serde(skip)]
    pub(super) conditions: Vec<EditCondition>,
}

/// An edit as the component reads it.
#[derive(Debug)]
pub(super) struct Written<E> {
    edit: E,
    condition: Option<usize>,
}

impl RewriteConfig {
    /// Of the edits between a frontend and the backend with this position.
    pub(super) fn new(frontend: &config::Frontend, backend: &config::Backend, id: BackendId) -> Self {
        let mut conditions = Vec::new();
        let first = frontend.first_acl(id);
        let mut request = Vec::with_capacity(frontend.request_edits.len() + backend.request_edits.len());
        let named = |edit: &RequestEdit| edit.named(&frontend.name, &backend.name);
        let is_the_components = |edit: &&Conditional<RequestEdit>| !matches!(edit.edit, RequestEdit::SetHost(_));
        for edit in frontend.request_edits.iter().filter(is_the_components) {
            request.push(Written::new(edit, named(&edit.edit), 0, &mut conditions));
        }
        for edit in backend.request_edits.iter().filter(is_the_components) {
            request.push(Written::new(edit, named(&edit.edit), first, &mut conditions));
        }
        let mut response = Vec::with_capacity(frontend.response_edits.len() + backend.response_edits.len());
        let named = |edit: &ResponseEdit| edit.named(&frontend.name, &backend.name);
        for edit in &backend.response_edits {
            response.push(Written::new(edit, named(&edit.edit), first, &mut conditions));
        }
        for edit in &frontend.response_edits {
            response.push(Written::new(edit, named(&edit.edit), 0, &mut conditions));
        }
        Self {
            request,
            response,
            conditions,
        }
    }
}

impl RewriteConfig {
    /// Of the edits of a tenant's in a frontend.
    pub(super) fn of_tenant(of: &config::TenantRules, frontend: &config::Frontend) -> Self {
        let mut conditions = Vec::new();
        // They name no backend.
        let request = of.request_edits.iter();
        let request = request.map(|edit| Written::new(edit, edit.edit.named(&frontend.name, ""), 0, &mut conditions));
        let request = request.collect();
        let response = of.response_edits.iter();
        let response = response.map(|edit| Written::new(edit, edit.edit.named(&frontend.name, ""), 0, &mut conditions));
        let response = response.collect();
        Self {
            request,
            response,
            conditions,
        }
    }
}

impl RewriteConfig {
    /// Of what the gateway answers by itself to requests for a tenant's hosts.
    pub(super) fn of_own_answers_of_tenant(of: &config::TenantRules, frontend: &config::Frontend) -> Self {
        let mut conditions = Vec::new();
        let always = of.response_edits.iter().filter(|edit| edit.is_always);
        let response = always.map(|edit| Written::new(edit, edit.edit.named(&frontend.name, ""), 0, &mut conditions));
        let response = response.collect();
        Self {
            request: Vec::new(),
            response,
            conditions,
        }
    }

    /// Of what the gateway answers by itself, before a backend is chosen or behind that.
    pub(super) fn of_own_answers(frontend: &config::Frontend, backend: Option<(&config::Backend, BackendId)>) -> Self {
        let mut conditions = Vec::new();
        let mut response = Vec::new();
        let name = backend.map_or("", |(backend, _)| &*backend.name);
        let named = |edit: &ResponseEdit| edit.named(&frontend.name, name);
        if let Some((backend, id)) = backend {
            let first = frontend.first_acl(id);
            for edit in backend.response_edits.iter().filter(|edit| edit.is_always) {
                response.push(Written::new(edit, named(&edit.edit), first, &mut conditions));
            }
        }
        for edit in frontend.response_edits.iter().filter(|edit| edit.is_always) {
            response.push(Written::new(edit, named(&edit.edit), 0, &mut conditions));
        }
        Self {
            request: Vec::new(),
            response,
            conditions,
        }
    }

    /// Of redirects: each has an edit of its own, made on the condition with its number, by which a path becomes what is in its captures.
    pub(super) fn of_captures(of: &[&Matched]) -> Self {
        let written = |(number, captured): (usize, &&Matched)| Written {
            edit: RequestEdit::ReplaceHeader(HeaderReplace {
                name: path_captures::FIELD.to_owned(),
                replace: Replace {
                    from: ReplaceFrom::Regex(captured.regex.clone()),
                    to: Template::plain(path_captures::replacement(&captured.captures())),
                },
            }),
            condition: Some(number),
        };
        Self {
            request: of.iter().enumerate().map(written).collect(),
            response: Vec::new(),
            conditions: Vec::new(),
        }
    }
}

impl<E> Written<E> {
    /// `first` is where the acls begin that its condition is about.
    fn new(of: &Conditional<E>, edit: E, first: usize, conditions: &mut Vec<EditCondition>) -> Self {
        let condition = of.condition().map(|when| {
            let when = when.shifted(first);
            let known = conditions.iter().position(|known| *known == when);
            known.unwrap_or_else(|| {
                conditions.push(when);
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
