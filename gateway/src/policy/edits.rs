//! What a component may change of a message, collected while its call runs and applied only when the call succeeded.

use std::borrow::Cow;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, request, response};
use hyper::ext::ReasonPhrase;

use super::attachment::Attachment;
use super::bindings::gateway::policy::types;
use super::exchange::Reply;
use super::failure::Untaken;
use crate::authority::is_authority;
use crate::config::{MAX_CALL_EDITS, MAX_EDIT_BYTES, OWN_FIELDS};
use crate::twins;

/// The edits of one call.
#[derive(Debug, Clone, Default)]
pub(crate) struct Edits {
    list: Vec<Edit>,
    bytes: usize,
}

/// Edits that are to be made, of a call or of one like it.
#[derive(Debug)]
pub(crate) enum Made<'a> {
    /// There are none.
    Nothing,
    /// The call's own: they are gone when they have been made.
    Once(&'a mut Edits),
    /// Those that are known of an earlier call, and stay.
    Again(&'a Edits),
}

#[derive(Debug, Clone)]
enum Edit {
    Set(HeaderName, HeaderValue),
    Add(HeaderName, HeaderValue),
    Remove(HeaderName),
    Path(Bytes),
    Query(Option<Bytes>),
    Status(StatusCode),
}

impl Edits {
    pub(crate) fn set_header(&mut self, name: &str, value: &[u8]) -> Result<(), String> {
        let edit = Edit::Set(field_name(name)?, field_value(name, value)?);
        self.push(edit, name.len() + value.len())
    }

    pub(crate) fn add_header(&mut self, name: &str, value: &[u8]) -> Result<(), String> {
        let edit = Edit::Add(field_name(name)?, field_value(name, value)?);
        self.push(edit, name.len() + value.len())
    }

    pub(crate) fn remove_header(&mut self, name: &str) -> Result<(), String> {
        let edit = Edit::Remove(field_name(name)?);
        self.push(edit, name.len())
    }

    pub(crate) fn set_path(&mut self, path: Vec<u8>) -> Result<(), String> {
        if path.first() != Some(&b'/') {
            return Err("a path has to begin with `/`".to_owned());
        }
        if path.contains(&b'?') || path.contains(&b'#') {
            return Err("a path may not contain `?` or `#`".to_owned());
        }
        if !path.is_ascii() {
            return Err(format!("the path {NOT_ASCII}"));
        }
        let bytes = path.len();
        let path = Bytes::from(path);
        // What `http` takes here it takes again when the edit is applied.
        PathAndQuery::from_maybe_shared(path.clone())
            .map_err(|_| "the path contains a character that has to be percent-encoded".to_owned())?;
        self.push(Edit::Path(path), bytes)
    }

    pub(crate) fn set_query(&mut self, query: Option<Vec<u8>>) -> Result<(), String> {
        let Some(query) = query else {
            return self.push(Edit::Query(None), 0);
        };
        if query.contains(&b'#') {
            return Err("a query may not contain `#`".to_owned());
        }
        if !query.is_ascii() {
            return Err(format!("the query {NOT_ASCII}"));
        }
        let bytes = query.len();
        PathAndQuery::from_maybe_shared(Bytes::from([b"/?", query.as_slice()].concat()))
            .map_err(|_| "the query contains a character that has to be percent-encoded".to_owned())?;
        self.push(Edit::Query(Some(Bytes::from(query))), bytes)
    }

    pub(crate) fn set_status(&mut self, status: u16) -> Result<(), String> {
        let bodiless = [
            StatusCode::NO_CONTENT,
            StatusCode::RESET_CONTENT,
            StatusCode::NOT_MODIFIED,
        ];
        let status = final_status(status).ok_or_else(|| format!("{status} is no final status: 200 to 599 are"))?;
        if bodiless.contains(&status) {
            return Err(format!("{} has no body", status.as_u16()));
        }
        self.push(Edit::Status(status), 0)
    }

    /// Bytes of all edits together.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes that a head takes with them, about: many short fields take more for themselves than for what stands in them.
    pub(crate) fn held(&self) -> usize {
        self.bytes + self.list.len() * FIELD
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// Forgets all edits.
    pub(crate) fn clear(&mut self) {
        self.list.clear();
        self.bytes = 0;
    }

    /// Applies the edits to a request, in order, and forgets them.
    pub(crate) fn apply_to_request(&mut self, request: &mut request::Parts) {
        self.bytes = 0;
        edit_request(self.list.drain(..).map(Cow::Owned), request);
    }

    /// Applies the edits to a response, in order, and forgets them.
    pub(crate) fn apply_to_response(&mut self, response: &mut response::Parts) {
        self.bytes = 0;
        edit_response(self.list.drain(..).map(Cow::Owned), response);
    }

    fn push(&mut self, edit: Edit, bytes: usize) -> Result<(), String> {
        if self.list.len() >= MAX_CALL_EDITS {
            return Err(format!("more than {MAX_CALL_EDITS} edits in one call"));
        }
        if self.bytes + bytes > MAX_EDIT_BYTES {
            return Err(format!("edits of more than {MAX_EDIT_BYTES} bytes in one call"));
        }
        self.bytes += bytes;
        self.list.push(edit);
        Ok(())
    }
}

impl Made<'_> {
    /// Makes the edits of a request, in order.
    pub(crate) fn apply_to_request(&mut self, request: &mut request::Parts) {
        match self {
            Self::Nothing => {}
            Self::Once(edits) => edits.apply_to_request(request),
            Self::Again(edits) => edit_request(edits.list.iter().map(Cow::Borrowed), request),
        }
    }

    /// Makes the edits of a response, in order.
    pub(crate) fn apply_to_response(&mut self, response: &mut response::Parts) {
        match self {
            Self::Nothing => {}
            Self::Once(edits) => edits.apply_to_response(response),
            Self::Again(edits) => edit_response(edits.list.iter().map(Cow::Borrowed), response),
        }
    }

    /// They are made later.
    pub(crate) fn take(&mut self) -> Edits {
        match self {
            Self::Nothing => Edits::default(),
            Self::Once(edits) => std::mem::take(*edits),
            Self::Again(edits) => edits.clone(),
        }
    }

    /// They are not made.
    pub(crate) fn clear(&mut self) {
        if let Self::Once(edits) = self {
            edits.clear();
        }
    }
}

impl Edit {
    /// Edits header fields. A map that is full (32,768 fields) takes no more; the proxy's own bounds are far below.
    fn apply(edit: Cow<'_, Self>, headers: &mut HeaderMap) {
        // Nothing of its own is needed for that.
        if let Self::Remove(name) = &*edit {
            headers.remove(name);
            return;
        }
        match edit.into_owned() {
            Self::Set(name, value) => {
                let _ = headers.try_insert(name, value);
            }
            Self::Add(name, value) => {
                let _ = headers.try_append(name, value);
            }
            Self::Remove(_) | Self::Path(_) | Self::Query(_) | Self::Status(_) => {}
        }
    }
}

fn edit_request<'a>(edits: impl ExactSizeIterator<Item = Cow<'a, Edit>>, request: &mut request::Parts) {
    let mut path = None;
    let mut query = None;
    let has_twins = edits.len() > 0 && twins::may_be_in(&request.headers);
    for edit in edits {
        if let Edit::Set(name, _) | Edit::Remove(name) = &*edit
            && has_twins
        {
            // What a server would take for the field that is decided here goes, too.
            twins::remove(&mut request.headers, name);
        }
        match &*edit {
            Edit::Path(_) | Edit::Query(_) => match edit.into_owned() {
                Edit::Path(new) => path = Some(new),
                Edit::Query(new) => query = Some(new),
                _ => {}
            },
            Edit::Status(_) => {}
            Edit::Set(..) | Edit::Add(..) | Edit::Remove(_) => Edit::apply(edit, &mut request.headers),
        }
    }
    if path.is_some() || query.is_some() {
        rewrite_target(&mut request.uri, path, query);
    }
}

fn edit_response<'a>(edits: impl Iterator<Item = Cow<'a, Edit>>, response: &mut response::Parts) {
    for edit in edits {
        match &*edit {
            // Both sides speak another protocol from here on, whatever a status says.
            Edit::Status(_) if response.status == StatusCode::SWITCHING_PROTOCOLS => {}
            Edit::Status(status) => {
                response.status = *status;
                // The server's words were about another.
                response.extensions.remove::<ReasonPhrase>();
            }
            _ => Edit::apply(edit, &mut response.headers),
        }
    }
}

/// A component's reply, if it may be sent.
pub(super) fn reply_of(reply: types::Reply, attachment: &Attachment) -> Result<Reply, Untaken> {
    let fields = reply
        .headers
        .iter()
        .map(|field| (field.name.as_str(), field.value.as_slice()));
    let (status, headers) = self::reply(reply.status, fields, &reply.body)?;
    // As those of 204 and 304, which are left out where heads are written. A 205 says there that it has none.
    let body = match status {
        StatusCode::RESET_CONTENT => Vec::new(),
        _ => reply.body,
    };
    let body = attachment.hold(body)?;
    Ok(Reply { status, headers, body })
}

/// The header fields of a call to a backend. It may say whom it asks.
pub(crate) fn call_headers<'a>(
    fields: impl ExactSizeIterator<Item = (&'a str, &'a [u8])>,
) -> Result<HeaderMap, String> {
    if fields.len() > MAX_CALL_EDITS {
        return Err(format!("the call has more than {MAX_CALL_EDITS} header fields"));
    }
    let mut headers = HeaderMap::with_capacity(fields.len());
    let mut bytes = 0;
    for (name, value) in fields {
        bytes += name.len() + value.len();
        if bytes > MAX_EDIT_BYTES {
            return Err(format!("the call's header has more than {MAX_EDIT_BYTES} bytes"));
        }
        let value = field_value(name, value)?;
        if name.eq_ignore_ascii_case("host") {
            if !is_authority(value.as_bytes()) {
                return Err("the call's `host` is none".to_owned());
            }
            headers.insert(http::header::HOST, value);
        } else {
            headers.append(field_name(name)?, value);
        }
    }
    Ok(headers)
}

/// Checks the body of a call to a backend.
pub(crate) fn check_call_body(body: &[u8]) -> Result<(), String> {
    match body.len() > MAX_REPLY_BODY {
        true => Err(format!("the call's body has more than {MAX_REPLY_BODY} bytes")),
        false => Ok(()),
    }
}

/// Checks a reply that a component gave. What there is of it beside its body.
pub(crate) fn reply<'a>(
    status: u16,
    fields: impl ExactSizeIterator<Item = (&'a str, &'a [u8])>,
    body: &[u8],
) -> Result<(StatusCode, HeaderMap), String> {
    let status = final_status(status).ok_or_else(|| format!("the reply's status {status} is not in 200 to 599"))?;
    if fields.len() > MAX_CALL_EDITS {
        return Err(format!("the reply has more than {MAX_CALL_EDITS} header fields"));
    }
    if body.len() > MAX_REPLY_BODY {
        return Err(format!("the reply's body has more than {MAX_REPLY_BODY} bytes"));
    }
    let mut headers = HeaderMap::with_capacity(fields.len());
    let mut bytes = 0;
    for (name, value) in fields {
        bytes += name.len() + value.len();
        if bytes > MAX_EDIT_BYTES {
            return Err(format!("the reply's header has more than {MAX_EDIT_BYTES} bytes"));
        }
        headers.append(field_name(name)?, field_value(name, value)?);
    }
    Ok((status, headers))
}

/// A request target with another path or query: what is not replaced stays.
fn rewrite_target(uri: &mut Uri, path: Option<Bytes>, query: Option<Option<Bytes>>) {
    let old_query = || uri.query().map(|query| Bytes::copy_from_slice(query.as_bytes()));
    let query = query.unwrap_or_else(old_query);
    let path = path.unwrap_or_else(|| Bytes::copy_from_slice(uri.path().as_bytes()));
    let target = match query {
        Some(query) => Bytes::from([&path[..], b"?", &query[..]].concat()),
        None => path,
    };
    // Both halves were checked when they were set, or came in with the request. A target that still does not do (`*` with
    // a query, CONNECT's authority, one beyond 64 KiB) stays as it was.
    let Ok(target) = PathAndQuery::from_maybe_shared(target) else {
        return;
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(target);
    if let Ok(new) = Uri::from_parts(parts) {
        *uri = new;
    }
}

fn field_name(name: &str) -> Result<HeaderName, String> {
    let parsed = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| format!("`{}` is not a header field's name", shown(name)))?;
    if OWN_FIELDS.iter().any(|(own, _)| *own == parsed.as_str()) {
        return Err(format!("`{parsed}` belongs to the connection or the framing"));
    }
    Ok(parsed)
}

fn field_value(name: &str, value: &[u8]) -> Result<HeaderValue, String> {
    if value.trim_ascii().len() != value.len() {
        return Err(format!(
            "the value of `{}` begins or ends with white space",
            shown(name)
        ));
    }
    HeaderValue::from_bytes(value).map_err(|_| format!("the value of `{}` contains a control character", shown(name)))
}

fn final_status(status: u16) -> Option<StatusCode> {
    StatusCode::from_u16(status)
        .ok()
        .filter(|status| (200..600).contains(&status.as_u16()))
}

/// A guest's text in a message: bounded, and on one line.
fn shown(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_debug).collect()
}

/// Servers guess at the encoding of what is not ASCII: clients may not send it either.
const NOT_ASCII: &str = "contains a character that is not ASCII, which has to be percent-encoded";

/// Bytes that a field takes in a head beside its name and value, about.
const FIELD: usize = 128;

/// Bytes of a reply's body: an error page, not a download.
const MAX_REPLY_BODY: usize = 1024 * 1024;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(uri: &str) -> request::Parts {
        let request = http::Request::builder()
            .uri(uri)
            .header("a", "1")
            .header("a", "2")
            .header("b", "3");
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn edits_apply_in_order() {
        let mut edits = Edits::default();
        edits.remove_header("B").unwrap();
        edits.set_header("A", b"new").unwrap();
        edits.add_header("a", b"\xff more").unwrap();
        edits.remove_header("absent").unwrap();
        let mut request = request("/x?y");
        edits.apply_to_request(&mut request);
        let values: Vec<_> = request.headers.get_all("a").iter().map(|v| v.as_bytes()).collect();
        assert_eq!(values, [&b"new"[..], b"\xff more"]);
        assert_eq!(request.headers.len(), 2);
        assert_eq!(request.uri, "/x?y");
    }

    #[test]
    fn edits_that_are_known_are_made_as_often_as_one_likes() {
        let mut edits = Edits::default();
        edits.remove_header("b").unwrap();
        edits.set_header("x-user", b"ada").unwrap();
        edits.add_header("a", b"3").unwrap();
        edits.set_path(b"/z".to_vec()).unwrap();
        edits.set_query(Some(b"q".to_vec())).unwrap();
        edits.set_status(404).unwrap();
        for _ in 0..2 {
            let mut request = request("/x?y");
            request
                .headers
                .insert(HeaderName::from_static("x_user"), HeaderValue::from_static("forged"));
            Made::Again(&edits).apply_to_request(&mut request);
            assert_eq!(request.uri, "/z?q");
            let left: Vec<_> = request
                .headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_bytes()))
                .collect();
            assert_eq!(left, [("a", &b"1"[..]), ("a", b"2"), ("a", b"3"), ("x-user", b"ada")]);
            let (mut response, ()) = http::Response::new(()).into_parts();
            Made::Again(&edits).apply_to_response(&mut response);
            assert_eq!(response.status, StatusCode::NOT_FOUND);
            assert_eq!(response.headers["x-user"], "ada");
        }
        let mut request = request("/x");
        Made::Once(&mut edits).apply_to_request(&mut request);
        assert_eq!((edits.len(), edits.bytes()), (0, 0));
    }

    #[test]
    fn many_short_fields_are_held_for_what_they_take() {
        let mut edits = Edits::default();
        for n in 0..MAX_CALL_EDITS {
            edits.add_header(&format!("a{n}"), b"").unwrap();
        }
        assert!(edits.bytes() < 1024 && edits.held() > 16 << 10, "{}", edits.held());
    }

    #[test]
    fn what_reads_as_an_edited_field_goes_with_it() {
        let mut request = request("/");
        for name in ["x_user", "x-user", "x_role", "x_other"] {
            request
                .headers
                .insert(HeaderName::from_static(name), HeaderValue::from_static("forged"));
        }
        let mut edits = Edits::default();
        edits.set_header("X-User", b"ada").unwrap();
        edits.remove_header("x-role").unwrap();
        edits.apply_to_request(&mut request);
        assert_eq!(request.headers["x-user"], "ada");
        let left = ["x_user", "x_role", "x_other"].map(|name| request.headers.contains_key(name));
        assert_eq!(left, [false, false, true]);
    }

    #[test]
    fn the_target_keeps_what_is_not_replaced() {
        let apply = |uri: &str, path: Option<&str>, query: Option<Option<&str>>| {
            let mut edits = Edits::default();
            if let Some(path) = path {
                edits.set_path(path.into()).unwrap();
            }
            if let Some(query) = query {
                edits.set_query(query.map(Into::into)).unwrap();
            }
            let mut request = request(uri);
            edits.apply_to_request(&mut request);
            request.uri.to_string()
        };
        assert_eq!(apply("/a?b", Some("/c%20d"), None), "/c%20d?b");
        assert_eq!(apply("/a?b", None, Some(Some("c=d"))), "/a?c=d");
        assert_eq!(apply("/a?b", None, Some(None)), "/a");
        assert_eq!(apply("/a", Some("/x"), Some(Some(""))), "/x?");
        assert_eq!(apply("http://h:1/a?b", Some("/c"), None), "http://h:1/c?b");
    }

    #[test]
    fn a_change_of_protocols_keeps_its_status() {
        let apply = |status: u16| {
            let (mut response, ()) = http::Response::new(()).into_parts();
            response.status = StatusCode::from_u16(status).unwrap();
            let mut edits = Edits::default();
            edits.set_status(404).unwrap();
            edits.set_header("x-a", b"b").unwrap();
            edits.apply_to_response(&mut response);
            (response.status.as_u16(), response.headers.contains_key("x-a"))
        };
        assert_eq!(apply(101), (101, true));
        assert_eq!(apply(200), (404, true));
    }

    #[test]
    fn what_belongs_to_the_connection_is_refused() {
        for (name, _) in OWN_FIELDS {
            for name in [name.to_owned(), name.to_uppercase()] {
                let mut edits = Edits::default();
                edits.set_header(&name, b"x").unwrap_err();
                edits.add_header(&name, b"x").unwrap_err();
                edits.remove_header(&name).unwrap_err();
                reply(200, [(name.as_str(), &b"x"[..])].into_iter(), &[]).unwrap_err();
            }
        }
    }

    #[test]
    fn plugins_are_told_of_the_same_fields_when_they_are_configured() {
        assert_eq!(
            OWN_FIELDS.map(|(name, _)| name),
            gateway_plugin_sdk::fields::GATEWAYS_OWN
        );
    }

    #[test]
    fn what_would_break_a_head_is_refused() {
        let mut edits = Edits::default();
        for name in ["", ":path", "a b", "a:", "a\r\nb", "a\0", "\u{e4}"] {
            edits.set_header(name, b"x").unwrap_err();
        }
        for value in [&b"a\r\nb: c"[..], b"a\n", b"\r", b"a\0b", b" a", b"a\t", b"\x7f"] {
            edits.set_header("a", value).unwrap_err();
        }
        for path in [
            &b""[..],
            b"a",
            b"/a b",
            b"/a?b",
            b"/a#b",
            b"/\r\n",
            b"/\0",
            b"http://h/",
            b"/\x7f",
            "/\u{e4}".as_bytes(),
        ] {
            edits.set_path(path.to_vec()).unwrap_err();
        }
        for query in [&b"a b"[..], b"a#b", b"\r\n", b"\0", b"\x7f", "\u{e4}".as_bytes()] {
            edits.set_query(Some(query.to_vec())).unwrap_err();
        }
        for status in [0, 100, 101, 199, 204, 205, 304, 600, 999, 65535] {
            edits.set_status(status).unwrap_err();
        }
        assert!(edits.list.is_empty());
    }

    #[test]
    fn a_call_says_whom_it_asks_by_an_authority() {
        for (host, is_one) in [
            (&b"app.example:8080"[..], true),
            (b"[::1]", true),
            (b"a/b", false),
            (b"a, b", false),
            (b"user@a", false),
        ] {
            let made = call_headers([("Host", host)].into_iter());
            assert_eq!(made.is_ok(), is_one, "{host:?}");
        }
    }

    #[test]
    fn edits_are_bounded_in_number_and_bytes() {
        let mut edits = Edits::default();
        for _ in 0..MAX_CALL_EDITS {
            edits.add_header("a", b"x").unwrap();
        }
        edits.add_header("a", b"x").unwrap_err();
        edits.clear();
        edits.add_header("a", &vec![b'x'; MAX_EDIT_BYTES - 1]).unwrap();
        edits.add_header("a", b"").unwrap_err();
        let fields = vec![("a", &b"x"[..]); MAX_CALL_EDITS + 1];
        reply(200, fields.into_iter(), &[]).unwrap_err();
        reply(200, [].into_iter(), &vec![0; MAX_REPLY_BODY + 1]).unwrap_err();
        reply(204, [].into_iter(), &vec![0; MAX_REPLY_BODY]).unwrap();
    }

    proptest! {
        #[test]
        fn no_edit_panics_or_splits_a_head(
            name in ".{0,20}", value: Vec<u8>, path: Vec<u8>, query: Option<Vec<u8>>, status: u16,
        ) {
            let mut edits = Edits::default();
            let _ = edits.set_header(&name, &value);
            let _ = edits.set_path([b"/", path.as_slice()].concat());
            let _ = edits.set_query(query);
            let _ = edits.set_status(status);
            let mut request = request("/x?y");
            edits.apply_to_request(&mut request);
            for (name, value) in &request.headers {
                prop_assert!(!name.as_str().contains(['\r', '\n', ':', ' ']));
                prop_assert!(!value.as_bytes().iter().any(|b| matches!(b, b'\r' | b'\n' | 0)));
            }
            prop_assert!(!request.uri.to_string().contains(['\r', '\n', ' ', '#']));
        }
    }
}
