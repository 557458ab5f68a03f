//! Acls and conditions.

use serde_json::json;

use super::*;

#[test]
fn nodes_of_an_acl_have_all_to_hold_and_one_of_their_values() {
    assert_eq!(acl("path \"/a\" \"/b\""), json!({"path": {"exact": ["/a", "/b"]}}));
    assert_eq!(
        acl("path-prefix \"/a\"; not { source \"10.0.0.0/8\" \"::1\" }"),
        json!({"all": [{"path": {"prefix": ["/a"]}}, {"not": {"source": ["10.0.0.0/8", "::1/128"]}}]})
    );
    assert_eq!(
        acl("any { host \"A.example\" \"*.B.example\"; all { method \"GET\"; header \"X-A\" } }"),
        json!({"any": [
            {"host": ["a.example", "*.b.example"]},
            {"all": [{"method": ["GET"]}, {"header": {"name": "x-a", "value": null}}]},
        ]})
    );
    assert_eq!(
        acl("not { cookie \"c\" regex=\"^x\"; query \"q\" \"\" }"),
        json!({"not": {"all": [
            {"cookie": {"name": "c", "value": {"regex": ["^x"]}}},
            {"query": {"name": "q", "value": {"exact": [""]}}},
        ]}})
    );
}

#[test]
fn predicates_without_a_name_stand_behind_the_acls() {
    let text = web_text(
        "bind \"127.0.0.1:0\" { tls cert=\"a.pem\" }; acl \"a\" { path \"/\" }; deny if=\"a\" { method \"PUT\" }; \
         redirect scheme=\"https\" unless=\"tls\"; deny if=\"not tls\"",
    );
    let config = config(&text);
    let web = &config.frontends[0];
    let [acl_0, acl_1, acl_2] = [0, 1, 2].map(|id| Condition::Acl(AclId(id)));
    assert_eq!(web.acls.len(), 3);
    assert_eq!(web.rules[0].when, Some(Condition::And(vec![acl_0, acl_1])));
    // One question, however often it is asked.
    assert_eq!(web.rules[1].when, Some(Condition::Not(Box::new(acl_2.clone()))));
    assert_eq!(web.rules[2].when, Some(Condition::Not(Box::new(acl_2))));
}

#[test]
fn more_acls_than_the_component_answers_are_refused() {
    let plugin = "\nplugin \"p\" \"p.wasm\" { on-failure \"skip\" }";
    let asked = |i| format!("acl \"a{i}\" {{ plugin \"p\" }}; deny if=\"a{i}\"\n");
    let by_plugin = (0..=MAX_ACLS).map(asked).collect::<String>();
    assert!(faults(&(web_text(&by_plugin) + plugin)).contains("at most 256 acls"));
    let acls = |n: usize| {
        (0..n)
            .map(|i| format!("acl \"a{i}\" {{ path \"/{i}\" }}; deny if=\"a{i}\"\n"))
            .collect::<String>()
    };
    web(&acls(MAX_ACLS));
    assert!(faults(&web_text(&acls(MAX_ACLS + 1))).contains("at most 256 acls"));
}

#[test]
fn or_binds_weaker_than_and_and_that_weaker_than_not() {
    let [a, b, c] = [0, 1, 2].map(|i| Condition::Acl(AclId(i)));
    assert_eq!(condition("a"), a);
    assert_eq!(
        condition("a or not b and c"),
        Condition::Or(vec![
            a.clone(),
            Condition::And(vec![Condition::Not(Box::new(b.clone())), c.clone()])
        ])
    );
    assert_eq!(
        condition("(a or b)and(c)"),
        Condition::And(vec![Condition::Or(vec![a.clone(), b.clone()]), c.clone()])
    );
    assert_eq!(condition("not not a"), a);
    assert_eq!(
        condition("not (a and b)"),
        Condition::Not(Box::new(Condition::And(vec![a, b])))
    );
}

#[test]
fn unless_is_if_not() {
    let config = web("acl \"a\" { path \"/\" }; deny unless=\"a\"; deny unless=\"not a\"");
    let rules = &config.frontends[0].rules;
    assert_eq!(rules[0].when, Some(Condition::Not(Box::new(Condition::Acl(AclId(0))))));
    assert_eq!(rules[1].when, Some(Condition::Acl(AclId(0))));
}

fn acl(lines: &str) -> serde_json::Value {
    let config = web(&format!("acl \"a\" {{ {lines} }}\ndeny if=\"a\""));
    let AclTest::Match(test) = &config.frontends[0].acls[0].test else {
        panic!("not a match")
    };
    serde_json::to_value(test).unwrap()
}

fn condition(text: &str) -> Condition {
    let acls = "acl \"a\" { path \"/a\" }; acl \"b\" { path \"/b\" }; acl \"c\" { path \"/c\" }";
    let used = "deny if=\"a and b and c\"";
    let config = web(&format!("{acls}; deny if=\"{text}\"; {used}"));
    config.frontends[0].rules[0].when.clone().unwrap()
}
