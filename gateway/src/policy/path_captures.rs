//! What a redirect's regular expression captures of a path. The `header-rewrite` component matches, within the bounds of every call of
//! it: a tenant's expression holds up no worker. It is shown the path as a header's value, and writes what was captured in its place.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Uri};

use super::attachment::Attachment;

/// How the captures of one redirect come by.
#[derive(Debug, Clone)]
pub struct PathCaptures {
    attachment: Arc<Attachment>,
    /// Its number among the expressions of the component.
    number: u32,
    /// How many captures are asked for.
    count: usize,
}

impl PathCaptures {
    /// How many redirects one component is asked about: each has a bit of the exchange's conditions.
    pub const PER_COMPONENT: usize = 64;

    /// Of the redirect with this number among those of a component, which asks for so many captures.
    pub fn new(attachment: Arc<Attachment>, number: u32, count: usize) -> Self {
        Self {
            attachment,
            number,
            count,
        }
    }

    /// The component.
    pub fn attachment(&self) -> &Arc<Attachment> {
        &self.attachment
    }

    /// The exchange's conditions under which it is this redirect that is asked about.
    pub fn condition(&self) -> u64 {
        1u64.checked_shl(self.number).unwrap_or_default()
    }

    /// The head that shows the component a path; none for a path that cannot stand there.
    pub fn question(&self, uri: &Uri) -> Option<HeaderMap> {
        let mut headers = HeaderMap::with_capacity(1);
        let path = HeaderValue::from_bytes(uri.path().as_bytes()).ok()?;
        headers.insert(NAME, path);
        Some(headers)
    }

    /// What was captured, in the order in which it was asked for; none inside when the expression does not match, none at all when what
    /// there is to say may have been too long for a call.
    #[allow(clippy::option_option, reason = "the outer one is an error")]
    pub fn read(&self, told: &HeaderMap, uri: &Uri) -> Option<Option<Vec<Vec<u8>>>> {
        let told = told.get(NAME).map(HeaderValue::as_bytes).unwrap_or_default();
        let captured = between_marks(told, self.count);
        if captured.is_none() && uri.path().len().saturating_mul(self.count + 1) > ROOM - self.count - FIELD.len() {
            return None;
        }
        Some(captured)
    }
}

/// What a match is replaced by: these captures, each behind a mark, and one more mark.
pub fn replacement(captures: &[usize]) -> String {
    let mut text = String::new();
    for capture in captures {
        text.push_str(&format!("{MARK}${{{capture}}}"));
    }
    text.push(MARK);
    text
}

/// What stands between the marks, where there are as many as there should be.
fn between_marks(text: &[u8], count: usize) -> Option<Vec<Vec<u8>>> {
    let mark = u8::try_from(MARK).ok()?;
    let parts: Vec<_> = text.split(|byte| *byte == mark).collect();
    // What the expression has not matched stands before the first and behind the last.
    let [_, captured @ .., _] = &parts[..] else { return None };
    (captured.len() == count).then(|| captured.iter().map(|part| part.to_vec()).collect())
}

/// The field in which the component is shown a path.
pub const FIELD: &str = "captures";
const NAME: HeaderName = HeaderName::from_static(FIELD);

/// No path has it: the parser of URIs takes none.
const MARK: char = '<';

/// Bytes that a component may write into a head in a call, less the two marks that are there whatever is captured.
const ROOM: usize = (16 << 10) - 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captures_stand_between_marks() {
        assert_eq!(replacement(&[2, 1]), "<${2}<${1}<");
        assert_eq!(replacement(&[]), "<");
        let of = |text: &str, count| between_marks(text.as_bytes(), count);
        assert_eq!(of("/x<b<a</y", 2), Some(vec![b"b".to_vec(), b"a".to_vec()]));
        assert_eq!(of("<<", 1), Some(vec![Vec::new()]));
        assert_eq!(of("/x<", 0), Some(Vec::new()));
        assert_eq!(of("/x", 0), None);
        assert_eq!(of("/x<a<", 2), None);
        assert_eq!(of("", 1), None);
    }

    #[test]
    fn no_path_has_the_mark() {
        assert!(Uri::try_from(format!("/a{MARK}b")).is_err());
        assert!(Uri::try_from(format!("http://a.example/{MARK}")).is_err());
    }
}
