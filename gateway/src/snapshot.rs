//! Stub: snapshot.
