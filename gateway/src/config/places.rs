//! Where the values of a plugin's configuration were written: what turns a plugin's "not this one" into a place of the text.

use std::collections::HashMap;

use miette::SourceSpan;

/// The places of a JSON value and of the values in it; of the same shape as the value.
#[derive(Debug, Clone)]
pub struct Places {
    /// Where its name was written; where the value was, when it has none of its own.
    name: SourceSpan,
    span: SourceSpan,
    inside: Inside,
}

#[derive(Debug, Clone)]
enum Inside {
    Nothing,
    Elements(Vec<Places>),
    Members(HashMap<String, Places>),
}

impl Places {
    /// The place that a JSON Pointer (RFC 6901) means, and whether it is there: when it is not, this is the place of the
    /// innermost value on the way to it. A text that is no pointer means nothing, and so gets the outermost value.
    pub fn find(&self, pointer: &str) -> (SourceSpan, bool) {
        let mut place = self;
        let mut tokens = pointer.split('/');
        if tokens.next() != Some("") {
            return (self.span, false);
        }
        for token in tokens {
            let inner = match &place.inside {
                Inside::Nothing => None,
                Inside::Elements(elements) => index(token).and_then(|i| elements.get(i)),
                // In this order, so that `~01` means `~1`.
                Inside::Members(members) => members.get(&token.replace("~1", "/").replace("~0", "~")),
            };
            match inner {
                Some(inner) => place = inner,
                // Who takes one value or several has taken this one for a list.
                None if token == "0" && !matches!(place.inside, Inside::Elements(_)) => {}
                None => return (place.span, false),
            }
        }
        (place.span, true)
    }

    pub(super) fn of_scalar(span: SourceSpan) -> Self {
        Self::new(span, Inside::Nothing)
    }

    pub(super) fn of_array(span: SourceSpan, elements: Vec<Self>) -> Self {
        Self::new(span, Inside::Elements(elements))
    }

    pub(super) fn of_object(span: SourceSpan, members: HashMap<String, Self>) -> Self {
        Self::new(span, Inside::Members(members))
    }

    fn new(span: SourceSpan, inside: Inside) -> Self {
        let name = span;
        Self { name, span, inside }
    }

    /// The same, of a value whose name was written there.
    pub(super) fn named(self, name: SourceSpan) -> Self {
        Self { name, ..self }
    }

    /// Of a text that is in a file.
    pub(super) fn of_file(name: SourceSpan, path: SourceSpan) -> Self {
        Self::of_scalar(path).named(name)
    }

    /// Adds a member to an object, or makes one of a value with nothing in it.
    pub(super) fn insert(&mut self, name: &str, member: Self) {
        if let Inside::Nothing = self.inside {
            self.inside = Inside::Members(HashMap::new());
        }
        if let Inside::Members(members) = &mut self.inside {
            members.insert(name.to_owned(), member);
        }
    }

    /// The value becomes the first element of an array that stands where the value did.
    pub(super) fn begin_array(&mut self) {
        let array = Self::of_array(self.span, Vec::new()).named(self.name);
        let first = std::mem::replace(self, array);
        self.push(first);
    }

    /// Adds an element to an array.
    pub(super) fn push(&mut self, element: Self) {
        if let Inside::Elements(elements) = &mut self.inside {
            elements.push(element);
        }
    }

    /// The places of an object's member.
    pub(super) fn member(&self, name: &str) -> Option<&Self> {
        match &self.inside {
            Inside::Members(members) => members.get(name),
            _ => None,
        }
    }

    /// The places of an array's element.
    pub(super) fn element(&self, index: usize) -> Option<&Self> {
        match &self.inside {
            Inside::Elements(elements) => elements.get(index),
            _ => None,
        }
    }

    /// Where the value's name was written.
    pub(super) fn name(&self) -> SourceSpan {
        self.name
    }

    /// Where the value was written.
    pub fn span(&self) -> SourceSpan {
        self.span
    }
}

/// An array index as pointers have it: digits, without leading zeros.
fn index(token: &str) -> Option<usize> {
    let well = token.bytes().all(|byte| byte.is_ascii_digit()) && (token == "0" || !token.starts_with('0'));
    token.parse().ok().filter(|_| well)
}
