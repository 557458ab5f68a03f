//! TLS with clients and with servers.

use super::*;

#[test]
fn tls_is_carried_over() {
    let converted = converted(
        "frontend web
    mode http
    bind *:443 ssl crt /etc/ssl/a.pem crt /etc/ssl/b.pem crt /etc/ssl/sites/ strict-sni ca-file ca.pem verify optional crl-file ca.crl no-tls-tickets ssl-min-ver TLSv1.2 no-sslv3
    bind *:8443 ssl crt a.pem ssl-min-ver TLSv1.0 ssl-max-ver TLSv1.2 ciphers ECDHE-RSA-AES128-GCM-SHA256:AES128-SHA curves X25519:P-256
    bind *:9443 ssl crt a.pem ca-file ca.pem force-tlsv13 ciphersuites TLS_AES_128_GCM_SHA256 tls-ticket-keys /etc/keys
    acl known ssl_c_s_dn(CN) client.example
    acl new ssl_fc_protocol TLSv1.3
    acl shown ssl_c_used
    http-request deny if known new shown
    default_backend app
backend app
    mode http
    server a 10.0.0.1:443 ssl ca-file ca.pem crl-file ca.crl ssl-min-ver TLSv1.3
    server b 10.0.0.2:443 ssl verify none crl-file ca.crl
",
    );
    for part in [
        "tls cert=\"/etc/ssl/a.pem\" strict-sni {\n            cert \"/etc/ssl/b.pem\"\n            cert-dir \"/etc/ssl/sites/\"",
        "client-ca \"ca.pem\" verify=\"optional\"\n            crl \"ca.crl\"\n            tickets \"off\"",
        "tls cert=\"a.pem\" max-version=\"1.2\" {\n            ciphers \"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256\"\n            \
         curves \"x25519\" \"secp256r1\"",
        "tls cert=\"a.pem\" min-version=\"1.3\" {\n            ciphers \"TLS_AES_128_GCM_SHA256\"",
        "tickets keys=\"/etc/keys\"",
        "client-cert-cn \"client.example\"",
        "tls-version \"1.3\"",
        "client-cert\n",
        "tls ca=\"ca.pem\" min-version=\"1.3\" {\n            crl \"ca.crl\"",
    ] {
        assert!(converted.text.contains(part), "{part} in\n{}", converted.text);
    }
    found(&converted, 4, "TLS 1.2 is the oldest");
    found(&converted, 4, "`AES128-SHA` of `ciphers`");
    found(&converted, 5, "with `verify` only");
    found(&converted, 5, "put that first");
    found(&converted, 14, "nobody is verified");
    found(&converted, 13, "the certificate has to be for the server's address");
    assert_eq!(converted.findings.len(), 6, "{:?}", converted.findings);
    assert!(converted.is_valid);
}

#[test]
fn names_of_client_certificates_are_compared_as_a_whole_in_the_form_of_rfc_2253_alone() {
    let converted = converted(
        "frontend web
    mode http
    bind *:443 ssl crt a.pem ca-file ca.pem verify required
    acl ours ssl_c_s_dn(,0,rfc2253) CN=client.example,O=Example
    acl theirs ssl_c_i_dn(,0,rfc2253) -m end ,O=Example
    acl listed ssl_c_s_dn(,0,rfc2253) -f names.lst
    acl other ssl_c_s_dn(,0,rfc2253),upper CN=CLIENT.EXAMPLE
    acl none hdr(,0,rfc2253) x
    http-request deny unless ours
    http-request deny if theirs
    http-request deny if listed
    http-request deny if other
    http-request deny if none
    default_backend app
backend app
    mode http
    server a 10.0.0.1:80
",
    );
    for part in [
        "client-cert-subject \"CN=client.example,O=Example\"",
        "client-cert-issuer suffix=\",O=Example\"",
        "client-cert-subject file=\"names.lst\"",
    ] {
        assert!(converted.text.contains(part), "{part} in\n{}", converted.text);
    }
    found(&converted, 7, "no counterpart of `upper`");
    found(&converted, 8, "converters and further arguments");
}

#[test]
fn what_global_says_of_tls_is_said_where_it_holds() {
    let converted = converted(
        "global
    log /dev/log local0
    log /dev/log local1 notice
    crt-base /etc/ssl/private
    ca-base /etc/ssl/certs/
    ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256
    ssl-default-bind-options ssl-min-ver TLSv1.3 no-tls-tickets prefer-client-ciphers
    ssl-default-server-ciphersuites TLS_AES_256_GCM_SHA384
defaults
    mode http
frontend web
    bind *:443 ssl crt site.pem ca-file clients.pem verify required
    bind *:8443 ssl crt /own/site.pem ssl-min-ver TLSv1.2
    log 10.0.0.9:514 local4
    default_backend app
backend app
    retry-on 0rtt-rejected
    server a 10.0.0.1:8443 ssl ca-file up.pem
    server b 10.0.0.2:8443 ssl ca-file @system-ca
",
    );
    assert!(converted.is_valid, "{converted:#?}");
    for said in [
        r#"tls cert="/etc/ssl/private/site.pem" min-version="1.3""#,
        r#"client-ca "/etc/ssl/certs/clients.pem""#,
        r#"tls cert="/own/site.pem" {"#,
        r#"ciphers "TLS_AES_128_GCM_SHA256" prefer="client""#,
        r#"tickets "off""#,
        r#"ca="/etc/ssl/certs/up.pem""#,
        r#"ciphers "TLS_AES_256_GCM_SHA384""#,
        r#"retry-on "none""#,
        "// not converted: a further log has a name",
        "// not converted: declare it with a name",
    ] {
        assert!(converted.text.contains(said), "{said} in\n{}", converted.text);
    }
    assert!(!converted.text.contains("min-version=\"1.2\""), "{}", converted.text);
}

#[test]
fn lists_of_certificates_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("list");
    let lines = "# sites\na.pem\n\nb.pem *.b.example !c.b.example\nd.pem [verify required ca-file ca.pem] d.example\n";
    std::fs::write(&list, lines).unwrap();
    let text = |list: &str| {
        format!(
            "frontend web\n    mode http\n    bind *:443 ssl crt-list {list}\n    http-request set-header X-Client %[ssl_c_s_dn(cn)]\n    \
             default_backend app\nbackend app\n    mode http\n    server a 10.0.0.1:80\n"
        )
    };
    let converted = converted(&text(list.to_str().unwrap()));
    let expected = "tls cert=\"a.pem\" {\n            cert \"b.pem\"\n        }";
    assert!(converted.text.contains(expected), "{}", converted.text);
    assert!(
        converted.text.contains("set-header \"X-Client\" \"%{client-cert-cn}\""),
        "{}",
        converted.text
    );
    found(&converted, 3, "line 4 of");
    found(&converted, 3, "a bind of their own");
    let without = haproxy(&text("/nonexistent/list"), |_| None);
    found(&without, 3, "cannot be read");
}

#[test]
fn servers_whom_global_does_not_verify_are_not_verified() {
    let text = |defaults: &str| {
        format!(
            "global
    ssl-server-verify none
    maxconn 100
listen web
    bind :443
    {defaults}
    server a 10.0.0.1:8443 ssl
    server b 10.0.0.2:8443 ssl verify required ca-file up.pem
    server c 10.0.0.3:80
"
        )
    };
    let without = converted(&text("balance roundrobin"));
    assert_eq!(
        without.text.matches("tls verify=\"none\"").count(),
        1,
        "{}",
        without.text
    );
    // Here a name has to be right, which HAProxy does not ask for.
    found(&without, 8, "the certificate has to be for the server's address");
    assert_eq!(without.findings.len(), 1, "{:?}", without.findings);
    let with = converted(&text("default-server verify required ca-file up.pem"));
    assert!(!with.text.contains("verify=\"none\""), "{}", with.text);
}

#[test]
fn names_of_tls_are_compared_as_a_whole() {
    let converted = converted(
        "frontend t
    mode tcp
    bind :443
    tcp-request inspect-delay 5s
    tcp-request content reject unless { req.ssl_sni -m found }
    use_backend app if { req.ssl_sni -m reg -i ^(.+\\.)?shop\\.example$ }
    use_backend app if { req.ssl_sni -m end shop.example }
    default_backend app
backend app
    mode tcp
    server a 10.0.0.1:443
",
    );
    let part = "        sni \"shop.example\" \"*.shop.example\"\n";
    assert!(converted.text.contains(part), "{}", converted.text);
    found(
        &converted,
        5,
        "nobody is refused by it: no predicate for `req.ssl_sni` with `found`",
    );
    found(&converted, 7, "names are compared as a whole");
}

#[test]
fn a_frontend_without_tls_is_not_asked_for_it() {
    let converted = converted(
        "frontend web
    mode http
    bind :80
    acl secure ssl_fc
    http-request redirect scheme https code 301 if !secure { path_beg /login }
    http-request deny if { ssl_fc } { path /x }
    default_backend app
frontend both
    mode http
    bind :81
    bind :443 ssl crt a.pem
    acl secure ssl_fc
    http-request redirect scheme https code 301 if !secure
    default_backend app
backend app
    mode http
    server a 10.0.0.1:80
",
    );
    for part in [
        "    redirect scheme=\"https\" code=301 {\n        path-prefix \"/login\"\n",
        "    acl \"secure\" {\n        tls\n    }\n",
        "    redirect scheme=\"https\" code=301 unless=\"secure\"\n",
    ] {
        assert!(converted.text.contains(part), "{part} in\n{}", converted.text);
    }
    assert_eq!(converted.text.matches("acl \"").count(), 1, "{}", converted.text);
    found(&converted, 6, "not needed: its condition never holds");
    assert_eq!(converted.findings.len(), 1, "{:?}", converted.findings);
}
