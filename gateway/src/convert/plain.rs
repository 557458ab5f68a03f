//! Frontends without TLS, and the backends that they alone lead to: `ssl_fc` holds of nobody there, and asks nothing. Here it would be
//! an error.

use std::collections::HashSet;

use super::haproxy::{Line, Section};
use super::transforms;

/// The sections, in which such questions have their answer.
pub(super) fn settle(sections: &[Section]) -> Vec<Section> {
    let mut settled = sections.to_vec();
    for (section, original) in settled.iter_mut().zip(sections) {
        let is_plain = match section.kind.as_str() {
            "frontend" | "listen" => is_plain(section),
            "backend" => is_led_to_plainly(section, sections),
            _ => false,
        };
        if !is_plain {
            continue;
        }
        let names = names(section);
        section.lines.retain(|line| {
            let name = line.word(1).filter(|_| line.keyword() == "acl");
            name.is_none_or(|name| !names.contains(name))
        });
        let is_backend = section.kind == "backend";
        for line in &mut section.lines {
            for word in line.words.iter_mut().filter(|word| word.as_str() == "%[ssl_fc]") {
                "0".clone_into(word);
            }
            // What is said of both is said in one node of a frontend.
            if asks(line) && (is_backend || !transforms::is_forwarded_header(original, line)) {
                line.words = answered(&line.words, &names);
            }
        }
    }
    settled
}

/// Whether clients arrive there, and none in TLS.
fn is_plain(section: &Section) -> bool {
    let binds = || section.lines.iter().filter(|line| line.keyword() == "bind");
    binds().next().is_some() && !binds().any(|bind| bind.words.iter().any(|word| word == "ssl"))
}

/// Whether frontends lead to a backend, and none of them with TLS.
fn is_led_to_plainly(backend: &Section, sections: &[Section]) -> bool {
    let names_it = |section: &Section| {
        let mut lines = section.lines.iter();
        lines.any(|line| {
            let is_lead = matches!(line.keyword(), "default_backend" | "use_backend");
            // A name that is looked up may be any.
            let to = line.word(1).filter(|_| is_lead);
            to.is_some_and(|to| backend.name.as_deref() == Some(to) || to.contains('%'))
        })
    };
    let is_said_for_all = sections
        .iter()
        .any(|section| section.kind == "defaults" && names_it(section));
    let fronts = || {
        sections
            .iter()
            .filter(|section| matches!(section.kind.as_str(), "frontend" | "listen"))
    };
    let mut leading = fronts().filter(|front| is_said_for_all || names_it(front)).peekable();
    leading.peek().is_some() && leading.all(is_plain)
}

/// The acls that ask for TLS alone.
fn names(section: &Section) -> HashSet<String> {
    let acls = || section.lines.iter().filter(|line| line.keyword() == "acl");
    let asks_tls = |line: &&Line| line.rest(2) == ["ssl_fc"];
    let names = acls().filter(asks_tls).filter_map(|line| line.word(1));
    let is_whole = |name: &&str| {
        acls()
            .filter(|line| line.word(1) == Some(*name))
            .all(|line| asks_tls(&line))
    };
    names.filter(is_whole).map(str::to_owned).collect()
}

/// Whether a line may end with a condition.
fn asks(line: &Line) -> bool {
    matches!(
        line.keyword(),
        "http-request" | "http-response" | "http-after-response" | "tcp-request" | "redirect" | "use_backend"
    )
}

/// The words of a line with `FALSE` in the place of what asks for TLS in its condition.
fn answered(words: &[String], names: &HashSet<String>) -> Vec<String> {
    let begins = words.iter().position(|word| word == "if" || word == "unless");
    let Some(begins) = begins else {
        return words.to_vec();
    };
    let (said, mut rest) = words.split_at(begins + 1);
    let mut out = said.to_vec();
    let mut is_within = false;
    while let Some((word, behind)) = rest.split_first() {
        let bare = word.trim_start_matches('!');
        let negations = &word[..word.len() - bare.len()];
        let is_anonymous = bare == "{" && matches!(behind, [fetch, end, ..] if fetch == "ssl_fc" && end == "}");
        match is_anonymous || (!is_within && names.contains(bare)) {
            true => out.push(format!("{negations}FALSE")),
            false => out.push(word.clone()),
        }
        is_within = !is_anonymous && (bare == "{" || (is_within && bare != "}"));
        rest = if is_anonymous { &behind[2..] } else { behind };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_for_tls_have_their_answer() {
        let words = |text: &str| -> Vec<String> { text.split(' ').map(str::to_owned).collect() };
        let names = HashSet::from(["https".to_owned()]);
        for (text, answer) in [
            (
                "redirect scheme https if !{ ssl_fc }",
                "redirect scheme https if !FALSE",
            ),
            (
                "x unless { ssl_fc } or ! { ssl_fc } !https a",
                "x unless FALSE or ! FALSE !FALSE a",
            ),
            ("x if { ssl_fc 1 } { path https }", "x if { ssl_fc 1 } { path https }"),
            ("set-header https { ssl_fc }", "set-header https { ssl_fc }"),
        ] {
            assert_eq!(answered(&words(text), &names), words(answer), "{text}");
        }
    }
}
