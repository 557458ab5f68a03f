//! Attributes: from a name in the contract to the values that an exchange has for it.

use super::current::{Exchange, Phase};
use super::head::{self, Request};
use crate::sys::Facts;

/// The facts for a list of needs.
pub(crate) fn facts(needs: &[String], exchange: &Exchange, now_ms: u64) -> Facts {
    let mut facts = Facts::default();
    for (index, need) in needs.iter().enumerate() {
        for value in values(need, exchange, now_ms) {
            let start = facts.bytes.len();
            facts.bytes.extend(value);
            facts
                .index
                .extend([index, start, facts.bytes.len()].map(|number| number as u32));
        }
    }
    facts
}

#[allow(clippy::panic, reason = "tests only: the gateway would refuse to load the plugin")]
fn values(need: &str, exchange: &Exchange, now_ms: u64) -> Vec<Vec<u8>> {
    let connection = &exchange.connection;
    let tls = connection.tls.as_ref();
    let known = match need {
        "client-ip" => Some(vec![head::bytes(connection.client.ip())]),
        "client-port" => Some(vec![connection.client.port().to_string().into_bytes()]),
        "local-ip" => Some(vec![head::bytes(connection.local.ip())]),
        "local-port" => Some(vec![connection.local.port().to_string().into_bytes()]),
        "tls-version" => Some(tls.map(|tls| tls.version.clone().into_bytes()).into_iter().collect()),
        "sni" => Some(
            tls.and_then(|tls| tls.sni.clone())
                .map(String::into_bytes)
                .into_iter()
                .collect(),
        ),
        "alpn" => Some(tls.and_then(|tls| tls.alpn.clone()).into_iter().collect()),
        need if CLIENT_CERT.contains(&need) => {
            let given = connection.attributes.iter().filter(|(name, _)| name == need);
            Some(given.map(|(_, value)| value.clone()).collect())
        }
        "local-time:UTC" => Some(vec![utc(now_ms).into_bytes()]),
        need if need.starts_with("tag:") => {
            let value = exchange.tags.get(need.strip_prefix("tag:").unwrap_or_default());
            Some(value.cloned().into_iter().collect())
        }
        need if exchange.phase == Phase::AccessLog && LOG.contains(&need) => {
            let given = exchange.log.iter().filter(|(name, _)| name == need);
            Some(given.map(|(_, value)| value.clone()).collect())
        }
        need if need.starts_with("local-time:") => panic!("`{need}`: tests have UTC alone"),
        _ => None,
    };
    let of_request = || {
        exchange
            .request
            .as_ref()
            .and_then(|request| request_values(need, request))
    };
    let of_response = || {
        let response = exchange.response.as_ref()?;
        match need.split_once(':') {
            None if need == "status" => Some(vec![response.status.to_string().into_bytes()]),
            None if need == "server" => Some(vec![b"server".to_vec()]),
            Some(("response-header", name)) => Some(response.headers.all(name)),
            _ => None,
        }
    };
    known
        .or_else(of_request)
        .or_else(of_response)
        .unwrap_or_else(|| panic!("no attribute `{need}` in this phase: the gateway would refuse to load the plugin"))
}

/// What is known only when an exchange is over; as the test gave it.
const LOG: [&str; 5] = ["status", "backend", "duration-us", "bytes-sent", "reason"];

const CLIENT_CERT: [&str; 6] = [
    "client-cert-subject",
    "client-cert-cn",
    "client-cert-issuer",
    "client-cert-serial",
    "client-cert-san",
    "client-cert-fingerprint",
];

/// The time as the contract writes it, in UTC.
fn utc(now_ms: u64) -> String {
    let (days, seconds) = (now_ms / 86_400_000, now_ms / 1000 % 86_400);
    // The civil date of a day, counted from 1970-01-01, a Thursday (Howard Hinnant, "chrono-compatible low-level date
    // algorithms"): years begin in March, so that the leap day is the last.
    let from_march = days + 719_468;
    let (era, day) = (from_march / 146_097, from_march % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!(
        "{} {:04}-{month:02}-{of_month:02}T{:02}:{:02}:{:02}+00:00",
        (days + 3) % 7 + 1,
        era * 400 + year + next,
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
    )
}

fn request_values(need: &str, request: &Request) -> Option<Vec<Vec<u8>>> {
    let authority = request.authority.as_bytes();
    Some(match need.split_once(':') {
        Some(("header", name)) => request.headers.all(name),
        Some(("cookie", name)) => cookies(request, name),
        Some(("query-param", name)) => query_params(request, name),
        Some(("condition", number)) => number
            .parse()
            .is_ok_and(|number: u32| request.conditions.contains(&number))
            .then(|| b"1".to_vec())
            .into_iter()
            .collect(),
        None => match need {
            "method" => vec![request.method.clone().into_bytes()],
            "scheme" => vec![request.scheme().into()],
            "authority" => vec![authority.to_vec()],
            "host" => vec![host(authority)],
            "path" => vec![request.path.clone()],
            "query" => request.query.clone().into_iter().collect(),
            "uri" => vec![match &request.query {
                Some(query) => [&request.path, &b"?"[..], query].concat(),
                None => request.path.clone(),
            }],
            "http-version" => vec![b"1.1".to_vec()],
            "upgrade" => upgrades(request),
            _ => return None,
        },
        Some(_) => return None,
    })
}

/// An authority's host: lower-case, without port or trailing dot.
pub(crate) fn host(authority: &[u8]) -> Vec<u8> {
    let colon = authority.iter().rposition(|&byte| byte == b':');
    let port = colon.filter(|&colon| authority[colon + 1..].iter().all(u8::is_ascii_digit));
    let host = &authority[..port.unwrap_or(authority.len())];
    let host = host.strip_suffix(b".").unwrap_or(host);
    host.to_ascii_lowercase()
}

/// Each protocol of the Upgrade header, lower-case.
fn upgrades(request: &Request) -> Vec<Vec<u8>> {
    let values = request.headers.values("upgrade");
    let names = values.flat_map(|value| value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii));
    let names = names.filter(|name| !name.is_empty());
    names.map(<[u8]>::to_ascii_lowercase).collect()
}

/// RFC 6265, section 4.2.1.
fn cookies(request: &Request, name: &str) -> Vec<Vec<u8>> {
    let headers = request.headers.values("cookie");
    let pairs = headers
        .flat_map(|header| header.split(|&byte| byte == b';'))
        .map(<[u8]>::trim_ascii);
    let named = pairs.filter_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="));
    named.map(<[u8]>::to_vec).collect()
}

fn query_params(request: &Request, name: &str) -> Vec<Vec<u8>> {
    let query = request.query.as_deref().unwrap_or_default();
    let pairs = query.split(|&byte| byte == b'&').filter(|pair| !pair.is_empty());
    let split = pairs.map(|pair| match pair.iter().position(|&byte| byte == b'=') {
        Some(at) => (&pair[..at], &pair[at + 1..]),
        None => (pair, &[][..]),
    });
    split
        .filter(|(key, _)| decoded(key) == name.as_bytes())
        .map(|(_, value)| decoded(value))
        .collect()
}

/// Percent-decoding; what is not a valid escape stays as it is.
fn decoded(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let escape = after
            .get(..2)
            .filter(|_| byte == b'%')
            .and_then(|hex| std::str::from_utf8(hex).ok());
        let escape = escape.filter(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
        match escape.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                rest = &after[2..];
            }
            None => {
                decoded.push(byte);
                rest = after;
            }
        }
    }
    decoded
}
