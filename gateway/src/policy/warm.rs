//! Instances made ahead for workers, before these serve with them: on another thread, so that no worker's requests wait while
//! somebody's components are set up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::attachment::Attachment;
use super::cpu::Work;
use super::failure::Failure;
use super::host::Host;
use super::instance::Instance;
use super::instances::Instances;

/// What one worker begins with: at most one instance of each attachment.
#[derive(Default)]
pub struct Warm(pub(super) Vec<(Arc<Attachment>, Box<Instance>)>);

impl Warm {
    /// Makes instances of all attachments for so many workers, but of those that workers do not call. `left` is CPU time that
    /// instances of tenants' plugins may take together, where that is bounded: what is beyond it the crew makes when it is needed.
    ///
    /// # Errors
    /// When one cannot be made. A tenant's that came up once and does not again is a failure for those who need it: for the
    /// tenant's requests, not for all.
    pub fn for_workers(
        workers: usize,
        host: &Arc<Host>,
        attachments: &[Arc<Attachment>],
        mut left: BTreeMap<Arc<str>, Duration>,
    ) -> Result<Vec<Self>, Failure> {
        let mut maker = Instances::new(host);
        let mut warm = Vec::with_capacity(workers);
        for _ in 0..workers {
            let mut of_worker = Vec::new();
            for attachment in attachments {
                let left = attachment.tenant().and_then(|tenant| left.get_mut(tenant));
                if left.as_ref().is_some_and(|left| left.is_zero()) {
                    attachment.have_set_up_beside();
                    continue;
                }
                let work = Work::begin(left.is_some());
                let made = maker.warmed(attachment);
                if let Some(left) = left {
                    *left = left.saturating_sub(work.done(Instant::now()));
                }
                match made {
                    Ok(made) => of_worker.extend(made.map(|made| (Arc::clone(attachment), made))),
                    Err(failure) if attachment.tenant().is_none() => return Err(failure),
                    Err(_) => {}
                }
            }
            warm.push(Self(of_worker));
        }
        Ok(warm)
    }
}

impl std::fmt::Debug for Warm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Warm").field("instances", &self.0.len()).finish()
    }
}
