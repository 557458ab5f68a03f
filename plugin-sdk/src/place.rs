//! Where in a configuration its reader has come to a stop. What it is read from is JSON that the gateway has written, of which the
//! operator sees nothing: a line and a column of that would send them nowhere, a JSON Pointer leads the gateway to their own file.

/// The JSON Pointer (RFC 6901) of what a reader has read last, when `read` bytes of this JSON are behind it; none where that is the whole.
pub(crate) fn pointer(json: &str, read: usize) -> Option<String> {
    let bytes = json.as_bytes().get(..read).unwrap_or(json.as_bytes());
    let mut inside = Vec::new();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'{' => inside.push(Inside::Object {
                key: None,
                is_named: false,
            }),
            b'[' => inside.push(Inside::List(0)),
            b'}' | b']' => {
                inside.pop();
            }
            b',' => match inside.last_mut() {
                Some(Inside::List(index)) => *index += 1,
                Some(Inside::Object { key, is_named }) => (*key, *is_named) = (None, false),
                None => {}
            },
            b':' => {
                if let Some(Inside::Object { is_named, .. }) = inside.last_mut() {
                    *is_named = true;
                }
            }
            b'"' => {
                let end = end_of_text(bytes, at);
                if let Some(Inside::Object { key, is_named: false }) = inside.last_mut() {
                    *key = json.get(at..end);
                }
                at = end;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    let mut pointer = String::new();
    for step in inside {
        match step {
            Inside::List(index) => pointer.push_str(&format!("/{index}")),
            Inside::Object { key: Some(key), .. } => {
                let key: String = serde_json::from_str(key).ok()?;
                pointer.push('/');
                pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
            }
            Inside::Object { key: None, .. } => {}
        }
    }
    (!pointer.is_empty()).then_some(pointer)
}

/// What a place is in.
enum Inside<'a> {
    Object {
        /// The name that was read last, as it stands in the text.
        key: Option<&'a str>,
        /// Whether its value has begun.
        is_named: bool,
    },
    /// Which of its values.
    List(usize),
}

/// Behind the text that begins here.
fn end_of_text(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::pointer;

    #[test]
    fn what_was_read_last_is_pointed_at() {
        let json = r#"{"a":[1,{"b/c":"x,\"}","d":2}],"e~":"f","g":{}}"#;
        for (behind, expected) in [
            ("{", None),
            (r#"{"a""#, Some("/a")),
            ("[1", Some("/a/0")),
            ("[1,", Some("/a/1")),
            (r#""x,\"}""#, Some("/a/1/b~1c")),
            (r#""d":2"#, Some("/a/1/d")),
            ("2}", Some("/a/1")),
            ("}]", Some("/a")),
            (r#"],"#, None),
            (r#""f""#, Some("/e~0")),
            ("{}", Some("/g")),
            ("{}}", None),
        ] {
            let read = json.find(behind).map(|at| at + behind.len());
            assert_eq!(
                read.and_then(|read| pointer(json, read)).as_deref(),
                expected,
                "{behind}"
            );
        }
        assert_eq!(pointer(json, usize::MAX), None);
        assert_eq!(pointer("", 7), None);
        assert_eq!(pointer(r#"{"a\"#, 9), None);
    }
}
