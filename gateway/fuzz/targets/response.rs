//! A response of an HTTP/1 server: no bytes panic, it reads the same however it is cut, and no more comes out than went in.

#![no_main]

use gateway_fuzz::response::read;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let whole = read(bytes, bytes.len().max(1));
    if let Some((_, content, left)) = &whole {
        assert!(content.len() + left < bytes.len());
    }
    for size in [1, 7] {
        assert_eq!(read(bytes, size), whole, "in pieces of {size}");
    }
});
