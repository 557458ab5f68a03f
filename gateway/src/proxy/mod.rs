//! Stub: proxy.

pub mod relay;
