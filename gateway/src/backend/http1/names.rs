//! Names of fields as a worker has met them in responses. Servers send the same few in the same spelling again and again; to make a name of
//! them takes three times as long as to find it.

use std::cell::RefCell;

use http::header::HeaderName;

/// The name that is spelled so; none where it is none.
pub(super) fn of(spelled: &[u8]) -> Option<HeaderName> {
    let (Some(first), Some(last)) = (spelled.first(), spelled.last()) else {
        return None;
    };
    if spelled.len() > LONGEST {
        return HeaderName::from_bytes(spelled).ok();
    }
    let place = (spelled.len() * 7 + usize::from(*first) * 3 + usize::from(*last)) % PLACES;
    KNOWN.with_borrow_mut(|known| {
        let known = &mut known[place];
        if let Some(known) = known
            && known.spelled() == spelled
        {
            return Some(known.name.clone());
        }
        let name = HeaderName::from_bytes(spelled).ok()?;
        *known = Known::new(spelled, &name);
        Some(name)
    })
}

/// A name, and how it was spelled.
struct Known {
    name: HeaderName,
    length: u8,
    spelled: [u8; LONGEST],
}

impl Known {
    fn new(spelled: &[u8], name: &HeaderName) -> Option<Self> {
        let mut known = Self {
            name: name.clone(),
            length: u8::try_from(spelled.len()).ok()?,
            spelled: [0; LONGEST],
        };
        known.spelled.get_mut(..spelled.len())?.copy_from_slice(spelled);
        Some(known)
    }

    fn spelled(&self) -> &[u8] {
        &self.spelled[..usize::from(self.length)]
    }
}

thread_local! {
    /// One for each place that a spelling may lead to: the last.
    static KNOWN: RefCell<[Option<Known>; PLACES]> = const { RefCell::new([const { None }; PLACES]) };
}

/// Bytes of a name that is remembered: with all that belongs to it, it is one cache line.
const LONGEST: usize = 31;

/// Names that are remembered: twice what a few kinds of servers send.
const PLACES: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_is_spelled_however_often_it_is_asked_for() {
        let long = "x-".repeat(LONGEST);
        let spellings = [
            "Content-Type",
            "content-type",
            "Date",
            "Etag",
            "X-Own",
            "x-own",
            "Xatd",
            &long,
        ];
        for _ in 0..3 {
            for spelled in spellings {
                let name = of(spelled.as_bytes());
                assert_eq!(name, HeaderName::from_bytes(spelled.as_bytes()).ok(), "{spelled}");
            }
            for bad in ["", "a b", "\u{e9}", "a:"] {
                assert_eq!(of(bad.as_bytes()), None, "{bad}");
            }
        }
        assert_eq!(size_of::<Known>(), 64);
    }
}
