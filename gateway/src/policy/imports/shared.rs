//! The host interfaces for what is kept, counted and told beyond an exchange, as the contract documents them. Locks are held
//! inside the stores only, and given back before a result is lowered.

use wasmtime::Result;

use super::super::bindings::gateway::policy::{counters, kv, metrics, random, tags};
use super::super::counters::CounterError;
use super::super::kv::KvError;
use super::super::metrics::Undeclared;
use super::super::state::{Phase, State};
use crate::crypto;

impl counters::Host for State {
    fn add(&mut self, key: Vec<u8>, amount: i64) -> Result<Result<i64, counters::CounterError>> {
        Ok(self
            .identity
            .shared
            .counters
            .add(&key, amount)
            .map_err(|error| match error {
                CounterError::Full | CounterError::FullOfTenant => counters::CounterError::Full,
                CounterError::KeyTooLong => counters::CounterError::KeyTooLong,
            }))
    }

    fn get(&mut self, key: Vec<u8>) -> Result<i64> {
        Ok(self.identity.shared.counters.get(&key))
    }
}

impl kv::Host for State {
    fn get(&mut self, key: Vec<u8>) -> Result<Option<Vec<u8>>> {
        Ok(self.identity.shared.kv.get(&key).map(|value| value.to_vec()))
    }

    fn set(&mut self, key: Vec<u8>, value: Vec<u8>, ttl_ms: u64) -> Result<Result<(), kv::KvError>> {
        Ok(self.identity.shared.kv.set(&key, &value, ttl_ms).map_err(kv_error))
    }

    fn remove(&mut self, key: Vec<u8>) -> Result<bool> {
        Ok(self.identity.shared.kv.remove(&key))
    }

    fn compare_and_set(
        &mut self,
        key: Vec<u8>,
        expected: Option<Vec<u8>>,
        value: Vec<u8>,
        ttl_ms: u64,
    ) -> Result<Result<bool, kv::KvError>> {
        let kv = &self.identity.shared.kv;
        Ok(kv
            .compare_and_set(&key, expected.as_deref(), &value, ttl_ms)
            .map_err(kv_error))
    }

    fn increment(&mut self, key: Vec<u8>, amount: i64, ttl_ms: u64) -> Result<Result<i64, kv::KvError>> {
        let kv = &self.identity.shared.kv;
        Ok(kv.increment(&key, amount, ttl_ms).map_err(kv_error))
    }
}

impl metrics::Host for State {
    fn add(&mut self, metric: u32, series: u32, amount: u64) -> Result<()> {
        let done = self.identity.metrics.get().ok_or(Undeclared);
        let done = done.and_then(|metrics| metrics.add(metric, series, amount));
        done.map_err(|Undeclared| self.misused(UNDECLARED))
    }

    fn set(&mut self, metric: u32, series: u32, value: f64) -> Result<()> {
        let done = self.identity.metrics.get().ok_or(Undeclared);
        let done = done.and_then(|metrics| metrics.set(metric, series, value));
        done.map_err(|Undeclared| self.misused(UNDECLARED))
    }

    fn observe(&mut self, metric: u32, series: u32, value: f64) -> Result<()> {
        let done = self.identity.metrics.get().ok_or(Undeclared);
        let done = done.and_then(|metrics| metrics.observe(metric, series, value));
        done.map_err(|Undeclared| self.misused(UNDECLARED))
    }
}

impl tags::Host for State {
    fn set(&mut self, name: String, value: Vec<u8>) -> Result<Result<(), String>> {
        let set = match self.phase {
            Phase::Request | Phase::RequestFilter | Phase::ResponseFilter | Phase::Response => {
                self.tags.set(&name, &value)
            }
            Phase::Log => Err("the exchange is over".to_owned()),
            Phase::Setup | Phase::Connection | Phase::Piece => Err("there is no exchange to be tagged now".to_owned()),
        };
        Ok(self.told("tags.set", set))
    }

    fn get(&mut self, name: String) -> Result<Option<Vec<u8>>> {
        let tags = self.exchange.tags.as_ref();
        let value = tags.and_then(|tags| tags.seen_by(self.identity.tenant.as_deref(), &name));
        Ok(value.map(<[u8]>::to_vec))
    }
}

impl random::Host for State {
    fn get_u64(&mut self) -> Result<u64> {
        let mut bytes = [0; 8];
        fill(&mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    fn get_bytes(&mut self, count: u32) -> Result<Vec<u8>> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if count > MAX_RANDOM {
            return Err(self.misused("too many random bytes in one call"));
        }
        let mut bytes = vec![0; count];
        fill(&mut bytes)?;
        Ok(bytes)
    }
}

fn fill(bytes: &mut [u8]) -> Result<()> {
    let filled = crypto::provider().secure_random.fill(bytes);
    filled.map_err(|_| wasmtime::Error::msg("the system gives no random numbers"))
}

fn kv_error(error: KvError) -> kv::KvError {
    match error {
        KvError::Full | KvError::FullOfTenant => kv::KvError::Full,
        KvError::KeyTooLong => kv::KvError::KeyTooLong,
        KvError::ValueTooLong => kv::KvError::ValueTooLong,
        KvError::NotANumber => kv::KvError::NotANumber,
    }
}

const UNDECLARED: &str = "this metric or series was not declared, or is of another kind";

/// Random bytes of one call; the contract says so.
const MAX_RANDOM: usize = 1024;
