//! The macro behind the plugin SDK
