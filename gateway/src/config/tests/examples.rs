//! The examples that are shown to people.

use std::path::Path;
use std::time::Duration;

use super::*;

#[test]
fn the_example_is_valid() {
    let config = load(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../config.kdl")))
        .unwrap()
        .config;
    let web = &config.frontends[0];
    assert_eq!(&*web.name, "web");
    assert_eq!(web.timeouts.client, Duration::from_secs(30));
    assert_eq!(web.rules[0].when, Some(Condition::Acl(AclId(1))));
    assert_eq!(web.routes[0].to.backends(), [BackendId(1)]);
    assert_eq!(web.default_backend, Some(BackendId(0)));
    assert!(web.forwarding.as_ref().unwrap().forwarded_for.is_some());
    let app = &config.backends[0];
    assert_eq!(app.servers[1].weight, 2);
    assert_eq!(app.check.clone().unwrap().schedule.interval, Duration::from_secs(2));
    assert!(config.backends[1].servers[2].backup);
    assert_eq!(config.frontends[1].mode, Mode::Tcp);
}

#[test]
fn every_example_of_the_reference_is_valid() {
    let blocks = reference_blocks();
    assert!(blocks.len() > 8, "{} blocks", blocks.len());
    for block in blocks {
        if let Err(errors) = parse("reference", &block, Path::new("")) {
            panic!("{errors:?}\nin\n{block}");
        }
    }
}

#[test]
fn every_example_for_who_knows_haproxy_is_valid() {
    let blocks = blocks(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/haproxy.md"));
    assert!(blocks.len() > 5, "{} blocks", blocks.len());
    for block in blocks {
        if let Err(errors) = parse("haproxy.md", &block, Path::new("")) {
            panic!("{errors:?}\nin\n{block}");
        }
    }
}

#[test]
fn every_node_has_an_example_in_the_reference() {
    let text = reference_blocks().concat();
    for (node, _) in crate::config::examples::EXAMPLES {
        let there = text
            .split(|c: char| c.is_whitespace() || "{;".contains(c))
            .any(|word| word == *node);
        assert!(there, "no example of `{node}`");
    }
}
