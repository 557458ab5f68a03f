//! What the running call sees of the host.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use super::bucket::Buckets;
use super::edit::Edit;
use super::head::{Connection, Request, Response};
use super::stored::Stored;
use crate::log::Level;
use crate::sys::{buckets, log as sys_log};

/// A host's state.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Since the host began.
    pub(crate) now: Duration,
    pub(crate) log: Vec<(Level, String)>,
    buckets: Buckets,
    stored: Stored,
    measured: Vec<(u32, u32, Measured)>,
    random: u64,
    exchange: Option<Exchange>,
}

/// What a plugin did with a metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Measured {
    /// It was added to.
    Added(u64),
    /// It was set.
    Set(f64),
    /// It was fed a value.
    Observed(f64),
}

/// What a call is about, and the edits it has made.
#[derive(Debug, Clone)]
pub(crate) struct Exchange {
    pub(crate) phase: Phase,
    pub(crate) request: Option<Request>,
    pub(crate) response: Option<Response>,
    pub(crate) connection: Connection,
    pub(crate) edits: Vec<Edit>,
    /// Tags that earlier hooks set.
    pub(crate) tags: BTreeMap<String, Vec<u8>>,
    /// Tags that the running one sets.
    pub(crate) new_tags: BTreeMap<String, Vec<u8>>,
    /// Attributes of an exchange that is over.
    pub(crate) log: Vec<(String, Vec<u8>)>,
}

impl Exchange {
    /// Of a request, before a hook has run.
    pub(crate) fn new(phase: Phase, request: Option<Request>, connection: Connection) -> Self {
        Self {
            phase,
            tags: request.as_ref().map(|request| request.tags.clone()).unwrap_or_default(),
            request,
            response: None,
            connection,
            edits: Vec::new(),
            new_tags: BTreeMap::new(),
            log: Vec::new(),
        }
    }
}

/// The hook that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Predicates,
    Limiter,
    RequestFilter,
    RequestBody,
    ResponseFilter,
    ResponseBody,
    AccessLog,
    ConnectionFilter,
}

thread_local! {
    /// The host whose plugin is being called on this thread.
    static CURRENT: RefCell<Option<Rc<RefCell<State>>>> = const { RefCell::new(None) };
}

/// Runs a call with this host behind it.
pub(crate) fn enter<R>(state: &Rc<RefCell<State>>, exchange: Option<Exchange>, call: impl FnOnce() -> R) -> R {
    /// Puts back what was there, also when the plugin panics.
    struct Leave(Option<Rc<RefCell<State>>>);
    impl Drop for Leave {
        fn drop(&mut self) {
            CURRENT.set(self.0.take());
        }
    }

    state.borrow_mut().exchange = exchange;
    let _leave = Leave(CURRENT.replace(Some(Rc::clone(state))));
    call()
}

/// The edits of the call that ended, and the tags that it set.
pub(crate) fn edits(state: &Rc<RefCell<State>>) -> (Vec<Edit>, BTreeMap<String, Vec<u8>>) {
    let exchange = state.borrow_mut().exchange.take();
    exchange
        .map(|exchange| (exchange.edits, exchange.new_tags))
        .unwrap_or_default()
}

/// What is kept from call to call, and the time.
pub(crate) fn stored<R>(call: impl FnOnce(&mut Stored, Duration) -> R) -> R {
    with(|state| {
        let now = state.now;
        call(&mut state.stored, now)
    })
}

pub(crate) fn measure(metric: u32, series: u32, what: Measured) {
    with(|state| state.measured.push((metric, series, what)));
}

/// SplitMix64: the same numbers in every test.
pub(crate) fn random() -> u64 {
    with(|state| {
        state.random = state.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

pub(crate) fn set_tag(name: &str, value: &[u8]) -> Result<(), String> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.is_empty() || name.len() > 64 || !name.bytes().all(is_name) {
        return Err(format!("`{name}` is not a tag's name"));
    }
    if value.len() > 256 {
        return Err("a tag's value has at most 256 bytes".to_owned());
    }
    with(|state| match &mut state.exchange {
        Some(exchange) if exchange.request.is_some() => {
            exchange.new_tags.insert(name.to_owned(), value.to_vec());
            Ok(())
        }
        _ => Err("there is no exchange here".to_owned()),
    })
}

pub(crate) fn tag(name: &str) -> Option<Vec<u8>> {
    exchange(|exchange| exchange.tags.get(name).cloned())
}

pub(crate) fn request<R>(read: impl FnOnce(&Request) -> R) -> R {
    exchange(|exchange| exchange.request.as_ref().map(read)).unwrap_or_else(|| trap("there is no request here"))
}

pub(crate) fn response<R>(read: impl FnOnce(&Response) -> R) -> R {
    exchange(|exchange| exchange.response.as_ref().map(read)).unwrap_or_else(|| trap("there is no response here"))
}

pub(crate) fn connection<R>(read: impl FnOnce(&Connection) -> R) -> R {
    exchange(|exchange| read(&exchange.connection))
}

pub(crate) fn edit_request(edit: Edit) -> Result<(), String> {
    make(edit, Phase::RequestFilter)
}

pub(crate) fn edit_response(edit: Edit) -> Result<(), String> {
    make(edit, Phase::ResponseFilter)
}

pub(crate) fn take(bucket: &str, key: &[u8], rate: buckets::Rate, tokens: u32) -> buckets::Taken {
    with(|state| state.buckets.take(bucket, key, rate, tokens, state.now))
}

pub(crate) fn log(level: sys_log::Level, message: &str) {
    let level = match level {
        sys_log::Level::Debug => Level::Debug,
        sys_log::Level::Info => Level::Info,
        sys_log::Level::Warn => Level::Warn,
        sys_log::Level::Error => Level::Error,
    };
    let end = message.floor_char_boundary(MAX_LINE);
    let mut line = String::with_capacity(end);
    for c in message[..end].chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    with(|state| state.log.push((level, line)));
}

impl State {
    /// What was done with metrics, in order: which, its series, and what.
    pub(crate) fn measured(&self) -> Vec<(u32, u32, Measured)> {
        self.measured.clone()
    }

    /// The wall clock.
    pub(crate) fn now_ms(&self) -> u64 {
        START_MS + u64::try_from(self.now.as_millis()).unwrap_or(u64::MAX - START_MS)
    }
}

pub(crate) fn now_ms() -> u64 {
    with(|state| state.now_ms())
}

pub(crate) fn monotonic_ns() -> u64 {
    with(|state| u64::try_from(state.now.as_nanos()).unwrap_or(u64::MAX))
}

fn make(edit: Edit, phase: Phase) -> Result<(), String> {
    let allowed = with(|state| state.exchange.as_ref().is_some_and(|exchange| exchange.phase == phase));
    if !allowed {
        return Err("edits are not possible in this hook".to_owned());
    }
    edit.check()?;
    with(|state| {
        state
            .exchange
            .iter_mut()
            .for_each(|exchange| exchange.edits.push(edit.clone()))
    });
    Ok(())
}

fn exchange<R>(read: impl FnOnce(&Exchange) -> R) -> R {
    with(|state| state.exchange.as_ref().map(read)).unwrap_or_else(|| trap("there is no exchange while configuring"))
}

fn with<R>(call: impl FnOnce(&mut State) -> R) -> R {
    let state = CURRENT.with_borrow(Clone::clone);
    let state = state.unwrap_or_else(|| trap("called outside a hook: use `test::Host`"));
    call(&mut state.borrow_mut())
}

/// What is a trap in a guest is a panic in a test.
#[allow(clippy::panic, reason = "tests only: the plugin under test did what would trap")]
pub(crate) fn trap(message: &str) -> ! {
    panic!("the host traps: {message}")
}

/// Bytes of a log line.
const MAX_LINE: usize = 1024;

/// The wall clock at the beginning of every test: 2026-01-01T00:00:00Z.
const START_MS: u64 = 1_767_225_600_000;
