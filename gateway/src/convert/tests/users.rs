//! Users and their passwords.

use super::*;

const REST: &str = "default_backend app
backend app
    mode http
    server a 10.0.0.1:80
";

#[test]
fn users_and_their_passwords_are_a_plugins() {
    let hash = format!("$6$salt${}", "x".repeat(86));
    let converted = converted(&format!(
        "userlist staff
    group admins users ada
    user ada password {hash}
    user bob insecure-password geheim groups ops,admins
    user eve password $2y$05$abc
    user kim groups ops
frontend web
    mode http
    bind :80
    acl known http_auth(staff)
    http-request auth realm \"The shop\" unless known
    {REST}frontend admin
    mode http
    bind :81
    http-request auth if !{{ http_auth_group(staff) admins }}
    {REST_NAMED}"
    ));
    for part in [
        "    use-plugin \"staff\"\n",
        "plugin \"staff\" builtin=\"basic-auth\" {\n    on-failure \"deny\" status=503\n    config {\n        realm \"The shop\"\n        forward\n",
        "    use-plugin \"staff-admins\"\n",
        "        realm \"admin\"\n",
        &format!("        user name=\"ada\" hash=\"{hash}\"\n"),
    ] {
        assert!(converted.text.contains(part), "{part} in\n{}", converted.text);
    }
    let text = &converted.text;
    // For each of the plugins.
    assert_eq!(text.matches("name=\"bob\" hash=\"$6$").count(), 2, "{text}");
    assert!(!text.contains("geheim") && !text.contains("acl \""), "{text}");
    found(&converted, 4, "the password was hashed");
    found(
        &converted,
        5,
        "`eve` was left out, and cannot log in: hashes are $5$ or $6$",
    );
    found(&converted, 6, "`kim` was left out, and cannot log in");
}

const REST_NAMED: &str = "default_backend app\n";

#[test]
fn who_is_asked_for_a_password_is_everybody_or_told_of() {
    let converted = converted(&format!(
        "userlist staff
    user bob insecure-password geheim
userlist others
    user kim insecure-password geheim
frontend web
    mode http
    bind :80
    acl known http_auth(staff)
    acl admin path_beg /admin
    http-request auth unless known or admin
    http-request auth if admin !known
    http-request deny unless {{ http_auth(staff) }}
    http-request auth unless {{ http_auth(nobody) }}
    {REST}"
    ));
    let mut lines = converted.text.lines().map(str::trim_start);
    assert!(!lines.any(|line| line.starts_with("use-plugin")), "{}", converted.text);
    for line in [10, 11, 12, 13] {
        found(&converted, line, "left out, so that nobody is refused by it");
    }
    found(&converted, 11, "a `tenant` whose `use-plugin` has the condition");
    found(&converted, 13, "there is no userlist `nobody`");
    found(&converted, 1, "no rule that asks its users has come over");
    found(&converted, 3, "no rule that asks its users has come over");
}

#[test]
fn what_is_answered_before_a_password_is_asked_for_is_told_of() {
    let converted = converted(&format!(
        "userlist staff
    user bob insecure-password geheim
frontend web
    mode http
    bind :80
    http-request return status 200 if {{ path /ping }}
    http-request auth unless {{ http_auth(staff) }}
    http-request return status 200 string secret if {{ path /secret }}
    {REST}"
    ));
    found(
        &converted,
        8,
        "it answers without a password, which line 7 asks for behind all rules",
    );
    assert!(
        !converted.findings.iter().any(|finding| finding.line == 6),
        "{:?}",
        converted.findings
    );
}
