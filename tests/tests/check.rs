//! What is wrong with the files that a configuration names: `gateway check` and the start say all of it, in the same words,
//! and point at where the configuration says so.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use gateway_tests::tls::Authority;
use gateway_tests::{Builder, Gateway, guest};
use rcgen::{CertificateParams, KeyPair};
use serde_json::Value;

/// A fault as `gateway check --format json` reports it, with the text that its first label covers and that label.
#[derive(Debug)]
struct Fault {
    code: String,
    message: String,
    help: String,
    line: usize,
    place: String,
    label: String,
}

/// A configuration under test, and the files beside it.
struct Case {
    text: String,
    builder: Builder,
}

impl Case {
    fn new(text: &str) -> Self {
        let text = format!("process {{ workers 1 }}\n{text}\nbackend \"app\" {{ server \"s\" \"echo\" }}\n");
        let builder = Gateway::verbatim(&text);
        Self { text, builder }
    }

    /// One frontend with these lines, and these sections beside it.
    fn of(lines: &str, sections: &str) -> Self {
        Self::new(&format!(
            "frontend \"web\" {{\nbind \"127.0.0.1:0\"\n{lines}\ndefault-backend \"app\"\n}}\n{sections}"
        ))
    }

    fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        Self {
            text: self.text,
            builder: self.builder.file(name, content),
        }
    }

    fn is_valid(&self) {
        let checked = self.builder.check(&[]);
        assert_eq!(checked.code, Some(0), "{}{}", checked.stdout, checked.stderr);
    }

    /// Checks, starts, and sees that both say the same.
    async fn faults(self) -> Vec<Fault> {
        let json = self.builder.check(&["--format", "json"]);
        assert_eq!(json.code, Some(1), "{}{}", json.stdout, json.stderr);
        let report: Value = serde_json::from_str(&json.stdout).unwrap();
        assert_eq!(report["ok"], false);
        let faults = report["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|error| self.fault(error))
            .collect();
        let checked = self.builder.check(&[]);
        assert_eq!((checked.code, &*checked.stderr), (Some(1), ""), "{}", checked.stdout);
        let stopped = self.builder.refused().await;
        assert_eq!(stopped.code, Some(1), "{}", stopped.output);
        assert_eq!(stopped.output.trim_end(), checked.stdout.trim_end());
        faults
    }

    async fn fault_alone(self) -> Fault {
        let mut faults = self.faults().await;
        assert_eq!(faults.len(), 1, "{faults:?}");
        faults.remove(0)
    }

    fn fault(&self, error: &Value) -> Fault {
        let number = |key: &str| usize::try_from(error[key].as_u64().unwrap_or_else(|| panic!("{error}"))).unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{error}")).to_owned();
        assert_eq!(number("line"), number("end_line"), "{error}");
        let line = self.text.lines().nth(number("line") - 1).unwrap().chars();
        Fault {
            code: text(&error["code"]),
            message: text(&error["message"]),
            help: text(&error["help"]),
            line: number("line"),
            place: line
                .skip(number("column") - 1)
                .take(number("end_column") - number("column"))
                .collect(),
            label: text(&error["labels"][0]["text"]),
        }
    }
}

fn tls(properties: &str) -> Case {
    Case::new(&format!(
        "frontend \"web\" {{ bind \"127.0.0.1:0\" {{ tls {properties} }}; default-backend \"app\" }}"
    ))
}

/// A certificate and its key, as PEM.
fn pair() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["a.example".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    (certificate.pem(), key.serialize_pem())
}

fn quiet() -> Vec<u8> {
    guest::filter("(call $none)", "")
}

// ── certificates ──────────────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn a_certificate_that_is_not_there() {
    let fault = tls("cert=\"missing.pem\"").fault_alone().await;
    assert_eq!((&*fault.code, &*fault.place), ("config::tls", "\"missing.pem\""));
    assert_eq!(fault.label, "there is no such file");
    assert!(fault.message.contains("missing.pem"), "{fault:?}");
    assert!(fault.help.contains("relative paths"), "{fault:?}");
}

#[tokio::test]
async fn a_certificate_and_a_key_that_are_not_there_are_two_faults() {
    let faults = tls("cert=\"c.pem\" key=\"k.pem\"").faults().await;
    let places: Vec<_> = faults.iter().map(|fault| &*fault.place).collect();
    assert_eq!(places, ["\"c.pem\"", "\"k.pem\""]);
}

#[tokio::test]
async fn a_key_that_does_not_match_its_certificate() {
    let ((certificate, key), (_, other)) = (pair(), pair());
    tls("cert=\"c.pem\" key=\"k.pem\"")
        .file("c.pem", &certificate)
        .file("k.pem", &key)
        .is_valid();
    let fault = tls("cert=\"c.pem\" key=\"k.pem\"")
        .file("c.pem", &certificate)
        .file("k.pem", &other)
        .fault_alone()
        .await;
    assert_eq!((&*fault.code, &*fault.place), ("config::tls", "\"c.pem\""));
    assert!(fault.help.contains("issued for the key"), "{fault:?}");
}

#[tokio::test]
async fn a_certificate_without_its_key() {
    let (certificate, key) = pair();
    let fault = tls("cert=\"c.pem\"").file("c.pem", &certificate).fault_alone().await;
    assert_eq!((&*fault.place, &*fault.label), ("\"c.pem\"", "holds no private key"));
    assert!(fault.help.contains("key=\"FILE\""), "{fault:?}");
    let fault = tls("cert=\"k.pem\"").file("k.pem", &key).fault_alone().await;
    assert_eq!((&*fault.place, &*fault.label), ("\"k.pem\"", "holds no certificate"));
    let fault = tls("cert=\"c.pem\" key=\"k.pem\"")
        .file("c.pem", &certificate)
        .file("k.pem", "no PEM at all")
        .fault_alone()
        .await;
    assert_eq!(
        (&*fault.place, &*fault.label),
        ("\"k.pem\"", "holds no usable private key")
    );
}

#[tokio::test]
async fn a_key_or_certificate_in_another_form_says_how_to_turn_it_into_one_that_can_be_used() {
    let (certificate, key) = pair();
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n";
    // As OpenSSL wrote it before PKCS #8.
    let older = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,98\n\nMIIB\n-----END EC PRIVATE KEY-----\n";
    for (key, label, help) in [
        (encrypted, "holds a key that is encrypted", "passphrase"),
        (older, "holds a key that is encrypted", "passphrase"),
        (&*certificate, "holds no private key", "has to be PEM"),
    ] {
        let fault = tls("cert=\"c.pem\" key=\"k.pem\"")
            .file("c.pem", &certificate)
            .file("k.pem", key)
            .fault_alone()
            .await;
        assert_eq!((&*fault.place, &*fault.label), ("\"k.pem\"", label));
        assert!(fault.help.contains(help), "{fault:?}");
    }
    let fault = tls("cert=\"c.pem\"")
        .file("c.pem", format!("{certificate}{encrypted}"))
        .fault_alone()
        .await;
    assert_eq!(fault.label, "holds a key that is encrypted");
    // A curve that TLS has no use for.
    let fault = tls("cert=\"c.pem\" key=\"k.pem\"")
        .file("c.pem", &certificate)
        .file("k.pem", SECP256K1)
        .fault_alone()
        .await;
    assert!(fault.message.contains("of this kind or length"), "{fault:?}");
    assert!(fault.help.contains("P-256"), "{fault:?}");
    let mut half = certificate.clone();
    half.truncate(200);
    let fault = tls("cert=\"c.pem\"").file("c.pem", half).fault_alone().await;
    assert!(fault.message.contains("ends in the middle"), "{fault:?}");
    for der in [&b"\x30\x82\x01\x00\x30\x81"[..], &[0x30, 0x82, 9, 9, 2, 1, 3]] {
        let fault = tls("cert=\"c.pem\"").file("c.pem", der).fault_alone().await;
        assert_eq!((&*fault.place, &*fault.label), ("\"c.pem\"", "not PEM"));
        assert!(fault.help.starts_with("openssl "), "{fault:?}");
    }
    // Which an editor may have written before the text.
    tls("cert=\"c.pem\"")
        .file("c.pem", format!("\u{feff}{certificate}{key}"))
        .is_valid();
}

/// A key for ECDSA on a curve that certificates of TLS are not made for.
const SECP256K1: &str = "-----BEGIN PRIVATE KEY-----
MIGEAgEAMBAGByqGSM49AgEGBSuBBAAKBG0wawIBAQQgV5eIlIoghBngBIY7YEPP
jwdENAClCeTH1oADTv+WXOOhRANCAATp893ncTsXwyuo3IrCp5rmAGgf7zMqgB28
iQb85z8G3fX/68psDHuFARsB3nTmNMMMQ9tsoDftP1ZAKka7Zaln
-----END PRIVATE KEY-----
";

// ── components ────────────────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn a_component_that_is_not_there() {
    let fault = Case::of(
        "use-plugin \"geo\"",
        "plugin \"geo\" \"geo.wasm\" { on-failure \"skip\" }",
    )
    .fault_alone()
    .await;
    assert_eq!((&*fault.code, &*fault.place), ("config::policy", "\"geo.wasm\""));
    assert_eq!(fault.label, "there is no such file");
    assert!(fault.message.starts_with("plugin \"geo\": "), "{fault:?}");
}

#[tokio::test]
async fn a_component_that_is_another_one_than_was_meant() {
    let meant = "0".repeat(64);
    let case = |digest: &str| {
        let plugin = format!("plugin \"geo\" \"geo.wasm\" {{\nsha256 \"{digest}\"\non-failure \"skip\"\n}}");
        Case::of("use-plugin \"geo\"", &plugin).file("geo.wasm", quiet())
    };
    let fault = case(&meant).fault_alone().await;
    assert_eq!(fault.place, format!("\"{meant}\""));
    // What the help says to write is right.
    let digest = fault.help.split('"').nth(1).unwrap();
    case(digest).is_valid();
}

#[tokio::test]
async fn a_file_that_is_no_component() {
    let case = Case::of(
        "use-plugin \"geo\"",
        "plugin \"geo\" \"geo.wasm\" { on-failure \"skip\" }",
    );
    let fault = case
        .file("geo.wasm", wat::parse_str("(module)").unwrap())
        .fault_alone()
        .await;
    assert_eq!(
        (&*fault.place, &*fault.label),
        ("\"geo.wasm\"", "not a usable component")
    );
    assert!(fault.help.contains("gateway plugin build"), "{fault:?}");
}

#[tokio::test]
async fn an_import_that_is_not_granted() {
    let imports = "(import \"gateway:policy/clock@0.1.0\" \"now-ms\" (func $now (result i64)))";
    let exports = format!(
        "{imports} ;; end of imports
        (func (export \"gateway:policy/request-filter@0.1.0#on-request\") (param i32 i32 i32 i32) (result i32)
            (drop (call $now)) (call $none))
        (func (export \"gateway:policy/response-filter@0.1.0#on-response\") (param i32 i32 i32 i32) (result i32) (call $none))"
    );
    let component = guest::component("header-rewrite", &exports);
    let case = |grants: &str| {
        let plugin = format!("plugin \"geo\" \"geo.wasm\" {{\n{grants}\non-failure \"skip\"\n}}");
        Case::of("use-plugin \"geo\"", &plugin).file("geo.wasm", &component)
    };
    case("grant \"clock\"").is_valid();
    let fault = case("").fault_alone().await;
    assert_eq!(
        (&*fault.place, &*fault.help),
        ("plugin", "add `grant \"clock\"` to the plugin's block")
    );
    assert!(fault.message.contains("gateway:policy/clock"), "{fault:?}");
    let fault = case("grant \"log\"").fault_alone().await;
    assert_eq!(fault.help, "add `\"clock\"` to its `grant`");
}

#[tokio::test]
async fn a_predicate_that_its_component_does_not_have() {
    let case = |lines: &str| {
        Case::of(lines, "plugin \"geo\" \"geo.wasm\" { on-failure \"skip\" }")
            .file("geo.wasm", guest::predicates("(i64.const 1)"))
    };
    case("acl \"a\" { plugin \"geo\" predicate=\"p\" }\ndeny if=\"a\"").is_valid();
    let fault = case("acl \"a\" { plugin \"geo\" predicate=\"q\" }\ndeny if=\"a\"")
        .fault_alone()
        .await;
    assert_eq!((&*fault.place, &*fault.help), ("\"q\"", "did you mean `p`?"));
    let fault = case("acl \"a\" { plugin \"geo\" predicate=\"blocked\" }\ndeny if=\"a\"")
        .fault_alone()
        .await;
    assert_eq!((fault.line, &*fault.help), (4, "write `p`"));
}

#[tokio::test]
async fn a_component_that_would_never_be_called() {
    let plugin = "plugin \"geo\" \"geo.wasm\" { on-failure \"skip\" }";
    let fault = Case::of("use-plugin \"geo\"", plugin)
        .file("geo.wasm", guest::predicates("(i64.const 1)"))
        .fault_alone()
        .await;
    assert_eq!((&*fault.place, fault.line), ("\"geo\"", 4));
    assert!(fault.help.contains("acl"), "{fault:?}");
    let fault = Case::of("acl \"a\" { plugin \"geo\" }\ndeny if=\"a\"", plugin)
        .file("geo.wasm", quiet())
        .fault_alone()
        .await;
    assert_eq!((&*fault.place, fault.line), ("acl", 4));
    let fault = Case::of("use-plugin \"geo\"", plugin)
        .file("geo.wasm", guest::connection("(call $none)"))
        .fault_alone()
        .await;
    assert!(fault.help.contains("mode \"tcp\""), "{fault:?}");
}

// ── what components refuse ────────────────────────────────────────────────────────────────────────────────────────────

/// A component that refuses every configuration: "no such country", at this place.
fn refusing(at: &str) -> Vec<u8> {
    let configure = format!(
        "(i32.store8 (i32.const 512) (i32.const 1))
        (i32.store (i32.const 516) (i32.const 2048)) (i32.store (i32.const 520) (i32.const 15))
        (i32.store8 (i32.const 524) (i32.const {some}))
        (i32.store (i32.const 528) (i32.const 2063)) (i32.store (i32.const 532) (i32.const {length}))
        (i32.const 512)",
        some = i32::from(!at.is_empty()),
        length = at.len(),
    );
    let exports = format!(
        "(data (i32.const 2048) \"no such country{at}\")
        (func (export \"gateway:policy/request-filter@0.1.0#on-request\") (param i32 i32 i32 i32) (result i32) (call $none))
        (func (export \"gateway:policy/response-filter@0.1.0#on-response\") (param i32 i32 i32 i32) (result i32) (call $none))"
    );
    guest::component_with_configure("header-rewrite", &configure, &exports)
}

#[tokio::test]
async fn a_configuration_that_its_component_refuses() {
    let plugin = "plugin \"geo\" \"geo.wasm\" {
        on-failure \"skip\"
        config {
            strict
            rule path=\"/a\" { country \"KP\" }
            rule path=\"/b\" { country \"IR\" \"XX\" }
        }
    }";
    for (at, line, place) in [
        ("/rule/1/country/1", 12, "\"XX\""),
        ("/rule/0/path", 11, "\"/a\""),
        ("/strict", 10, "strict"),
        ("", 9, "config"),
        ("/rule/1/until", 12, "rule"),
    ] {
        let fault = Case::of("use-plugin \"geo\"", plugin)
            .file("geo.wasm", refusing(at))
            .fault_alone()
            .await;
        assert_eq!((fault.line, &*fault.place), (line, place), "{at}");
        assert_eq!(
            (&*fault.code, &*fault.message),
            ("config::policy", "plugin \"geo\": no such country")
        );
        assert!(fault.label.starts_with("refused"), "{fault:?}");
    }
}

#[tokio::test]
async fn a_component_that_is_used_twice_is_refused_once() {
    let plugin = "plugin \"geo\" \"geo.wasm\" { on-failure \"skip\" }
        frontend \"other\" { bind \"127.0.0.1:0\"; use-plugin \"geo\"; default-backend \"app\" }";
    let fault = Case::of("use-plugin \"geo\"", plugin)
        .file("geo.wasm", refusing(""))
        .fault_alone()
        .await;
    assert_eq!(fault.place, "plugin");
}

// ── all at once ───────────────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn everything_is_said_at_once_in_the_order_of_the_text() {
    let ((certificate, _), (_, other)) = (pair(), pair());
    let text = "frontend \"web\" {
        bind \"127.0.0.1:0\" { tls cert=\"missing.pem\" }
        bind \"127.0.0.1:0\" { tls cert=\"c.pem\" key=\"k.pem\" }
        acl \"a\" { plugin \"known\" predicate=\"nothing\" }
        deny if=\"a\"
        use-plugin \"gone\"
        use-plugin \"refusing\"
        default-backend \"app\"
    }
    plugin \"gone\" \"gone.wasm\" { on-failure \"skip\" }
    plugin \"refusing\" \"refusing.wasm\" { on-failure \"skip\"; config { country \"XX\" } }
    plugin \"known\" \"known.wasm\" { on-failure \"skip\" }";
    let faults = Case::new(text)
        .file("c.pem", certificate)
        .file("k.pem", other)
        .file("refusing.wasm", refusing("/country"))
        .file("known.wasm", guest::predicates("(i64.const 1)"))
        .faults()
        .await;
    let places: Vec<_> = faults.iter().map(|fault| (fault.line, &*fault.place)).collect();
    assert_eq!(
        places,
        [
            (3, "\"missing.pem\""),
            (4, "\"c.pem\""),
            (5, "\"nothing\""),
            (11, "\"gone.wasm\""),
            (12, "\"XX\""),
        ]
    );
}

#[tokio::test]
async fn faults_of_the_text_come_alone() {
    let faults = Case::of(
        "use-plugin \"geo\"\nforward-for",
        "plugin \"geo\" \"geo.wasm\" { on-failure \"skip\" }",
    )
    .faults()
    .await;
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert_eq!(faults[0].code, "config::unknown");
}

fn to_server(tls: &str) -> Case {
    Case::new(&format!(
        "frontend \"web\" {{ bind \"127.0.0.1:0\"; default-backend \"to\" }}\nbackend \"to\" {{ server \"s\" \"127.0.0.1:1\" {{ {tls} }} }}\nfrontend \"other\" {{ bind \"127.0.0.1:0\"; default-backend \"app\" }}"
    ))
}

#[tokio::test]
async fn files_for_tls_to_a_server() {
    let faults = to_server("tls ca=\"ca.pem\" cert=\"c.pem\" key=\"k.pem\"")
        .faults()
        .await;
    let places: Vec<_> = faults.iter().map(|fault| (&*fault.code, &*fault.place)).collect();
    assert_eq!(
        places,
        [
            ("config::tls", "\"ca.pem\""),
            ("config::tls", "\"c.pem\""),
            ("config::tls", "\"k.pem\"")
        ]
    );
    let (certificate, key) = pair();
    let fault = to_server("tls ca=\"ca.pem\"").file("ca.pem", &key).fault_alone().await;
    assert_eq!((&*fault.place, &*fault.label), ("\"ca.pem\"", "holds no certificate"));
    let ((_, other), text) = (pair(), "tls ca=\"c.pem\" cert=\"c.pem\" key=\"k.pem\"");
    let fault = to_server(text)
        .file("c.pem", &certificate)
        .file("k.pem", &other)
        .fault_alone()
        .await;
    assert!(fault.help.contains("issued for the key"), "{fault:?}");
    to_server(text)
        .file("c.pem", &certificate)
        .file("k.pem", &key)
        .is_valid();
}

// ── schemas ───────────────────────────────────────────────────────────────────────────────────────────────────────────

fn with_schema(schema: &str) -> Vec<u8> {
    let mut component = quiet();
    gateway::policy::section::add_config_schema(&mut component, schema);
    component
}

const SCHEMA: &str = r##"
setting "country" "text" list required at-most=3 {
    about "Who is turned away."
    example #"country "KP""#
    values "KP" "IR"
}
setting "wait" "duration" to="1h"
setting "note" "text" max-bytes=4
"##;

#[tokio::test]
async fn a_configuration_that_its_schema_does_not_allow_is_said_at_once_and_in_its_places() {
    let plugin = |lines: &str| {
        let sections = format!("plugin \"geo\" \"geo.wasm\" {{ on-failure \"deny\"\n{lines}\n}}");
        Case::of("use-plugin \"geo\"", &sections).file("geo.wasm", with_schema(SCHEMA))
    };
    plugin("config { country \"KP\"; wait \"30s\" }").is_valid();

    let faults = plugin("config {\ncuntry \"KP\"\nwait \"2h\"\n}\nconfig-file \"note\" \"note.txt\"")
        .file("note.txt", "too long")
        .faults()
        .await;
    let said: Vec<_> = faults
        .iter()
        .map(|fault| (&*fault.code, &*fault.message, &*fault.place))
        .collect();
    assert_eq!(
        said,
        [
            ("config::missing", "plugin \"geo\": `config` needs `country`", "config"),
            ("config::unknown", "plugin \"geo\": `config` has no `cuntry`", "cuntry"),
            ("config::value", "plugin \"geo\": `wait` has to be at most 1h", "\"2h\""),
            (
                "config::value",
                "plugin \"geo\": `note` has to have at most 4 bytes",
                "\"note.txt\""
            ),
        ]
    );
    assert_eq!(
        faults[1].help,
        "did you mean `country`?\n`country`: Who is turned away."
    );
    assert_eq!(faults[0].help, "write country \"KP\"\n`country`: Who is turned away.");
}

#[tokio::test]
async fn what_else_is_wrong_with_a_component_is_said_beside_its_configuration() {
    let whole = quiet();
    let broken = &whole[..whole.len() / 2];
    let sections = "plugin \"geo\" \"geo.wasm\" { on-failure \"deny\"; config { a 1 } }\n\
                    plugin \"cut\" \"cut.wasm\" { on-failure \"deny\" }";
    let faults = Case::of("use-plugin \"geo\"\nuse-plugin \"cut\"", sections)
        .file("geo.wasm", with_schema("setting \"b\" \"text\""))
        .file("cut.wasm", broken)
        .faults()
        .await;
    let codes: Vec<_> = faults.iter().map(|fault| &*fault.code).collect();
    assert_eq!(codes, ["config::unknown", "config::policy"], "{faults:?}");
}

#[tokio::test]
async fn a_schema_that_cannot_be_used_stops_the_start_and_names_its_component() {
    let sections = "plugin \"geo\" \"geo.wasm\" { on-failure \"deny\" }";
    let long = format!("// {}\n", "x".repeat(64 << 10));
    for (schema, why) in [
        ("setting \"a\" \"txt\"", "1:13: a type has to be"),
        ("setting \"a\" {", "this block is never closed"),
        (&*long, "more than 65536 bytes"),
    ] {
        let case = Case::of("use-plugin \"geo\"", sections).file("geo.wasm", with_schema(schema));
        let fault = case.fault_alone().await;
        assert_eq!(
            (&*fault.code, &*fault.place),
            ("config::policy", "\"geo.wasm\""),
            "{fault:?}"
        );
        assert!(fault.message.contains(why), "{fault:?}");
        assert!(fault.help.contains("component's own fault"), "{fault:?}");
    }
}

#[tokio::test]
async fn a_component_without_a_schema_says_by_itself_what_it_does_not_take() {
    let sections = "plugin \"geo\" \"geo.wasm\" { on-failure \"deny\"; config { whatever 1 } }";
    Case::of("use-plugin \"geo\"", sections)
        .file("geo.wasm", quiet())
        .is_valid();
}

/// A start opens the log first, and has nowhere to go on to without it.
#[test]
fn what_the_machine_lacks_and_what_is_wrong_with_files_is_said_at_once() {
    let text = r#"process { workers 1; log "nowhere/access.log" }
frontend "web" { bind "127.0.0.1:0" { tls cert="missing.pem" }; default-backend "app" }
backend "app" { server "s" "echo" }
"#;
    let checked = Gateway::verbatim(text).check(&[]);
    assert_eq!(checked.code, Some(1));
    for words in [
        "nowhere/access.log cannot be opened",
        "missing.pem: no usable certificate: No such file",
        "2 errors",
    ] {
        assert!(checked.stdout.contains(words), "{words}: {}", checked.stdout);
    }
}

#[test]
fn certificates_that_are_not_valid_or_not_for_long_are_warnings_where_they_are_named() {
    const DAY: i64 = 24 * 60 * 60;
    let authority = Authority::new();
    let issue = |days: i64| authority.issue_for(&["a.example"], days * DAY + DAY / 2).bundle();
    let revoked = authority.revocation_list(&[], -60);
    let case = Case::new(
        r#"
frontend "web" {
    bind "127.0.0.1:0" {
        tls cert="fine.pem" {
            cert "soon.pem"
            client-ca "ca.pem"
            crl "old.crl"
        }
    }
    bind "127.0.0.2:0" { tls cert="over.pem" }
    default-backend "other"
    acl "a" { path "/a" }; use-backend "app" if="a"
}
backend "other" { server "s" "127.0.0.1:9" { tls ca="ca.pem" cert="over.pem" } }
"#,
    )
    .file("fine.pem", issue(30))
    .file("soon.pem", issue(5))
    .file("over.pem", issue(-4))
    .file("ca.pem", authority.pem())
    .file("old.crl", revoked);
    let json = case.builder.check(&["--format", "json"]);
    assert_eq!(json.code, Some(0), "{}{}", json.stdout, json.stderr);
    let report: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(
        (&report["ok"], &report["errors"]),
        (&true.into(), &serde_json::json!([]))
    );
    let warnings: Vec<Fault> = report["warnings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|warning| case.fault(warning))
        .collect();
    let said = |warning: &Fault| (warning.line, warning.place.clone(), warning.code.clone());
    let expected = |line: usize, place: &str| (line, format!("\"{place}\""), "config::tls".to_owned());
    let places: Vec<_> = warnings.iter().map(said).collect();
    assert_eq!(
        places,
        [
            expected(6, "soon.pem"),
            expected(8, "old.crl"),
            expected(11, "over.pem"),
            expected(15, "over.pem")
        ],
        "{warnings:?}"
    );
    for (warning, words) in warnings.iter().zip([
        "soon.pem: the certificate expires within 6 days",
        "old.crl: the revocation list expired less than a day ago",
        "over.pem: the certificate expired 3 days ago",
        "over.pem: the certificate expired 3 days ago",
    ]) {
        assert!(warning.message.ends_with(words), "{warning:?}");
    }
    // And in words, before it is said to be valid.
    let text = case.builder.check(&[]);
    assert_eq!(text.code, Some(0), "{}", text.stdout);
    assert!(
        text.stdout.contains("the certificate expires within 6 days"),
        "{}",
        text.stdout
    );
    assert!(
        text.stdout.trim_end().ends_with("is valid, with 4 warnings"),
        "{}",
        text.stdout
    );
}
