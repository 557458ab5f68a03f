use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gateway_tests::{HttpServer, RequestText, get};

use crate::shelf;

const SECRET: &str = "a secret that has more than 32 bytes in it";

/// One key of each kind.
struct Keys {
    rsa: RsaKeyPair,
    p256: EcdsaKeyPair,
}

impl Keys {
    fn new() -> Self {
        Self {
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
            p256: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
        }
    }

    /// The public halves of two, and the secret: a JSON Web Key Set.
    fn set(&self) -> String {
        // RFC 8017, appendix A.1.1: a sequence of two numbers, the first of 257 bytes, of which one is 0.
        let rsa = self.rsa.public_key().as_ref();
        let point = self.p256.public_key().as_ref();
        serde_json::json!({"keys": [
            {"kty": "RSA", "kid": "r", "n": b64(&rsa[9..265]), "e": b64(&rsa[267..])},
            {"kty": "EC", "crv": "P-256", "kid": "e", "x": b64(&point[1..33]), "y": b64(&point[33..])},
            {"kty": "oct", "kid": "h", "k": b64(SECRET)},
        ]})
        .to_string()
    }

    fn token(&self, algorithm: &str, claims: &str) -> String {
        let header = format!(r#"{{"alg": "{algorithm}"}}"#);
        let signed = format!("{}.{}", b64(header), b64(claims));
        let (bytes, random) = (signed.as_bytes(), SystemRandom::new());
        let signature = match algorithm {
            "RS256" => {
                let mut signature = vec![0; self.rsa.public_modulus_len()];
                self.rsa
                    .sign(&RSA_PKCS1_SHA256, &random, bytes, &mut signature)
                    .unwrap();
                signature
            }
            "ES256" => self.p256.sign(&random, bytes).unwrap().as_ref().to_vec(),
            "HS256" => by_secret(SECRET.as_bytes(), bytes),
            _ => Vec::new(),
        };
        format!("{signed}.{}", b64(signature))
    }
}

fn by_secret(secret: &[u8], signed: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed)
        .as_ref()
        .to_vec()
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Claims of a token that expires in so many seconds.
fn claims(seconds: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    let expiry = now + seconds;
    format!(r#"{{"sub": "ada", "iss": "https://id.example", "aud": ["shop", "blog"], "exp": {expiry}}}"#)
}

fn with(token: &str) -> RequestText {
    get("/").header("Authorization", &format!("Bearer {token}"))
}

const PLUGIN: &str = r#"plugin "shelf" builtin="jwt-auth" {
    limit cpu="1s"; on-failure "deny" status=503
    config {
        issuer "https://id.example"
        audience "shop"
        claim claim="sub" header="x-user"
        forward #false
    }
    config-file "jwks" "jwks.json"
}"#;

#[tokio::test]
async fn tokens_of_each_algorithm_let_in_and_say_who_it_is() {
    let app = HttpServer::answering("x").await;
    let keys = Keys::new();
    let gateway = shelf(PLUGIN, &app).file("jwks.json", keys.set()).start().await;
    for (position, algorithm) in ["RS256", "ES256", "HS256"].into_iter().enumerate() {
        let token = keys.token(algorithm, &claims(60));
        let answer = gateway.ask("web", with(&token).header("X-User", "root")).await;
        assert_eq!(
            answer.status,
            200,
            "{algorithm}: {:?}",
            answer.header("www-authenticate")
        );
        assert_eq!(app.last().headers.all("x-user").collect::<Vec<_>>(), ["ada"]);
        assert!(!app.last().headers.has("authorization"));

        // In any part, one character changed.
        let dots: Vec<usize> = token.match_indices('.').map(|(at, _)| at).collect();
        for at in [1, dots[0] + 1, dots[1] + 1, token.len() - 8] {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'Q' { b'R' } else { b'Q' };
            let answer = gateway.ask("web", with(&String::from_utf8(changed).unwrap())).await;
            assert_eq!(answer.status, 401, "{algorithm}, character {at}");
        }
        assert_eq!(app.requests().len(), position + 1);
    }
}

/// A check takes a millisecond or more, and of a component of the shelf that is known beforehand.
#[tokio::test]
async fn all_are_answered_however_many_ask_at_once() {
    let app = HttpServer::answering("x").await;
    let keys = Keys::new();
    let gateway = shelf(PLUGIN, &app).file("jwks.json", keys.set()).start().await;
    let request = with(&keys.token("ES256", &claims(600)));
    assert_eq!(gateway.ask("web", request.clone()).await.status, 200);
    let mut asking = Vec::new();
    for _ in 0..200 {
        let (mut client, request) = (gateway.connect("web").await, request.clone());
        asking.push(tokio::spawn(async move { client.ask(request).await.status }));
    }
    for asking in asking {
        assert_eq!(asking.await.unwrap(), 200);
    }
    let slow = gateway
        .metrics()
        .await
        .get("gateway_policy_slow", &[("policy", "shelf")]);
    assert_eq!(slow, Some(0.0));
}

#[tokio::test]
async fn what_is_not_for_now_or_not_signed_is_refused() {
    let app = HttpServer::answering("x").await;
    let keys = Keys::new();
    let gateway = shelf(PLUGIN, &app).file("jwks.json", keys.set()).start().await;

    let expired = gateway.ask("web", with(&keys.token("ES256", &claims(-60)))).await;
    assert_eq!(expired.status, 401);
    assert!(expired.header("www-authenticate").unwrap().contains("expired"));
    let stranger = gateway.ask("web", get("/")).await;
    assert_eq!(
        (stranger.status, stranger.header("www-authenticate")),
        (401, Some("Bearer realm=\"gateway\""))
    );

    let foreign = Keys::new();
    // What everybody may know of the RSA key, taken for a secret.
    let public = &keys.rsa.public_key().as_ref()[9..265];
    let signed = format!("{}.{}", b64(r#"{"alg": "HS256"}"#), b64(claims(60)));
    let confused = format!("{signed}.{}", b64(by_secret(public, signed.as_bytes())));
    let deep = format!(
        "{}.{}.e30",
        b64(format!("{{\"alg\":\"RS256\",\"x\":{}", "[".repeat(5000))),
        b64("{}")
    );
    for token in [
        foreign.token("RS256", &claims(60)),
        foreign.token("ES256", &claims(60)),
        keys.token("none", &claims(60)),
        keys.token("RS512", &claims(60)),
        confused,
        deep,
        "a.b.c".to_owned(),
        ".".repeat(6000),
    ] {
        let answer = gateway.ask("web", with(&token)).await;
        assert_eq!(answer.status, 401, "{:.40}", token);
    }
    assert!(app.requests().is_empty());
}
