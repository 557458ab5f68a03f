//! Dates in log lines. A date is worked out once a second; a line copies it and adds the milliseconds.

use std::time::{SystemTime, UNIX_EPOCH};

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

fn push_time(out: &mut Vec<u8>, date: OffsetDateTime) {
    push_digits(out, date.hour().into(), 2);
    out.push(b':');
    push_digits(out, date.minute().into(), 2);
    out.push(b':');
    push_digits(out, date.second().into(), 2);
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
