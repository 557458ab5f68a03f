//! What is logged, and where to.

use super::*;

#[test]
fn what_is_logged_is_carried_over() {
    let converted = converted(
        "frontend web
    mode http
    bind *:8080
    option dontlognull
    option dontlog-normal
    capture request header Host len 64
    capture response header Location len 32
    capture cookie SID= len 8
    http-request capture path len 128
    log-format \"%ci:%cp [%tr] %ft %b/%s %TR/%Tw/%Tc/%Tr/%Ta %ST %B %CC %CS %tsc %ac/%fc/%bc/%sc/%rc %sq/%bq %hr %hs %{+Q}r %[req.hdr(User-Agent)] 100%%\"
    http-request capture src len 9
    default_backend app
backend app
    mode http
    server a 10.0.0.1:80
",
    );
    for part in [
        "    access-log skip-null only-errors\n",
        "    capture header=\"Host\" max=64\n",
        "    capture response-header=\"Location\" max=32\n",
        "    capture cookie=\"SID\" max=8\n",
        "    capture path max=128\n",
        "%{client-ip}:%{client-port} [%{date}] %{frontend-tls} %{backend}/%{server} %{request-ms}/",
        "%{retries} 0/%{queue} %{captures} %{response-captures} \\\"%{request-line}\\\" %{header:user-agent} 100%",
    ] {
        assert!(converted.text.contains(part), "{part} in\n{}", converted.text);
    }
    assert_eq!(converted.findings.len(), 1, "{:?}", converted.findings);
    found(&converted, 11, "no counterpart");
}

#[test]
fn the_log_keeps_its_way_and_its_form() {
    for (line, said, notes) in [
        (
            "/dev/log local0",
            Some(r#"log "/dev/log" syslog="rfc3164" facility="local0""#),
            0,
        ),
        (
            "/dev/log len 4096 format rfc5424 local1 notice err",
            Some(r#"log "/dev/log" syslog="rfc5424" facility="local1""#),
            3,
        ),
        (
            "/var/lib/haproxy/dev/log format rfc3164 daemon",
            Some(r#"log "unix:///var/lib/haproxy/dev/log" syslog="rfc3164" facility="daemon""#),
            0,
        ),
        (
            "10.0.0.9 local0",
            Some(r#"log "udp://10.0.0.9:514" syslog="rfc3164" facility="local0""#),
            0,
        ),
        (
            "::1:5514 format iso local0",
            Some(r#"log "udp://[::1]:5514" facility="local0""#),
            1,
        ),
        (
            "tcp@10.0.0.9:601 format rfc5424 local0",
            Some(r#"log "tcp://10.0.0.9:601" syslog="rfc5424" facility="local0""#),
            0,
        ),
        ("stdout format raw local0", Some(r#"log "stdout""#), 0),
        // And nothing is left of `global`.
        ("ring@errors local0", None, 1),
    ] {
        let text = format!("global\n    log {line}\nlisten a\n    mode tcp\n    bind :25\n    server s 10.0.0.1:25\n");
        let converted = converted(&text);
        let mut lines = converted.text.lines().map(str::trim);
        let node = lines.find(|line| line.starts_with("log "));
        assert_eq!(node, said, "{line} in\n{}", converted.text);
        assert!(converted.is_valid, "{converted:#?}");
        assert_eq!(converted.findings.len(), notes, "{line}: {:?}", converted.findings);
    }
}
