//! What becomes of requests when their authentication fails: whoever sends more than it has memory for can make it.

use gateway_tests::{Gateway, HttpServer, get};

/// Each with a configuration in which `x-who` says who somebody is, and the field that credentials come in.
const AUTHENTICATIONS: [(&str, &str, &str); 3] = [
    (
        "api-key",
        // `printf %s s3cret-of-ada | sha256sum`
        r#"client name="ada" sha256="080cf4bb8b29b395d94ac3cb7d16f9aa4cd4e9577d415e4a73ce75dcc2057541"; client-header "x-who""#,
        "x-api-key",
    ),
    (
        "basic-auth",
        // `openssl passwd -6 -salt saltsalt right`
        r#"user-header "x-who"
           user name="ada" hash="$6$saltsalt$gzY3OAolfMFSB9Ld7iMdOQlViFqO3IOPeU0zkHsD.58tcMxRAFD0Qjfi2sjus3i.8aqWarEvFPREqzp18Jm291""#,
        "authorization",
    ),
    (
        "jwt-auth",
        r#"secret "a secret that has more than 32 bytes in it"; claim claim="sub" header="x-who"; optional"#,
        "authorization",
    ),
];

/// More than what is left in an instance of two pages.
const TOO_LONG: usize = 120_000;

#[tokio::test]
async fn whoever_makes_authentication_fail_is_refused_or_nobody() {
    for (name, config, field) in AUTHENTICATIONS {
        let app = HttpServer::answering("x").await;
        let plugin = |verdict: &str, on_failure: &str| {
            format!(
                r#"plugin "{verdict}" builtin="{name}" {{
                    limit memory="128KiB" cpu="1s"
                    on-failure {on_failure}
                    config {{ {config} }}
                }}
                frontend "{verdict}" {{
                    bind "127.0.0.1:0"
                    request-limits head="256KiB"
                    use-plugin "{verdict}"
                    default-backend "app"
                }}"#
            )
        };
        let gateway = Gateway::kdl(&format!(
            r#"process {{ workers 1 }}
            {}
            {}
            {}
            backend "app" {{ server "s" "@app" }}"#,
            plugin("skipped", r#""skip""#),
            plugin("denied", r#""deny""#),
            plugin("taught", r#""deny" status=507"#),
        ))
        .with("@app", app.address())
        .start()
        .await;
        let ask = async |verdict: &str| {
            let forged = get("/")
                .header("x-who", "root")
                .header("X_Who", "root")
                .header("x-other", "1");
            let forged = forged.header(field, &format!("Basic {}", "a".repeat(TOO_LONG)));
            gateway.ask(verdict, forged).await.status
        };
        // Refused: no server hears of it.
        assert_eq!((ask("denied").await, ask("taught").await), (503, 507), "{name}");
        assert_eq!(app.requests().len(), 0, "{name}");
        // Let go on: it is nobody's.
        for _ in 0..2 {
            assert_eq!(ask("skipped").await, 200, "{name}");
            let seen = app.last().headers;
            assert!(!seen.has("x-who") && !seen.has("x_who"), "{name}: {seen:?}");
            assert!(seen.has("x-other"), "{name}");
        }
        let metrics = gateway.metrics().await;
        for (verdict, times) in [("denied", 1.0), ("taught", 1.0), ("skipped", 2.0)] {
            let labels = [("policy", verdict), ("kind", "memory")];
            let failed = metrics.get("gateway_policy_failures_total", &labels);
            assert_eq!(failed, Some(times), "{name} {verdict}");
        }
    }
}
