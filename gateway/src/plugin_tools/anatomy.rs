//! What the bytes of a component say without being compiled: the contract it was built for, and its memories.

use serde::Serialize;
use wasmparser::{Encoding, Parser, Payload};

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Anatomy {
    /// The version of the contract's interfaces that the component names, as `0.1.0`; none when it names none.
    pub(super) contract: Option<String>,
    /// Memories of all modules in it.
    pub(super) memories: Vec<Memory>,
}

/// A linear memory as its module declares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Memory {
    /// Bytes that an instance begins with.
    pub(super) minimum: u64,
    /// Bytes that it may grow to; none when the module sets no bound and only the gateway's limit holds.
    pub(super) maximum: Option<u64>,
}

/// Looks through a component.
///
/// # Errors
/// When the bytes are no component; the text says what they are.
pub(super) fn look(bytes: &[u8]) -> Result<Anatomy, String> {
    if !bytes.starts_with(b"\0asm") {
        return Err("not WebAssembly".to_owned());
    }
    let mut found = Anatomy::default();
    // Modules and components lie in a component; its own imports and exports are those of the outermost.
    let mut depth = 0u32;
    for payload in Parser::new(0).parse_all(bytes) {
        let broken = |error: wasmparser::BinaryReaderError| format!("not a usable WebAssembly component: {error}");
        match payload.map_err(broken)? {
            Payload::Version { encoding, .. } => {
                if depth == 0 && encoding == Encoding::Module {
                    return Err(
                        "a WebAssembly module, not a component; `gateway plugin build` makes one of it".to_owned(),
                    );
                }
                depth += 1;
            }
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(imports) if depth == 1 => {
                for import in imports {
                    found.name(import.map_err(broken)?.name.name);
                }
            }
            Payload::ComponentExportSection(exports) if depth == 1 => {
                for export in exports {
                    found.name(export.map_err(broken)?.name.name);
                }
            }
            Payload::MemorySection(memories) => {
                for memory in memories {
                    let memory = memory.map_err(broken)?;
                    let page = 1u64
                        .checked_shl(memory.page_size_log2.unwrap_or(16))
                        .unwrap_or(u64::MAX);
                    found.memories.push(Memory {
                        minimum: memory.initial.saturating_mul(page),
                        maximum: memory.maximum.map(|pages| pages.saturating_mul(page)),
                    });
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

impl Anatomy {
    fn name(&mut self, name: &str) {
        if let Some((_, version)) = name
            .strip_prefix("gateway:policy/")
            .and_then(|name| name.split_once('@'))
        {
            self.contract = Some(version.to_owned());
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn memories_of_inner_modules_and_the_contract_of_the_outer_names_are_found() {
        let component = wat::parse_str(
            r#"(component
                (import "gateway:policy/clock@0.7.3" (instance))
                (core module (memory 1 4))
                (component (import "gateway:policy/clock@9.9.9" (instance)) (core module (memory 2))))"#,
        )
        .unwrap();
        let found = look(&component).unwrap();
        assert_eq!(found.contract.as_deref(), Some("0.7.3"));
        let memory = |minimum, maximum| Memory { minimum, maximum };
        assert_eq!(found.memories, [memory(65_536, Some(262_144)), memory(131_072, None)]);
    }

    #[test]
    fn what_is_no_component_is_said() {
        assert_eq!(look(b"hello").unwrap_err(), "not WebAssembly");
        assert!(
            look(&wat::parse_str("(module)").unwrap())
                .unwrap_err()
                .contains("plugin build")
        );
        let component = wat::parse_str("(component (core module (memory 1)))").unwrap();
        assert!(
            look(&component[..component.len() - 2])
                .unwrap_err()
                .contains("not a usable")
        );
    }
}
