//! Each attribute of the contract, found where it is and nowhere else.

use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::*;
use crate::policy::needs::NeedPhase;
use crate::policy::{ClientHello, Ends, Preamble, TlsFacts};

fn exchange(request: http::request::Builder, response: Option<http::response::Builder>) -> Exchange {
    Exchange {
        conditions: 0b10,
        request_id: Some(http::HeaderValue::from_static("0193a1b2")),
        trace: Some(([0xab; 16], [0x0c; 8])),
        server: Some("app-1".into()),
        kept: Default::default(),
        held: Vec::new(),
        lot: Default::default(),
        kept_by_connection: None,
        counted: Default::default(),
        tags: None,
        replied: None,
        is_told_of: false,
        is_headless: false,
        over: None,
        #[cfg(debug_assertions)]
        phase: crate::policy::AskingPhase::Acl,
        request: request.body(()).unwrap().into_parts().0,
        response: response.map(|r| r.body(()).unwrap().into_parts().0),
        connection: Arc::new(ConnectionFacts {
            accepted: tokio::time::Instant::now(),
            ends: Ends::new(
                "[::ffff:192.0.2.7]:4711".parse().unwrap(),
                "[2001:db8::1]:443".parse().unwrap(),
            ),
            tls: Some(Box::new(TlsFacts {
                version: "TLSv1.3",
                cipher: "TLS_AES_256_GCM_SHA384",
                sni: Some("www.example.net".to_owned()),
                alpn: Some(b"h2".to_vec()),
                client_certificate: None,
            })),
            preamble: None,
        }),
    }
}

fn facts(needs: &[&str], phase: NeedPhase, exchange: &Exchange) -> Vec<(u32, Vec<u8>)> {
    let needs: Vec<_> = needs.iter().map(|n| Attribute::parse(n, phase).unwrap()).collect();
    let mut facts = Facts::default();
    // Twice, as the buffer is used again.
    facts.of_exchange(&needs, exchange);
    facts.of_exchange(&needs, exchange);
    facts.iter().map(|(need, value)| (need, value.to_vec())).collect()
}

#[test]
fn every_attribute_of_the_contract_is_found() {
    let request = http::Request::builder()
        .method("PATCH")
        .uri("/a%20b?x=1&y=%41+b&x=2&z")
        .header("host", "WWW.Example.NET.:8443")
        .header("cookie", "a=1; beta=yes; ab=3")
        .header("cookie", "beta=no=1")
        .header("x-id", &b"\xff\xfe"[..])
        .header("X-Id", "second");
    let response = http::Response::builder().status(404).header("server", "nginx");
    let exchange = exchange(request, Some(response));
    let needs = [
        "method",
        "scheme",
        "authority",
        "host",
        "path",
        "query",
        "header:X-Id",
        "cookie:beta",
        "query-param:x",
        "query-param:y",
        "query-param:z",
        "query-param:none",
        "client-ip",
        "client-port",
        "local-ip",
        "local-port",
        "tls-version",
        "sni",
        "alpn",
        "status",
        "response-header:Server",
        "header:absent",
        "tls-cipher",
        "request-id",
    ];
    let local: [u8; 16] = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let expected: Vec<(u32, &[u8])> = vec![
        (0, b"PATCH"),
        (1, b"https"),
        (2, b"WWW.Example.NET.:8443"),
        (3, b"www.example.net"),
        (4, b"/a%20b"),
        (5, b"x=1&y=%41+b&x=2&z"),
        (6, b"\xff\xfe"),
        (6, b"second"),
        (7, b"yes"),
        (7, b"no=1"),
        (8, b"1"),
        (8, b"2"),
        (9, b"A+b"),
        (10, b""),
        (12, &[192, 0, 2, 7]),
        (13, b"4711"),
        (14, &local),
        (15, b"443"),
        (16, b"TLSv1.3"),
        (17, b"www.example.net"),
        (18, b"h2"),
        (19, b"404"),
        (20, b"nginx"),
        (22, b"TLS_AES_256_GCM_SHA384"),
        (23, b"0193a1b2"),
    ];
    let found = facts(&needs, NeedPhase::Response, &exchange);
    let found: Vec<_> = found.iter().map(|(need, value)| (*need, value.as_slice())).collect();
    assert_eq!(found, expected);
}

#[test]
fn what_the_clients_certificate_says_is_found() {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let named = |names: &[&str], parts: &[(rcgen::DnType, &str)]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in parts {
            params.distinguished_name.push(kind.clone(), *value);
        }
        params
    };
    use rcgen::DnType::{CommonName, CountryName, OrganizationName};
    let issuer = rcgen::Issuer::new(named(&[], &[(CommonName, "An Authority")]), ca_key);
    let subject = [
        (CountryName, "DE"),
        (OrganizationName, "A, B"),
        (CommonName, "client.example"),
    ];
    let mut params = named(&["Client.example", "192.0.2.7"], &subject);
    let at = |seconds| ::time::OffsetDateTime::from_unix_timestamp(seconds).unwrap();
    params.not_before = at(1_767_323_045);
    params.not_after = at(2_524_607_999);
    params.serial_number = Some(vec![0xfe, 1].into());
    let uri = "spiffe://example/a".to_owned().try_into().unwrap();
    params.subject_alt_names.push(rcgen::SanType::URI(uri));
    let certificate = params.signed_by(&rcgen::KeyPair::generate().unwrap(), &issuer).unwrap();
    let der = certificate.der().to_vec();

    let mut exchange = exchange(http::Request::builder().uri("/"), None);
    let connection = Arc::get_mut(&mut exchange.connection).unwrap();
    let tls = connection.tls.as_mut().unwrap();
    tls.client_certificate = Some(crate::policy::ClientCertificate::new(der.clone()));
    let needs = [
        "client-cert-subject",
        "client-cert-cn",
        "client-cert-issuer",
        "client-cert-serial",
        "client-cert-san",
        "client-cert-not-before",
        "client-cert-not-after",
        "client-cert-verify",
    ];
    let expected: Vec<(u32, &[u8])> = vec![
        (0, b"CN=client.example,O=A\\, B,C=DE"),
        (1, b"client.example"),
        (2, b"CN=An Authority"),
        (3, b"fe01"),
        (4, b"DNS:client.example"),
        (4, b"IP:192.0.2.7"),
        (4, b"URI:spiffe://example/a"),
        (5, b"2026-01-02T03:04:05Z"),
        (6, b"2049-12-31T23:59:59Z"),
        (7, b"SUCCESS"),
    ];
    let found = facts(&needs, NeedPhase::Connection, &exchange);
    let found: Vec<_> = found.iter().map(|(need, value)| (*need, value.as_slice())).collect();
    assert_eq!(found, expected);
    let encoded = facts(&["client-cert-der"], NeedPhase::Request, &exchange).remove(0).1;
    assert_eq!(
        base64::Engine::decode(&base64::prelude::BASE64_STANDARD, encoded).unwrap(),
        der
    );
    let fingerprint = facts(&["client-cert-fingerprint"], NeedPhase::Request, &exchange)
        .remove(0)
        .1;
    let digest: String = <sha2::Sha256 as sha2::Digest>::digest(&der)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(String::from_utf8(fingerprint).unwrap(), digest);
}

#[test]
fn what_a_hello_that_passes_through_says_is_found() {
    let mut exchange = exchange(http::Request::builder().uri("/"), None);
    let connection = Arc::get_mut(&mut exchange.connection).unwrap();
    connection.tls = None;
    connection.preamble = Some(Box::new(Preamble {
        hello: Some(ClientHello {
            sni: Some("a.example".to_owned()),
            alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        }),
        ..Preamble::default()
    }));
    let expected = [
        (0, b"a.example".to_vec()),
        (1, b"h2".to_vec()),
        (1, b"http/1.1".to_vec()),
    ];
    let needs = ["sni", "alpn", "tls-version", "scheme"];
    assert_eq!(facts(&needs[..3], NeedPhase::Request, &exchange), expected);
    assert_eq!(facts(&needs, NeedPhase::Request, &exchange)[3].1, b"http");
}

#[test]
fn the_time_is_that_of_its_zone() {
    let zone = TimeZone::get("Europe/Berlin").unwrap();
    let mut found = Facts::default();
    for (utc, local) in [
        ("2026-01-01T00:00:00Z", "4 2026-01-01T01:00:00+01:00"),
        ("2026-07-05T22:30:00Z", "1 2026-07-06T00:30:00+02:00"),
        // The hour that comes twice.
        ("2026-10-25T00:30:00Z", "7 2026-10-25T02:30:00+02:00"),
        ("2026-10-25T01:30:00Z", "7 2026-10-25T02:30:00+01:00"),
    ] {
        found.clear();
        found.push_time(7, &utc.parse::<Timestamp>().unwrap().to_zoned(zone.clone()));
        assert_eq!(found.iter().collect::<Vec<_>>(), [(7, local.as_bytes())]);
    }
    let exchange = exchange(http::Request::builder().uri("/"), None);
    let now = facts(&["local-time:UTC"], NeedPhase::Connection, &exchange).remove(0).1;
    let now: Timestamp = std::str::from_utf8(&now[2..]).unwrap().parse().unwrap();
    assert!(Timestamp::now().duration_since(now).as_secs() < 5);
    for name in ["local-time:Europe/Atlantis", "local-time:", "local-time"] {
        assert!(Attribute::parse(name, NeedPhase::Request).is_err(), "{name}");
    }
}

#[test]
fn what_is_beyond_what_is_handed_over_is_not_looked_for() {
    let value = "v".repeat(16 << 10);
    let query = "x&".repeat(4 << 10);
    let request = http::Request::builder()
        .uri(format!("/?{query}"))
        .header("x-id", &value);
    let exchange = exchange(request, None);
    for (need, most) in [("header:x-id", 65), ("query-param:x", 22 * 4097)] {
        let found = facts(&[need; 256], NeedPhase::Request, &exchange);
        assert!(found.len() > 60 && found.len() <= most, "{need}: {}", found.len());
    }
}

#[test]
fn what_is_absent_is_no_fact() {
    let mut exchange = exchange(http::Request::builder().uri("/"), None);
    Arc::get_mut(&mut exchange.connection).unwrap().tls = None;
    let needs = [
        "query",
        "cookie:a",
        "query-param:a",
        "sni",
        "alpn",
        "tls-version",
        "status",
        "header:x",
    ];
    assert_eq!(facts(&needs, NeedPhase::Response, &exchange), []);
}

#[test]
fn the_host_of_an_authority() {
    for (authority, expected) in [
        ("example.net", "example.net"),
        ("example.net:80", "example.net"),
        ("example.net.", "example.net"),
        ("[::1]:80", "[::1]"),
        ("[::1]", "[::1]"),
        ("user@example.net:1", "example.net"),
        ("", ""),
        (":80", ""),
    ] {
        assert_eq!(host(authority.as_bytes()), expected.as_bytes(), "{authority}");
    }
}

proptest! {
    /// By what stands before the first `=` of each pair.
    #[test]
    fn a_cookie_is_found_by_all_of_its_name(field in "[ab=; \t]{0,16}", name in "[ab= ]{0,3}") {
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, field.parse().unwrap());
        let mut found = Vec::new();
        cookies(&headers, name.as_bytes(), |value| found.push(value.to_vec()));
        let pairs = field.split(';').filter_map(|pair| pair.split_once('='));
        let expected = pairs.filter(|(said, _)| said.trim() == name);
        let expected: Vec<_> = expected.map(|(_, value)| value.trim().as_bytes().to_vec()).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn any_authority_has_a_host(text: Vec<u8>) {
        prop_assert!(host(&text).len() <= text.len());
    }
}
