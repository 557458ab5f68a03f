//! Custom sections of components: found and added without the rest being looked at.
//!
//! A component is a header and sections: a byte that says what it is, its length, and that many bytes. What is nested in it,
//! lies within them. So a walk takes as many steps as there are sections at the top, and holds nothing.

use crate::config::schema;

/// The section that has the schema of a plugin's configuration, as text.
pub const CONFIG_SCHEMA: &str = "gateway:config-schema";

/// The text of a component's schema; none when it has none. Bytes that are no component have none: what is wrong with them is
/// told by who compiles them.
///
/// # Errors
/// There are two, or it is too long or no text; this says which.
pub fn config_schema(component: &[u8]) -> Result<Option<&str>, String> {
    let mut found = sections(component).filter(|(name, _)| *name == CONFIG_SCHEMA.as_bytes());
    let Some((_, content)) = found.next() else {
        return Ok(None);
    };
    if found.next().is_some() {
        return Err(format!("there are several sections `{CONFIG_SCHEMA}`"));
    }
    if content.len() > schema::MAX_BYTES {
        return Err(format!("it has more than {} bytes", schema::MAX_BYTES));
    }
    let text = std::str::from_utf8(content).map_err(|_| "it is not UTF-8".to_owned())?;
    Ok(Some(text))
}

/// Adds the text of a schema at the end of a component.
pub fn add_config_schema(component: &mut Vec<u8>, text: &str) {
    let mut content = Vec::with_capacity(text.len() + CONFIG_SCHEMA.len() + 1);
    write_length(&mut content, CONFIG_SCHEMA.len());
    content.extend_from_slice(CONFIG_SCHEMA.as_bytes());
    content.extend_from_slice(text.as_bytes());
    component.push(CUSTOM);
    write_length(component, content.len());
    component.extend_from_slice(&content);
}

/// Names and contents of the custom sections at the top, up to where the bytes are no component any more.
fn sections(component: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = component.strip_prefix(HEADER).unwrap_or_default();
    std::iter::from_fn(move || {
        loop {
            let (&id, behind) = rest.split_first()?;
            let (length, behind) = read_length(behind)?;
            let (content, behind) = behind.split_at_checked(length)?;
            rest = behind;
            if id == CUSTOM {
                let (length, content) = read_length(content)?;
                return content.split_at_checked(length);
            }
        }
    })
}

/// A number of at most 32 bits, seven to a byte, the lowest first (LEB128).
fn read_length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut number = 0u64;
    for (position, byte) in bytes.iter().take(5).enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * position);
        if byte & 0x80 == 0 {
            let number = usize::try_from(u32::try_from(number).ok()?).ok()?;
            return Some((number, bytes.get(position + 1..)?));
        }
    }
    None
}

fn write_length(bytes: &mut Vec<u8>, mut length: usize) {
    loop {
        // Seven bits fit a byte.
        let byte = u8::try_from(length & 0x7f).unwrap_or_default();
        length >>= 7;
        if length == 0 {
            return bytes.push(byte);
        }
        bytes.push(byte | 0x80);
    }
}

/// What a component begins with: the magic number, and the version and layer that tell it from a module.
const HEADER: &[u8] = b"\0asm\x0d\0\x01\0";

/// What a custom section begins with.
const CUSTOM: u8 = 0;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::policy::first_party::ACL;

    #[test]
    fn what_was_added_is_found_and_the_component_is_as_good_as_before() {
        for length in [0, 1, 105, 106, 107, 127, 128, 16_361, 16_362, 16_384, schema::MAX_BYTES] {
            let mut component = ACL.wasm.to_vec();
            assert_eq!(config_schema(&component), Ok(None));
            let text = "x".repeat(length);
            add_config_schema(&mut component, &text);
            assert_eq!(config_schema(&component), Ok(Some(&*text)), "{length}");
            wasmparser::Validator::new().validate_all(&component).unwrap();
        }
    }

    #[test]
    fn a_schema_that_cannot_be_one_is_an_error() {
        let mut component = ACL.wasm.to_vec();
        add_config_schema(&mut component, &"x".repeat(schema::MAX_BYTES + 1));
        assert!(config_schema(&component).unwrap_err().contains("more than 65536 bytes"));
        let mut component = ACL.wasm.to_vec();
        add_config_schema(&mut component, "a");
        add_config_schema(&mut component, "a");
        assert!(config_schema(&component).unwrap_err().contains("several"));
        let mut component = ACL.wasm.to_vec();
        add_config_schema(&mut component, "a");
        *component.last_mut().unwrap() = 0xff;
        assert!(config_schema(&component).unwrap_err().contains("UTF-8"));
    }

    #[test]
    fn sections_of_what_lies_in_a_component_are_not_its_own() {
        let inner = wat::parse_str("(component)").unwrap();
        let mut inner_with = inner.clone();
        add_config_schema(&mut inner_with, "inner");
        let mut component = inner;
        component.push(4);
        write_length(&mut component, inner_with.len());
        component.extend_from_slice(&inner_with);
        wasmparser::Validator::new().validate_all(&component).unwrap();
        assert_eq!(config_schema(&component), Ok(None));
        add_config_schema(&mut component, "outer");
        assert_eq!(config_schema(&component), Ok(Some("outer")));
    }

    #[test]
    fn bytes_that_are_no_component_have_none_wherever_they_end() {
        let mut component = wat::parse_str("(component (core module (memory 1)))").unwrap();
        add_config_schema(&mut component, "setting \"a\" \"text\"");
        for end in 0..component.len() {
            assert_eq!(config_schema(&component[..end]), Ok(None), "{end}");
        }
        for bytes in [
            &b"hello"[..],
            b"\0asm\x01\0\0\0",
            b"\0asm\x0d\0\x01\0\0\xff\xff\xff\xff\xff\x01",
        ] {
            assert_eq!(config_schema(bytes), Ok(None));
        }
    }
}
