//! Tests of the language as a whole; invalid configurations are in `gateway/tests/invalid.rs`.

use std::path::Path;
use std::time::Duration;

use super::*;

fn config(text: &str) -> Config {
    parse("test.kdl", text, Path::new("/etc/gateway")).unwrap()
}

/// The words of the first fault.
fn fault(text: &str) -> String {
    let errors = parse("test.kdl", text, Path::new("")).unwrap_err();
    format!("{errors:?}")
}

#[test]
fn the_example_is_valid() {
    let config = load(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../config.kdl"))).unwrap();
    assert_eq!(config.frontends.len(), 2);
    assert_eq!(config.backends.len(), 3);
    let web = &config.frontends[0];
    assert_eq!(&*web.name, "web");
    assert_eq!(web.timeouts.client, Duration::from_secs(30));
    assert_eq!(web.acls.len(), 2);
    assert_eq!(web.denies[0].when, Some(Condition::Acl(AclId(1))));
    assert_eq!(web.routes[0].backend, BackendId(1));
    assert_eq!(web.default_backend, Some(BackendId(0)));
    assert!(web.forwarded_for);
    let app = &config.backends[0];
    assert_eq!(app.servers[1].weight, 2);
    let check = app.check.clone().unwrap();
    assert_eq!(check.interval, Duration::from_secs(2));
    assert!(config.backends[1].servers[2].backup);
    assert_eq!(config.frontends[1].mode, Mode::Tcp);
}
