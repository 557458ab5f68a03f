//! `.if`, `.elif`, `.else` and `.endif` (HAProxy's configuration manual, 2.4 "Conditional blocks"). What a condition asks of the
//! environment is known here; what it asks of HAProxy itself, as its version, is not.

use super::Finding;
use super::environment::Environment;

/// The blocks that a line stands in.
#[derive(Debug, Default)]
pub(super) struct Conditionals(Vec<Block>);

#[derive(Debug)]
struct Block {
    line: usize,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Its lines are there.
    Taken,
    /// None of its branches was there so far.
    Waiting,
    /// One was, or it stands in one that is not there.
    Over,
    /// Nobody here knows.
    Unknown,
}

/// Whether lines are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Are {
    There,
    Gone,
    /// It depends on the condition in this line.
    Unknown(usize),
}

impl Conditionals {
    /// What is of the lines that follow.
    pub(super) fn lines(&self) -> Are {
        let untaken = self.0.iter().find(|block| block.state != State::Taken);
        match untaken {
            None => Are::There,
            Some(block) if block.state == State::Unknown => Are::Unknown(block.line),
            Some(_) => Are::Gone,
        }
    }

    /// A line that begins with a dot: its words. What has to be known of it is a finding.
    pub(super) fn obey(
        &mut self,
        number: usize,
        words: &[String],
        environment: &Environment<'_>,
        findings: &mut Vec<Finding>,
    ) {
        let mut note = |message: String| findings.push(Finding { line: number, message });
        let condition = words.get(1..).unwrap_or_default().join(" ");
        let are = self.lines();
        match words.first().map(String::as_str) {
            Some(".if") => {
                let state = match are {
                    Are::There => asked(&condition, environment, &mut note),
                    Are::Gone | Are::Unknown(_) => State::Over,
                };
                self.0.push(Block { line: number, state });
            }
            Some(".elif" | ".else") => {
                let Some(block) = self.0.last_mut() else {
                    return note(format!("left out: `{}` without `.if`", words[0]));
                };
                block.state = match block.state {
                    State::Taken => State::Over,
                    State::Waiting if words[0] == ".else" => State::Taken,
                    State::Waiting => asked(&condition, environment, &mut note),
                    known => known,
                };
            }
            Some(".endif") => {
                let Some(_) = self.0.pop() else {
                    return note("left out: `.endif` without `.if`".to_owned());
                };
            }
            _ if are == Are::There => note("left out: it only says something while HAProxy starts".to_owned()),
            _ => {}
        }
    }

    /// The text is at its end.
    pub(super) fn end(&self, findings: &mut Vec<Finding>) {
        findings.extend(self.0.iter().map(|block| Finding {
            line: block.line,
            message: "no `.endif` closes this `.if`".to_owned(),
        }));
    }
}

fn asked(condition: &str, environment: &Environment<'_>, note: &mut impl FnMut(String)) -> State {
    let holds = Reader {
        rest: condition,
        depth: 0,
        environment,
    }
    .whole();
    match holds {
        Some(true) => {
            note(format!(
                "`{condition}` holds here: its lines were taken, and no other branch"
            ));
            State::Taken
        }
        Some(false) => {
            note(format!("`{condition}` does not hold here: its lines were passed over"));
            State::Waiting
        }
        None => {
            note(format!(
                "whether `{condition}` holds is not known here: all its branches were left out; keep the one that applies, without `.if`, and convert again"
            ));
            State::Unknown
        }
    }
}

/// Reads a condition. Each part is true, false, or nothing that is known here.
struct Reader<'a> {
    rest: &'a str,
    depth: usize,
    environment: &'a Environment<'a>,
}

impl Reader<'_> {
    fn whole(mut self) -> Option<bool> {
        // Nothing is false.
        if self.rest.trim().is_empty() {
            return Some(false);
        }
        let holds = self.any();
        holds.filter(|_| self.rest.trim().is_empty())
    }

    fn any(&mut self) -> Option<bool> {
        let mut holds = self.all();
        while self.takes("||") {
            let next = self.all();
            holds = match (holds, next) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            };
        }
        holds
    }

    fn all(&mut self) -> Option<bool> {
        let mut holds = self.term();
        while self.takes("&&") {
            let next = self.term();
            holds = match (holds, next) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            };
        }
        holds
    }

    fn term(&mut self) -> Option<bool> {
        let mut is_negated = false;
        while self.takes("!") {
            is_negated = !is_negated;
        }
        let holds = match self.takes("(") {
            true => {
                self.depth += 1;
                if self.depth > MOST_NESTED {
                    return None;
                }
                let inner = self.any();
                self.depth -= 1;
                self.takes(")").then_some(inner).flatten()
            }
            false => self.predicate(),
        };
        holds.map(|holds| holds != is_negated)
    }

    /// `defined(NAME)`, `streq(a,b)`, a number.
    fn predicate(&mut self) -> Option<bool> {
        let text = self.rest.trim_start();
        let length = text
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .unwrap_or(text.len());
        let (name, behind) = text.split_at(length);
        let Some(arguments) = behind.strip_prefix('(') else {
            self.rest = behind;
            return name.parse::<i64>().ok().map(|number| number != 0);
        };
        let (arguments, rest) = arguments.split_once(')')?;
        self.rest = rest;
        let (first, second) = arguments.split_once(',').unwrap_or((arguments, ""));
        match name {
            "defined" => Some(self.environment.get(arguments.trim()).is_some()),
            "streq" => Some(first == second),
            "strneq" => Some(first != second),
            "strstr" => Some(first.contains(second)),
            _ => None,
        }
    }

    fn takes(&mut self, sign: &str) -> bool {
        let rest = self.rest.trim_start().strip_prefix(sign);
        if let Some(rest) = rest {
            self.rest = rest;
        }
        rest.is_some()
    }
}

/// As deep as HAProxy's own.
const MOST_NESTED: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_true_false_or_not_known_here() {
        let outside = |name: &str| (name == "A").then(|| "1".to_owned());
        let environment = Environment::new(&outside);
        for (condition, holds) in [
            ("", Some(false)),
            ("1", Some(true)),
            ("0", Some(false)),
            ("defined(A)", Some(true)),
            ("!defined(A)", Some(false)),
            ("defined(B) || streq(a,a)", Some(true)),
            ("defined(B) || streq(a,b)", Some(false)),
            ("strneq(a,b) && (defined(A) && !(0))", Some(true)),
            ("version_atleast(2.8)", None),
            ("!feature(LUA)", None),
            ("version_atleast(2.8) && 0", Some(false)),
            ("version_atleast(2.8) || 1", Some(true)),
            ("1 1", None),
            ("(1", None),
            ("defined(A", None),
            ("word", None),
        ] {
            let reader = Reader {
                rest: condition,
                depth: 0,
                environment: &environment,
            };
            assert_eq!(reader.whole(), holds, "{condition}");
        }
        let deep = "(".repeat(10_000);
        let reader = Reader {
            rest: &deep,
            depth: 0,
            environment: &environment,
        };
        assert_eq!(reader.whole(), None);
    }
}
