//! The time of day and week.

use gateway_plugin_sdk::ConfigError;

use crate::config::Time;

/// A test of a local time.
#[derive(Debug)]
pub(crate) struct TimeTest {
    /// Bit `i` for the `i`-th day of the week, Monday being 1.
    days: u8,
    /// Minutes of the day: from the first up to before the second, over midnight when that is not greater.
    ranges: Vec<(u16, u16)>,
}

impl TimeTest {
    pub(crate) fn compile(time: Time, at: &str) -> Result<Self, ConfigError> {
        let mut days = 0;
        for (index, day) in time.days.iter().enumerate() {
            if !(1..=7).contains(day) {
                let message = format!("{day} is no day of the week; Monday is 1, Sunday 7");
                return Err(ConfigError::new(message).at(format!("{at}/days/{index}")));
            }
            days |= 1 << day;
        }
        let well = |&(from, to): &(u16, u16)| from < DAY && to <= DAY && from != to;
        if let Some(index) = time.ranges.iter().position(|range| !well(range)) {
            let message = format!("a range begins before minute {DAY}, and ends at another minute up to it");
            return Err(ConfigError::new(message).at(format!("{at}/ranges/{index}")));
        }
        Ok(Self {
            days: if days == 0 { EVERY_DAY } else { days },
            ranges: if time.ranges.is_empty() {
                vec![(0, DAY)]
            } else {
                time.ranges
            },
        })
    }

    /// Whether it holds at a time as the host writes it: `4 2026-01-01T01:00:00+01:00`.
    pub(crate) fn passes(&self, time: &[u8]) -> bool {
        let Some((day, minute)) = read(time) else { return false };
        let before = if day == 1 { 7 } else { day - 1 };
        let on = |day: u8| self.days >> day & 1 == 1;
        self.ranges.iter().any(|&(from, to)| match from < to {
            true => on(day) && (from..to).contains(&minute),
            // What is left of the night belongs to the day before.
            false => on(day) && minute >= from || on(before) && minute < to,
        })
    }
}

/// The day of the week and the minute of the day.
fn read(time: &[u8]) -> Option<(u8, u16)> {
    let digit = |at: usize| {
        time.get(at)
            .map(|byte| byte.wrapping_sub(b'0'))
            .filter(|digit| *digit < 10)
    };
    let number = |at| Some(u16::from(digit(at)?) * 10 + u16::from(digit(at + 1)?));
    let day = digit(0).filter(|day| (1..=7).contains(day))?;
    Some((day, number(13)? * 60 + number(16)?))
}

const DAY: u16 = 24 * 60;
const EVERY_DAY: u8 = 0b1111_1110;
