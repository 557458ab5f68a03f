//! Pages for errors: `errorfile`, `errorfiles` with the `http-errors` that it names, and `http-response return` for a status.

use std::collections::HashMap;

use super::Conversion;
use super::haproxy::{Line, Section};
use super::outline::Node;
use super::proxies::{Proxy, leave_out_section};
use super::words;

/// The `http-errors` of a configuration.
#[derive(Debug, Default)]
pub(super) struct Pages {
    /// The files by their statuses, in each section.
    sections: HashMap<String, Vec<(u64, String)>>,
    /// Those of them that something takes.
    taken: Vec<String>,
}

impl Pages {
    /// What these sections declare.
    pub(super) fn of(sections: &[Section]) -> Self {
        let errors = sections.iter().filter(|section| section.kind == "http-errors");
        let files = |section: &Section| section.lines.iter().filter_map(file).collect();
        let name = |section: &Section| section.name.clone().unwrap_or_default();
        Self {
            sections: errors.map(|section| (name(section), files(section))).collect(),
            taken: Vec::new(),
        }
    }
}

/// Says of sections whose pages nothing takes that they were left out.
pub(super) fn leave_out_unused(conversion: &mut Conversion, sections: &[Section]) {
    for section in sections.iter().filter(|section| section.kind == "http-errors") {
        if !conversion
            .pages
            .taken
            .iter()
            .any(|name| Some(name) == section.name.as_ref())
        {
            let reason = "no `errorfiles` names it; pages are said one by one: error-page 503 \"503.http\"";
            leave_out_section(conversion, section, reason);
        }
    }
}

/// `errorfile 503 503.http`
pub(super) fn file(line: &Line) -> Option<(u64, String)> {
    let status = line.word(1)?.parse().ok()?;
    Some((status, line.word(2)?.to_owned())).filter(|_| line.keyword() == "errorfile")
}

impl Proxy<'_> {
    /// `errorfiles example.com 503 504`. False when it names no section that is there.
    pub(super) fn pages(&mut self, line: &Line) -> bool {
        let name = line.word(1).unwrap_or_default();
        let Some(files) = self.conversion.pages.sections.get(name).cloned() else {
            return false;
        };
        self.conversion.pages.taken.push(name.to_owned());
        let wanted: Vec<u64> = line.rest(2).iter().filter_map(|word| word.parse().ok()).collect();
        // What the section says itself behind it goes first.
        let own: Vec<u64> = self
            .section
            .lines
            .iter()
            .filter_map(file)
            .map(|(status, _)| status)
            .collect();
        for (status, file) in files {
            if (wanted.is_empty() || wanted.contains(&status)) && !own.contains(&status) {
                self.say(line, Node::new("error-page").number(status).arg(file));
            }
        }
        true
    }

    /// `http-error status 503 errorfile 503.http`. False when it says a page in another way.
    pub(super) fn page(&mut self, line: &Line) -> bool {
        let [key, status, how @ .., what, file] = line.rest(1) else {
            return false;
        };
        let is_known = key == "status"
            && matches!(what.as_str(), "errorfile" | "file")
            && (how.is_empty() || how.first().is_some_and(|word| word == "content-type") && how.len() == 2);
        match status.parse() {
            Ok(status) if is_known => {
                self.say(line, Node::new("error-page").number(status).arg(file));
                true
            }
            _ => false,
        }
    }

    /// `http-response return status 503 errorfile 503.http if { status 503 }`: a page in the place of the server's. False when it
    /// says more.
    pub(super) fn page_for_servers(&mut self, line: &Line, rest: &[String]) -> bool {
        let (said, condition) = words::split_condition(rest);
        let Some(Some(Ok((statuses, others)))) = condition.map(|condition| self.statuses(condition)) else {
            return false;
        };
        let (returned, file) = match said {
            [key, returned, what, file] | [what, file, key, returned]
                if key == "status" && matches!(what.as_str(), "errorfile" | "file") =>
            {
                (returned, file)
            }
            _ => return false,
        };
        let Ok(number) = returned.parse() else { return false };
        if !others.is_empty() || statuses != *returned {
            return false;
        }
        self.say(line, Node::new("error-page").number(number).arg(file).flag("intercept"));
        true
    }
}
