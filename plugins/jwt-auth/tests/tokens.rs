//! Which tokens are good, and what the server is told of them.

use std::time::Duration;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gateway_plugin_jwt_auth::JwtAuth;
use gateway_plugin_sdk::test::{Filtered, Host, Request, Tested};
use serde_json::{Value, json};

const SECRET: &str = "a secret that has more than 32 bytes in it";
const NOW: u64 = 1_800_000_000;

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// What signs.
enum Signs {
    Secret(Vec<u8>),
    Rsa(Box<RsaKeyPair>),
    P256(EcdsaKeyPair),
}

impl Signs {
    fn rsa() -> (Self, Value) {
        let key = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
        // RFC 8017, appendix A.1.1: a sequence of two numbers, the first of 257 bytes, of which one is 0.
        let der = key.public_key().as_ref();
        let (n, e) = (&der[9..265], &der[267..]);
        let jwk = json!({"kty": "RSA", "n": b64(n), "e": b64(e)});
        (Self::Rsa(Box::new(key)), jwk)
    }

    fn p256() -> (Self, Value) {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        let point = key.public_key().as_ref();
        let jwk = json!({"kty": "EC", "crv": "P-256", "x": b64(&point[1..33]), "y": b64(&point[33..])});
        (Self::P256(key), jwk)
    }

    fn sign(&self, signed: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Secret(secret) => hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed)
                .as_ref()
                .to_vec(),
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, signed, &mut signature)
                    .expect("a signature");
                signature
            }
            Self::P256(key) => key.sign(&random, signed).expect("a signature").as_ref().to_vec(),
        }
    }

    fn token(&self, header: &Value, claims: &Value) -> String {
        self.token_of(&header.to_string(), &claims.to_string())
    }

    fn token_of(&self, header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", b64(header), b64(claims));
        format!("{signed}.{}", b64(self.sign(signed.as_bytes())))
    }
}

fn by_secret() -> Signs {
    Signs::Secret(SECRET.as_bytes().to_vec())
}

fn host() -> Host {
    let host = Host::new();
    host.advance(Duration::from_secs(NOW).saturating_sub(host.now()));
    host
}

fn plugin(config: &Value) -> Tested<JwtAuth> {
    host().configure(&config.to_string()).expect("a good configuration")
}

fn refused(config: &Value) -> String {
    let refused = host().configure::<JwtAuth>(&config.to_string());
    refused.expect_err("a bad configuration").to_string()
}

fn ask(plugin: &Tested<JwtAuth>, token: &str) -> Filtered {
    let request = Request::get("/").with_header("authorization", format!("Bearer {token}"));
    plugin.on_request(&request).expect("no failure")
}

/// None where it is let in; else the status and why.
fn refusal(plugin: &Tested<JwtAuth>, token: &str) -> Option<(u16, String)> {
    let reply = ask(plugin, token).reply?;
    let (_, challenge) = reply
        .headers()
        .iter()
        .find(|(name, _)| name == "www-authenticate")
        .expect("a challenge");
    Some((reply.status(), String::from_utf8_lossy(challenge).into_owned()))
}

fn good() -> Value {
    json!({"sub": "ada", "exp": NOW + 60})
}

#[test]
fn each_algorithm_is_checked_by_its_own_keys() {
    let ((rsa, rsa_jwk), (p256, p256_jwk)) = (Signs::rsa(), Signs::p256());
    let all = plugin(&json!({"secret": SECRET, "jwks": {"keys": [rsa_jwk, p256_jwk]}}));
    for (algorithm, key) in [("HS256", &by_secret()), ("RS256", &rsa), ("ES256", &p256)] {
        let token = key.token(&json!({"alg": algorithm}), &good());
        assert_eq!(refusal(&all, &token), None, "{algorithm}");
        // One byte of anything changed, and it does not hold.
        for position in [
            0,
            token.find('.').expect("a dot") + 1,
            token.rfind('.').expect("a dot") + 1,
        ] {
            let mut changed = token.clone().into_bytes();
            changed[position] = if changed[position] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).expect("text");
            assert_eq!(
                refusal(&all, &changed).map(|(status, _)| status),
                Some(401),
                "{algorithm}: {changed}"
            );
        }
    }
}

#[test]
fn no_key_is_used_as_another_kind() {
    let ((rsa, rsa_jwk), (_, p256_jwk)) = (Signs::rsa(), Signs::p256());
    let only_public = plugin(&json!({"jwks": {"keys": [rsa_jwk, p256_jwk]}}));
    // The attack: what everybody may know of the key, taken for a secret.
    for public in [
        rsa_jwk["n"].as_str().expect("text").as_bytes().to_vec(),
        URL_SAFE_NO_PAD
            .decode(rsa_jwk["n"].as_str().expect("text"))
            .expect("base64url"),
        rsa_jwk.to_string().into_bytes(),
        p256_jwk["x"].as_str().expect("text").as_bytes().to_vec(),
    ] {
        let forged = Signs::Secret(public).token(&json!({"alg": "HS256"}), &good());
        assert!(refusal(&only_public, &forged).is_some());
    }
    // A good signature under another algorithm's name.
    for algorithm in ["HS256", "ES256", "RS384", "PS256", "none", "None", "rs256", ""] {
        assert!(
            refusal(&only_public, &rsa.token(&json!({"alg": algorithm}), &good())).is_some(),
            "{algorithm}"
        );
    }
    let unsigned = format!("{}.{}.", b64(r#"{"alg":"none"}"#), b64(good().to_string()));
    assert!(refusal(&only_public, &unsigned).is_some());
}

#[test]
fn a_token_that_names_its_key_is_held_against_that_one() {
    let ((one, mut one_jwk), (two, mut two_jwk)) = (Signs::p256(), Signs::p256());
    one_jwk["kid"] = json!("one");
    two_jwk["kid"] = json!("two");
    // Text and object are the same.
    let set =
        json!({"keys": [one_jwk, two_jwk, {"kty": "OKP", "crv": "Ed25519", "x": "AA"}, {"kty": "RSA", "use": "enc"}]});
    for jwks in [set.clone(), json!(set.to_string())] {
        let plugin = plugin(&json!({"jwks": jwks}));
        for (key, id, holds) in [
            (&one, "one", true),
            (&two, "two", true),
            (&one, "two", false),
            (&one, "three", false),
        ] {
            let token = key.token(&json!({"alg": "ES256", "kid": id}), &good());
            assert_eq!(refusal(&plugin, &token).is_none(), holds, "{id}");
        }
        assert_eq!(
            refusal(&plugin, &two.token(&json!({"alg": "ES256"}), &good())),
            None,
            "any of them"
        );
    }
}

#[test]
fn claims_have_to_hold_here_and_now() {
    let plugin = plugin(&json!({
        "secret": SECRET, "leeway": "10s", "max-age": "1h",
        "issuer": ["https://a.example", "https://b.example"], "audience": "shop",
    }));
    let base = json!({"iss": "https://a.example", "aud": "shop", "iat": NOW - 5, "exp": NOW + 60});
    for (change, why) in [
        (json!({}), None),
        (json!({"iss": "https://b.example"}), None),
        (json!({"aud": ["blog", "shop"]}), None),
        (json!({"exp": NOW - 9}), None),
        (json!({"exp": NOW - 9, "iat": NOW as f64 - 20.5}), None),
        (json!({"nbf": NOW + 10}), None),
        (json!({"exp": NOW - 10}), Some("expired")),
        (json!({"exp": 0}), Some("expired")),
        (json!({"exp": null}), Some("cannot be read")),
        (json!({"exp": "tomorrow"}), Some("cannot be read")),
        (json!({"nbf": NOW + 11}), Some("not valid yet")),
        (json!({"nbf": []}), Some("cannot be read")),
        (json!({"iat": NOW - 3610}), Some("too old")),
        (json!({"iat": NOW + 11}), Some("future")),
        (json!({"iss": "https://c.example"}), Some("issuer")),
        (json!({"iss": ["https://a.example"]}), Some("issuer")),
        (json!({"aud": "blog"}), Some("audience")),
        (json!({"aud": []}), Some("audience")),
        (json!({"aud": {"shop": true}}), Some("audience")),
    ] {
        let mut claims = base.clone();
        for (name, value) in change.as_object().into_iter().flatten() {
            claims[name] = value.clone();
        }
        let refusal = refusal(&plugin, &by_secret().token(&json!({"alg": "HS256"}), &claims));
        match why {
            None => assert_eq!(refusal, None, "{change}"),
            Some(why) => {
                let (status, challenge) = refusal.expect("a refusal");
                assert!(status == 401 && challenge.contains(why), "{change}: {challenge}");
            }
        }
    }
    for missing in ["exp", "iss", "aud", "iat"] {
        let mut claims = base.clone();
        claims.as_object_mut().expect("an object").remove(missing);
        assert!(
            refusal(&plugin, &by_secret().token(&json!({"alg": "HS256"}), &claims)).is_some(),
            "{missing}"
        );
    }
    let lasting = self::plugin(&json!({"secret": SECRET, "require-expiry": false}));
    assert_eq!(
        refusal(&lasting, &by_secret().token(&json!({"alg": "HS256"}), &json!({}))),
        None
    );
}

#[test]
fn the_server_is_told_what_the_token_claims_and_nothing_else() {
    let plugin = plugin(&json!({
        "secret": SECRET, "forward": false, "optional": true,
        "claim": [
            {"claim": "sub", "header": "x-user"}, {"claim": "admin", "header": "x-admin"},
            {"claim": "/realm/roles", "header": "x-roles"}, {"claim": "bad", "header": "x-bad"},
            {"claim": "commas", "header": "x-commas"}, {"claim": "realm", "header": "x-realm"},
        ],
    }));
    let claims = json!({
        "sub": "ada", "admin": true, "realm": {"roles": ["a", "b", 3]}, "exp": NOW + 60,
        "bad": "a\r\nx-user: root", "commas": ["a,b"],
    });
    let forged = ["x-user", "x-admin", "x-roles", "x-bad", "x-commas", "x-realm"]
        .into_iter()
        .fold(Request::get("/"), |request, name| request.with_header(name, "forged"));
    let token = by_secret().token(&json!({"alg": "HS256"}), &claims);
    let request = forged.clone().with_header("authorization", format!("bearer  {token}"));
    let filtered = plugin.on_request(&request).expect("no failure");
    assert_eq!(filtered.reply, None);
    for (name, values) in [
        ("x-user", &["ada"][..]),
        ("x-admin", &["true"]),
        ("x-roles", &["a,b,3"]),
        ("x-bad", &[]),
        ("x-commas", &[]),
        ("x-realm", &[]),
        ("authorization", &[]),
    ] {
        assert_eq!(filtered.request.header(name), values, "{name}");
    }
    let stranger = plugin.on_request(&forged).expect("no failure");
    assert_eq!(stranger.reply, None, "a token is optional");
    assert!(
        stranger.request.header("x-user").is_empty(),
        "a stranger cannot say who it is"
    );
    assert_eq!(ask(&plugin, "a.b.c").reply.expect("a bad one is not").status(), 401);
}

#[test]
fn more_can_be_required() {
    let plugin = plugin(&json!({
        "secret": SECRET,
        "require": [{"claim": "scope", "value": "write"}, {"claim": "/realm/roles", "value": "admin"}],
    }));
    for (claims, status) in [
        (
            json!({"exp": NOW + 9, "scope": "read write", "realm": {"roles": ["admin"]}}),
            None,
        ),
        (
            json!({"exp": NOW + 9, "scope": ["write"], "realm": {"roles": "admin"}}),
            None,
        ),
        (
            json!({"exp": NOW + 9, "scope": "rewrite", "realm": {"roles": ["admin"]}}),
            Some(403),
        ),
        (
            json!({"exp": NOW + 9, "scope": "write", "realm": {"roles": ["administrator"]}}),
            Some(403),
        ),
        (json!({"exp": NOW + 9, "scope": "write"}), Some(403)),
        (json!({"exp": NOW - 99, "scope": "read"}), Some(401)),
    ] {
        let token = by_secret().token(&json!({"alg": "HS256"}), &claims);
        assert_eq!(refusal(&plugin, &token).map(|(status, _)| status), status, "{claims}");
    }
}

/// As tokens of Microsoft's have it.
#[test]
fn words_of_scp_are_those_of_a_scope() {
    let plugin = plugin(&json!({"secret": SECRET, "require": {"claim": "scp", "value": "write"}}));
    for (scp, status) in [("read write", None), ("rewrite", Some(403))] {
        let claims = json!({"exp": NOW + 9, "scp": scp});
        let token = by_secret().token(&json!({"alg": "HS256"}), &claims);
        assert_eq!(refusal(&plugin, &token).map(|(status, _)| status), status, "{scp}");
    }
}

#[test]
fn the_line_break_that_a_file_ends_with_is_no_part_of_a_secret() {
    let token = by_secret().token(&json!({"alg": "HS256"}), &good());
    for end in ["", "\n", "\r\n"] {
        let plugin = plugin(&json!({"secret": format!("{SECRET}{end}")}));
        assert_eq!(refusal(&plugin, &token), None, "{end:?}");
    }
    let two = plugin(&json!({"secret": format!("{SECRET}\n\n")}));
    assert!(refusal(&two, &token).is_some(), "one, and not all there are");
}

fn is_let_in(plugin: &Tested<JwtAuth>, request: &Request) -> bool {
    plugin.on_request(request).expect("no failure").reply.is_none()
}

#[test]
fn tokens_come_where_the_configuration_says() {
    let token = by_secret().token(&json!({"alg": "HS256"}), &good());
    let cookie = plugin(&json!({"secret": SECRET, "from-cookie": "session"}));
    let header = plugin(&json!({"secret": SECRET, "from-header": "x-token", "forward": false}));
    let in_cookie = Request::get("/").with_header("cookie", format!("a=b; session={token}"));
    let in_header = Request::get("/").with_header("x-token", &token);
    assert!(is_let_in(&cookie, &in_cookie) && !is_let_in(&cookie, &in_header));
    assert!(is_let_in(&header, &in_header) && !is_let_in(&header, &in_cookie));
    assert!(
        header
            .on_request(&in_header)
            .expect("no failure")
            .request
            .header("x-token")
            .is_empty()
    );
    assert!(
        !is_let_in(&header, &in_header.with_header("x-token", &token)),
        "two tokens are none"
    );
    let basic = Request::get("/").with_header("authorization", "Basic YTpi");
    assert!(!is_let_in(&plugin(&json!({"secret": SECRET})), &basic));
}

#[test]
fn a_field_that_somebody_may_read_as_a_token_is_none_of_nobody() {
    let plugin = plugin(&json!({"secret": SECRET, "optional": true}));
    let token = by_secret().token(&json!({"alg": "HS256"}), &good());
    let with = |value: &str| Request::get("/").with_header("authorization", value);
    assert!(is_let_in(&plugin, &Request::get("/")), "nobody");
    assert!(is_let_in(&plugin, &with("Basic YTpi")), "somebody else's business");
    assert!(is_let_in(&plugin, &with(&format!("Bearer\t{token}"))));
    for value in [
        "Bearer\tforged",
        "Bearer",
        "Basic x, Bearer forged",
        "bearerforged",
        " Bearer",
    ] {
        assert!(!is_let_in(&plugin, &with(value)), "{value:?}");
    }
}

#[test]
fn what_is_no_token_harms_nobody() {
    let plugin = plugin(&json!({"secret": SECRET}));
    let key = by_secret();
    let deep = format!("{{\"alg\":\"HS256\",\"x\":{}{}}}", "[".repeat(2000), "]".repeat(2000));
    let claims = format!(
        "{{\"exp\":{},\"x\":{}{}}}",
        NOW + 60,
        "[".repeat(2000),
        "]".repeat(2000)
    );
    for token in [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "...".to_owned(),
        "a.b".to_owned(),
        "!.!.!".to_owned(),
        "e30.e30.".to_owned(),
        "a".repeat(20_000),
        key.token_of(&deep, "{}"),
        key.token_of(r#"{"alg":"HS256"}"#, &claims),
        key.token_of(r#"{"alg":"HS256"}"#, "[]"),
        key.token_of(r#"{"alg":"HS256"}"#, "null"),
        key.token_of(r#"{"alg":"HS256","alg":"HS256"}"#, &good().to_string()),
        key.token_of(r#"{"alg":"HS256","crit":["exp"]}"#, &good().to_string()),
        key.token_of(r#"{"alg":"HS256","crit":null}"#, &good().to_string()),
        key.token_of(r#"["HS256"]"#, &good().to_string()),
        key.token_of("\u{0}", &good().to_string()),
    ] {
        assert_eq!(
            refusal(&plugin, &token).map(|(status, _)| status),
            Some(401),
            "{:.60}",
            token
        );
    }
    for value in [
        &b"Bearer"[..],
        b"Bearer ",
        b"Bearer \xff.\xff.\xff",
        b"\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        let filtered = plugin
            .on_request(&Request::get("/").with_header("authorization", value))
            .expect("no failure");
        assert_eq!(filtered.reply.map(|reply| reply.status()), Some(401), "{value:?}");
    }
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let short = json!({"kty": "RSA", "n": b64([0xff; 128]), "e": "AQAB"});
    for (config, part) in [
        (json!({}), "there is no key"),
        (
            json!({"secret": "short"}),
            "/secret: a secret for HS256 has at least 32 bytes",
        ),
        (
            json!({"jwks": {"keys": [{"kty": "oct", "k": "c2hvcnQ"}]}}),
            "/jwks/keys/0: a secret",
        ),
        (
            json!({"jwks": {"keys": [short]}}),
            "/jwks/keys/0: an RSA key has 2048 to 4096 bits, and this one 1024",
        ),
        (
            json!({"jwks": {"keys": [{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}]}}),
            "no point of P-256",
        ),
        (
            json!({"jwks": {"keys": [{"kty": "RSA", "n": "!", "e": "AQAB"}]}}),
            "`n` is not in base64url",
        ),
        (
            json!({"jwks": {"keys": [{"kty": "EC", "crv": "P-384"}]}}),
            "there is no key",
        ),
        (json!({"jwks": "[]"}), "/jwks"),
        (
            json!({"secret": SECRET, "from-header": "a", "from-cookie": "b"}),
            "/from-cookie",
        ),
        (
            json!({"secret": SECRET, "from-cookie": "b", "forward": false}),
            "/forward",
        ),
        (json!({"secret": SECRET, "leeway": "1h"}), "/leeway"),
        (json!({"secret": SECRET, "realm": "a\"b"}), "/realm"),
        (
            json!({"secret": SECRET, "claim": {"claim": "a", "header": "b c"}}),
            "/claim/0/header",
        ),
        (
            json!({"secret": SECRET, "claim": {"claim": "a", "header": "Host"}}),
            "/claim/0/header: `Host` belongs to the connection",
        ),
        (
            json!({"secret": SECRET, "from-header": "te", "forward": false}),
            "/from-header: `te` belongs to the connection",
        ),
        (
            json!({"secret": format!("{}\n", &SECRET[..31])}),
            "/secret: a secret for HS256 has at least 32 bytes",
        ),
        (
            json!({"secret": SECRET, "claim": [{"claim": "a", "header": "x"}, {"claim": "b", "header": "X"}]}),
            "/claim/1/header",
        ),
        (json!({"secret": SECRET, "algorithm": "none"}), "algorithm"),
    ] {
        let error = refused(&config);
        assert!(error.contains(part), "{config}: {error}");
    }
}
