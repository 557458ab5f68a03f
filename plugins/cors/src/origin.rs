//! Origins (RFC 6454), as browsers write them: a scheme, a host, and a port where it is not the scheme's own.

use gateway_plugin_sdk::ConfigError;

/// Those that are allowed.
#[derive(Debug)]
pub(crate) struct Origins {
    everybody: bool,
    exact: Vec<String>,
    below: Vec<Below>,
}

/// `https://*.example:8443`: what comes before the name, and what it ends with.
#[derive(Debug)]
struct Below {
    scheme: String,
    suffix: String,
}

impl Origins {
    pub(crate) fn new(origins: &[String]) -> Result<Self, ConfigError> {
        let mut all = Self {
            everybody: false,
            exact: Vec::new(),
            below: Vec::new(),
        };
        for (index, text) in origins.iter().enumerate() {
            let wrong = |message: &str| ConfigError::new(format!("`{text}` {message}")).at(format!("/origin/{index}"));
            match text.as_str() {
                "*" if origins.len() > 1 => return Err(wrong("is everybody: leave the others out")),
                "*" => all.everybody = true,
                "null" => all.exact.push("null".to_owned()),
                _ => {
                    let (scheme, host) = text
                        .split_once("://")
                        .ok_or_else(|| wrong("is no origin such as https://app.example"))?;
                    let is_scheme =
                        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte);
                    if scheme.is_empty() || !scheme.bytes().all(is_scheme) {
                        return Err(wrong("has no scheme such as https"));
                    }
                    let name = host.strip_prefix("*.").unwrap_or(host);
                    if name.is_empty() || !name.bytes().all(is_host) {
                        return Err(wrong("has more than a host in lower case and a port"));
                    }
                    let own_port = [("https", ":443"), ("http", ":80")];
                    if own_port.iter().any(|(of, port)| *of == scheme && name.ends_with(port)) {
                        return Err(wrong("names the scheme's own port, which browsers leave out"));
                    }
                    match host.strip_prefix('*') {
                        Some(suffix) => all.below.push(Below {
                            scheme: format!("{scheme}://"),
                            suffix: suffix.to_owned(),
                        }),
                        None => all.exact.push(text.clone()),
                    }
                }
            }
        }
        if !all.everybody && all.exact.is_empty() && all.below.is_empty() {
            return Err(ConfigError::new("nobody is allowed: name an origin").at("/origin"));
        }
        all.exact.sort_unstable();
        Ok(all)
    }

    pub(crate) fn is_everybody(&self) -> bool {
        self.everybody
    }

    /// Whether the value of an `Origin` field is one of them.
    pub(crate) fn have(&self, origin: &[u8]) -> bool {
        self.everybody
            || self
                .exact
                .binary_search_by(|known| known.as_bytes().cmp(origin))
                .is_ok()
            || self.below.iter().any(|below| below.has(origin))
    }
}

impl Below {
    fn has(&self, origin: &[u8]) -> bool {
        let name = origin
            .strip_prefix(self.scheme.as_bytes())
            .and_then(|host| host.strip_suffix(self.suffix.as_bytes()));
        // What stands in front is part of a name and nothing else: no second `://`, no port, no path.
        name.is_some_and(|name| !name.is_empty() && name.iter().all(|byte| *byte == b'.' || is_label(*byte)))
    }
}

fn is_host(byte: u8) -> bool {
    is_label(byte) || b".:[]".contains(&byte)
}

fn is_label(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte)
}
