//! Harness, integration tests and the side-by-side bench
