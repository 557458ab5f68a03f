//! Dates in cookies, as HAProxy writes them: five digits of base 64, most significant first, that count steps of four
//! seconds since 1970. Thirty bits last until 2106.

/// Digits of a date.
pub(super) const LENGTH: usize = 5;

/// Seconds of a step.
const STEP: u64 = 4;

/// The date of the step that these seconds since 1970 are in, or, rounded up, the next one.
pub(super) fn encode(seconds: u64) -> [u8; LENGTH] {
    let mut steps = seconds.div_ceil(STEP);
    let mut digits = [0; LENGTH];
    for digit in digits.iter_mut().rev() {
        *digit = DIGITS[(steps % 64) as usize];
        steps /= 64;
    }
    digits
}

/// Seconds since 1970; none when it is no date, or 0.
pub(super) fn decode(digits: &[u8]) -> Option<u64> {
    let digits = digits.get(..LENGTH)?;
    let mut steps = 0;
    for &digit in digits {
        steps = steps * 64 + value(digit)?;
    }
    (steps > 0).then_some(steps * STEP)
}

fn value(digit: u8) -> Option<u64> {
    let value = match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(u64::from(value))
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_dates() {
        // 2009-02-13 23:31:32: 308641723 steps.
        assert_eq!(&encode(1_234_566_892), b"SZX+7");
        assert_eq!(decode(b"SZX+7"), Some(1_234_566_892));
        for wrong in [&b"AAAAA"[..], b"SZX+", b"SZX=7", b"", b"SZX 7"] {
            assert_eq!(decode(wrong), None, "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn a_date_is_read_as_it_was_written(seconds in 1_u64..(1 << 32) - 4) {
            let read = decode(&encode(seconds)).unwrap();
            prop_assert!((seconds..seconds + STEP).contains(&read));
        }
    }
}
