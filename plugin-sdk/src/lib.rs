//! What a Rust author of gateway plugins depends on
