//! PROXY headers: no bytes panic, cut ones are asked for more, and what is read reads the same when it is written again.

#![no_main]

use gateway_fuzz::proxy_protocol::{Addresses, Format, Header, MAX_HEADER, Parsed, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match parse(bytes) {
        Ok(Parsed::Complete { header, length }) => {
            assert!(length <= bytes.len() && length <= MAX_HEADER);
            comes_in_pieces(&bytes[..length]);
            for checksum in [false, true] {
                assert_eq!(again(&header, Format::V2 { checksum }), header);
            }
            let line = match &header {
                Header::Proxied(proxied) if !matches!(proxied.addresses, Addresses::Unix { .. }) => {
                    Header::proxied(proxied.addresses.clone(), Vec::new())
                }
                _ => Header::Unknown,
            };
            assert_eq!(again(&header, Format::V1), line);
        }
        Ok(Parsed::Incomplete { need }) => assert!(need > bytes.len() && need <= MAX_HEADER),
        Err(_) => {}
    }
});

/// Every beginning of a header waits for the rest.
fn comes_in_pieces(header: &[u8]) {
    for cut in [0, 1, header.len() / 2, header.len() - 1] {
        match parse(&header[..cut]) {
            Ok(Parsed::Incomplete { need }) => assert!(need > cut && need <= header.len()),
            other => unreachable!("{cut} of {}: {other:?}", header.len()),
        }
    }
}

/// Written and read.
fn again(header: &Header, format: Format) -> Header {
    let bytes = header.encode(format);
    match parse(&bytes) {
        Ok(Parsed::Complete { header, length }) if length == bytes.len() => header,
        other => unreachable!("{header:?} as {format:?}: {other:?}"),
    }
}
