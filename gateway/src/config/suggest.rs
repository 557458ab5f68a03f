//! "Did you mean …?"

use super::reader::clip;

/// The candidate that `word` is most likely a slip for, if any is near enough.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > MAX_LENGTH {
        return None;
    }
    let lower = word.to_ascii_lowercase();
    candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= MAX_LENGTH)
        .filter_map(|candidate| {
            let other = candidate.to_ascii_lowercase();
            let length = lower.chars().count().max(other.chars().count());
            let mut distance = strsim::damerau_levenshtein(&lower, &other);
            // A word cut short or gone on with is a slip whatever its length: `default` for `default-backend`.
            if distance > 1 && lower.len() >= 4 && (other.starts_with(&lower) || lower.starts_with(&other)) {
                distance = distance.min(2);
            }
            (distance <= (length / 3).max(1)).then_some((distance, candidate))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The candidate that is the same word, spelt as other languages spell theirs: with capitals, with `_` for `-`, with a colon behind
/// it, or one for many.
pub(super) fn same<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let one = |word: &str| word.strip_suffix('s').unwrap_or(word).to_owned();
    let spelt = one(&spelt(word));
    candidates.into_iter().find(|candidate| one(candidate) == spelt)
}

/// A word as it would be spelt here.
pub(super) fn spelt(word: &str) -> String {
    word.trim_end_matches(':').to_ascii_lowercase().replace('_', "-")
}

/// As a help line, or `otherwise` when nothing is near.
pub(super) fn did_you_mean(
    word: &str,
    candidates: &[&str],
    otherwise: impl FnOnce() -> Option<String>,
) -> Option<String> {
    // What has no name is there all the same: it was declared, and something was wrong with that.
    let named = candidates.iter().copied().filter(|name| !name.is_empty());
    match nearest(word, named) {
        Some(candidate) => Some(format!("did you mean `{candidate}`?")),
        None => otherwise(),
    }
}

/// The same for names that somebody else has chosen; otherwise, all of them.
pub fn one_of_names(word: &str, names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| clip(name)).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    did_you_mean(word, &names, || Some(format!("write {}", list(&names)?))).unwrap_or_default()
}

/// `a, b or c`, each in backticks; none when there is none.
pub(super) fn list(words: &[&str]) -> Option<String> {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        None => None,
        Some((last, [])) => Some(last.clone()),
        Some((last, rest)) => Some(format!("{} or {last}", rest.join(", "))),
    }
}

/// Words longer than this are not compared: the comparison takes the product of both lengths.
const MAX_LENGTH: usize = 64;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_another_word_is_not() {
        let words = ["frontend", "backend", "defaults", "default-backend"];
        assert_eq!(nearest("fronted", words), Some("frontend"));
        assert_eq!(nearest("Backend", words), Some("backend"));
        assert_eq!(nearest("default-back", words), Some("default-backend"));
        assert_eq!(nearest("listen", words), None);
        assert_eq!(nearest(&"x".repeat(1 << 20), words), None);
    }

    #[test]
    fn a_word_is_the_same_however_it_is_spelt() {
        let words = ["use-backend", "tenants", "server", "use-plugin"];
        for (word, meant) in [
            ("use_backend", "use-backend"),
            ("Use-Backend:", "use-backend"),
            ("tenant", "tenants"),
            ("servers", "server"),
        ] {
            assert_eq!(same(word, words), Some(meant));
        }
        assert_eq!(same("backend", words), None);
    }

    #[test]
    fn a_list_reads_as_a_sentence() {
        assert_eq!(list(&[]), None);
        assert_eq!(list(&["a"]).unwrap(), "`a`");
        assert_eq!(list(&["a", "b", "c"]).unwrap(), "`a`, `b` or `c`");
    }
}
