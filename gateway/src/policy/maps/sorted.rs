//! Texts, of which the longest one that another text begins with is found.

/// Keys in order, each with the longest other one that it begins with.
#[derive(Debug)]
pub(super) struct Sorted {
    keys: Vec<(Vec<u8>, u32)>,
    parents: Vec<Option<usize>>,
}

impl Sorted {
    pub(super) fn new(mut keys: Vec<(Vec<u8>, u32)>) -> Self {
        keys.sort();
        let mut parents = Vec::with_capacity(keys.len());
        // Those that the key before begins with, the longest last.
        let mut open: Vec<usize> = Vec::new();
        for (position, (key, _)) in keys.iter().enumerate() {
            while open.last().is_some_and(|last| !key.starts_with(&keys[*last].0)) {
                open.pop();
            }
            parents.push(open.last().copied());
            open.push(position);
        }
        Self { keys, parents }
    }

    /// The longest key that a text begins with. It stands before the text in the order, and whatever stands between them
    /// begins with it.
    pub(super) fn longest_prefix(&self, text: &[u8]) -> Option<u32> {
        let behind = self.keys.partition_point(|(key, _)| key.as_slice() <= text);
        let mut at = behind.checked_sub(1);
        while let Some(position) = at {
            let (key, value) = &self.keys[position];
            if text.starts_with(key) {
                return Some(*value);
            }
            at = self.parents[position];
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_longest_prefix_is_that_of_looking_at_all(
            keys in proptest::collection::hash_set("[ab]{0,5}", 0..20), text in "[ab]{0,8}",
        ) {
            let keys: Vec<String> = keys.into_iter().collect();
            let sorted = Sorted::new(keys.iter().zip(0u32..).map(|(key, n)| (key.clone().into_bytes(), n)).collect());
            let naive = keys.iter().zip(0u32..).filter(|(key, _)| text.starts_with(key.as_str()));
            let naive = naive.max_by_key(|(key, _)| key.len()).map(|(_, n)| n);
            prop_assert_eq!(sorted.longest_prefix(text.as_bytes()), naive);
        }
    }
}
