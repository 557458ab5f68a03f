//! Texts that are long, broken or anything at all.

use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

#[test]
fn faults_are_in_the_order_of_the_text_and_bounded() {
    let text = (0..1_000).map(|i| format!("nonsense{i}\n")).collect::<String>();
    let errors = parse("test.kdl", &text, Path::new("")).unwrap_err();
    assert_eq!(errors.iter().len(), diagnostics::MAX_ERRORS + 1);
    let offsets: Vec<usize> = errors
        .iter()
        .filter_map(|error| Some(error.places().first()?.span.offset()))
        .collect();
    assert!(offsets.is_sorted());
}

#[test]
fn a_text_that_is_too_long_is_refused_before_it_is_read() {
    let text = " ".repeat(MAX_BYTES + 1);
    assert!(faults(&text).contains("longer than 16 MiB"));
}

#[test]
fn a_hundred_thousand_servers_are_read() {
    let servers = (0..100_000).map(|i| format!("server \"s{i}\" \"10.{}.{}.{}:80\"\n", i >> 16, i >> 8 & 255, i & 255));
    let text = format!(
        "frontend \"a\" {{ bind \"127.0.0.1:0\"; default-backend \"x\" }}\nbackend \"x\" {{\n{}}}",
        servers.collect::<String>()
    );
    assert_eq!(config(&text).backends[0].servers.len(), 100_000);
}

/// Each of these took time in the square of its size at first, or would.
#[test]
fn long_lists_are_read_in_time_that_grows_with_them() {
    let many = |one: &dyn Fn(usize) -> String| (0..20_000).map(one).collect::<String>();
    let texts = [
        web_text(&format!(
            "acl \"a\" {{ path {} }}; deny if=\"a\"",
            many(&|i| format!("\"/{i}\" "))
        )),
        web_text(&format!("deny {}", many(&|i| format!("p{i}=1 ")))),
        web_text(&format!("deny {}", many(&|_| "x ".to_owned()))),
        web_text(&many(&|i| format!("use-backend \"b{i}\" if=\"x\"\n"))),
        web_text(&many(&|i| format!("limit \"r{i}\"\n")))
            + &many(&|i| format!("\nrate-limit \"r{i}\" {{ allow \"1/s\" }}")),
        web_text(&format!(
            "request {{ {} }}",
            many(&|i| format!("set-header \"x-{i}\" \"1\"\n"))
        )),
        many(&|i| format!("frontend \"f{i}\" from=\"d{i}\" {{ bind \"127.0.0.1:0\" }}\n")),
        many(&|i| format!("backend \"b\" {{ server \"s\" \"nowhere{i}\" }}\n")),
        format!(
            "plugin \"p\" \"p\" {{ config {{ a {{ {} }} }} }}",
            many(&|i| format!("k{i} 1\n"))
        ),
        format!(
            "plugin \"p\" \"p\" {{ config {{ a {} }} }}",
            many(&|i| format!("k{i}=1 "))
        ),
        many(&|_| "}".to_owned()),
        many(&|_| "\"\"\"\n".to_owned()),
        many(&|_| "#\"\"\"\n".to_owned()),
        many(&|_| "a\\\n".to_owned()),
    ];
    for text in texts {
        let start = std::time::Instant::now();
        let _ = parse("test.kdl", &text, Path::new(""));
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{:?} for {}",
            start.elapsed(),
            &text[..200]
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        try_text(&text);
    }

    #[test]
    fn no_bytes_that_are_text_panic(text in any::<String>()) {
        try_text(&text);
    }

    #[test]
    fn no_broken_configuration_panics(which in any::<prop::sample::Index>(), changes in prop::collection::vec(change(), 1..6)) {
        let mut text = which.get(&valid_texts()).clone();
        for change in changes {
            change.apply(&mut text);
        }
        try_text(&text);
    }
}

/// Configurations with everything in them, to be broken.
fn valid_texts() -> Vec<String> {
    let mut texts = reference_blocks();
    texts.push(std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../config.kdl")).unwrap());
    texts
}

/// A change to a text: where (in thousandths), how much goes, what comes.
#[derive(Debug, Clone)]
struct Change {
    at: usize,
    gone: usize,
    come: String,
}

impl Change {
    fn apply(&self, text: &mut String) {
        let floor = |text: &str, mut at: usize| {
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            at
        };
        let start = floor(text, text.len() * self.at / 1000);
        let end = floor(text, (start + self.gone).min(text.len())).max(start);
        text.replace_range(start..end, &self.come);
    }
}

fn change() -> impl Strategy<Value = Change> {
    let pieces = prop::sample::select(vec![
        "",
        "\"",
        "{",
        "}",
        "(",
        ")",
        "=",
        ";",
        "\n",
        " ",
        "\\",
        "#",
        "/-",
        "/*",
        "*/",
        "0",
        "-1",
        "99999999999999999999",
        "1.5",
        "#null",
        "#true",
        "\"\"",
        "\"x\"",
        "\"0s\"",
        "\"é\"",
        "\u{0}",
        "\u{202e}",
        "a=1 ",
        "not ",
        "and ",
        "if=\"((\"",
        "server \"s\" \"::\"\n",
        "mode \"tcp\"\n",
        "from=\"x\"",
        "$",
        "${",
        "config { - 1; - 2 }",
        "regex=\"(((\"",
        "r\"x\"",
    ]);
    let come = prop_oneof![pieces.prop_map(str::to_owned), ".{0,8}"];
    (0..1000_usize, 0..12_usize, come).prop_map(|(at, gone, come)| Change { at, gone, come })
}

/// Neither reading a text nor drawing what is wrong with it panics, and all places lie in it.
fn try_text(text: &str) {
    if let Err(errors) = parse("test.kdl", text, Path::new("")) {
        assert!(errors.iter().len() > 0);
        for error in errors.iter() {
            for place in error.places() {
                let end = place.span.offset() + place.span.len();
                assert!(
                    text.get(place.span.offset()..end).is_some(),
                    "{error}: {place:?} in {text:?}"
                );
            }
            let mut drawn = String::new();
            let handler = miette::GraphicalReportHandler::new_themed(miette::GraphicalTheme::unicode_nocolor());
            handler.render_report(&mut drawn, &errors.located(error)).unwrap();
        }
    }
}
