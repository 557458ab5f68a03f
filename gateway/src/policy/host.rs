//! One per process: the engine and what all workers share.

use std::sync::Arc;

use super::attachment::{Attachment, AttachmentSpec};
use super::component::Component;
use super::failure::PolicyError;
use crate::config::Grant;

/// The engine, its pool of instances, the epoch ticker and the token buckets.
#[derive(Debug)]
pub struct Host {
    settings: HostSettings,
}

/// Bounds of a [`Host`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostSettings {
    /// Component instances alive at once, over all workers.
    pub instances: u32,
    /// Linear memory an instance may have at most, in bytes.
    pub memory: u64,
    /// Token buckets remembered at most.
    pub max_buckets: usize,
}

impl Host {
    /// Builds the engine and reserves the pool's address space.
    ///
    /// # Errors
    /// When the settings cannot be met on this machine.
    pub fn new(settings: HostSettings) -> Result<Arc<Self>, PolicyError> {
        Ok(Arc::new(Self { settings }))
    }

    /// Compiles a component, checks its imports against the contract and the grants, finds its hooks and links it ahead.
    /// Takes tens of milliseconds and more: not for a worker thread.
    ///
    /// # Errors
    /// When it is no policy component, or imports what it may not; the error names what.
    pub fn compile(self: &Arc<Self>, label: &str, wasm: &[u8], grants: &[Grant]) -> Result<Arc<Component>, PolicyError> {
        let _ = (wasm, grants, self.settings);
        Err(PolicyError::Engine(format!("{label}: not there yet")))
    }

    /// Makes a component ready to serve under a configuration: instantiates it once, configures it, learns its predicates
    /// and needs. Runs guest code: not for a worker thread.
    ///
    /// # Errors
    /// When it refuses the configuration, fails, or asks for what the host does not have.
    pub fn attach(
        self: &Arc<Self>,
        component: &Arc<Component>,
        spec: AttachmentSpec,
    ) -> Result<Arc<Attachment>, PolicyError> {
        let _ = component;
        Err(PolicyError::Engine(format!("{}: not there yet", spec.label)))
    }
}
