//! How long what is in a file is good, for who asks before it is too late.

use std::path::Path;

use rustls_pki_types::CertificateDer;
use x509_parser::parse_x509_certificate;

use super::certificate::{DAY, WARNINGS};
use super::{TlsError, chain, file};

/// What is to be told of the validity of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// It is not valid yet, but in so many seconds.
    Early(i64),
    /// It ends in so many seconds, which is soon.
    Late(i64),
    /// It has ended so many seconds ago.
    Over(i64),
}

/// The certificates of a file that are to be told of as of `now`, in Unix time, with their positions from 0: of a chain, each one whose
/// validity has not begun, is at its end, or soon will be. What cannot be read as a certificate is another's to tell.
pub fn of_chain(path: &Path, now: i64) -> Result<Vec<(usize, Age)>, TlsError> {
    let validities = validities(path)?.into_iter().enumerate();
    Ok(validities
        .filter_map(|(at, validity)| Some((at, Age::of(validity?, now)?)))
        .collect())
}

/// What is to be told of a file with authorities: as long as one of them is good for a while, nothing.
pub fn of_authorities(path: &Path, now: i64) -> Result<Option<Age>, TlsError> {
    let validities = validities(path)?;
    let ages: Option<Vec<Age>> = validities.into_iter().flatten().map(|one| Age::of(one, now)).collect();
    Ok(ages.and_then(|ages| ages.into_iter().max_by_key(|age| age.left())))
}

/// What is to be told of a revocation list: that its authority should have issued another one. Those are renewed every few days, so
/// that one which soon will be is nothing to tell of.
pub fn of_revocation_list(next_update: Option<i64>, now: i64) -> Option<Age> {
    let next = next_update.filter(|next| *next <= now)?;
    Some(Age::Over(now - next))
}

/// From when to when each certificate of a file is valid, in Unix time.
fn validities(path: &Path) -> Result<Vec<Option<(i64, i64)>>, TlsError> {
    let chain: Vec<CertificateDer<'static>> = chain(path, &file::read(path, "certificate")?)?;
    let validity = |certificate: &CertificateDer<'_>| {
        let (_, parsed) = parse_x509_certificate(certificate).ok()?;
        let validity = parsed.validity();
        Some((validity.not_before.timestamp(), validity.not_after.timestamp()))
    };
    Ok(chain.iter().map(validity).collect())
}

impl Age {
    fn of((not_before, not_after): (i64, i64), now: i64) -> Option<Self> {
        let left = not_after.saturating_sub(now);
        if left <= 0 {
            return Some(Self::Over(-left));
        }
        if not_before > now {
            return Some(Self::Early(not_before - now));
        }
        (left <= SOON).then_some(Self::Late(left))
    }

    /// Which of several is best: what is good now for the longest, then what will be, then what was.
    fn left(self) -> (u8, i64) {
        match self {
            Self::Late(left) => (2, left),
            Self::Early(until) => (1, -until),
            Self::Over(since) => (0, -since),
        }
    }
}

impl std::fmt::Display for Age {
    /// As what is said of something: `expired 3 days ago`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // What is to come, rounded up, as in the log; what was, down.
        let (words, days, behind) = match self {
            Self::Early(until) => ("is not valid yet, but within", (until + DAY - 1) / DAY, ""),
            Self::Late(left) => ("expires within", (left + DAY - 1) / DAY, ""),
            Self::Over(since) => ("expired", since / DAY, " ago"),
        };
        match days {
            0 => write!(f, "{words} less than a day{behind}"),
            1 => write!(f, "{words} 1 day{behind}"),
            days => write!(f, "{words} {days} days{behind}"),
        }
    }
}

/// When a certificate's end is soon: where the log begins to tell of it.
const SOON: i64 = WARNINGS[0] * DAY;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_old_or_too_young_is_told_of_with_its_days() {
        let now = 1_000 * DAY;
        for (from, to, said) in [
            (-10, 100, None),
            (-10, 15, None),
            (-10, 14, Some("expires within 14 days")),
            (-10, 1, Some("expires within 1 day")),
            (-10, 0, Some("expired less than a day ago")),
            (-10, -3, Some("expired 3 days ago")),
            (2, 100, Some("is not valid yet, but within 2 days")),
        ] {
            let age = Age::of((now + from * DAY, now + to * DAY), now);
            assert_eq!(age.map(|age| age.to_string()).as_deref(), said, "{from} {to}");
        }
        assert_eq!(of_revocation_list(Some(now + 1), now), None);
        assert_eq!(of_revocation_list(None, now), None);
        assert_eq!(of_revocation_list(Some(now), now), Some(Age::Over(0)));
    }
}
