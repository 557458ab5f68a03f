//! Edits of requests and responses.

use std::path::Path;

use serde_json::json;

use super::*;

#[test]
fn values_have_variables_that_the_component_reads() {
    let config = web(r##"
        acl "a" { path "/" }
        request {
            set-header "X-A" "%{client-ip} %%{b} 5%" if="a"
            set-query "%{header:X-Up}%{time}"
            rewrite-path regex="^/(a)" to="/%{host}/$1"
        }
        response { set-header "X-B" "%{frontend}/%{backend}/%{server}" }
        "##);
    let web = &config.frontends[0];
    assert_eq!(web.request_edits[0].when, Some(Condition::Acl(AclId(0))));
    assert_eq!(
        written(web.request_edits.iter().map(|edit| &edit.edit)),
        json!([
            {"set-header": {"name": "x-a", "value": [{"fact": "client-ip"}, {"text": " %{b} 5%"}]}},
            {"set-query": [{"fact": "header:x-up"}, {"fact": "local-time:UTC"}]},
            {"rewrite-path": {"regex": "^/(a)", "to": [{"text": "/"}, {"fact": "host"}, {"text": "/$1"}]}},
        ])
    );
    assert_eq!(
        serde_json::to_value(web.response_edits[0].edit.named("web", "app")).unwrap(),
        json!({"set-header": {"name": "x-b", "value": [{"text": "web/app/"}, {"fact": "server"}]}})
    );
}

#[test]
fn edits_are_what_the_component_reads() {
    let config = web(r##"
        request {
            set-header "X-A" "1"
            add-header "x-b" ""
            delete-header "X-C"
            replace-header "x-d" regex=#"^(\w+)$"# to="${1}x $$"
            rewrite-path prefix="/old/" to="/new/"
        }
        response { rewrite-location regex="^http:" to="https:" }
        "##);
    assert_eq!(
        written(config.frontends[0].request_edits.iter().map(|edit| &edit.edit)),
        json!([
            {"set-header": {"name": "x-a", "value": "1"}},
            {"add-header": {"name": "x-b", "value": ""}},
            {"delete-header": {"name": "x-c"}},
            {"replace-header": {"name": "x-d", "regex": "^(\\w+)$", "to": "${1}x $$"}},
            {"rewrite-path": {"prefix": "/old/", "to": "/new/"}},
        ])
    );
    assert_eq!(
        written(config.frontends[0].response_edits.iter().map(|edit| &edit.edit)),
        json!([{"rewrite-location": {"regex": "^http:", "to": "https:"}}])
    );
}

#[test]
fn edits_have_no_more_conditions_than_there_are_bits() {
    let with = |different: usize| {
        let mut says = String::new();
        for n in 0..different {
            says.push_str(&format!("acl \"a{n}\" {{ path \"/{n}\" }}\n"));
        }
        for (name, range) in [
            ("request", 0..different.min(40)),
            ("response", 40.min(different)..different),
        ] {
            says.push_str(&format!("{name} {{\n"));
            for n in range {
                says.push_str(&format!("add-header \"x\" \"y\" if=\"a{n}\"\n"));
            }
            says.push_str("}\n");
        }
        parse("test.kdl", &web_text(&says), Path::new(""))
    };
    assert!(with(64).is_ok());
    assert!(format!("{:?}", with(65).unwrap_err()).contains("at most 64 different conditions"));
}

#[test]
fn edits_that_write_more_than_one_call_may_are_refused() {
    let write = |name: &str, bytes: usize| format!("set-header {name:?} \"{}\"", "x".repeat(bytes));
    let config = |frontend: &str, backend: &str, tenant: &str| {
        let text = format!(
            r#"
            tenant "acme" {{ hosts "acme.example"; {tenant} }}
            frontend "web" {{
                bind "127.0.0.1:80"
                tenants "acme"
                acl "some" {{ path "/some" }}
                deny if="some"
                {frontend}
                default-backend "app"
            }}
            backend "app" {{ server "s" "127.0.0.1:81"; {backend} }}
        "#
        );
        let errors = parse("config.kdl", &text, Path::new("/etc/gateway")).err()?;
        Some(format!("{errors} {errors:?}"))
    };
    let said = |faults: Option<String>, message: &str| {
        let faults = faults.unwrap();
        let expected = format!("edits write at most 16KiB into a {message}");
        assert!(faults.contains(&expected) && faults.contains("1 error"), "{faults}");
    };
    let request = |edits: &[String]| format!("request {{ {} }}", edits.join("; "));
    let response = |edits: &[String]| format!("response {{ {} }}", edits.join("; "));
    let (half, rest) = (write("x-a", 8 << 10), write("x-b", 9 << 10));
    said(config(&request(&[half.clone(), rest.clone()]), "", ""), "request");
    said(
        config(
            &request(std::slice::from_ref(&half)),
            &request(std::slice::from_ref(&rest)),
            "",
        ),
        "request",
    );
    said(
        config(
            &response(std::slice::from_ref(&half)),
            &response(std::slice::from_ref(&rest)),
            "",
        ),
        "response",
    );
    said(config("", "", &response(&[half.clone(), rest.clone()])), "response");
    // There is room kept for what a condition may leave out, and for what stands in its place then.
    let sometimes = format!("{rest} if=\"some\"");
    said(config(&request(&[half.clone(), sometimes]), "", ""), "request");
    let either = [write("x-c", 9 << 10), format!("{} if=\"some\"", write("x-c", 9 << 10))];
    said(config(&response(&either), "", ""), "response");
    // What is replaced as it comes, and what a variable may stand for, has room kept for it and what was before; and names that stand for
    // variables count.
    let replaced = |name: &str| format!("{}; replace-header {name:?} regex=\"a\" to=\"b\"", write(name, 9 << 10));
    said(config(&request(&[replaced("x-a"), replaced("x-b")]), "", ""), "request");
    let both = request(&[half.clone(), write("x-b", 7 << 10)]);
    let again = |fact: &str| request(&[format!("set-header \"x-a\" \"{}{fact}\"", "x".repeat(1536))]);
    assert!(config(&both, &again(""), "").is_none());
    said(config(&both, &again("%{client-ip}"), ""), "request");
    let named = |name: &str| {
        let left = (16 << 10) - "x-a".len();
        let edit = |bytes: usize| format!("set-header \"x-a\" \"{}%{{{name}}}\"", "x".repeat(bytes));
        // `web` and `app`.
        (edit(left - 2), edit(left - 3))
    };
    for name in ["frontend", "backend"] {
        let (too_long, fits) = named(name);
        said(config(&request(&[too_long]), "", ""), "request");
        assert!(config(&request(&[fits]), "", "").is_none());
    }
    let (too_long, fits) = named("frontend");
    said(config("", "", &request(&[too_long])), "request");
    assert!(config("", "", &request(&[fits])).is_none());
    // What the gateway answers by itself has those with `always` alone: the second takes nothing away there.
    let always = |name: &str| format!("{} always; set-header {name:?} \"a\"", write(name, 9 << 10));
    said(config(&response(&[always("x-a"), always("x-b")]), "", ""), "response");
    said(config("", "", &response(&[always("x-a"), always("x-b")])), "response");
    let many = |count: usize, acl: &str| {
        let edit = |n| format!("set-header \"x-{acl}-{n}\" \"a\" if={acl:?}");
        request(&(0..count).map(edit).collect::<Vec<_>>())
    };
    let of_backend = |count: usize| format!("acl \"own\" {{ path \"/own\" }}; {}", many(count, "own"));
    let faults = config(&many(60, "some"), &of_backend(5), "").unwrap();
    assert!(
        faults.contains("edits change at most 128 fields of a request"),
        "{faults}"
    );
    // Of the operator's and of a tenant's edits each are made in one call.
    for (frontend, backend) in [
        (many(60, "some"), of_backend(4)),
        (
            request(&[half.clone(), format!("{} if=\"some\"", write("x-b", 7 << 10))]),
            response(std::slice::from_ref(&rest)),
        ),
        (request(std::slice::from_ref(&half)), request(&[write("x-a", 9 << 10)])),
    ] {
        let faults = config(&frontend, &backend, &request(std::slice::from_ref(&half)));
        assert!(faults.is_none(), "{faults:?}");
    }
}

#[test]
fn what_only_responses_have_is_sent_to_them() {
    for (edit, message) in [
        (
            "set-header \"X-A\" \"b\" if-status=404",
            "`set-header` has no property `if-status`",
        ),
        (
            "set-query \"a\" if-status=404",
            "`set-query` has no property `if-status`",
        ),
        ("delete-header \"X-A\" always", "`delete-header` takes no such argument"),
    ] {
        let text = web_text(&format!("request {{ {edit} }}"));
        let errors = parse("test.kdl", &text, Path::new("")).unwrap_err();
        let error = errors.iter().next().unwrap();
        assert_eq!(error.message(), message);
        let advice = error.advice().unwrap();
        assert!(
            advice.contains("write the edit in `response { … }`"),
            "{edit}: {advice}"
        );
    }
}

fn written<'a, E: serde::Serialize + 'a>(edits: impl Iterator<Item = &'a E>) -> serde_json::Value {
    serde_json::to_value(edits.collect::<Vec<_>>()).unwrap()
}
