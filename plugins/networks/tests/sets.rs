//! What a set of networks has.

use std::net::IpAddr;

use gateway_plugin_networks::Networks;
use proptest::prelude::*;

fn has(networks: &Networks, address: &str) -> bool {
    match address.parse().expect("an address") {
        IpAddr::V4(address) => networks.contain(&address.octets()),
        IpAddr::V6(address) => networks.contain(&address.octets()),
    }
}

#[test]
fn networks_have_their_addresses() {
    let networks = [
        "10.1.2.3/8",
        "192.0.2.7",
        "2001:db8::/32",
        "fe80::1",
        "::ffff:198.51.100.0/120",
    ];
    let networks = Networks::new(networks).expect("networks");
    for (address, expected) in [
        ("10.0.0.0", true),
        ("10.255.255.255", true),
        ("9.255.255.255", false),
        ("11.0.0.0", false),
        ("192.0.2.7", true),
        ("192.0.2.8", false),
        ("2001:db8:ffff::1", true),
        ("2001:db9::", false),
        ("fe80::1", true),
        ("fe80::2", false),
        ("198.51.100.9", true),
        ("::ffff:198.51.100.9", true),
        ("::ffff:10.9.9.9", true),
        ("198.51.101.0", false),
        ("::", false),
    ] {
        assert_eq!(has(&networks, address), expected, "{address}");
    }
    assert!(!networks.contain(&[]) && !networks.contain(&[10, 0, 0]) && !networks.contain(&[10; 17]));
}

#[test]
fn everything_is_a_network_too() {
    let networks = Networks::new(["0.0.0.0/0", "::/0"]).expect("networks");
    for address in [
        "0.0.0.0",
        "255.255.255.255",
        "::",
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    ] {
        assert!(has(&networks, address), "{address}");
    }
}

#[test]
fn what_is_no_network_is_pointed_at() {
    for text in [
        "",
        "10.0.0.0/33",
        "::/129",
        "10.0.0/8",
        "10.0.0.0/",
        "10.0.0.0/-1",
        "example.org",
        "10.0.0.0/8/8",
    ] {
        assert_eq!(Networks::new(["10.0.0.0/8", text]), Err(1), "{text}");
    }
}

proptest! {
    /// A set answers as asking each of its networks would.
    #[test]
    fn a_set_is_all_of_its_networks(
        networks in prop::collection::vec((any::<u8>(), any::<u8>(), 0_u32..=32), 0..40),
        address in any::<[u8; 2]>(),
    ) {
        // Few enough bits that they overlap, contain and touch each other.
        let texts: Vec<String> = networks.iter().map(|(a, b, prefix)| format!("{a}.{b}.0.0/{prefix}")).collect();
        let set = Networks::new(texts.iter().map(String::as_str)).expect("networks");
        let address = u32::from_be_bytes([address[0], address[1], 0, 0]);
        let expected = networks.iter().any(|(a, b, prefix)| {
            let network = u32::from_be_bytes([*a, *b, 0, 0]);
            (network ^ address).checked_shr(32 - prefix).unwrap_or(0) == 0
        });
        prop_assert_eq!(set.contain(&address.to_be_bytes()), expected);
    }
}
