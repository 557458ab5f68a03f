//! The parts of the gateway that are fuzzed, without what they do not need: no runtime, no component host.

#![allow(dead_code, reason = "parts of the gateway that others of its parts use")]

#[path = "../../src/address.rs"]
pub mod address;
#[path = "../../src/authority.rs"]
pub mod authority;
#[path = "../../src/listener/client_hello.rs"]
pub mod client_hello;
#[path = "../../src/config/mod.rs"]
pub mod config;
#[path = "../../src/crypto/mod.rs"]
pub mod crypto;
#[path = "../../src/hidden.rs"]
pub mod hidden;
#[path = "../../src/proxy_protocol/mod.rs"]
pub mod proxy_protocol;
#[path = "../../src/regular_file.rs"]
pub mod regular_file;
#[path = "../../src/signatures/mod.rs"]
pub mod signatures;

#[path = "../../src/policy/client_hello.rs"]
mod said;

/// What the other parts want of the component host.
mod policy {
    pub use super::said::ClientHello;
}

/// Responses of HTTP/1 servers.
#[path = "../../src/backend/http1"]
pub mod response {
    mod chunked;
    mod framing;
    mod head;
    mod names;

    use bytes::Bytes;

    use crate::config::ResponseLimits;

    /// What a response reads as: its status, its content as far as it is in chunks, and how much is left behind it. None when it
    /// is not whole or none.
    pub fn read(bytes: &[u8], size: usize) -> Option<(u16, Vec<u8>, usize)> {
        let limits = ResponseLimits::DEFAULT;
        let bytes = Bytes::copy_from_slice(bytes);
        let mut parsed = head::parse(&bytes, &limits).ok()??;
        let (extent, _) = framing::decide(&mut parsed.response, parsed.seen, false).ok()?;
        let status = parsed.response.status.as_u16();
        let rest = bytes.slice(parsed.length..);
        if extent != framing::Extent::Chunked {
            return Some((status, Vec::new(), rest.len()));
        }
        let mut chunked = chunked::Chunked::new(&limits);
        let (mut content, mut taken) = (Vec::new(), 0);
        for piece in rest.chunks(size) {
            let mut piece = rest.slice_ref(piece);
            taken += piece.len();
            loop {
                match chunked.decode(&mut piece).ok()? {
                    chunked::Chunk::Data(data) => content.extend_from_slice(&data),
                    chunked::Chunk::End(_) => return Some((status, content, rest.len() - taken + piece.len())),
                    chunked::Chunk::More => break,
                }
            }
        }
        None
    }
}
