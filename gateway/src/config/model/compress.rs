//! Compression of responses.

/// `compress "br" "zstd" "gzip" { … }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compress {
    /// What there is, the preferred first; at least one.
    pub codings: Vec<Coding>,
    /// `types`: which content is compressed; at least one.
    pub types: Vec<MediaType>,
    /// `min-size`, in bytes: content that says that it is shorter is left as it is.
    pub min_size: u64,
    /// `level`: how hard each coding tries.
    pub levels: Levels,
    /// `offload`: servers are not asked to compress.
    pub offload: bool,
    /// `max-streams`: responses that a worker compresses at once; beyond them, responses go as they are.
    pub max_streams: usize,
}

/// A content coding (RFC 9110, section 8.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// `br` (RFC 7932).
    Brotli,
    /// `zstd` (RFC 8878, with the window of RFC 9659).
    Zstd,
    /// `gzip` (RFC 1952).
    Gzip,
}

/// Which media types are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MediaType {
    /// `application/json`
    Exact(String),
    /// `text/*`, kept as `text/`.
    Below(String),
    /// `*+json`, kept as `+json` (RFC 6839).
    Suffix(String),
}

/// How hard each coding tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Levels {
    /// 0 to 9.
    pub brotli: u8,
    /// 1 to 12.
    pub zstd: u8,
    /// 1 to 9.
    pub gzip: u8,
}

impl Coding {
    /// Its name in Content-Encoding.
    pub fn name(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }
}

impl MediaType {
    /// Whether a media type, in lower case and without parameters, is meant.
    pub fn matches(&self, media: &str) -> bool {
        match self {
            Self::Exact(exact) => media == exact,
            Self::Below(prefix) => media.starts_with(prefix.as_str()),
            Self::Suffix(suffix) => media.ends_with(suffix.as_str()),
        }
    }
}
