//! Durations, sizes and rates as they are written: a whole number and a unit, without a space.

use std::time::Duration;

/// Why a text is not a quantity, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UnitError {
    pub(super) message: String,
    pub(super) help: String,
}

/// `500us`, `10ms`, `5s`, `1m`, `1h`, `1d`. Zero is refused: no setting takes it.
pub(super) fn duration(text: &str) -> Result<Duration, UnitError> {
    let (number, unit) = quantity(text, DURATION_HELP)?;
    let micros = DURATION_UNITS.iter().find(|(name, _)| *name == unit);
    let Some((_, micros)) = micros else {
        return Err(unknown_unit(unit, "duration", DURATION_HELP));
    };
    let micros = number
        .checked_mul(*micros)
        .ok_or_else(|| too_large(text, DURATION_HELP))?;
    Ok(Duration::from_micros(micros))
}

/// `512B`, `16KiB`, `1MiB`, `1GiB`, `10MB`. Zero is refused.
pub(super) fn size(text: &str) -> Result<u64, UnitError> {
    let (number, unit) = quantity(text, SIZE_HELP)?;
    let Some((_, bytes)) = SIZE_UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(unknown_unit(unit, "size", SIZE_HELP));
    };
    number.checked_mul(*bytes).ok_or_else(|| too_large(text, SIZE_HELP))
}

/// `100/s`, `20/m`, `5/10s`: how many, and in what time.
pub(super) fn rate(text: &str) -> Result<(u64, Duration), UnitError> {
    let Some((number, period)) = text.split_once('/') else {
        return Err(UnitError {
            message: format!("{text:?} says no period"),
            help: RATE_HELP.to_owned(),
        });
    };
    let (number, rest) = quantity(number, RATE_HELP)?;
    if !rest.is_empty() {
        return Err(UnitError {
            message: format!("{text:?} is not a rate"),
            help: RATE_HELP.to_owned(),
        });
    }
    let period = match period.starts_with(|first: char| first.is_ascii_digit()) {
        true => duration(period),
        false => duration(&format!("1{period}")),
    };
    let period = period.map_err(|error| UnitError {
        message: format!("the period of {text:?} is not a duration: {}", error.message),
        help: RATE_HELP.to_owned(),
    })?;
    Ok((number, period))
}

/// `1 core`, `1.5 cores`: CPU time per time, in thousandths. Zero is refused.
pub(super) fn cores(text: &str) -> Result<u32, UnitError> {
    let fail = |message: String| UnitError {
        message,
        help: CORES_HELP.to_owned(),
    };
    let number = text.strip_suffix(" cores").or_else(|| text.strip_suffix(" core"));
    let number = number.ok_or_else(|| fail(format!("{text:?} does not end with ` cores`")))?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) || fraction.len() > 3 {
        return Err(fail(format!("{number:?} is not a number with at most three places")));
    }
    let whole: u32 = whole.parse().map_err(|_| too_large(text, CORES_HELP))?;
    // At most three digits, filled up to thousandths.
    let thousandths = format!("{fraction:0<3}")
        .parse()
        .map_err(|_| too_large(text, CORES_HELP))?;
    let cores = whole.checked_mul(1000).and_then(|whole| whole.checked_add(thousandths));
    match cores.ok_or_else(|| too_large(text, CORES_HELP))? {
        0 => Err(fail(format!("{text:?} is zero"))),
        cores => Ok(cores),
    }
}

/// `5%`, `0.25%`: in hundredths of a percent, more than nothing and less than all.
pub(super) fn part(text: &str) -> Result<u16, UnitError> {
    let fail = |message: String| UnitError {
        message,
        help: PART_HELP.to_owned(),
    };
    let number = text.strip_suffix('%');
    let number = number.ok_or_else(|| fail(format!("{text:?} does not end with a percent sign")))?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let is_number = |part: &str| !part.is_empty() && part.len() <= 3 && part.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) || fraction.len() > 2 {
        return Err(fail(format!("{number:?} is not a number with at most two places")));
    }
    let hundredths = format!("{whole}{fraction:0<2}").parse().unwrap_or(u32::MAX);
    match u16::try_from(hundredths) {
        Ok(hundredths @ 1..10_000) => Ok(hundredths),
        Ok(0) => Err(fail(format!("{text:?} is nothing"))),
        _ => Err(fail(format!("{text:?} is not less than all"))),
    }
}

/// How a duration is written, the shortest way that loses nothing.
pub(super) fn show_duration(duration: Duration) -> String {
    let micros = duration.as_micros();
    let fits = DURATION_UNITS
        .iter()
        .rev()
        .find(|(_, unit)| micros >= u128::from(*unit) && micros.is_multiple_of(u128::from(*unit)));
    match fits {
        Some((name, unit)) => format!("{}{name}", micros / u128::from(*unit)),
        None => format!("{micros}us"),
    }
}

/// How a size is written, likewise.
pub(super) fn show_size(bytes: u64) -> String {
    let fits = SIZE_UNITS
        .iter()
        .rev()
        .find(|(name, unit)| binary(name) && bytes >= *unit && bytes.is_multiple_of(*unit));
    match fits {
        Some((name, unit)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes}B"),
    }
}

fn binary(unit: &str) -> bool {
    unit == "B" || unit.contains('i')
}

/// Splits a text into a number, at least 1, and what follows.
fn quantity<'a>(text: &'a str, help: &str) -> Result<(u64, &'a str), UnitError> {
    let fail = |message: String| UnitError {
        message,
        help: help.to_owned(),
    };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(match text.bytes().next() {
            None => fail("it is empty".to_owned()),
            Some(b'-') => fail(format!("{text:?} is negative")),
            Some(b' ') => fail(format!("{text:?} begins with a space")),
            Some(_) => fail(format!("{text:?} does not begin with a number")),
        });
    }
    if unit.starts_with(['.', ',']) {
        return Err(fail(format!("{text:?} is not a whole number of a unit")));
    }
    if unit.starts_with(' ') {
        return Err(fail(format!("{text:?} has a space before its unit")));
    }
    // Digits alone cannot fail to parse but by being too many.
    let number: u64 = number.parse().map_err(|_| too_large(text, help))?;
    if number == 0 {
        return Err(fail(format!("{text:?} is zero")));
    }
    Ok((number, unit))
}

fn unknown_unit(unit: &str, what: &str, help: &str) -> UnitError {
    UnitError {
        message: match unit {
            "" => format!("a {what} needs a unit"),
            unit => format!("{unit:?} is not a unit of a {what}"),
        },
        help: help.to_owned(),
    }
}

fn too_large(text: &str, help: &str) -> UnitError {
    let shown: String = text.chars().take(40).collect();
    UnitError {
        message: format!("{shown:?} is too large"),
        help: help.to_owned(),
    }
}

/// Units of a duration in microseconds, from the smallest.
const DURATION_UNITS: &[(&str, u64)] = &[
    ("us", 1),
    ("ms", 1_000),
    ("s", 1_000_000),
    ("m", 60_000_000),
    ("h", 3_600_000_000),
    ("d", 86_400_000_000),
];

/// Units of a size in bytes, from the smallest. Decimal ones are as the SI has them: 10MB is less than 10MiB.
const SIZE_UNITS: &[(&str, u64)] = &[
    ("B", 1),
    ("kB", 1_000),
    ("KB", 1_000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
];

pub(super) const DURATION_HELP: &str =
    "write a whole number and one of the units us, ms, s, m, h or d, as \"500ms\" or \"30s\"";
pub(super) const SIZE_HELP: &str =
    "write a whole number and one of the units B, KiB, MiB, GiB, kB, MB or GB, as \"16KiB\"";
pub(super) const CORES_HELP: &str =
    "write how many CPUs' time, with up to three places, as \"0.25 cores\" or \"1.5 cores\"";
pub(super) const PART_HELP: &str = "write a percentage with up to two places, as \"5%\" or \"0.25%\"";
pub(super) const RATE_HELP: &str = "write how many in what time, as \"100/s\", \"20/m\" or \"5/10s\"";

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quantities_are_read() {
        assert_eq!(duration("500us").unwrap(), Duration::from_micros(500));
        assert_eq!(duration("10ms").unwrap(), Duration::from_millis(10));
        assert_eq!(duration("1h").unwrap(), Duration::from_secs(3600));
        assert_eq!(size("16KiB").unwrap(), 16_384);
        assert_eq!(size("10MB").unwrap(), 10_000_000);
        assert_eq!(rate("100/s").unwrap(), (100, Duration::from_secs(1)));
        assert_eq!(rate("5/10s").unwrap(), (5, Duration::from_secs(10)));
    }

    #[test]
    fn what_is_no_quantity_says_why() {
        for (text, why) in [
            ("5", "needs a unit"),
            ("0s", "zero"),
            ("-1s", "negative"),
            ("1.5s", "whole number"),
            ("5 s", "space"),
            ("s", "number"),
            ("", "empty"),
            ("5sec", "not a unit"),
            ("18446744073709551615d", "too large"),
            ("99999999999999999999s", "too large"),
            ("NaN", "number"),
        ] {
            let message = duration(text).unwrap_err().message;
            assert!(message.contains(why), "{text:?}: {message}");
        }
        for text in ["16kib", "1K", "1T", "18446744073709551615GiB", "0B"] {
            size(text).unwrap_err();
        }
        assert_eq!(cores("1 core").unwrap(), 1000);
        assert_eq!(cores("1.5 cores").unwrap(), 1500);
        assert_eq!(cores("0.025 cores").unwrap(), 25);
        for text in [
            "1",
            "1.5",
            "cores",
            " cores",
            "0 cores",
            "0.000 cores",
            "1.2345 cores",
            "-1 cores",
            "1. cores",
            ".5 cores",
            "9999999 cores",
        ] {
            cores(text).unwrap_err();
        }
        assert_eq!(part("5%").unwrap(), 500);
        assert_eq!(part("0.25%").unwrap(), 25);
        assert_eq!(part("99.9%").unwrap(), 9990);
        for text in [
            "5", "%", "0%", "0.00%", "100%", "0.001%", "-5%", "5.%", ".5%", "9999%", "5 %",
        ] {
            part(text).unwrap_err();
        }
        for text in ["100", "100/", "/s", "0/s", "1/0s", "1s/s", "1/-1s", "1/s/s"] {
            rate(text).unwrap_err();
        }
    }

    proptest! {
        #[test]
        fn a_shown_duration_reads_back(micros in 1..u64::MAX / 2) {
            let value = Duration::from_micros(micros);
            prop_assert_eq!(duration(&show_duration(value)).unwrap(), value);
        }

        #[test]
        fn a_shown_size_reads_back(bytes in 1..u64::MAX) {
            prop_assert_eq!(size(&show_size(bytes)).unwrap(), bytes);
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = (duration(&text), size(&text), rate(&text), cores(&text), part(&text));
        }
    }
}
