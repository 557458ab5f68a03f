//! Sets of statuses: which responses an edit or a limit is about, and after which a request is sent again.

use std::fmt;

/// A set of statuses from 100 to 599.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StatusSet([u64; 8]);

impl StatusSet {
    /// None.
    pub const NONE: Self = Self([0; 8]);

    /// Of ranges, each with both its ends.
    pub fn of(ranges: &[(u16, u16)]) -> Self {
        let mut set = Self::NONE;
        let statuses = ranges.iter().flat_map(|(low, high)| *low..=*high);
        statuses.for_each(|status| set.add(status));
        set
    }

    /// Adds one; others than 100 to 599 are passed over.
    pub fn add(&mut self, status: u16) {
        if let Some(at) = Self::at(status) {
            self.0[at / 64] |= 1 << (at % 64);
        }
    }

    /// Whether it is in the set.
    pub fn contains(&self, status: u16) -> bool {
        Self::at(status).is_some_and(|at| self.0[at / 64] >> (at % 64) & 1 == 1)
    }

    fn at(status: u16) -> Option<usize> {
        let at = usize::from(status.checked_sub(100)?);
        (at < 500).then_some(at)
    }
}

impl fmt::Display for StatusSet {
    /// As `404,500-599`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        let mut first = None;
        for status in 100..=600 {
            match (self.contains(status), first) {
                (true, None) => first = Some(status),
                (false, Some(low)) => {
                    let high = status - 1;
                    write!(f, "{between}{low}")?;
                    if high > low {
                        write!(f, "-{high}")?;
                    }
                    (between, first) = (",", None);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_the_statuses_of_its_ranges() {
        let set = StatusSet::of(&[(100, 101), (404, 404), (502, 599), (600, 700)]);
        let has: Vec<_> = (0..=u16::MAX).filter(|status| set.contains(*status)).collect();
        let expected: Vec<_> = [100, 101, 404].into_iter().chain(502..=599).collect();
        assert_eq!(has, expected);
    }

    #[test]
    fn a_set_has_what_was_added() {
        let mut set = StatusSet::NONE;
        for status in [100, 163, 164, 599, 600, 1] {
            set.add(status);
        }
        let has: Vec<_> = (0..=u16::MAX).filter(|status| set.contains(*status)).collect();
        assert_eq!(has, [100, 163, 164, 599]);
    }
}
