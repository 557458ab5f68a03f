//! What sections take from the `defaults` that they stand behind, as far as ours would not take it.

use std::collections::HashMap;

use super::checks;
use super::haproxy::{Line, Section};

/// Says in every section what HAProxy takes from where it stands: the `defaults` before it, and its mode, which is `tcp`
/// where nobody says one.
pub(super) fn settle(sections: &[Section]) -> Vec<Section> {
    let mut settled: Vec<Section> = sections.to_vec();
    let is_proxy = |section: &Section| matches!(section.kind.as_str(), "frontend" | "backend" | "listen");
    let mut modes: HashMap<Option<String>, Option<String>> = HashMap::new();
    // Their `default-server` has no place of its own here.
    let mut servers: HashMap<Option<String>, Vec<Line>> = HashMap::new();
    // Two lines there are one node here: a section that says one of them has to say the other, too.
    let mut tries: HashMap<Option<String>, Vec<Line>> = HashMap::new();
    // Nor have they a place where requests go.
    let mut leads: HashMap<Option<String>, Line> = HashMap::new();
    // Nor has what they say of checks.
    let mut said_of_checks: HashMap<Option<String>, Vec<Line>> = HashMap::new();
    let mut latest: Option<String> = None;
    let mut is_first = true;
    for section in &mut settled {
        let own = section.lines.iter().find(|line| line.keyword() == "mode");
        let own = own.and_then(|line| line.word(1)).map(str::to_owned);
        if section.kind == "defaults" {
            // Ours without a name hold for the whole file: only the first ones, with no proxy before them, can be those.
            if section.name.is_none() && !is_first {
                section.name = Some(format!("line-{}", section.line));
            }
            is_first = false;
            latest.clone_from(&section.name);
            let inherited = section
                .from
                .as_ref()
                .and_then(|from| modes.get(&Some(from.clone())).cloned().flatten());
            if own.is_none()
                && let Some(mode) = &inherited
            {
                section.lines.insert(0, mode_line(section.line, mode));
            }
            modes.insert(section.name.clone(), own.or(inherited));
            let mut lines: Vec<Line> = section.lines.clone();
            lines.retain(|line| line.keyword() == "default-server");
            if let Some(from) = &section.from {
                lines.extend(servers.get(&Some(from.clone())).cloned().unwrap_or_default());
            }
            servers.insert(section.name.clone(), lines);
            let lead = section.lines.iter().rfind(|line| line.keyword() == "default_backend");
            if let Some(lead) = lead.cloned() {
                section.lines.retain(|line| line.keyword() != "default_backend");
                leads.insert(section.name.clone(), lead);
            }
            let about = section.lines.iter().filter(|line| half_of_retries(line).is_some());
            tries.insert(section.name.clone(), about.cloned().collect());
            let own = section.lines.iter().filter(|line| checks::part(line).is_some());
            let mut lines: Vec<Line> = own.cloned().collect();
            if let Some(from) = &section.from {
                let inherited = said_of_checks.get(&Some(from.clone())).cloned().unwrap_or_default();
                checks::inherit(&mut lines, &inherited);
            }
            said_of_checks.insert(section.name.clone(), lines);
        } else if is_proxy(section) {
            is_first = false;
            if section.from.is_none() {
                section.from.clone_from(&latest);
            }
            let is_said = own.is_some() || modes.get(&section.from).is_some_and(Option::is_some);
            if !is_said {
                section.lines.insert(0, mode_line(section.line, "tcp"));
            }
            let leads_itself = |line: &Line| line.keyword() == "default_backend";
            if let Some(lead) = leads.get(&section.from).filter(|_| section.kind == "frontend")
                && !section.lines.iter().any(leads_itself)
            {
                section.lines.push(lead.clone());
            }
            if section.kind != "frontend" {
                // Behind the section's own, which go first.
                let lines = servers.get(&section.from).cloned().unwrap_or_default();
                section.lines.extend(lines);
                let own: Vec<&str> = section.lines.iter().filter_map(half_of_retries).collect();
                let inherited = tries.get(&section.from).into_iter().flatten();
                let other = inherited.filter(|line| half_of_retries(line).is_some_and(|half| !own.contains(&half)));
                let other: Vec<Line> = other.filter(|_| !own.is_empty()).cloned().collect();
                section.lines.extend(other);
                if checks::are_wanted(section) {
                    let inherited = said_of_checks.get(&section.from).cloned().unwrap_or_default();
                    checks::inherit(&mut section.lines, &inherited);
                }
            }
        }
    }
    settled
}

/// Which half of `retries 3 redispatch="last"` a line says: how many, or where they go.
pub(super) fn half_of_retries(line: &Line) -> Option<&'static str> {
    match (line.keyword(), line.word(1), line.word(2)) {
        ("retries", ..) => Some("retries"),
        ("option", Some("redispatch"), _) | ("no", Some("option"), Some("redispatch")) => Some("redispatch"),
        _ => None,
    }
}

fn mode_line(number: usize, mode: &str) -> Line {
    let words = vec!["mode".to_owned(), mode.to_owned()];
    Line {
        number,
        text: words.join(" "),
        words,
    }
}
