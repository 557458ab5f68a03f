//! What holds where nothing is said.

use std::path::Path;
use std::time::Duration;

use super::*;

#[test]
fn nothing_said_means_the_defaults() {
    let config = web("");
    let frontend = &config.frontends[0];
    assert_eq!(frontend.mode, Mode::Http);
    assert_eq!(frontend.timeouts.http_request, Duration::from_secs(10));
    assert_eq!(frontend.request_limits.head, 16 << 10);
    assert_eq!(frontend.request_limits.body, None);
    assert!(frontend.access_log.enabled && !frontend.access_log.skip_null);
    assert!(frontend.forwarding.is_none() && frontend.request_id.is_none());
    assert_eq!(config.backends[0].balance, Balance::RoundRobin);
    assert_eq!(config.backends[0].check, None);
    assert_eq!(config.process.log.target, LogTarget::Stdout);
    assert_eq!(config.process.workers, None);
    assert_eq!(config.process.drain_timeout, Duration::from_secs(30));
    assert!(config.stats.is_none());
}

#[test]
fn a_section_takes_the_defaults_it_names_and_overrides_them_one_by_one() {
    let config = config(
        r#"
        defaults { timeout client="1s" http-request="2s"; forwarded-for }
        defaults "slow" { timeout client="1m"; server-close }
        frontend "a" { bind "127.0.0.1:0"; timeout client="7s"; default-backend "x" }
        frontend "b" from="slow" { bind "127.0.0.1:0"; default-backend "x" }
        backend "x" from="slow" { server-close "off"; server "s" "echo" }
        backend "y" from="slow" { server "s" "echo" }
        frontend "c" { bind "127.0.0.1:0"; forwarded-for "off"; default-backend "y" }
        "#,
    );
    let [a, b, c] = &config.frontends[..] else {
        panic!("three frontends")
    };
    assert_eq!(a.timeouts.client, Duration::from_secs(7));
    assert_eq!(a.timeouts.http_request, Duration::from_secs(2));
    assert!(a.forwarding.is_some() && b.forwarding.is_none() && c.forwarding.is_none());
    assert_eq!(b.timeouts.client, Duration::from_secs(60));
    assert_eq!(b.timeouts.http_request, Duration::from_secs(10));
    assert!(!config.backends[0].server_close && config.backends[1].server_close);
}

#[test]
fn relative_paths_start_at_the_configuration() {
    let config = config(
        r#"
        process { log "./gateway.log" }
        frontend "a" {
            bind "127.0.0.1:0" { tls cert="certs/a.pem" key="/keys/a.key" }
            use-plugin "p"
            default-backend "x"
        }
        backend "x" { server "s" "echo" }
        plugin "p" "plugins/p.wasm" { on-failure "skip" }
        "#,
    );
    assert_eq!(
        config.process.log.target,
        LogTarget::File("/etc/gateway/./gateway.log".into())
    );
    let tls = config.frontends[0].binds[0].tls.clone().unwrap();
    let CertificateSource::Files(files) = &tls.certificates[0] else {
        panic!("a folder")
    };
    assert_eq!(files.cert.value, Path::new("/etc/gateway/certs/a.pem"));
    assert_eq!(files.key.as_ref().unwrap().value, Path::new("/keys/a.key"));
    assert_eq!(
        config.plugins[0].component.value,
        ComponentSource::File("/etc/gateway/plugins/p.wasm".into())
    );
    assert_eq!(
        (&*config.plugins[0].origin.file, config.plugins[0].origin.line),
        ("test.kdl", 9)
    );
}
