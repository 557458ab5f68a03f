//! A compiled component: linked, its hooks found, ready to be attached any number of times.

use super::attachment::Hooks;

/// A compiled component.
#[derive(Debug)]
pub struct Component {
    hooks: Hooks,
}

impl Component {
    /// The hooks it exports.
    #[must_use]
    pub const fn hooks(&self) -> Hooks {
        self.hooks
    }
}
