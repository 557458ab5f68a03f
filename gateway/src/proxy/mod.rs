//! Stub: proxy.
