//! Files with keys for session tickets, as HAProxy has them: one key a line, in base64.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{TlsError, read};
use crate::crypto::TicketKey;

/// Reads keys: the first makes tickets, and all of them open those that they have made.
pub fn ticket_keys(path: &Path) -> Result<Vec<TicketKey>, TlsError> {
    let unusable = |line: Option<usize>, why: String| TlsError::TicketKeys {
        path: path.to_owned(),
        line,
        why,
    };
    let bytes = read(path, "keys for tickets")?;
    // Whoever has them reads what was said in every session that they open.
    let mode = std::fs::metadata(path).map_or(0, |found| found.permissions().mode()) & 0o777;
    if mode & FORBIDDEN != 0 {
        let why = format!("others than its owner and group may use it (mode {mode:03o})");
        return Err(unusable(None, why));
    }
    let mut keys: Vec<(usize, TicketKey)> = Vec::new();
    for (line, text) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        let text = text.trim_ascii();
        if text.is_empty() || text.starts_with(b"#") {
            continue;
        }
        let fail = |why: String| Err(unusable(Some(line), why));
        let Ok(bytes) = STANDARD.decode(text) else {
            return fail("it is not base64".to_owned());
        };
        let Some(key) = TicketKey::new(&bytes) else {
            return fail(format!("a key has 48 or 80 bytes, this one has {}", bytes.len()));
        };
        if let Some((first, _)) = keys.iter().find(|(_, known)| known.name() == key.name()) {
            return fail(format!("its first 16 bytes, which name it, are those of line {first}"));
        }
        if keys.len() == MAX_KEYS {
            return fail(format!("there are more than {MAX_KEYS} keys"));
        }
        keys.push((line, key));
    }
    match keys.is_empty() {
        true => Err(unusable(None, "there is no key in it".to_owned())),
        false => Ok(keys.into_iter().map(|(_, key)| key).collect()),
    }
}

/// Nobody else reads it, and the group does not write it.
const FORBIDDEN: u32 = 0o027;
/// More than anyone has in use at once: each ticket is looked for among them.
const MAX_KEYS: usize = 16;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn line(first: u8, length: usize) -> String {
        STANDARD.encode(vec![first; length])
    }

    fn said(text: &str, mode: u32) -> Result<Vec<TicketKey>, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        let name = format!("{}: ", file.path().display());
        ticket_keys(file.path()).map_err(|error| error.to_string().replace(&name, ""))
    }

    #[test]
    fn keys_stand_one_a_line_with_their_order() {
        let text = format!("# July\r\n{}\n\n  {}\r\n", line(1, 48), line(2, 80));
        let keys = said(&text, 0o640).unwrap();
        let names: Vec<_> = keys.iter().map(|key| key.name()[0]).collect();
        assert_eq!(names, [1, 2]);
    }

    #[test]
    fn a_file_that_cannot_be_used_says_which_line_it_is() {
        let one = line(1, 48);
        let many: String = (0..17).map(|i| line(i, 48) + "\n").collect();
        for (text, mode, why) in [
            (String::new(), 0o600, "there is no key in it"),
            ("# nothing\n".to_owned(), 0o600, "there is no key in it"),
            (format!("{one}\nnone!\n"), 0o600, "line 2: it is not base64"),
            (line(1, 32), 0o600, "line 1: a key has 48 or 80 bytes, this one has 32"),
            (
                format!("{one}\n\n{one}\n"),
                0o600,
                "line 3: its first 16 bytes, which name it, are those of line 1",
            ),
            (many, 0o600, "line 17: there are more than 16 keys"),
            (
                one.clone(),
                0o644,
                "others than its owner and group may use it (mode 644)",
            ),
            (
                one.clone(),
                0o660,
                "others than its owner and group may use it (mode 660)",
            ),
        ] {
            assert_eq!(
                said(&text, mode).unwrap_err(),
                format!("no usable keys for tickets: {why}")
            );
        }
    }
}
