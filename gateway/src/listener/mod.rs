//! Stub: listener.
