//! Dates in log lines. A date is worked out once a second; a line copies it and adds the milliseconds.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use time::OffsetDateTime;

/// The dates of the second that was asked for last.
#[derive(Debug)]
pub(super) struct Dates {
    second: Option<u64>,
    /// `06/Feb/2009:12:14:14`
    text: Vec<u8>,
    /// `2009-02-06T12:14:14`
    iso: Vec<u8>,
}

impl Default for Dates {
    fn default() -> Self {
        Self {
            second: None,
            text: Vec::with_capacity(32),
            iso: Vec::with_capacity(32),
        }
    }
}

impl Dates {
    /// Appends `06/Feb/2009:12:14:14.655`, HAProxy's form, in UTC.
    pub(super) fn push_text(&mut self, out: &mut Vec<u8>, time: SystemTime) {
        let millis = self.look_at(time);
        out.extend_from_slice(&self.text);
        push_millis(out, millis);
    }

    /// Appends `2009-02-06T12:14:14.655Z`, as RFC 3339 has it.
    pub(super) fn push_iso(&mut self, out: &mut Vec<u8>, time: SystemTime) {
        let millis = self.look_at(time);
        out.extend_from_slice(&self.iso);
        push_millis(out, millis);
        out.push(b'Z');
    }

    /// Makes the dates those of `time`'s second; returns its milliseconds.
    fn look_at(&mut self, time: SystemTime) -> u32 {
        // A clock before 1970 is written as 1970.
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        if self.second != Some(since.as_secs()) {
            self.second = Some(since.as_secs());
            self.write(since.as_secs());
        }
        since.subsec_millis()
    }

    fn write(&mut self, second: u64) {
        let date = i64::try_from(second)
            .ok()
            .and_then(|second| OffsetDateTime::from_unix_timestamp(second).ok());
        let date = date.unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let (year, month, day) = (date.year().unsigned_abs(), u8::from(date.month()), date.day());
        let name = MONTHS[usize::from(month - 1) % MONTHS.len()];

        self.text.clear();
        push_digits(&mut self.text, day.into(), 2);
        self.text.push(b'/');
        self.text.extend_from_slice(name.as_bytes());
        self.text.push(b'/');
        push_digits(&mut self.text, year, 4);
        self.text.push(b':');
        push_time(&mut self.text, date);

        self.iso.clear();
        push_digits(&mut self.iso, year, 4);
        self.iso.push(b'-');
        push_digits(&mut self.iso, month.into(), 2);
        self.iso.push(b'-');
        push_digits(&mut self.iso, day.into(), 2);
        self.iso.push(b'T');
        push_time(&mut self.iso, date);
    }
}

/// The date of the second that was asked for last, as RFC 3164, section 4.1.2, has it: in the time of the place, without
/// its year and without its zone.
#[derive(Debug)]
pub(super) struct LocalDates {
    zone: TimeZone,
    second: Option<u64>,
    /// `Feb  6 12:14:14`
    text: Vec<u8>,
}

impl LocalDates {
    /// In the machine's time zone: what `TZ` says, else `/etc/localtime`, which a `chroot` would hide later; else UTC.
    pub(super) fn of_the_machine() -> Self {
        Self::of(TimeZone::system())
    }

    fn of(zone: TimeZone) -> Self {
        Self {
            zone,
            second: None,
            text: Vec::with_capacity(16),
        }
    }

    /// Appends `Feb  6 12:14:14`.
    pub(super) fn push(&mut self, out: &mut Vec<u8>, time: SystemTime) {
        let second = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if self.second != Some(second) {
            self.second = Some(second);
            self.write(second);
        }
        out.extend_from_slice(&self.text);
    }

    fn write(&mut self, second: u64) {
        let time = i64::try_from(second)
            .ok()
            .and_then(|second| Timestamp::from_second(second).ok());
        let date = self.zone.to_datetime(time.unwrap_or(Timestamp::UNIX_EPOCH));
        let name = MONTHS[usize::from(date.month().unsigned_abs().wrapping_sub(1)) % MONTHS.len()];
        let day = date.day().unsigned_abs();

        self.text.clear();
        self.text.extend_from_slice(name.as_bytes());
        self.text.push(b' ');
        match day {
            0..10 => {
                self.text.push(b' ');
                push_digits(&mut self.text, day.into(), 1);
            }
            _ => push_digits(&mut self.text, day.into(), 2),
        }
        self.text.push(b' ');
        let clock = [date.hour(), date.minute(), date.second()];
        push_clock(&mut self.text, clock.map(i8::unsigned_abs));
    }
}

fn push_time(out: &mut Vec<u8>, date: OffsetDateTime) {
    push_clock(out, [date.hour(), date.minute(), date.second()]);
}

/// `12:14:14`
fn push_clock(out: &mut Vec<u8>, [hour, minute, second]: [u8; 3]) {
    push_digits(out, hour.into(), 2);
    out.push(b':');
    push_digits(out, minute.into(), 2);
    out.push(b':');
    push_digits(out, second.into(), 2);
}

fn push_millis(out: &mut Vec<u8>, millis: u32) {
    out.push(b'.');
    push_digits(out, millis, 3);
}

/// The last `digits` digits, with leading zeros.
fn push_digits(out: &mut Vec<u8>, number: u32, digits: u32) {
    for place in (0..digits).rev() {
        // A remainder of ten is one digit.
        out.push(b'0' + u8::try_from(number / 10_u32.pow(place) % 10).unwrap_or(0));
    }
}

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn both(dates: &mut Dates, time: SystemTime) -> (String, String) {
        let (mut text, mut iso) = (Vec::new(), Vec::new());
        dates.push_text(&mut text, time);
        dates.push_iso(&mut iso, time);
        (String::from_utf8(text).unwrap(), String::from_utf8(iso).unwrap())
    }

    #[test]
    fn dates_are_written_in_both_forms() {
        let time = UNIX_EPOCH + Duration::from_millis(1_233_922_454_655);
        let (text, iso) = both(&mut Dates::default(), time);
        assert_eq!(text, "06/Feb/2009:12:14:14.655");
        assert_eq!(iso, "2009-02-06T12:14:14.655Z");
    }

    #[test]
    fn local_dates_follow_their_zone_and_its_summer() {
        let mut dates = LocalDates::of(TimeZone::get("Europe/Berlin").unwrap());
        let mut at = |second| {
            let mut out = Vec::new();
            dates.push(&mut out, UNIX_EPOCH + Duration::from_secs(second));
            String::from_utf8(out).unwrap()
        };
        // 2009-02-06 12:14:14 in UTC, and half a year later.
        assert_eq!(at(1_233_922_454), "Feb  6 13:14:14");
        assert_eq!(at(1_233_922_454 + 181 * 86_400), "Aug  6 14:14:14");
        assert_eq!(at(1_233_922_454 + 195 * 86_400), "Aug 20 14:14:14");
        // A clock beyond all calendars does not panic.
        assert_eq!(at(1 << 60), "Jan  1 01:00:00");
    }

    #[test]
    fn a_clock_beyond_all_calendars_does_not_panic() {
        let mut dates = Dates::default();
        assert_eq!(
            both(&mut dates, UNIX_EPOCH - Duration::from_secs(5)).1,
            "1970-01-01T00:00:00.000Z"
        );
        both(&mut dates, UNIX_EPOCH + Duration::from_secs(1 << 60));
    }

    proptest! {
        #[test]
        fn dates_agree_with_another_crate_in_whatever_order_they_are_asked_for(
            times in proptest::collection::vec(0_u64..4_000_000_000_000, 1..20),
        ) {
            let mut dates = Dates::default();
            for millis in times {
                let time = UNIX_EPOCH + Duration::from_millis(millis);
                // Fri, 06 Feb 2009 12:14:14 GMT
                let other = httpdate::fmt_http_date(time);
                let (day, month, year, clock) = (&other[5..7], &other[8..11], &other[12..16], &other[17..25]);
                let (text, iso) = both(&mut dates, time);
                prop_assert_eq!(text, format!("{day}/{month}/{year}:{clock}.{:03}", millis % 1000));
                let same_day = format!("-{day}T{clock}.");
                prop_assert!(iso.starts_with(year) && iso.contains(&same_day));
            }
        }
    }
}
