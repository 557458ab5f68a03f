//! Which use of a plugin one is. What outlives a reload (what a use has used up, how often its hooks have failed) is found again by where it
//! stands; where one plugin is used several times in one place, by its number among those.

use std::collections::HashMap;

/// The uses that have been met, by what they are.
#[derive(Debug, Default)]
pub(super) struct Places(HashMap<String, usize>);

impl Places {
    /// The name of the place of one more use that stands in `place`. The first has its name; `what` says which uses are told apart by a
    /// number alone.
    pub(super) fn next(&mut self, what: String, place: &str) -> String {
        let number = self.0.entry(what).or_default();
        *number += 1;
        match number {
            1 => place.to_owned(),
            number => format!("{place} ({number})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_that_are_alike_have_a_place_each_and_find_it_again() {
        let places = || {
            let mut places = Places::default();
            ["a", "b", "a", "a"].map(|what| places.next(what.to_owned(), "frontend \"web\""))
        };
        let expected = [
            "frontend \"web\"",
            "frontend \"web\"",
            "frontend \"web\" (2)",
            "frontend \"web\" (3)",
        ];
        assert_eq!(places(), expected);
    }
}
