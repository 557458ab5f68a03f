//! The first-party rate-limit component
