//! Pages for errors.

use super::*;

#[test]
fn pages_that_have_a_name_are_said_where_they_are_taken() {
    let converted = converted(
        "http-errors mine
    errorfile 403 /etc/403.http
    errorfile 503 /etc/503.http
http-errors others
    errorfile 500 /etc/500.http
frontend web
    mode http
    bind :80
    errorfiles mine
    errorfile 403 /etc/own.http
    http-response return status 404 errorfile /etc/404.http if { status 404 }
    http-response return status 404 errorfile /etc/404.http if { status 410 }
    default_backend app
backend app
    mode http
    errorfiles mine 503
    server a 10.0.0.1:80
",
    );
    let text = &converted.text;
    for line in [
        "    error-page 503 \"/etc/503.http\"",
        "    error-page 403 \"/etc/own.http\"",
        "    error-page 404 \"/etc/404.http\" intercept",
    ] {
        assert!(text.lines().any(|have| have == line), "{line} in\n{text}");
    }
    assert_eq!(text.matches("error-page").count(), 4 + 1, "{text}");
    found(&converted, 4, "no `errorfiles` names it");
    found(&converted, 12, "no counterpart of `http-response return`");
    assert_eq!(converted.findings.len(), 2, "{:?}", converted.findings);
}
