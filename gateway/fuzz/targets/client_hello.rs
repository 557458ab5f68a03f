//! The first message of TLS: no bytes panic, and it reads the same however it is cut.

#![no_main]

use gateway_fuzz::client_hello::{Parser, Progress};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let whole = Parser::default().feed(bytes);
    for size in [1, 5, 1000] {
        let mut parser = Parser::default();
        let mut progress = Progress::Incomplete;
        for piece in bytes.chunks(size) {
            progress = parser.feed(piece);
            if progress != Progress::Incomplete {
                break;
            }
        }
        assert_eq!(progress, whole, "in pieces of {size}");
    }
});
