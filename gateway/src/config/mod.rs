//! Turning KDL text into a typed, validated configuration. Knows no runtime.

pub mod model;
pub use model::*;
