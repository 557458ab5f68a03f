//! Tenants whose files are at fault, as the log tells of them.

use tracing::warn;

use crate::config::{Config, InForce};

/// Tells of each fault, and answers how many tenants have some.
pub(super) fn tell(config: &Config) -> usize {
    let mut aside = 0;
    for tenant in &config.tenants {
        let name = &*tenant.name;
        let what = match tenant.in_force {
            InForce::Current => continue,
            InForce::Before => "a tenant's files are at fault, and it goes on with those before",
            InForce::Nothing => "a tenant's files are at fault, and its hosts are not served",
        };
        aside += 1;
        for fault in tenant.faults.iter().take(MOST_TOLD) {
            let message = &fault.message;
            warn!(tenant = name, at = %fault.place(), "{what}: {message}");
        }
        if let Some(more) = tenant.faults.len().checked_sub(MOST_TOLD).filter(|more| *more > 0) {
            warn!(tenant = name, "{what}: {more} more faults; `gateway check` shows them");
        }
    }
    aside
}

/// Faults of a tenant that are told one by one: whoever has more has pasted something else.
const MOST_TOLD: usize = 10;
