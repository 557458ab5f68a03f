//! Who is taken for a program.

use gateway_plugin_bot_filter::BotFilter;
use gateway_plugin_sdk::test::{Host, Request, Tested};
use serde_json::{Value, json};

const BROWSER: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";

fn filter(config: &Value) -> Tested<BotFilter> {
    Host::new()
        .configure(&config.to_string())
        .expect("a good configuration")
}

fn from(agent: &str, path: &str) -> Request {
    Request::get(path).with_header("user-agent", agent)
}

#[test]
fn programs_are_refused_by_their_names() {
    let plugin = filter(&json!({
        "deny": ["ai", "scanner"],
        "deny-agent": ["EvilBot"],
        "allow-agent": "gptbot/9",
        "status": 429,
    }));
    for (agent, tag) in [
        (BROWSER, None),
        (
            "Mozilla/5.0 (compatible; GPTBot/1.2; +https://openai.example/gptbot)",
            Some("ai"),
        ),
        ("mozilla/5.0 (compatible; gptbot/1.2)", Some("ai")),
        ("GPTBot/9.0", None),
        ("sqlmap/1.8", Some("scanner")),
        ("My EVILBOT 1", Some("agent")),
        ("curl/8.0", None),
        ("", None),
        (" ", None),
    ] {
        let request = from(agent, "/");
        let filtered = plugin.on_request(&request).expect("no failure");
        assert_eq!(filtered.request.tag("bot-filter").as_deref(), tag, "{agent}");
        assert_eq!(filtered.reply.map(|reply| reply.status()), tag.map(|_| 429), "{agent}");
        assert_eq!(plugin.evaluate(&request).holds("bot"), tag.is_some(), "{agent}");
    }
    let robots = plugin
        .on_request(&from("GPTBot/1.0", "/robots.txt"))
        .expect("no failure");
    assert_eq!(
        (robots.reply, robots.request.tag("bot-filter").as_deref()),
        (None, Some("ai"))
    );
}

#[test]
fn who_says_nothing_may_be_refused() {
    let plugin = filter(&json!({"deny-empty": true, "allow-path": []}));
    for request in [Request::get("/"), from("", "/"), from("  ", "/robots.txt")] {
        let filtered = plugin.on_request(&request).expect("no failure");
        assert_eq!(filtered.reply.expect("a reply").status(), 403);
        assert_eq!(filtered.request.tag("bot-filter").as_deref(), Some("empty"));
    }
    for agent in [BROWSER.as_bytes(), b"\xff\xfe\xfd", &[b'a'; 100_000]] {
        let request = Request::get("/").with_header("user-agent", agent);
        assert_eq!(plugin.on_request(&request).expect("no failure").reply, None);
    }
}

#[test]
fn what_cannot_be_meant_is_refused() {
    for (config, part) in [
        (json!({}), "nobody is refused"),
        (
            json!({"deny": "bots"}),
            "/deny/0: `bots` is none of ai, seo, scanner, library",
        ),
        (json!({"deny-agent": "a"}), "/deny-agent/0"),
        (json!({"deny-empty": true, "allow-agent": ""}), "/allow-agent/0"),
        (json!({"deny-empty": true, "status": 302}), "/status"),
        (json!({"deny-empty": true, "allow-path": "robots.txt"}), "/allow-path/0"),
    ] {
        let error = Host::new()
            .configure::<BotFilter>(&config.to_string())
            .expect_err("a bad configuration")
            .to_string();
        assert!(error.contains(part), "{config}: {error}");
    }
}
