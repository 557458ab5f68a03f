//! TLS of binds, and what may be asked of it.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::*;

#[test]
fn a_bind_says_all_of_its_tls() {
    let config = config(&web_text(
        r#"bind "127.0.0.1:0" {
            tls cert="a.pem" ocsp="a.ocsp" cert-dir="certs" min-version="1.2" max-version="1.2" strict-sni {
                cert "b.pem" key="b.key"
                cert-dir "more"
                client-ca "ca.pem" "other.pem" verify="optional" depth=1
                crl "ca.crl"
                ciphers "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"
                curves "x25519" "P-256"
                session-cache 100
                tickets rotate="1h"
            }
        }"#,
    ));
    let tls = config.frontends[0].binds[1].tls.as_ref().unwrap();
    let places: Vec<_> = tls
        .certificates
        .iter()
        .map(|source| match source {
            CertificateSource::Files(files) => files.cert.value.clone(),
            CertificateSource::Folder(folder) => folder.value.clone(),
        })
        .collect();
    // In the order of the text, with what stands behind `tls` first.
    let expected = ["a.pem", "certs", "b.pem", "more"].map(|name| Path::new("/etc/gateway").join(name));
    assert_eq!(places, expected);
    let clients = tls.clients.as_ref().unwrap();
    assert_eq!((clients.files.len(), clients.crls.len()), (2, 1));
    assert_eq!((clients.required, clients.depth), (false, Some(1)));
    assert!(tls.strict_sni);
    assert_eq!((tls.parameters.ciphers.len(), tls.parameters.curves.len()), (1, 2));
    assert!(!tls.parameters.prefers_client);
    assert_eq!(tls.resumption.cache, 100);
    assert_eq!(tls.resumption.tickets, Some(Duration::from_secs(3600)));

    let config = self::config(&web_text(
        r#"bind "127.0.0.1:0" { tls cert="a.pem" { tickets "off"; client-ca "ca.pem" } }"#,
    ));
    let tls = config.frontends[0].binds[1].tls.as_ref().unwrap();
    assert!(tls.clients.as_ref().unwrap().required && !tls.strict_sni);
    assert_eq!((tls.resumption.cache, tls.resumption.tickets), (20_000, None));
    assert_eq!(tls.ticket_keys, None);
    assert!(tls.parameters.prefers_client, "no order is written");

    let config = self::config(&web_text(
        r#"bind "127.0.0.1:0" {
            tls cert="a.pem" {
                tickets keys="tickets.keys" lifetime="10m"
                ciphers "TLS_AES_128_GCM_SHA256" prefer="client"
            }
        }"#,
    ));
    let tls = config.frontends[0].binds[1].tls.as_ref().unwrap();
    let keys = tls.ticket_keys.as_ref().unwrap();
    assert_eq!(keys.file.value, Path::new("/etc/gateway/tickets.keys"));
    assert_eq!(keys.lifetime, Duration::from_secs(600));
    assert!(tls.parameters.prefers_client);
    assert_eq!(tls.resumption.tickets, None);
}

#[test]
fn browsers_remember_tls_for_whole_years_or_not_at_all() {
    for (node, age) in [
        ("hsts max-age=\"1y\" include-subdomains preload", 365 * 24 * 3600),
        ("hsts max-age=\"30d\" override", 30 * 24 * 3600),
        ("hsts max-age=\"0s\"", 0),
    ] {
        let bind = "bind \"127.0.0.1:0\" { tls cert=\"a.pem\" }";
        let config = config(&web_text(&format!("{bind}; {node}")));
        let hsts = config.frontends[0].hsts.unwrap();
        assert_eq!(hsts.max_age, Duration::from_secs(age));
        assert_eq!(hsts.replaces, node.contains("override"));
        assert_eq!(
            (hsts.include_subdomains, hsts.preload),
            (node.contains("preload"), node.contains("preload"))
        );
    }
}

#[test]
fn what_tls_settles_is_asked_about_by_attribute() {
    let fact = |node: &str| {
        let bind = "bind \"127.0.0.1:0\" { tls cert=\"a.pem\" { client-ca \"ca.pem\" } }";
        let config = config(&web_text(&format!("{bind}; acl \"a\" {{ {node} }}; deny if=\"a\"")));
        match &config.frontends[0].acls[0].test {
            AclTest::Match(test) => serde_json::to_value(test).unwrap()["fact"].clone(),
            AclTest::Plugin { .. } | AclTest::Servers(_) => panic!("not a match"),
        }
    };
    assert_eq!(
        fact("client-cert"),
        json!({"name": "client-cert-fingerprint", "value": null})
    );
    assert_eq!(
        fact("client-cert-subject suffix=\",O=Example\""),
        json!({"name": "client-cert-subject", "value": {"suffix": [",O=Example"]}})
    );
    assert_eq!(
        fact("tls-version \"1.3\""),
        json!({"name": "tls-version", "value": {"exact": ["TLSv1.3"]}})
    );
    let digest = "AB:".repeat(31) + "CD";
    assert_eq!(
        fact(&format!("client-cert-fingerprint \"{digest}\"")),
        json!({"name": "client-cert-fingerprint", "value": {"exact": ["ab".repeat(31) + "cd"]}})
    );
    assert_eq!(
        fact("client-cert-serial \"1FE\""),
        json!({"name": "client-cert-serial", "value": {"exact": ["01fe"]}})
    );
}

#[test]
fn tls_predicates_are_for_frontends_with_tls() {
    let text = web_text(
        "bind \"127.0.0.1:0\" { tls cert=\"a.pem\" }; acl \"a\" { tls; sni \"*.example.net\" }; deny if=\"a\"",
    );
    let config = config(&text);
    let AclTest::Match(test) = &config.frontends[0].acls[0].test else {
        panic!("not a match")
    };
    assert_eq!(
        serde_json::to_value(test).unwrap(),
        json!({"all": ["tls", {"sni": ["*.example.net"]}]})
    );
}
