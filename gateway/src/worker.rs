//! Stub: worker.
