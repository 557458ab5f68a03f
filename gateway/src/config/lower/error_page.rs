//! `error-page 503 "503.http"` and `normalize-path`: read alike in `defaults` and sections.

use std::path::Path;

use super::rules::{media_type, number};
use super::settings::Settings;
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{ErrorPage, EscapedSlashes, NormalizePath};
use crate::config::reader::{At, Node, Value, said_twice};

/// Reads the pages of a section: at most one a status.
pub(super) fn error_pages(nodes: Vec<Node<'_>>) -> Vec<At<ErrorPage>> {
    let mut pages: Vec<At<ErrorPage>> = Vec::new();
    for mut node in nodes {
        let origin = node.origin();
        let intercepts = node.flag("intercept").is_some();
        let mut values = node.arguments("a status or the file");
        let file = values.pop();
        let has_both = !values.is_empty();
        let path = file.as_ref().filter(|_| has_both).and_then(Value::text);
        if !has_both {
            let error = ConfigError::new(Code::Missing, "`error-page` needs statuses and a file");
            node.fail(
                error
                    .label(node.span(), "one of them is missing")
                    .maybe_help(node.example()),
            );
        }
        for value in &values {
            let Some(status) = number(value, 400, 599) else {
                continue;
            };
            if let Some(first) = pages.iter().find(|page| page.value.status == status) {
                let what = format!("the page for {status}");
                node.fail(said_twice(&what, first.span, value.span()));
                continue;
            }
            let (Some(file), Some(path)) = (&file, path) else {
                continue;
            };
            pages.push(value.at(ErrorPage {
                status,
                path: file.at(node.ctx.path(path)),
                content_type: media_type(Path::new(path)),
                intercepts,
                origin: origin.clone(),
            }));
        }
        node.finish();
    }
    pages
}

/// What holds for a section: its own pages, and those of the defaults for other statuses.
pub(super) fn of(own: &Settings, inherited: &Settings) -> Vec<ErrorPage> {
    let own = &own.error_pages;
    let is_new = |page: &&At<ErrorPage>| own.iter().all(|known| known.value.status != page.value.status);
    let inherited = inherited.error_pages.iter().filter(is_new);
    own.iter().chain(inherited).map(|page| page.value.clone()).collect()
}

/// `normalize-path merge-slashes escaped-slashes="reject"`, or `normalize-path "off"`.
pub(super) fn normalize_path(mut node: Node<'_>) -> Option<At<Option<NormalizePath>>> {
    let span = node.span();
    let off = node.flag("off");
    let merge = node.flag("merge-slashes");
    let escaped = node.property("escaped-slashes");
    if let (Some(off), Some(said)) = (off, merge.or(escaped.map(|value| value.span()))) {
        let error = ConfigError::new(Code::Inert, "nothing is done to paths when `normalize-path` is off");
        node.fail(
            error
                .label(said, "does nothing")
                .label(off, "because of this")
                .help("one of them has to go"),
        );
    }
    node.finish();
    let escaped_slashes = match escaped {
        Some(value) => value.choice(ESCAPED_SLASHES)?,
        None => DEFAULT_NORMALIZE_PATH.escaped_slashes,
    };
    let value = NormalizePath {
        merges_slashes: merge.is_some(),
        escaped_slashes,
    };
    Some(At {
        value: off.is_none().then_some(value),
        span,
    })
}

const ESCAPED_SLASHES: &[(&str, EscapedSlashes)] = &[
    ("keep", EscapedSlashes::Keep),
    ("reject", EscapedSlashes::Reject),
    ("decode", EscapedSlashes::Decode),
];

/// What RFC 3986, section 6.2.2, says makes no difference: rules about paths cannot be gone around by spelling them in
/// another way, and no server can mind. Slashes are not merged: to some servers `//` is not `/`.
pub(super) const DEFAULT_NORMALIZE_PATH: NormalizePath = NormalizePath {
    merges_slashes: false,
    escaped_slashes: EscapedSlashes::Keep,
};
