//! What the phases of a request have in common.

use std::rc::Rc;
use std::sync::Arc;

use super::client::Client;
use super::local::Local;
use crate::snapshot::{Frontend, TenantRules};

/// Where a request is served and by which configuration.
#[derive(Clone, Copy)]
pub struct Scene<'a> {
    /// The worker.
    pub local: &'a Rc<Local>,
    /// The frontend that it came to.
    pub frontend: &'a Arc<Frontend>,
    /// Who sent it.
    pub client: &'a Rc<Client>,
    /// What the tenant decides whose host it asks for, where there is such.
    pub tenant: Option<&'a TenantRules>,
}
