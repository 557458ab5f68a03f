//! What the edits come to.

use gateway_plugin_header_rewrite::HeaderRewrite;
use gateway_plugin_sdk::test::{Host, Request, Response, Tested};
use proptest::prelude::*;
use serde_json::{Value, json};

fn rewrite(config: &Value) -> Tested<HeaderRewrite> {
    Host::new()
        .configure(&config.to_string())
        .expect("a good configuration")
}

fn request(edits: &Value, request: &Request) -> Request {
    let filtered = rewrite(&json!({ "request": edits }))
        .on_request(request)
        .expect("no failure");
    assert_eq!(filtered.reply, None);
    filtered.request
}

fn response(edits: &Value, response: &Response) -> Response {
    rewrite(&json!({ "response": edits }))
        .on_response(&Request::get("/"), response)
        .expect("no failure")
}

fn refused(edits: &Value) -> String {
    let config = json!({ "request": edits }).to_string();
    Host::new()
        .configure::<HeaderRewrite>(&config)
        .expect_err("a bad configuration")
        .to_string()
}

fn path(edits: &Value, path: &str) -> String {
    request(edits, &Request::get(path)).path()
}

#[test]
fn headers_are_set_added_and_deleted() {
    let given = Request::get("/")
        .with_header("x-a", "1")
        .with_header("x-a", "2")
        .with_header("x-b", "1");
    let edits = json!([
        {"set-header": {"name": "X-A", "value": "new"}},
        {"add-header": {"name": "x-b", "value": "2"}},
        {"delete-header": {"name": "x-debug"}},
        {"set-header": {"name": "x-c", "value": ""}},
    ]);
    let edited = request(&edits, &given.with_header("X-Debug", "1"));
    assert_eq!(edited.header("x-a"), ["new"]);
    assert_eq!(edited.header("x-b"), ["1", "2"]);
    assert_eq!(edited.header("x-c"), [""]);
    assert!(edited.header("x-debug").is_empty());
}

#[test]
fn no_client_makes_a_replacement_fail() {
    let bearer = json!([{"replace-header": {"name": "Authorization", "prefix": "Bearer", "to": ""}}]);
    let given = Request::get("/").with_header("authorization", "Bearer abc");
    assert_eq!(request(&bearer, &given).header("authorization"), ["abc"]);
    let given = Request::get("/").with_header("x-a", "a b");
    let last = json!([{"replace-header": {"name": "x-a", "regex": "b$", "to": ""}}]);
    assert_eq!(request(&last, &given).header("x-a"), ["a"]);

    // Half of a character is no path.
    let half = json!([{"rewrite-path": {"regex": "^/.", "to": "/x"}}, {"set-header": {"name": "x-b", "value": "1"}}]);
    let edited = request(&half, &Request::get("/\u{e9}"));
    assert_eq!(
        (edited.path().as_str(), edited.header("x-b")),
        ("/\u{e9}", vec!["1".to_owned()])
    );
    assert_eq!(path(&half, "/ab"), "/xb");

    // More values, or longer ones, than the host takes: they stay, and what is constant is done all the same.
    let edits = json!([
        {"replace-header": {"name": "x-a", "prefix": "a", "to": "b"}},
        {"add-header": {"name": "x-a", "value": "more"}},
        {"set-header": {"name": "x-b", "value": "1"}},
    ]);
    let many = (0..127).fold(Request::get("/"), |given, _| given.with_header("x-a", "a"));
    let edited = request(&edits, &many);
    assert_eq!(edited.header("x-a").len(), 128);
    assert_eq!(edited.header("x-a")[126..], ["a", "more"]);
    assert_eq!(edited.header("x-b"), ["1"]);
    let long = Request::get("/").with_header("x-a", "a".repeat(16 * 1024));
    assert_eq!(request(&edits, &long).header("x-a")[0].as_bytes()[0], b'a');
}

#[test]
fn edits_of_one_header_work_on_what_the_one_before_left() {
    let given = Request::get("/").with_header("x-a", "old");
    let edits = json!([
        {"add-header": {"name": "x-a", "value": "gone"}},
        {"delete-header": {"name": "x-a"}},
        {"add-header": {"name": "x-a", "value": "one"}},
        {"add-header": {"name": "x-a", "value": "two"}},
    ]);
    assert_eq!(request(&edits, &given).header("x-a"), ["one", "two"]);
    let edits = json!([
        {"set-header": {"name": "x-a", "value": "abc"}},
        {"replace-header": {"name": "x-a", "regex": "b", "to": "-"}},
        {"add-header": {"name": "x-a", "value": "b"}},
    ]);
    assert_eq!(request(&edits, &given).header("x-a"), ["a-c", "b"]);
    let edits = json!([
        {"replace-header": {"name": "x-a", "prefix": "o", "to": "g"}},
        {"replace-header": {"name": "x-a", "prefix": "g", "to": "b"}},
        {"delete-header": {"name": "x-a"}},
    ]);
    assert!(request(&edits, &given).header("x-a").is_empty());
}

#[test]
fn a_replacement_is_made_in_each_value() {
    let given = Request::get("/")
        .with_header("x-id", "a1")
        .with_header("x-id", "b2")
        .with_header("x-id", "a3a");
    let edits = json!([{"replace-header": {"name": "x-id", "regex": "a(\\d)", "to": "${1}$$"}}]);
    assert_eq!(request(&edits, &given).header("x-id"), ["1$", "b2", "3$a"]);
    assert!(
        request(&edits, &Request::get("/")).header("x-id").is_empty(),
        "an absent header stays absent"
    );
}

#[test]
fn paths_are_rewritten_and_queries_left() {
    let prefix = json!([{"rewrite-path": {"prefix": "/old/", "to": "/new/"}}]);
    assert_eq!(path(&prefix, "/old/a/b"), "/new/a/b");
    assert_eq!(path(&prefix, "/older"), "/older");
    assert_eq!(
        request(&prefix, &Request::get("/old/x?a=/old/")).query().as_deref(),
        Some("a=/old/")
    );

    let regex = json!([{"rewrite-path": {"regex": "^/u/(?<id>\\d+)/(.*)$", "to": "/$2/$id"}}]);
    assert_eq!(path(&regex, "/u/42/edit"), "/edit/42");
    assert_eq!(path(&regex, "/u/x/edit"), "/u/x/edit");

    let both = json!([
        {"rewrite-path": {"prefix": "/a", "to": "/b"}},
        {"rewrite-path": {"regex": "b$", "to": "c"}},
    ]);
    assert_eq!(path(&both, "/a"), "/c");
}

#[test]
fn a_rewritten_path_begins_with_a_slash() {
    let strip = json!([{"rewrite-path": {"prefix": "/api", "to": ""}}]);
    assert_eq!(path(&strip, "/api"), "/");
    assert_eq!(path(&strip, "/api/x"), "/x");
    assert_eq!(path(&strip, "/apix"), "/x");
}

#[test]
fn responses_are_edited_and_locations_rewritten() {
    let edits = json!([
        {"set-header": {"name": "x-served-by", "value": "gateway"}},
        {"delete-header": {"name": "server"}},
        {"rewrite-location": {"prefix": "http://", "to": "https://"}},
    ]);
    let given = Response::new(302)
        .with_header("Location", "http://a.example/x")
        .with_header("Server", "s");
    let edited = response(&edits, &given);
    assert_eq!(edited.header("location"), ["https://a.example/x"]);
    assert_eq!(edited.header("x-served-by"), ["gateway"]);
    assert!(edited.header("server").is_empty());
    assert_eq!(edited.status(), 302);
    assert!(response(&edits, &Response::new(200)).header("location").is_empty());
}

#[test]
fn only_what_a_replacement_sees_is_needed() {
    let config = json!({
        "request": [
            {"set-header": {"name": "x-a", "value": "1"}},
            {"replace-header": {"name": "X-B", "prefix": "a", "to": "b"}},
            {"rewrite-path": {"prefix": "/a", "to": "/b"}},
        ],
        "response": [{"rewrite-location": {"prefix": "a", "to": "b"}}],
    });
    let plugin = rewrite(&config);
    assert_eq!(plugin.request_needs(), ["header:x-b", "path"]);
    assert_eq!(plugin.response_needs(), ["response-header:location"]);
    assert!(rewrite(&json!({})).request_needs().is_empty());
}

#[test]
fn what_is_wrong_with_a_configuration_is_said_with_its_place() {
    let set = |name: &str, value: &str| refused(&json!([{"set-header": {"name": name, "value": value}}]));
    assert!(set("Host", "a").starts_with("/request/0/set-header/name: `host` belongs"));
    assert!(set("a b", "a").starts_with("/request/0/set-header/name: "));
    assert!(set("x-a", "a\r\nx-b: c").starts_with("/request/0/set-header/value: "));
    let replace = |edit: Value| refused(&json!([{ "rewrite-path": edit }]));
    assert!(replace(json!({"prefix": "/a", "to": "/b?c"})).starts_with("/request/0/to: "));
    assert!(replace(json!({"regex": "(", "to": "/b"})).starts_with("/request/0/regex: "));
    assert!(replace(json!({"regex": "a", "to": "$1"})).contains("no group `1`"));
    assert!(replace(json!({"regex": "(a)", "to": "$1x"})).contains("no group `1x`"));
    assert!(replace(json!({"regex": "a", "to": "${1"})).contains("without its `}`"));
    assert!(replace(json!({"regex": "a", "prefix": "b", "to": ""})).contains("one of prefix and regex"));
    assert!(replace(json!({"to": ""})).contains("one of prefix and regex"));
}

/// The steps of one header, done one by one on a list: what the plugin has to come to.
fn naive(given: &[String], edits: &[(u8, String)]) -> Vec<String> {
    let mut values = given.to_vec();
    for (kind, text) in edits {
        match kind {
            0 => values = vec![text.clone()],
            1 => values.push(text.clone()),
            2 => values.clear(),
            _ => values
                .iter_mut()
                .for_each(|value| *value = value.replacen('a', text, 1)),
        }
    }
    values
}

proptest! {
    #[test]
    fn edits_come_to_what_doing_them_one_by_one_does(
        given in prop::collection::vec("[ab]{0,3}", 0..3),
        edits in prop::collection::vec((0..4_u8, "[abc]{0,2}"), 0..6),
    ) {
        let steps: Vec<Value> = edits.iter().map(|(kind, text)| match kind {
            0 => json!({"set-header": {"name": "x-a", "value": text}}),
            1 => json!({"add-header": {"name": "x-a", "value": text}}),
            2 => json!({"delete-header": {"name": "x-a"}}),
            _ => json!({"replace-header": {"name": "x-a", "regex": "a", "to": text}}),
        }).collect();
        let request_given = given.iter().fold(Request::get("/"), |request, value| request.with_header("x-a", value));
        prop_assert_eq!(request(&json!(steps), &request_given).header("x-a"), naive(&given, &edits));
    }

    /// Whatever a path holds, a rewritten one is one that the host takes.
    #[test]
    fn a_rewritten_path_is_a_path(given in "/[!-\"$-;=@-_a-~]{0,40}") {
        let edits = json!([{"rewrite-path": {"regex": "^/(.?)(.*)$", "to": "$2/$1"}}]);
        let expected_tail = given.chars().nth(1).map(String::from).unwrap_or_default();
        let rewritten = path(&edits, &given);
        prop_assert!(rewritten.starts_with('/') && rewritten.ends_with(&format!("/{expected_tail}")), "{rewritten}");
    }
}

#[test]
fn an_edit_is_made_when_its_condition_holds() {
    let edits = json!([
        {"when": {"condition": 3, "edit": {"set-header": {"name": "x-a", "value": "1"}}}},
        {"when": {"condition": 0, "edit": {"delete-header": {"name": "x-b"}}}},
        {"when": {"condition": 3, "edit": {"replace-header": {"name": "x-c", "prefix": "a", "to": "b"}}}},
        {"when": {"condition": 0, "edit": {"set-path": "/down"}}},
        {"add-header": {"name": "x-a", "value": "2"}},
    ]);
    let given = Request::get("/x")
        .with_header("x-a", "0")
        .with_header("x-b", "0")
        .with_header("x-c", "a");
    let none = request(&edits, &given);
    assert_eq!(none.header("x-a"), ["0", "2"]);
    assert_eq!(none.header("x-b"), ["0"]);
    assert_eq!(none.header("x-c"), ["a"]);
    assert_eq!(none.path(), "/x");
    let one = request(&edits, &given.clone().with_condition(3));
    assert_eq!(one.header("x-a"), ["1", "2"]);
    assert_eq!(one.header("x-c"), ["b"]);
    let other = request(&edits, &given.with_condition(0));
    assert!(other.header("x-b").is_empty());
    assert_eq!(other.path(), "/down");
}

#[test]
fn a_value_is_put_together_of_facts() {
    let value = json!([{"text": "for="}, {"fact": "client-ip"}, {"text": ";host="}, {"fact": "header:x-in"}]);
    let edits = json!([{"set-header": {"name": "x-out", "value": value}}]);
    let given = Request::get("/").from("192.0.2.9:4000");
    assert_eq!(request(&edits, &given).header("x-out"), ["for=192.0.2.9;host="]);
    let two = given.clone().with_header("x-in", "a").with_header("x-in", "b");
    assert_eq!(request(&edits, &two).header("x-out"), ["for=192.0.2.9;host=a, b"]);
    let edits = json!([{"add-header": {"name": "x-q", "value": [{"fact": "query-param:q"}]}}]);
    let split = Request::get("/?q=a%0d%0ax-b:%20c%20");
    assert_eq!(request(&edits, &split).header("x-q"), ["a__x-b: c"]);
    assert!(request(&edits, &split).header("x-b").is_empty());
    let edits =
        json!([{"replace-header": {"name": "x-in", "regex": "^(a)", "to": [{"fact": "method"}, {"text": "-$1"}]}}]);
    assert_eq!(request(&edits, &two).header("x-in"), ["GET-a", "b"]);
}

#[test]
fn a_forged_header_does_not_stay_because_a_value_is_too_long() {
    let value = json!([{"text": "user "}, {"fact": "header:x-long"}]);
    let edits = json!([{"set-header": {"name": "x-user", "value": value}}]);
    let given = Request::get("/")
        .with_header("x-user", "admin")
        .with_header("x-long", "a".repeat(17 * 1024));
    assert_eq!(request(&edits, &given).header("x-user"), ["user"]);
}

#[test]
fn paths_are_set_prefixed_and_stripped() {
    let strip = json!([{"strip-prefix": "/api"}]);
    for (given, expected) in [
        ("/api", "/"),
        ("/api/", "/"),
        ("/api/x", "/x"),
        ("/apiary", "/apiary"),
        ("/x/api", "/x/api"),
    ] {
        assert_eq!(path(&strip, given), expected);
    }
    assert_eq!(path(&json!([{"add-prefix": "/v1"}]), "/x"), "/v1/x");
    let hosted = json!([{"set-path": [{"text": "/sites/"}, {"fact": "host"}, {"fact": "path"}]}]);
    assert_eq!(path(&hosted, "http://A.example:80/x%20y"), "/sites/a.example/x%20y");
    let tricked = json!([{"set-path": [{"text": "/users/"}, {"fact": "header:x-user"}]}]);
    let given = Request::get("/").with_header("x-user", "../admin?x#y z");
    assert_eq!(request(&tricked, &given).path(), "/users/..%2Fadmin%3Fx%23y%20z");
}

#[test]
fn queries_are_set_replaced_and_changed_by_parameter() {
    let query = |edits: Value, target: &str| request(&edits, &Request::get(target)).query();
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(query(json!([{"set-query": "a=b"}]), "/?x"), some("a=b"));
    assert_eq!(query(json!([{"set-query": ""}]), "/?x"), None);
    assert_eq!(
        query(
            json!([{"rewrite-query": {"regex": "(^|&)debug=[^&]*", "to": ""}}]),
            "/?a=1&debug=2&b=3"
        ),
        some("a=1&b=3")
    );
    let set = json!([{"set-query-param": {"name": "v", "value": "2 &="}}]);
    assert_eq!(query(set.clone(), "/"), some("v=2%20%26%3D"));
    assert_eq!(query(set.clone(), "/?a=1"), some("a=1&v=2%20%26%3D"));
    assert_eq!(query(set, "/?v=1&a=1&%76=3"), some("v=2%20%26%3D&a=1"));
    let delete = json!([{"delete-query-param": "debug"}]);
    assert_eq!(query(delete.clone(), "/?debug"), None);
    assert_eq!(query(delete.clone(), "/?a&debug=1&b&de%62ug"), some("a&b"));
    assert_eq!(query(delete, "/?a&b"), some("a&b"));
}

#[test]
fn a_target_that_became_too_long_is_refused_and_not_sent_as_it_was() {
    let edits = json!([{"set-query": [{"fact": "header:x-long"}]}]);
    let given = Request::get("/").with_header("x-long", "a".repeat(17 * 1024));
    let filtered = rewrite(&json!({ "request": edits }))
        .on_request(&given)
        .expect("no failure");
    assert_eq!(filtered.reply.map(|reply| reply.status()), Some(414));
}

#[test]
fn locations_are_moved_and_statuses_set() {
    let location = |change: Value, given: &str| {
        let edits = json!([{ "move-location": change }]);
        response(&edits, &Response::new(302).with_header("location", given)).header("location")
    };
    let https = json!({"scheme": "https", "host": null});
    assert_eq!(
        location(https.clone(), "http://a.example:80/x?y"),
        ["https://a.example/x?y"]
    );
    assert_eq!(
        location(https.clone(), "HTTP://a.example:8080"),
        ["https://a.example:8080"]
    );
    assert_eq!(location(https, "/x"), ["/x"]);
    let host = json!({"scheme": null, "host": "www.example"});
    assert_eq!(location(host, "http://10.0.0.1:8080?y"), ["http://www.example?y"]);
    let status = json!([{"when": {"condition": 1, "edit": {"set-status": 404}}}]);
    assert_eq!(response(&status, &Response::new(403)).status(), 403);
    let plugin = rewrite(&json!({ "response": status }));
    let request = Request::get("/").with_condition(1);
    assert_eq!(
        plugin
            .on_response(&request, &Response::new(403))
            .expect("no failure")
            .status(),
        404
    );
}
