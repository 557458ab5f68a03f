//! Tests of texts and host names. On bytes: what comes from the network need not be UTF-8.

use gateway_plugin_pattern::Pattern;
use gateway_plugin_sdk::ConfigError;

use crate::config::Text;

/// A test of a text; one of the alternatives has to hold.
#[derive(Debug)]
pub(crate) enum TextTest {
    /// Sorted, so that a long list costs a binary search.
    Exact(Vec<String>),
    Prefix(Vec<String>),
    Suffix(Vec<String>),
    Contains(Vec<String>),
    Regex(Vec<Pattern>),
}

/// A test of a host name, which arrives in lower case.
#[derive(Debug)]
pub(crate) struct HostTest {
    /// Whole names, sorted.
    exact: Vec<String>,
    /// For `*.example.net`: `.example.net`.
    suffixes: Vec<String>,
}

impl TextTest {
    pub(crate) fn compile(text: Text, at: &str) -> Result<Self, ConfigError> {
        Ok(match text {
            Text::Exact(texts) => Self::exact(texts),
            Text::Prefix(texts) => Self::Prefix(texts),
            Text::Suffix(texts) => Self::Suffix(texts),
            Text::Contains(texts) => Self::Contains(texts),
            Text::Regex(patterns) => {
                let compiled = patterns.iter().enumerate().map(|(index, pattern)| {
                    Pattern::new(pattern).map_err(|error| ConfigError::new(error).at(format!("{at}/regex/{index}")))
                });
                Self::Regex(compiled.collect::<Result<_, _>>()?)
            }
        })
    }

    pub(crate) fn exact(mut texts: Vec<String>) -> Self {
        texts.sort_unstable();
        Self::Exact(texts)
    }

    pub(crate) fn passes(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(texts) => contains(texts, value),
            Self::Prefix(texts) => texts.iter().any(|text| value.starts_with(text.as_bytes())),
            Self::Suffix(texts) => texts.iter().any(|text| value.ends_with(text.as_bytes())),
            Self::Contains(texts) => texts.iter().any(|text| holds(value, text.as_bytes())),
            Self::Regex(patterns) => patterns.iter().any(|pattern| pattern.is_match(value)),
        }
    }
}

impl HostTest {
    pub(crate) fn compile(patterns: Vec<String>, at: &str) -> Result<Self, ConfigError> {
        let mut exact = Vec::new();
        let mut suffixes = Vec::new();
        for (index, mut pattern) in patterns.into_iter().enumerate() {
            pattern.make_ascii_lowercase();
            let suffix = pattern.strip_prefix('*');
            if suffix.is_some_and(|suffix| !suffix.starts_with('.')) || suffix.unwrap_or(&pattern).contains('*') {
                let message = format!("`{pattern}`: a `*` stands for the first labels only, as in `*.example.net`");
                return Err(ConfigError::new(message).at(format!("{at}/{index}")));
            }
            match suffix {
                Some(suffix) => suffixes.push(suffix.to_owned()),
                None => exact.push(pattern),
            }
        }
        exact.sort_unstable();
        Ok(Self { exact, suffixes })
    }

    pub(crate) fn passes(&self, host: &[u8]) -> bool {
        contains(&self.exact, host)
            || self
                .suffixes
                .iter()
                .any(|suffix| host.len() > suffix.len() && host.ends_with(suffix.as_bytes()))
    }
}

/// Whether a text has another one in it. Both are short: nothing more clever pays.
fn holds(text: &[u8], part: &[u8]) -> bool {
    part.is_empty() || text.windows(part.len()).any(|window| window == part)
}

fn contains(sorted: &[String], value: &[u8]) -> bool {
    sorted.binary_search_by(|text| text.as_bytes().cmp(value)).is_ok()
}
