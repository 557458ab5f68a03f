//! Who is let in, and how often one may try.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gateway_plugin_basic_auth::BasicAuth;
use gateway_plugin_sdk::test::{Filtered, Host, Request, Tested};
use serde_json::{Value, json};

/// Of `correct horse`, by `openssl passwd -5`.
const ADA: &str = "$5$saltsalt$myjXcpMpE2Ofk7fj9hqyNYSn6lmWG4Mqnjx.KIRRr4/";
/// Of `battery:staple`, by `openssl passwd -6`.
const LIN: &str =
    "$6$peppersalt$qZRgC/22OhK3pkU8Kb//.Jlom848yGvxfHsKR/nZ4G/lHnyMsvKkeCaCMHJPvDetvS7IJ0vLZxGsCKTI5uKcl0";

fn plugin(host: &Host, more: &Value) -> Tested<BasicAuth> {
    let mut config = json!({"user": {"name": "ada", "hash": ADA}, "users": format!("# more\n\nlin:{LIN}\n")});
    for (name, value) in more.as_object().into_iter().flatten() {
        config[name] = value.clone();
    }
    host.configure(&config.to_string()).expect("a good configuration")
}

fn with(name: &str, password: &str) -> Request {
    let value = STANDARD.encode(format!("{name}:{password}"));
    Request::get("/").with_header("authorization", format!("Basic {value}"))
}

fn ask(plugin: &Tested<BasicAuth>, request: &Request) -> Filtered {
    plugin.on_request(request).expect("no failure")
}

fn status(plugin: &Tested<BasicAuth>, request: &Request) -> Option<u16> {
    ask(plugin, request).reply.map(|reply| reply.status())
}

#[test]
fn the_right_password_opens_the_door() {
    let plugin = plugin(&Host::new(), &json!({"user-header": "x-user"}));
    for (name, password) in [
        ("ada", "correct horse"),
        ("lin", "battery:staple"),
        ("ada", "correct horse"),
    ] {
        let filtered = ask(&plugin, &with(name, password).with_header("x-user", "root"));
        assert_eq!(filtered.reply, None, "{name}");
        assert_eq!(filtered.request.header("x-user"), [name]);
        assert_eq!(filtered.request.tag("basic-auth.user").as_deref(), Some(name));
        assert!(filtered.request.header("authorization").is_empty());
    }
}

#[test]
fn nothing_else_does() {
    let plugin = plugin(&Host::new(), &json!({"realm": "the back door"}));
    for (name, password) in [
        ("ada", "Correct horse"),
        ("ada", ""),
        ("ada", "battery:staple"),
        ("bob", "correct horse"),
        ("", ""),
    ] {
        assert_eq!(status(&plugin, &with(name, password)), Some(401), "{name}:{password}");
    }
    for value in [
        &b"Basic"[..],
        b"Basic ",
        b"Basic !!",
        b"Basic YWRh",
        b"Bearer YWRhOng=",
        b"\xff\xff\xff\xff\xff\xff\xff",
        &[b'a'; 9000],
    ] {
        assert_eq!(
            status(&plugin, &Request::get("/").with_header("authorization", value)),
            Some(401),
            "{value:?}"
        );
    }
    let twice = with("ada", "correct horse").with_header("authorization", "Basic YWRhOng=");
    assert_eq!(status(&plugin, &twice), Some(401));
    let reply = ask(&plugin, &Request::get("/")).reply.expect("a reply");
    let challenge = reply.headers().iter().find(|(name, _)| name == "www-authenticate");
    assert_eq!(
        challenge.expect("a challenge").1,
        b"Basic realm=\"the back door\", charset=\"UTF-8\""
    );
}

#[test]
fn who_tries_many_has_to_wait_and_nobody_else() {
    let host = Host::new();
    let plugin = plugin(&host, &json!({"attempts": 3}));
    let from = |request: Request, client: &str| request.from(client);
    for (name, password) in [("ada", "correct horse"), ("lin", "battery:staple")] {
        assert_eq!(status(&plugin, &from(with(name, password), "192.0.2.1:1")), None);
    }
    for _ in 0..3 {
        assert_eq!(status(&plugin, &from(with("ada", "x"), "192.0.2.1:1")), Some(401));
    }
    let waits = ask(&plugin, &from(with("ada", "y"), "192.0.2.1:2"))
        .reply
        .expect("a reply");
    let after = waits.headers().iter().find(|(name, _)| name == "retry-after");
    assert_eq!((waits.status(), &*after.expect("when").1), (429, &b"20"[..]));
    assert_eq!(status(&plugin, &from(with("ada", "y"), "192.0.2.2:1")), Some(401));
    let known = from(with("lin", "battery:staple"), "192.0.2.1:1");
    assert_eq!(
        status(&plugin, &known),
        None,
        "what is known to be right costs no attempt"
    );
    host.advance(Duration::from_secs(20));
    assert_eq!(status(&plugin, &from(with("ada", "z"), "192.0.2.1:1")), Some(401));

    for last in 1..=3 {
        assert_eq!(
            status(&plugin, &from(with("lin", "x"), &format!("[2001:db8::{last}]:1"))),
            Some(401)
        );
    }
    assert_eq!(
        status(&plugin, &from(with("lin", "x"), "[2001:db8::ffff:1]:1")),
        Some(429)
    );
}

/// What an instance remembers answers at once, and could be asked for as often as one likes.
#[test]
fn a_password_that_is_remembered_is_guessed_at_no_more_often_than_another() {
    let host = Host::new();
    let plugin = plugin(&host, &json!({"attempts": 3}));
    let here = |name: &str, password: &str| with(name, password).from("192.0.2.1:1");
    let elsewhere = with("ada", "correct horse").from("192.0.2.2:1");
    for request in [&elsewhere, &here("lin", "battery:staple")] {
        assert_eq!(status(&plugin, request), None);
    }
    // Used up by guesses at somebody else, so that one guess after the other would get 429, and the right one none.
    for _ in 0..3 {
        assert_eq!(status(&plugin, &here("nobody", "x")), Some(401));
    }
    assert_eq!(status(&plugin, &here("ada", "correct horse")), None);
    for guess in ["a", "b", "c"] {
        assert_eq!(status(&plugin, &here("ada", guess)), Some(429));
    }
    let refused = ask(&plugin, &here("ada", "correct horse")).reply.expect("a reply");
    let after = refused.headers().iter().find(|(name, _)| name == "retry-after");
    assert_eq!((refused.status(), &*after.expect("when").1), (429, &b"20"[..]));
    // It is her password at this address alone.
    for request in [&elsewhere, &here("lin", "battery:staple")] {
        assert_eq!(status(&plugin, request), None);
    }
    // Wrong ones count for both while there are tries left, so that there are never twice as many.
    host.advance(Duration::from_secs(60));
    for _ in 0..3 {
        assert_eq!(status(&plugin, &here("ada", "x")), Some(401));
    }
    assert_eq!(status(&plugin, &here("ada", "correct horse")), Some(429));
    host.advance(Duration::from_secs(20));
    assert_eq!(status(&plugin, &here("ada", "correct horse")), None);
}

/// An office behind one address, after a reload: nobody's password is remembered yet.
#[test]
fn right_passwords_are_no_attempts_however_many_come_from_one_address() {
    let host = Host::new();
    let before = plugin(&host, &json!({"attempts": 2}));
    let office = |request: Request| request.from("192.0.2.1:1");
    assert_eq!(status(&before, &office(with("ada", "x"))), Some(401));
    for _ in 0..3 {
        let fresh = plugin(&host, &json!({"attempts": 2}));
        assert_eq!(status(&fresh, &office(with("ada", "correct horse"))), None);
        assert_eq!(status(&fresh, &office(with("lin", "battery:staple"))), None);
    }
    assert_eq!(status(&before, &office(with("ada", "x"))), Some(401));
    assert_eq!(status(&before, &office(with("lin", "battery:staple"))), Some(429));
}

#[test]
fn what_cannot_be_meant_is_refused() {
    for (config, part) in [
        (json!({}), "nobody has a password"),
        (json!({"user": {"name": "a:b", "hash": ADA}}), "/user/0"),
        (json!({"user": {"name": "a", "hash": "secret"}}), "mkpasswd"),
        (
            json!({"user": {"name": "a", "hash": "$2y$10$abcdefghijklmnopqrstuu"}}),
            "this is bcrypt",
        ),
        (
            json!({"users": "a:$apr1$abcdefgh$abcdefghijklmnopqrstuu"}),
            "/users: the hash of \"a\": this is Apache's MD5",
        ),
        (
            json!({"users": "a:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="}),
            "without rounds",
        ),
        (json!({"user": {"name": "a ", "hash": ADA}}), "/user/0: a name has"),
        (
            json!({"user": {"name": "a", "hash": ADA}, "user-header": "connection"}),
            "/user-header: `connection` belongs to the connection",
        ),
        (
            json!({"user": {"name": "a", "hash": "$5$rounds=9999999$salt$hash"}}),
            "rounds",
        ),
        (json!({"user": {"name": "a", "hash": "$6$salt$short"}}), "mkpasswd"),
        (json!({"users": "# all\nada"}), "/users: line 2 is no `name:hash`"),
        (
            json!({"user": [{"name": "a", "hash": ADA}, {"name": "a", "hash": LIN}]}),
            "two users",
        ),
        (json!({"user": {"name": "a", "hash": ADA}, "realm": "a\"b"}), "/realm"),
        (json!({"user": {"name": "a", "hash": ADA}, "attempts": 0}), "/attempts"),
        (
            json!({"user": {"name": "a", "hash": ADA}, "user-header": "Authorization"}),
            "/user-header",
        ),
    ] {
        let error = Host::new()
            .configure::<BasicAuth>(&config.to_string())
            .expect_err("a bad configuration")
            .to_string();
        assert!(error.contains(part), "{config}: {error}");
    }
}
