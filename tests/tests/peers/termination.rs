//! TLS that ends at the gateway, with openssl and curl as clients.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use gateway_tests::peer::{Ran, run};
use gateway_tests::{Builder, Gateway, eventually};

use crate::authority::{Authority, Pair, word};

const WEB: &str = r#"
    frontend "web" {
        bind "127.0.0.1:0" { tls cert="@bundle" @tls }
        default-backend "app"
    }
    backend "app" { server "app-1" "echo" }
"#;

fn web(server: &Pair, tls: &str) -> Builder {
    let bundle = word(&server.bundle).to_owned();
    Gateway::kdl(WEB).with("@tls", tls).with("@bundle", bundle)
}

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: one.example\r\nConnection: close\r\n\r\n";

/// What openssl says of a connection, and what it got; it stays until the gateway closes.
async fn s_client(authority: &Authority, address: SocketAddr, arguments: &[&str]) -> Ran {
    let mut command = Command::new("openssl");
    command
        .args([
            "s_client",
            "-ign_eof",
            "-verify_return_error",
            "-servername",
            "one.example",
        ])
        .arg("-connect")
        .arg(address.to_string())
        .arg("-CAfile")
        .arg(authority.ca())
        .args(arguments);
    run(command, REQUEST, Duration::from_secs(30)).await
}

#[cfg_attr(not(feature = "peers"), ignore = "needs openssl: --features peers")]
#[tokio::test]
async fn openssl_agrees_on_versions_suites_and_curves() {
    let authority = Authority::new();
    let server = authority.issue("one.example");
    let tls = r#"{ ciphers "TLS_AES_128_GCM_SHA256" "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"; curves "secp384r1" }"#;
    let chosen = web(&server, tls).start().await;
    for (version, expected) in [
        ("-tls1_2", "Cipher is ECDHE-ECDSA-AES256-GCM-SHA384"),
        ("-tls1_3", "Cipher is TLS_AES_128_GCM_SHA256"),
    ] {
        let ran = s_client(&authority, chosen.address("web"), &[version]).await;
        assert!(ran.stdout.contains(expected), "{ran:?}");
        assert!(ran.stdout.contains("HTTP/1.1 200"), "{ran:?}");
        assert!(ran.stdout.contains("secp384r1"), "{ran:?}");
        let other = s_client(&authority, chosen.address("web"), &[version, "-groups", "X25519"]).await;
        assert!(!other.stdout.contains("HTTP/1.1"), "{other:?}");
    }
    let new = web(&server, r#"min-version="1.3""#).start().await;
    let old = s_client(&authority, new.address("web"), &["-tls1_2"]).await;
    assert!(old.stderr.contains("alert protocol version"), "{old:?}");
    // What older clients may offer, and this one has not had for years.
    let older = s_client(
        &authority,
        chosen.address("web"),
        &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
    )
    .await;
    assert!(!older.stdout.contains("HTTP/1.1"), "{older:?}");
}

#[cfg_attr(not(feature = "peers"), ignore = "needs openssl: --features peers")]
#[tokio::test]
async fn openssl_comes_back_with_its_session() {
    let authority = Authority::new();
    let server = authority.issue("one.example");
    let directory = tempfile::tempdir().unwrap();
    for (tls, resumes) in [
        ("", true),
        (r#"{ tickets "off" }"#, true),
        (r#"{ tickets "off"; session-cache 0 }"#, false),
    ] {
        let gateway = web(&server, tls).start().await;
        for version in ["-tls1_2", "-tls1_3"] {
            let kept = directory.path().join("session");
            let _ = std::fs::remove_file(&kept);
            let address = gateway.address("web");
            let first = s_client(&authority, address, &[version, "-sess_out", word(&kept)]).await;
            assert!(first.stdout.contains("New, TLSv1."), "{first:?}");
            if !kept.exists() {
                assert!(!resumes, "{version} {tls}: {first:?}");
                continue;
            }
            let second = s_client(&authority, address, &[version, "-sess_in", word(&kept)]).await;
            assert!(second.stdout.contains("HTTP/1.1 200"), "{second:?}");
            assert_eq!(
                second.stdout.contains("Reused, TLSv1."),
                resumes,
                "{version} {tls}: {second:?}"
            );
        }
    }
}

#[cfg_attr(not(feature = "peers"), ignore = "needs openssl: --features peers")]
#[tokio::test]
async fn openssl_comes_back_to_another_gateway_that_has_the_same_keys() {
    let authority = Authority::new();
    let server = authority.issue("one.example");
    let directory = tempfile::tempdir().unwrap();
    let keys = |bytes: &str| {
        let mut made = String::new();
        for _ in 0..2 {
            let ran = Command::new("sh")
                .args(["-c", &format!("openssl rand {bytes} | base64 -w0")])
                .output();
            made += &(String::from_utf8(ran.unwrap().stdout).unwrap() + "\n");
        }
        made
    };
    for bytes in ["48", "80"] {
        let made = keys(bytes);
        let turned: String = made.lines().rev().map(|line| line.to_owned() + "\n").collect();
        let tls = r#"{ tickets keys="tickets.keys"; session-cache 0 }"#;
        let one = web(&server, tls).secret("tickets.keys", &made).start().await;
        let two = web(&server, tls).secret("tickets.keys", &turned).start().await;
        let other = web(&server, tls).secret("tickets.keys", keys(bytes)).start().await;
        for version in ["-tls1_2", "-tls1_3"] {
            let kept = directory.path().join(format!("session{bytes}{version}"));
            let first = s_client(&authority, one.address("web"), &[version, "-sess_out", word(&kept)]).await;
            assert!(first.stdout.contains("New, TLSv1."), "{first:?}");
            assert!(
                first.stdout.contains("21600 (seconds)"),
                "{version}: how long it is good: {first:?}"
            );
            for (gateway, resumes) in [(&two, true), (&other, false)] {
                let again = s_client(&authority, gateway.address("web"), &[version, "-sess_in", word(&kept)]).await;
                assert!(again.stdout.contains("HTTP/1.1 200"), "{again:?}");
                assert_eq!(again.stdout.contains("Reused, TLSv1."), resumes, "{version}: {again:?}");
            }
        }
    }
}

#[cfg_attr(not(feature = "peers"), ignore = "needs openssl and curl: --features peers")]
#[tokio::test]
async fn openssl_and_curl_show_their_certificates() {
    let authority = Authority::new();
    let server = authority.issue("one.example");
    let client = authority.issue("client-7.example");
    let elsewhere = Authority::new();
    let stranger = elsewhere.issue("client-7.example");
    let gateway = Gateway::kdl(
        r#"
        frontend "web" {
            bind "127.0.0.1:0" { tls cert="@bundle" { client-ca "@ca" verify="required" } }
            acl "seven" { client-cert-subject "CN=client-7.example" }
            deny status=418 unless="seven"
            default-backend "app"
        }
        backend "app" { server "app-1" "echo" }
    "#,
    )
    .with("@bundle", word(&server.bundle))
    .with("@ca", word(&authority.ca()))
    .start()
    .await;
    let address = gateway.address("web");
    assert_eq!(curl(&authority, address, Some(&client)).await.ok(), "200");
    assert_eq!(curl(&authority, address, Some(&server)).await.ok(), "418");
    for client in [None, Some(&stranger)] {
        let refused = curl(&authority, address, client).await;
        assert_ne!(refused.code, Some(0), "{refused:?}");
    }
    for (version, shown, alert) in [
        ("-tls1_2", None, "alert"),
        ("-tls1_3", None, "alert certificate required"),
        ("-tls1_2", Some(&stranger), "alert"),
        ("-tls1_3", Some(&stranger), "alert"),
    ] {
        let mut arguments = vec![version];
        if let Some(pair) = shown {
            arguments.extend(["-cert", word(&pair.certificate), "-key", word(&pair.key)]);
        }
        let ran = s_client(&authority, address, &arguments).await;
        assert!(ran.stderr.contains(alert), "{version}: {ran:?}");
        // Whom it asks for.
        assert!(ran.stdout.contains("Acceptable client certificate CA names"), "{ran:?}");
    }
    for reason in ["tls-no-client-certificate", "tls-client-certificate-invalid"] {
        eventually(reason, async || {
            let metrics = gateway.metrics().await;
            let count = metrics.get(
                "gateway_frontend_errors_total",
                &[("frontend", "web"), ("reason", reason)],
            );
            count.is_some_and(|count| count >= 3.0)
        })
        .await;
    }
}

#[cfg_attr(not(feature = "peers"), ignore = "needs openssl: --features peers")]
#[tokio::test]
async fn openssl_is_shown_what_the_authority_says() {
    let authority = Authorities::new();
    authority.issue("one");
    authority.respond("one");
    let (folder, ca) = (authority.directory.path(), authority.directory.path().join("ca.pem"));
    let tls = |more: &str| format!("cert=\"{0}/one.pem\" key=\"{0}/one.secret\" {more}", folder.display());
    let text = r#"
        frontend "web" { bind "127.0.0.1:0" { tls @tls }; default-backend "app" }
        backend "app" { server "app-1" "echo" }
    "#;
    let asks = async |gateway: &Gateway, version: &str| {
        let mut command = Command::new("openssl");
        command
            .args([
                "s_client",
                "-ign_eof",
                "-status",
                version,
                "-servername",
                "one.example",
                "-connect",
            ])
            .arg(gateway.address("web").to_string())
            .arg("-CAfile")
            .arg(&ca);
        run(command, REQUEST, Duration::from_secs(30)).await.stdout
    };
    let good = "Cert Status: good";
    let gateway = Gateway::kdl(text).with("@tls", tls("")).start().await;
    for version in ["-tls1_2", "-tls1_3"] {
        let none = asks(&gateway, version).await;
        assert!(none.contains("OCSP response: no response sent"), "{none}");
    }
    // It comes to lie beside its certificate while the gateway runs.
    std::fs::copy(folder.join("one.response"), folder.join("one.pem.ocsp")).unwrap();
    eventually("the response is shown", async || {
        asks(&gateway, "-tls1_3").await.contains(good)
    })
    .await;
    let shown = asks(&gateway, "-tls1_2").await;
    assert!(shown.contains(good), "{shown}");

    let named = tls(&format!("ocsp=\"{}/one.response\"", folder.display()));
    let gateway = Gateway::kdl(text).with("@tls", &named).start().await;
    assert!(asks(&gateway, "-tls1_3").await.contains(good));

    // One that is out of date is worth less than none.
    authority.age("one");
    gateway.says("the OCSP response is out of date").await;
    eventually("it is shown no more", async || {
        asks(&gateway, "-tls1_3").await.contains("no response sent")
    })
    .await;

    // And one that is for another certificate is a mistake.
    authority.issue("two");
    authority.respond("two");
    std::fs::copy(folder.join("two.response"), folder.join("one.response")).unwrap();
    let checked = Gateway::kdl(text).with("@tls", &named).check(&[]);
    assert!(
        checked.stdout.contains("it is about another certificate"),
        "{}",
        checked.stdout
    );
}

/// An authority of openssl's, which answers for what it has issued.
struct Authorities {
    directory: tempfile::TempDir,
}

impl Authorities {
    fn new() -> Self {
        let this = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
        this.openssl(
            &[
                &["req", "-x509"][..],
                &curve,
                &words("-keyout ca.key -out ca.pem -subj /CN=Authority -days 2"),
            ]
            .concat(),
        );
        this
    }

    fn issue(&self, name: &str) {
        let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
        let request = format!("-keyout {name}.secret -out {name}.csr -subj /CN={name}.example");
        self.openssl(&[&["req"][..], &curve, &words(&request)].concat());
        std::fs::write(
            self.directory.path().join("names"),
            format!("subjectAltName=DNS:{name}.example"),
        )
        .unwrap();
        // A serial number whose first bit is set.
        let serial = self.serial(name);
        let sign = format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -set_serial 0x{serial} -days 1 -out {name}.pem -extfile names"
        );
        self.openssl(&words(&sign));
    }

    fn serial(&self, name: &str) -> String {
        format!("80{:02x}", name.bytes().next().unwrap())
    }

    /// Makes what it said of a certificate out of date. Its signature is for clients to verify, and they are not shown it.
    fn age(&self, name: &str) {
        let file = self.directory.path().join(format!("{name}.response"));
        let mut bytes = std::fs::read(&file).unwrap();
        // When it was made, from when it is good, and until when: each a GeneralizedTime of fifteen characters.
        let times = bytes.windows(2).enumerate().filter(|(_, mark)| *mark == [0x18, 15]);
        let until = times.map(|(place, _)| place + 2).nth(2).unwrap();
        bytes[until..until + 15].copy_from_slice(b"20200101000000Z");
        std::fs::write(&file, bytes).unwrap();
    }

    /// Writes what it says of a certificate, good for a day.
    fn respond(&self, name: &str) {
        let serial = self.serial(name);
        let index = format!(
            "V\t350101000000Z\t\t{}\tunknown\t/CN={name}.example\n",
            serial.to_uppercase()
        );
        std::fs::write(self.directory.path().join("index"), index).unwrap();
        let respond = format!(
            "ocsp -index index -CA ca.pem -rsigner ca.pem -rkey ca.key -issuer ca.pem -cert {name}.pem -respout {name}.response \
             -ndays 1 -noverify"
        );
        self.openssl(&words(&respond));
    }

    fn openssl(&self, arguments: &[&str]) {
        let ran = Command::new("openssl")
            .current_dir(self.directory.path())
            .args(arguments)
            .output()
            .unwrap();
        assert!(
            ran.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&ran.stderr)
        );
    }
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

/// The status that curl gets.
async fn curl(authority: &Authority, address: SocketAddr, client: Option<&Pair>) -> Ran {
    let port = address.port();
    let mut command = Command::new("curl");
    command
        .args([
            "-sS",
            "--max-time",
            "20",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "--resolve",
        ])
        .arg(format!("one.example:{port}:127.0.0.1"))
        .arg("--cacert")
        .arg(authority.ca());
    if let Some(pair) = client {
        command.arg("--cert").arg(&pair.certificate).arg("--key").arg(&pair.key);
    }
    command.arg(format!("https://one.example:{port}/"));
    run(command, "", Duration::from_secs(30)).await
}
