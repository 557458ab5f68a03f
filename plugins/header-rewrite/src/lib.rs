//! The first-party header-rewrite component
