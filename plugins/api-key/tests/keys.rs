//! Whose key it is.

use gateway_plugin_api_key::ApiKey;
use gateway_plugin_sdk::test::{Filtered, Host, Request, Tested};
use serde_json::{Value, json};

/// `printf %s s3cret-of-ada | sha256sum`, and of `s3cret-of-lin`.
const ADA: &str = "080cf4bb8b29b395d94ac3cb7d16f9aa4cd4e9577d415e4a73ce75dcc2057541";
const LIN: &str = "869b6f6b267e4f4fc34afb0a813dfa85259b8f94e4b0f947e0c5d74d0ca2baf5";

fn plugin(config: &Value) -> Tested<ApiKey> {
    Host::new()
        .configure(&config.to_string())
        .expect("a good configuration")
}

fn with(more: &Value) -> Tested<ApiKey> {
    let mut config =
        json!({"client": [{"name": "ada", "sha256": ADA}, {"name": "lin", "sha256": [LIN.to_uppercase()]}]});
    for (name, value) in more.as_object().into_iter().flatten() {
        config[name] = value.clone();
    }
    plugin(&config)
}

fn filtered(plugin: &Tested<ApiKey>, request: &Request) -> Filtered {
    plugin.on_request(request).expect("no failure")
}

fn is_refused(filtered: &Filtered) -> bool {
    let status = filtered.reply.as_ref().map(gateway_plugin_sdk::Reply::status);
    assert!(matches!(status, None | Some(401)), "{status:?}");
    status.is_some()
}

#[test]
fn a_key_opens_the_door_and_says_whose_it_is() {
    let plugin = with(&json!({"client-header": "x-client"}));
    for (key, client) in [("s3cret-of-ada", "ada"), ("s3cret-of-lin", "lin")] {
        let request = Request::get("/")
            .with_header("x-api-key", key)
            .with_header("x-client", "forged");
        let filtered = filtered(&plugin, &request);
        assert!(!is_refused(&filtered));
        assert_eq!(filtered.request.header("x-client"), [client]);
        assert_eq!(filtered.request.tag("api-key.client").as_deref(), Some(client));
        assert!(
            filtered.request.header("x-api-key").is_empty(),
            "the server has no use for it"
        );
    }
}

#[test]
fn nothing_else_does() {
    let plugin = with(&json!({}));
    for keys in [
        &[][..],
        &[""],
        &["s3cret-of-bob"],
        &["S3CRET-OF-ADA"],
        &[ADA],
        &["s3cret-of-ada", "s3cret-of-ada"],
    ] {
        let request = keys
            .iter()
            .fold(Request::get("/"), |request, key| request.with_header("x-api-key", key));
        assert!(is_refused(&filtered(&plugin, &request)), "{keys:?}");
    }
    let request = Request::get("/").with_header("x-api-key", b"\xff\0");
    assert!(is_refused(&filtered(&plugin, &request)));
    assert!(is_refused(&filtered(
        &plugin,
        &Request::get("/?x-api-key=s3cret-of-ada")
    )));
}

#[test]
fn a_key_may_come_in_the_query_and_is_taken_out_of_it() {
    let plugin = with(&json!({"query": "key"}));
    for (target, query) in [
        ("/?key=s3cret-of-ada", None),
        ("/?a=1&key=s3cret-of-ada&b=2", Some("a=1&b=2")),
        ("/?a&%6bey=s3cret%2Dof-ada", Some("a")),
    ] {
        let filtered = filtered(&plugin, &Request::get(target));
        assert!(!is_refused(&filtered), "{target}");
        assert_eq!(filtered.request.query().as_deref(), query, "{target}");
    }
    let header = Request::get("/").with_header("x-api-key", "s3cret-of-ada");
    assert!(is_refused(&filtered(&plugin, &header)));
    assert!(is_refused(&filtered(
        &plugin,
        &Request::get("/?key=s3cret-of-ada&key=s3cret-of-ada")
    )));

    let both = with(&json!({"query": "key", "header": "x-key", "forward": true}));
    let filtered_of = |request: &Request| filtered(&both, request);
    assert_eq!(
        filtered_of(&Request::get("/?key=s3cret-of-ada"))
            .request
            .query()
            .as_deref(),
        Some("key=s3cret-of-ada")
    );
    let kept = filtered_of(&Request::get("/").with_header("x-key", "s3cret-of-ada"));
    assert_eq!(kept.request.header("x-key"), ["s3cret-of-ada"]);
    let two = Request::get("/?key=s3cret-of-ada").with_header("x-key", "s3cret-of-lin");
    assert!(is_refused(&filtered_of(&two)));
}

#[test]
fn a_key_may_stand_behind_a_scheme() {
    let plugin = with(&json!({"header": "authorization", "scheme": "Bearer"}));
    for (value, good) in [
        ("Bearer s3cret-of-ada", true),
        ("bearer  s3cret-of-ada", true),
        ("s3cret-of-ada", false),
        ("Bearers3cret-of-ada", false),
        ("Basic s3cret-of-ada", false),
        ("Bearer", false),
        ("Bearer ", false),
    ] {
        let filtered = filtered(&plugin, &Request::get("/").with_header("authorization", value));
        assert_eq!(!is_refused(&filtered), good, "{value}");
        match filtered.reply {
            None => assert!(filtered.request.header("authorization").is_empty()),
            Some(reply) => assert!(
                reply
                    .headers()
                    .iter()
                    .any(|(name, value)| name == "www-authenticate" && value == b"Bearer realm=\"api\"")
            ),
        }
    }
}

#[test]
fn what_stands_behind_another_scheme_is_no_key_and_stays() {
    let plugin = with(&json!({"header": "authorization", "scheme": "Bearer", "query": "key"}));
    let basic = |target| Request::get(target).with_header("authorization", "Basic YTpi");
    let passed = filtered(&plugin, &basic("/?key=s3cret-of-ada"));
    assert!(!is_refused(&passed));
    assert_eq!(passed.request.header("authorization"), ["Basic YTpi"]);
    assert_eq!(passed.request.query(), None);
    assert!(is_refused(&filtered(&plugin, &basic("/"))));
    let two = basic("/?key=s3cret-of-ada").with_header("authorization", "Bearer s3cret-of-lin");
    assert!(is_refused(&filtered(&plugin, &two)));
}

#[test]
fn what_cannot_be_meant_is_refused() {
    for (config, part) in [
        (json!({}), "client"),
        (json!({"client": []}), "/client: nobody"),
        (json!({"client": {"name": "a", "sha256": "00"}}), "/client/0/sha256/0"),
        (json!({"client": {"name": "a b", "sha256": ADA}}), "/client/0/name"),
        (json!({"client": {"name": "a", "sha256": []}}), "/client/0/sha256"),
        (
            json!({"client": [{"name": "a", "sha256": ADA}, {"name": "b", "sha256": ADA}]}),
            "/client/1: two",
        ),
        (
            json!({"client": {"name": "a", "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}}),
            "empty key",
        ),
        (
            json!({"client": {"name": "a", "sha256": ADA}, "header": "a b"}),
            "/header",
        ),
        (
            json!({"client": {"name": "a", "sha256": ADA}, "client-header": "X-Api-Key"}),
            "/client-header",
        ),
        (
            json!({"client": {"name": "a", "sha256": ADA}, "client-header": "te"}),
            "/client-header: `te` belongs to the connection",
        ),
        (
            json!({"client": {"name": "a", "sha256": ADA}, "query": "key", "scheme": "Bearer"}),
            "/scheme: a scheme stands in front of",
        ),
        (
            json!({"client": {"name": "a", "sha256": ADA}, "header": "authorization", "scheme": "Bearer "}),
            "/scheme: this is no name",
        ),
        (json!({"client": {"name": "a", "key": "x"}}), "key"),
    ] {
        let error = Host::new()
            .configure::<ApiKey>(&config.to_string())
            .expect_err("a bad configuration")
            .to_string();
        assert!(error.contains(part), "{config}: {error}");
    }
}
