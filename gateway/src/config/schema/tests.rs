//! What schemas allow and what not, and that no schema and no configuration of a stranger's does harm. What is said of
//! wrong ones is in tests/invalid-plugins and tests/invalid-schemas.

use std::path::Path;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::config::{self, Plugin};

fn schema(text: &str) -> Schema {
    Schema::parse("test", text).unwrap_or_else(|errors| panic!("{text}: {errors:?}"))
}

/// Messages of what is wrong with a schema.
fn refused(text: &str) -> Vec<String> {
    let errors = Schema::parse("test", text).unwrap_err();
    errors.iter().map(|error| error.message().to_owned()).collect()
}

/// A plugin with these lines in its block.
fn plugin(lines: &str) -> Plugin {
    let text = format!(
        "frontend \"web\" {{ bind \"127.0.0.1:8080\"; use-plugin \"p\"; default-backend \"app\" }}\n\
         backend \"app\" {{ server \"s\" \"echo\" }}\n\
         defaults {{ timeout connect=\"5s\" client=\"30s\" server=\"30s\" }}\n\
         plugin \"p\" \"p.wasm\" {{ on-failure \"deny\"\n{lines}\n}}\n"
    );
    let mut config = config::parse("test", &text, Path::new("")).unwrap();
    config.plugins.remove(0)
}

/// Messages of what is wrong with a configuration.
fn check(schema: &Schema, config: &str) -> Vec<String> {
    let plugin = plugin(&format!("config {{ {config} }}"));
    let config = serde_json::from_str(&plugin.config).unwrap();
    let faults = schema.check(&config, &plugin.config_places);
    faults.iter().map(|fault| fault.message().to_owned()).collect()
}

#[test]
fn values_are_of_the_types_that_are_named() {
    for (types, good, bad) in [
        (
            "\"text\"",
            &["\"x\"", "\"\""][..],
            &["5", "#true", "", "#null", "a=1"][..],
        ),
        (
            "\"integer\"",
            &["5", "-5", "18446744073709551615"],
            &["5.5", "\"5\"", ""],
        ),
        (
            "\"integer\" from=1 to=9",
            &["1", "9"],
            &["0", "10", "18446744073709551615"],
        ),
        (
            "\"number\" from=0 to=0.5",
            &["0", "0.5", "0.25"],
            &["1", "-0.1", "\"0\""],
        ),
        ("\"boolean\"", &["", "#true", "#false"], &["1", "\"true\""]),
        (
            "\"duration\" from=\"1s\" to=\"1h\"",
            &["\"1000ms\"", "\"60m\""],
            &["\"999ms\"", "\"61m\"", "60", "\"1 s\"", "\"1w\""],
        ),
        ("\"text\" \"boolean\"", &["\"x\"", "#false", ""], &["5"]),
        ("\"text\" \"integer\" to=9", &["\"x\"", "9"], &["10", "#true"]),
        ("\"any\"", &["5", "\"x\"", "", "#null", "a=1 b=2", "1 2 3"], &[]),
        (
            "\"text\" list at-most=2",
            &["\"a\"", "\"a\" \"b\""],
            &["\"a\" \"b\" \"c\"", "1", "\"a\" 1"],
        ),
        (
            "\"text\" form=\"token\"",
            &["\"x-y\"", "\"*\""],
            &["\"x y\"", "\"\"", "\"a:b\""],
        ),
        (
            "\"text\" form=\"path\"",
            &["\"/\"", "\"/a/b\""],
            &["\"a\"", "\"/a b\"", "\"\""],
        ),
        ("\"text\" form=\"hex\"", &["\"09afAF\""], &["\"\"", "\"0x9\""]),
        (
            "\"text\" form=\"printable\"",
            &["\"a b\"", "\"\""],
            &["\"é\"", "\"\\n\""],
        ),
        (
            "\"text\" min-bytes=2 max-bytes=3",
            &["\"ab\"", "\"é\""],
            &["\"a\"", "\"abcd\""],
        ),
        ("\"text\" { values \"a\" \"b\" }", &["\"a\""], &["\"A\"", "\"c\""]),
        ("\"text\" any-case { values \"a\" \"b\" }", &["\"A\""], &["\"c\""]),
        (
            "\"block\" { setting \"k\" \"text\" required }",
            &["k=\"v\"", "{ k \"v\" }"],
            &["\"v\"", "", "{ l }"],
        ),
    ] {
        let schema = schema(&format!("setting \"v\" {types}"));
        for value in good {
            assert_eq!(
                check(&schema, &format!("v {value}")),
                Vec::<String>::new(),
                "{types}: {value}"
            );
        }
        for value in bad {
            assert_ne!(
                check(&schema, &format!("v {value}")),
                Vec::<String>::new(),
                "{types}: {value}"
            );
        }
    }
}

#[test]
fn what_is_written_in_either_way_is_the_same() {
    let schema = schema(
        "setting \"client\" \"block\" list { setting \"name\" \"text\" required; setting \"key\" \"text\" list }",
    );
    for config in [
        "client name=\"a\" key=\"b\"",
        "client { name \"a\"; key \"b\" \"c\" }",
        "client name=\"a\" { key \"b\"; key \"c\" }",
        "client name=\"a\"; client name=\"b\"",
        "client { - name=\"a\"; - name=\"b\" }",
    ] {
        assert_eq!(check(&schema, config), Vec::<String>::new(), "{config}");
    }
}

#[test]
fn one_value_is_not_several_and_a_list_is_said_in_one_way() {
    let schema = schema("setting \"a\" \"text\"; setting \"b\" \"text\" list");
    assert_eq!(check(&schema, "a \"x\"; a \"y\""), ["`a` takes one value"]);
    assert_eq!(check(&schema, "a \"x\" \"y\" \"z\""), ["`a` takes one value"]);
    let mixed = check(&schema, "b \"x\" \"y\"; b \"z\"");
    assert_eq!(mixed, ["`b` is said both in one node and in several"]);
}

#[test]
fn rules_choose_among_settings() {
    let schema = schema(
        "setting \"a\" \"integer\"; setting \"b\" \"integer\"; setting \"c\" \"integer\"; setting \"d\" \"integer\"
         exactly-one \"a\" \"b\"; at-least-one \"c\" \"d\"",
    );
    assert_eq!(check(&schema, "a 1; d 1; c 1"), Vec::<String>::new());
    assert_eq!(check(&schema, "a 1; b 1; c 1"), ["`config` takes one of `a` or `b`"]);
    assert_eq!(check(&schema, "c 1"), ["`config` needs `a` or `b`"]);
    assert_eq!(check(&schema, "b 1"), ["`config` needs `c` or `d`"]);

    let schema = self::schema("setting \"a\" \"boolean\"; setting \"b\" \"boolean\"; exactly-one \"a\" \"b\"");
    assert_eq!(check(&schema, "a; b #false"), Vec::<String>::new());
    assert_eq!(check(&schema, "a #false"), ["`config` needs `a` or `b`"]);
}

#[test]
fn a_text_from_a_file_is_held_against_the_schema_and_its_faults_point_at_the_file() {
    let schema = schema("setting \"users\" \"integer\" required");
    let plugin = plugin("config-file \"users\" \"users.txt\"");
    let config = serde_json::json!({"users": "ada"});
    let faults = schema.check(&config, &plugin.config_places);
    assert_eq!(faults.len(), 1);
    let (place, is_there) = plugin.config_places.find("/users");
    assert!(is_there);
    assert_eq!(place.len(), "\"users.txt\"".len());
    assert_eq!(faults[0].places()[0].span, place);
}

#[test]
fn what_is_secret_is_in_no_message() {
    let schema = schema(
        "setting \"a\" \"duration\" secret; setting \"b\" \"text\" secret { values \"x\" }; setting \"c\" \"integer\" secret
         setting \"d\" \"block\" list secret { setting \"e\" \"duration\"; setting \"f\" \"block\" { setting \"g\" \"duration\" } }",
    );
    let plugin = plugin(
        "config { a 12345; b \"12345\"; c \"12345\"; d e=12345; d { e 12345; f g=12345; \"12345\" }; d { f { \"12345\" } } }",
    );
    let config = serde_json::from_str(&plugin.config).unwrap();
    let faults = schema.check(&config, &plugin.config_places);
    assert_eq!(faults.len(), 8);
    for fault in faults {
        let labels: Vec<&str> = fault.places().iter().map(|label| label.text.as_str()).collect();
        let said = format!("{fault} {labels:?} {:?}", fault.advice());
        assert!(!said.contains("12345"), "{said}");
    }
}

#[test]
fn what_stands_in_a_secret_is_shown_as_one() {
    let schema = schema("setting \"a\" \"block\" secret { setting \"b\" \"text\" }; setting \"c\" \"text\"");
    let expected = "a: a block; secret\n    b: a text; secret\nc: a text\n";
    assert_eq!(schema.documentation(0), expected);
    let json = serde_json::to_value(&schema).unwrap();
    assert_eq!(json["settings"][0]["types"][0]["settings"][0]["secret"], true);
    assert_eq!(json["settings"][1]["secret"], false);
}

#[test]
fn a_schema_is_shown_as_documentation() {
    let schema = schema(
        "setting \"client\" \"block\" list required {
            about \"Who is let in.\"
            example #\"client name=\"ada\"\"#
            setting \"name\" \"text\" required max-bytes=9
            setting \"key\" \"text\" secret form=\"hex\" min-bytes=64 max-bytes=64
         }
         setting \"wait\" \"duration\" from=\"1s\" default=\"30s\"
         setting \"mode\" \"text\" \"boolean\" default=#true { values \"a\" \"b\" }
         at-least-one \"wait\" \"mode\"",
    );
    let expected = "    client: a block; one or several; has to be said
        Who is let in.
        as in: client name=\"ada\"
        name: a text of at most 9 bytes; has to be said
        key: a text of hexadecimal digits of 64 bytes; secret
    wait: a duration at least 1s; \"30s\" unless said
    mode: `a` or `b`, or #true or #false; #true unless said
    One of `wait` or `mode` has to be said, or several.
";
    assert_eq!(schema.documentation(4), expected);
    let json = serde_json::to_value(&schema).unwrap();
    assert_eq!(json["settings"][0]["types"][0]["type"], "block");
    assert_eq!(
        json["settings"][0]["types"][0]["settings"][1]["types"][0]["min-bytes"],
        64
    );
    assert_eq!(
        json["settings"][1]["types"][0],
        serde_json::json!({"type": "duration", "from": "1s"})
    );
    assert_eq!(json["rules"][0], serde_json::json!({"at-least-one": ["wait", "mode"]}));
}

#[test]
fn the_references_example_is_a_schema_and_every_word_of_the_language_is_in_it() {
    let text = include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../docs/reference/config-schema.md"
    ));
    let example = text.split("```kdl\n").nth(1).unwrap().split("```").next().unwrap();
    assert_eq!(schema(example).names().count(), 6);
    for (word, _) in read::TYPES {
        assert!(text.contains(&format!("| `\"{word}\"` |")), "{word}");
    }
    for (form, _) in Form::ALL {
        assert!(text.contains(&format!("`\"{form}\"` (")), "{form}");
    }
    let guide = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/plugin-guide.md"));
    let mut examples = guide.split("```kdl\n").skip(1);
    let example = examples.find(|example| example.starts_with("setting ")).unwrap();
    let example = example.split("```").next().unwrap();
    let (_, section) = guide.split_once("### A schema of the configuration").unwrap();
    let faults = check(&schema(example), "client nmae=\"ada\" key=\"s3cret\"");
    assert_eq!(faults.len(), 3);
    for fault in faults {
        assert!(section.contains(&format!("× plugin \"api-key\": {fault}\n")), "{fault}");
    }
}

#[test]
fn a_schema_that_contradicts_itself_is_refused() {
    for (text, part) in [
        ("setting \"a\" \"text\" \"duration\"", "cannot be told to be"),
        ("setting \"a\" \"any\" \"text\"", "cannot be told to be"),
        ("setting \"a\" \"text\"; setting \"a\" \"text\"", "said twice"),
        ("setting \"a\" \"text\" default=5", "`default` is none that may be said"),
        (
            "setting \"a\" \"integer\" to=5 default=6",
            "`default` is none that may be said",
        ),
        ("setting \"a\" \"integer\" from=5 to=4", "ends before it begins"),
        ("setting \"a\" \"text\" from=5", "for numbers and durations"),
        ("setting \"a\" \"integer\" form=\"hex\"", "for texts"),
        ("setting \"a\" \"text\" at-most=5", "for lists"),
        ("setting \"a\" \"text\" { setting \"b\" \"text\" }", "for blocks"),
        ("setting \"a\" \"block\"", "nothing could be said"),
        ("setting \"a\" \"duration\" from=5", "has to be a duration"),
        ("setting \"a b\" \"text\"", "no name"),
        ("setting \"a\" \"text\" { about \"a\\nb\" }", "one line"),
        ("setting \"a\" \"text\" { about \"a\\u{202e}b\" }", "one line"),
        ("setting \"a\" \"text\" { values \"a\\u{1b}[2J\" }", "cannot be shown"),
        ("exactly-one \"a\" \"b\"", "no setting `a`"),
        (
            "setting \"a\" \"text\" required; setting \"b\" \"text\"; exactly-one \"a\" \"b\"",
            "said anyway",
        ),
        ("seting \"a\" \"text\"", "has no `seting`"),
        ("setting \"a\" \"string\"", "has to be"),
    ] {
        let said = refused(text);
        assert!(said.iter().any(|said| said.contains(part)), "{text}: {said:?}");
    }
}

#[test]
fn schemas_have_bounds() {
    let setting = |i: usize| format!("setting \"s{i}\" \"text\"\n");
    let many: String = (0..256).map(setting).collect();
    assert_eq!(schema(&many).names().count(), 256);
    let more: String = (0..257).map(setting).collect();
    assert_eq!(refused(&more), ["there are more than 256 settings"]);

    let nested = |depth: usize| {
        let open = "setting \"a\" \"block\" {".repeat(depth);
        format!("{open} setting \"b\" \"text\" {}", "}".repeat(depth))
    };
    schema(&nested(8));
    assert!(refused(&nested(9)).iter().any(|said| said.contains("more than 8 deep")));
    for depth in [31, 33, 500, 2_500] {
        assert!(Schema::parse("test", &nested(depth)).is_err());
    }

    let about = |bytes: usize| format!("setting \"a\" \"text\" {{ about \"{}\" }}", "x".repeat(bytes));
    schema(&about(500));
    assert!(refused(&about(501))[0].contains("at most 500 bytes"));
    assert!(refused(&" ".repeat(MAX_BYTES + 1))[0].contains("at most 64 KiB"));
    schema(&" ".repeat(MAX_BYTES));
    let name = |bytes: usize| format!("setting \"{}\" \"text\"", "n".repeat(bytes));
    schema(&name(64));
    refused(&name(65));
    let values = |count: usize| {
        let values: String = (0..count).map(|i| format!(" \"v{i}\"")).collect();
        format!("setting \"a\" \"text\" {{ values{values} }}")
    };
    schema(&values(64));
    assert!(refused(&values(65))[0].contains("more than 64 values"));
}

#[test]
fn what_is_hostile_takes_no_time_to_speak_of() {
    let begun = Instant::now();
    for text in [
        "setting ".repeat(8_000),
        "{".repeat(MAX_BYTES),
        "setting \"a\" \"text\" {\n".repeat(3_000),
        "/*".repeat(MAX_BYTES / 2),
        "a;".repeat(MAX_BYTES / 2),
        format!("setting \"a\"{}", " \"text\"".repeat(9_000)),
        format!("setting \"a\" \"text\" {{ values{} }}", " \"x\"".repeat(15_000)),
        format!("exactly-one{}", " \"x\"".repeat(15_000)),
        "setting \"a\" \"text\"\n".repeat(3_200),
    ] {
        assert!(Schema::parse("test", &text).is_err());
    }

    // As many names as there may be, as long as they are compared, and a configuration with nothing but slips.
    let long = "n".repeat(56);
    let settings: String = (0..256)
        .map(|i| format!("setting \"{long}{i:04}\" \"text\" required\n"))
        .collect();
    let schema = schema(&settings);
    let members = |count: usize| (0..count).map(|i| (format!("{long}x{i:06}"), Value::Null)).collect();
    let places = plugin("").config_places;
    let faults = schema.check(&Value::Object(members(200_000)), &places);
    assert_eq!(faults.len(), 100);

    // Deep and long values are looked into as far as the schema goes.
    let mut deep = Value::Null;
    for _ in 0..100 {
        deep = Value::Array(vec![deep]);
    }
    let mut object = serde_json::Map::new();
    object.insert("a".to_owned(), deep);
    let listed = Schema::parse("test", "setting \"a\" \"text\" list").unwrap();
    assert_eq!(listed.check(&Value::Object(object), &places).len(), 1);
    assert_eq!(
        listed
            .check(&serde_json::json!({"a": vec![1; 1_000_000]}), &places)
            .len(),
        100
    );
    // Seconds in a build without optimisations, on a machine that has other things to do.
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

proptest! {
    #[test]
    fn no_schema_and_no_configuration_panics(
        parts in prop::collection::vec(prop::sample::select(PARTS.to_vec()), 0..40),
        config in prop::collection::btree_map(prop::sample::select(vec!["a", "b", "c", "other"]), values(), 0..4),
    ) {
        let text = parts.join(" ");
        let config = config.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let config = Value::Object(config);
        match Schema::parse("test", &text) {
            Ok(schema) => {
                prop_assert!(schema.documentation(0).len() <= 64 * (text.len() + 1));
                let places = super::super::Places::of_scalar((0, 0).into());
                for fault in schema.check(&config, &places) {
                    prop_assert!(fault.advice().is_some(), "{text}: {fault}");
                }
            }
            Err(errors) => {
                let said = format!("{errors:?}");
                prop_assert!(said.contains("error"));
            }
        }
    }

    #[test]
    fn a_span_that_is_shown_reads_back(number in 0..1_000_000u64, unit in prop::sample::select(vec!["ms", "s", "m", "h", "d"])) {
        let span = Span::parse(&format!("{number}{unit}")).unwrap();
        prop_assert_eq!(Span::parse(&span.to_string()), Some(span));
    }
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1e9..1e9).prop_map(|number: f64| Value::from(number)),
        prop::sample::select(vec!["", "x", "30s", "deny", "/a", "é"]).prop_map(Value::from),
    ];
    let name = prop::sample::select(vec!["a", "b", "c", "other"]);
    leaf.prop_recursive(3, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map(name.clone().prop_map(str::to_owned), inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

const PARTS: &[&str] = &[
    "setting",
    "\"a\"",
    "\"b\"",
    "\"c\"",
    "\"text\"",
    "\"integer\"",
    "\"number\"",
    "\"boolean\"",
    "\"duration\"",
    "\"block\"",
    "\"any\"",
    "list",
    "required",
    "secret",
    "any-case",
    "{",
    "}",
    "\n",
    ";",
    "from=1",
    "to=9",
    "from=\"1s\"",
    "at-most=2",
    "form=\"hex\"",
    "min-bytes=1",
    "max-bytes=3",
    "default=5",
    "default=\"x\"",
    "about \"x\"",
    "example \"x\"",
    "values \"x\" \"y\"",
    "exactly-one \"a\" \"b\"",
    "at-least-one \"b\" \"c\"",
    "setting \"a\" \"text\"",
    "setting \"b\" \"integer\" list",
    "setting \"c\" \"block\" {",
    "\n",
    "}",
];
