//! Counters and key-value pairs, on the test's clock.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::sys::counters::CounterError;
use crate::sys::kv::KvError;

/// What a host keeps for a plugin.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    counters: BTreeMap<Vec<u8>, i64>,
    /// Values, and when they go.
    pairs: BTreeMap<Vec<u8>, (Vec<u8>, Option<Duration>)>,
}

impl Stored {
    pub(crate) fn counter(&self, key: &[u8]) -> i64 {
        self.counters.get(key).copied().unwrap_or(0)
    }

    pub(crate) fn count(&mut self, key: &[u8], amount: i64) -> Result<i64, CounterError> {
        if key.len() > MAX_KEY {
            return Err(CounterError::KeyTooLong);
        }
        let count = self.counter(key).saturating_add(amount);
        self.counters.insert(key.to_vec(), count);
        Ok(count)
    }

    pub(crate) fn get(&self, key: &[u8], now: Duration) -> Option<Vec<u8>> {
        let (value, until) = self.pairs.get(key)?;
        until.is_none_or(|until| now < until).then(|| value.clone())
    }

    pub(crate) fn set(&mut self, key: &[u8], value: &[u8], ttl_ms: u64, now: Duration) -> Result<(), KvError> {
        if key.len() > MAX_KEY {
            return Err(KvError::KeyTooLong);
        }
        if value.len() > MAX_VALUE {
            return Err(KvError::ValueTooLong);
        }
        let until = (ttl_ms > 0).then(|| now.saturating_add(Duration::from_millis(ttl_ms)));
        self.pairs.insert(key.to_vec(), (value.to_vec(), until));
        Ok(())
    }

    pub(crate) fn remove(&mut self, key: &[u8], now: Duration) -> bool {
        let was_there = self.get(key, now).is_some();
        self.pairs.remove(key);
        was_there
    }

    pub(crate) fn increment(&mut self, key: &[u8], amount: i64, ttl_ms: u64, now: Duration) -> Result<i64, KvError> {
        let Some(value) = self.get(key, now) else {
            self.set(key, amount.to_string().as_bytes(), ttl_ms, now)?;
            return Ok(amount);
        };
        let text = std::str::from_utf8(&value).map_err(|_| KvError::NotANumber)?;
        let number: i64 = text.parse().map_err(|_| KvError::NotANumber)?;
        let number = number.saturating_add(amount);
        if let Some((value, _)) = self.pairs.get_mut(key) {
            *value = number.to_string().into_bytes();
        }
        Ok(number)
    }
}

/// The contract's bounds.
const MAX_KEY: usize = 256;
const MAX_VALUE: usize = 64 * 1024;
