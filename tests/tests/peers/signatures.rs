//! Keys and signatures of openssl's and of ours, each way round.

use std::path::Path;
use std::process::{Command, Output};

use gateway_tests::guest;

fn openssl(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new("openssl");
    command.args(arguments).current_dir(folder).output().unwrap()
}

fn succeeds(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn plugin(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = gateway_tests::command();
    command
        .arg("plugin")
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap()
}

/// The first two lines of the file, which are what is signed.
fn message(signatures: &str) -> String {
    signatures.lines().take(2).map(|line| format!("{line}\n")).collect()
}

#[cfg_attr(not(feature = "peers"), ignore = "needs openssl: --features peers")]
#[test]
fn openssl_verifies_what_a_key_of_its_own_has_signed_here() {
    use base64::Engine;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("geo.wasm"), guest::filter("(call $none)", "")).unwrap();
    succeeds(&openssl(
        folder,
        &["genpkey", "-algorithm", "ed25519", "-out", "ci.pem"],
    ));
    succeeds(&openssl(
        folder,
        &["pkey", "-in", "ci.pem", "-pubout", "-out", "ci.pub"],
    ));
    succeeds(&plugin(folder, &["sign", "--key", "ci.pem", "geo.wasm"]));
    succeeds(&plugin(folder, &["verify", "--key", "ci.pub", "geo.wasm"]));

    let signatures = std::fs::read_to_string(folder.join("geo.wasm.sig")).unwrap();
    let line = signatures.lines().nth(2).unwrap();
    let words: Vec<&str> = line.split(' ').collect();
    let signature = base64::engine::general_purpose::STANDARD.decode(words[2]).unwrap();
    std::fs::write(folder.join("message"), message(&signatures)).unwrap();
    std::fs::write(folder.join("signature"), signature).unwrap();
    let verify = [
        "pkeyutl",
        "-verify",
        "-pubin",
        "-inkey",
        "ci.pub",
        "-rawin",
        "-in",
        "message",
        "-sigfile",
        "signature",
    ];
    succeeds(&openssl(folder, &verify));
    // The digest in it is the file's, and the key's name is the beginning of its digest.
    let digest = succeeds(&openssl(folder, &["dgst", "-sha256", "-r", "geo.wasm"]));
    assert_eq!(
        message(&signatures),
        format!(
            "gateway-plugin-signature-v1\nsha256 {}\n",
            digest.split(' ').next().unwrap()
        )
    );
    succeeds(&openssl(
        folder,
        &["pkey", "-pubin", "-in", "ci.pub", "-outform", "DER", "-out", "ci.der"],
    ));
    let digest = succeeds(&openssl(folder, &["dgst", "-sha256", "-r", "ci.der"]));
    assert_eq!(words[..2], ["ed25519", &digest[..16]]);
    // And it tells other bytes from these.
    std::fs::write(folder.join("message"), "gateway-plugin-signature-v1\n").unwrap();
    assert!(!openssl(folder, &verify).status.success());
}

#[cfg_attr(not(feature = "peers"), ignore = "needs openssl: --features peers")]
#[test]
fn what_openssl_signs_with_a_key_from_here_is_taken() {
    use base64::Engine;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("geo.wasm"), guest::filter("(call $none)", "")).unwrap();
    succeeds(&plugin(folder, &["sign", "--new-key", "ci.pem", "geo.wasm"]));
    let path = folder.join("geo.wasm.sig");
    let ours = std::fs::read_to_string(&path).unwrap();
    // Ed25519 has one signature of a key and a message: openssl's is ours.
    std::fs::write(folder.join("message"), message(&ours)).unwrap();
    succeeds(&openssl(
        folder,
        &[
            "pkeyutl",
            "-sign",
            "-inkey",
            "ci.pem",
            "-rawin",
            "-in",
            "message",
            "-out",
            "signature",
        ],
    ));
    let signature = std::fs::read(folder.join("signature")).unwrap();
    let signature = base64::engine::general_purpose::STANDARD.encode(signature);
    assert!(ours.ends_with(&format!(" {signature}\n")), "{ours}");
    let public = succeeds(&openssl(folder, &["pkey", "-in", "ci.pem", "-pubout"]));
    assert_eq!(public, std::fs::read_to_string(folder.join("ci.pem.pub")).unwrap());
    succeeds(&plugin(folder, &["verify", "--key", "ci.pem.pub", "geo.wasm"]));
}

#[cfg_attr(not(feature = "peers"), ignore = "needs openssl: --features peers")]
#[test]
fn other_keys_of_openssls_are_refused_by_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("geo.wasm"), guest::filter("(call $none)", "")).unwrap();
    let passphrase = ["-aes256", "-pass", "pass:secret"];
    for (kind, more, why) in [
        ("ed25519", &passphrase[..], "its key is encrypted"),
        ("ed448", &[], "another kind of key than Ed25519"),
        ("x25519", &[], "another kind of key than Ed25519"),
    ] {
        let mut arguments = vec!["genpkey", "-algorithm", kind, "-out", "key.pem"];
        arguments.extend(more);
        succeeds(&openssl(folder, &arguments));
        let refused = plugin(folder, &["sign", "--key", "key.pem", "geo.wasm"]);
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(said.contains(why), "{kind}: {said}");
    }
}
