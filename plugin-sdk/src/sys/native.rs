//! The host interfaces, natively: the test host answers them. The shapes are those of the generated bindings.

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Facts {
    pub(crate) index: Vec<u32>,
    pub(crate) bytes: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) value: Vec<u8>,
}

pub(crate) mod request {
    use super::Field;
    use crate::test::current;

    pub(crate) fn method() -> String {
        current::request(|request| request.method.clone())
    }

    pub(crate) fn scheme() -> String {
        current::request(|request| request.scheme().to_owned())
    }

    pub(crate) fn authority() -> String {
        current::request(|request| request.authority.clone())
    }

    pub(crate) fn path() -> Vec<u8> {
        current::request(|request| request.path.clone())
    }

    pub(crate) fn query() -> Option<Vec<u8>> {
        current::request(|request| request.query.clone())
    }

    pub(crate) fn header(name: &str) -> Vec<Vec<u8>> {
        current::request(|request| request.headers.all(name))
    }

    pub(crate) fn get_many(names: &[String]) -> Vec<Vec<Vec<u8>>> {
        current::request(|request| names.iter().map(|name| request.headers.all(name)).collect())
    }

    pub(crate) fn headers() -> Vec<Field> {
        current::request(|request| request.headers.fields())
    }
}

pub(crate) mod response {
    use super::Field;
    use crate::test::current;

    pub(crate) fn status() -> u16 {
        current::response(|response| response.status)
    }

    pub(crate) fn header(name: &str) -> Vec<Vec<u8>> {
        current::response(|response| response.headers.all(name))
    }

    pub(crate) fn get_many(names: &[String]) -> Vec<Vec<Vec<u8>>> {
        current::response(|response| names.iter().map(|name| response.headers.all(name)).collect())
    }

    pub(crate) fn headers() -> Vec<Field> {
        current::response(|response| response.headers.fields())
    }
}

pub(crate) mod request_edits {
    use crate::test::current;
    use crate::test::edit::Edit;

    pub(crate) fn set_header(name: &str, value: &[u8]) -> Result<(), String> {
        current::edit_request(Edit::set(name, value))
    }

    pub(crate) fn add_header(name: &str, value: &[u8]) -> Result<(), String> {
        current::edit_request(Edit::add(name, value))
    }

    pub(crate) fn remove_header(name: &str) -> Result<(), String> {
        current::edit_request(Edit::remove(name))
    }

    pub(crate) fn set_path(path: &[u8]) -> Result<(), String> {
        current::edit_request(Edit::Path(path.to_vec()))
    }

    pub(crate) fn set_query(query: Option<&[u8]>) -> Result<(), String> {
        current::edit_request(Edit::Query(query.map(<[u8]>::to_vec)))
    }
}

pub(crate) mod response_edits {
    use crate::test::current;
    use crate::test::edit::Edit;

    pub(crate) fn set_header(name: &str, value: &[u8]) -> Result<(), String> {
        current::edit_response(Edit::set(name, value))
    }

    pub(crate) fn add_header(name: &str, value: &[u8]) -> Result<(), String> {
        current::edit_response(Edit::add(name, value))
    }

    pub(crate) fn remove_header(name: &str) -> Result<(), String> {
        current::edit_response(Edit::remove(name))
    }

    pub(crate) fn set_status(status: u16) -> Result<(), String> {
        current::edit_response(Edit::Status(status))
    }
}

pub(crate) mod connection_info {
    use crate::TlsInfo;
    use crate::test::current;

    pub(crate) struct Endpoint {
        pub(crate) ip: Vec<u8>,
        pub(crate) port: u16,
    }

    pub(crate) fn client() -> Endpoint {
        current::connection(|connection| connection.client.into())
    }

    pub(crate) fn local() -> Endpoint {
        current::connection(|connection| connection.local.into())
    }

    pub(crate) fn peer() -> Endpoint {
        current::connection(|connection| connection.peer().into())
    }

    pub(crate) fn tls() -> Option<TlsInfo> {
        current::connection(|connection| connection.tls.clone())
    }
}

pub(crate) mod buckets {
    use crate::test::current;

    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Rate {
        pub(crate) tokens: u64,
        pub(crate) period_ms: u64,
        pub(crate) burst: u64,
    }

    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Taken {
        pub(crate) allowed: bool,
        pub(crate) remaining: u64,
        pub(crate) retry_after_ms: u64,
    }

    pub(crate) fn take(bucket: &str, key: &[u8], rate: Rate, tokens: u32) -> Taken {
        current::take(bucket, key, rate, tokens)
    }
}

pub(crate) mod counters {
    use crate::test::current;

    #[derive(Debug, Clone, PartialEq, Eq)]
    #[allow(dead_code, reason = "the test host has no other reasons yet")]
    pub(crate) enum CounterError {
        Full,
        KeyTooLong,
        Other(String),
    }

    pub(crate) fn add(key: &[u8], amount: i64) -> Result<i64, CounterError> {
        current::stored(|stored, _| stored.count(key, amount))
    }

    pub(crate) fn get(key: &[u8]) -> i64 {
        current::stored(|stored, _| stored.counter(key))
    }
}

pub(crate) mod kv {
    use crate::test::current;

    #[derive(Debug, Clone, PartialEq, Eq)]
    #[allow(dead_code, reason = "the test host has no other reasons yet")]
    pub(crate) enum KvError {
        Full,
        KeyTooLong,
        ValueTooLong,
        NotANumber,
        Other(String),
    }

    pub(crate) fn get(key: &[u8]) -> Option<Vec<u8>> {
        current::stored(|stored, now| stored.get(key, now))
    }

    pub(crate) fn set(key: &[u8], value: &[u8], ttl_ms: u64) -> Result<(), KvError> {
        current::stored(|stored, now| stored.set(key, value, ttl_ms, now))
    }

    pub(crate) fn remove(key: &[u8]) -> bool {
        current::stored(|stored, now| stored.remove(key, now))
    }

    pub(crate) fn compare_and_set(
        key: &[u8],
        expected: Option<&[u8]>,
        value: &[u8],
        ttl_ms: u64,
    ) -> Result<bool, KvError> {
        current::stored(|stored, now| {
            if stored.get(key, now).as_deref() != expected {
                return Ok(false);
            }
            stored.set(key, value, ttl_ms, now).map(|()| true)
        })
    }

    pub(crate) fn increment(key: &[u8], amount: i64, ttl_ms: u64) -> Result<i64, KvError> {
        current::stored(|stored, now| stored.increment(key, amount, ttl_ms, now))
    }
}

pub(crate) mod metrics {
    use crate::test::current;

    pub(crate) fn add(metric: u32, series: u32, amount: u64) {
        current::measure(metric, series, current::Measured::Added(amount));
    }

    pub(crate) fn set(metric: u32, series: u32, value: f64) {
        current::measure(metric, series, current::Measured::Set(value));
    }

    pub(crate) fn observe(metric: u32, series: u32, value: f64) {
        current::measure(metric, series, current::Measured::Observed(value));
    }
}

pub(crate) mod random {
    use crate::test::current;

    pub(crate) fn get_u64() -> u64 {
        current::random()
    }

    pub(crate) fn get_bytes(count: u32) -> Vec<u8> {
        if count > 1024 {
            current::trap("at most 1,024 random bytes");
        }
        (0..count).map(|_| current::random() as u8).collect()
    }
}

pub(crate) mod tags {
    use crate::test::current;

    pub(crate) fn set(name: &str, value: &[u8]) -> Result<(), String> {
        current::set_tag(name, value)
    }

    pub(crate) fn get(name: &str) -> Option<Vec<u8>> {
        current::tag(name)
    }
}

pub(crate) mod log {
    use crate::test::current;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Level {
        Debug,
        Info,
        Warn,
        Error,
    }

    pub(crate) fn write(level: Level, message: &str) {
        current::log(level, message);
    }
}

pub(crate) mod clock {
    use crate::test::current;

    pub(crate) fn now_ms() -> u64 {
        current::now_ms()
    }

    pub(crate) fn monotonic_ns() -> u64 {
        current::monotonic_ns()
    }
}
