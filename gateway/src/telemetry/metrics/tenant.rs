//! Metrics of a tenant: the requests for its hosts, in each frontend that serves them. There are as many as are configured,
//! whatever hosts clients ask for.

use std::sync::Arc;

use super::exporter::Exporter;
use super::frontend::{CLASSES, class};
use super::shard::{Count, Sharded};

/// What came for one tenant's hosts through one frontend.
#[derive(Debug)]
pub struct TenantMetrics {
    pub(super) tenant: Arc<str>,
    pub(super) frontend: Arc<str>,
    shards: Sharded<Shard>,
}

#[derive(Debug, Default)]
struct Shard {
    responses: [Count; CLASSES.len()],
    received: Count,
    sent: Count,
}

impl TenantMetrics {
    pub(super) fn new(tenant: &str, frontend: &str) -> Self {
        Self {
            tenant: tenant.into(),
            frontend: frontend.into(),
            shards: Sharded::default(),
        }
    }

    /// An exchange has ended, with the status that the client got, if it got one, and so many bytes of bodies.
    pub fn ended(&self, status: Option<u16>, received: u64, sent: u64) {
        let shard = self.shards.here();
        shard.responses[class(status)].add(1);
        shard.received.add(received);
        shard.sent.add(sent);
    }
}

pub(super) fn register(exporter: &mut Exporter, tenant: &Arc<TenantMetrics>) {
    let labels = [("tenant", &*tenant.tenant), ("frontend", &*tenant.frontend)];
    let mut of = exporter.of(tenant, &labels);
    let help = "Exchanges with a tenant's hosts that have ended, by the class of the status that the client got; none when it got none.";
    for (i, class) in CLASSES.into_iter().enumerate() {
        let sum = move |tenant: &TenantMetrics| tenant.shards.sum(|shard| shard.responses[i].get());
        of.counter("gateway_tenant_responses_total", help, Some(("code", class)), sum);
    }
    let help = "Bytes of requests' bodies for a tenant's hosts.";
    of.counter("gateway_tenant_received_bytes_total", help, None, |tenant| {
        tenant.shards.sum(|shard| shard.received.get())
    });
    let help = "Bytes of responses' bodies from a tenant's hosts.";
    of.counter("gateway_tenant_sent_bytes_total", help, None, |tenant| {
        tenant.shards.sum(|shard| shard.sent.get())
    });
}
