//! Asking the domain name system: A and AAAA records of a name, or SRV records and the addresses of their targets.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, RecordType};

use super::slots::{Answer, Found, MOST_ADDRESSES, is_usable};
use crate::config::{Family, NameSource, Resolver};

/// Who is asked.
pub(super) struct Asker {
    resolver: Result<TokioResolver, String>,
    prefer: Family,
}

impl Asker {
    /// The configured name servers, or the system's.
    pub(super) fn new(settings: &Resolver) -> Self {
        Self {
            resolver: resolver(settings).map_err(|error| error.to_string()),
            prefer: settings.prefer,
        }
    }

    /// Asks for a source's addresses.
    pub(super) async fn ask(&self, source: &NameSource) -> Answer {
        let resolver = match &self.resolver {
            Ok(resolver) => resolver,
            Err(error) => return Answer::Failed(error.clone()),
        };
        let asked = match source {
            NameSource::Host { name, port } => self.host(resolver, name, *port).await,
            NameSource::Service { name } => self.service(resolver, name).await,
        };
        match asked {
            Ok(Some((found, ttl, None))) => Answer::Found(found, ttl),
            Ok(Some((found, _, Some(error)))) => Answer::Partly(found, error.to_string()),
            Ok(None) => Answer::Nothing,
            Err(error) => Answer::Failed(error.to_string()),
        }
    }

    async fn host(&self, resolver: &TokioResolver, name: &str, port: u16) -> Asked {
        let Some((ips, ttl)) = self.addresses(resolver, name).await? else {
            return Ok(None);
        };
        let found = ips.into_iter().map(|ip| Found {
            address: SocketAddr::new(ip, port),
            weight: None,
            rank: 0,
        });
        Ok(Some((found.collect(), ttl, None)))
    }

    /// The records of all priorities, the lowest first: who knows when these are gone goes on to the next (RFC 2782).
    async fn service(&self, resolver: &TokioResolver, name: &str) -> Asked {
        let Some((records, mut ttl)) = lookup(resolver, name, RecordType::SRV).await? else {
            return Ok(None);
        };
        let mut targets: Vec<_> = records
            .iter()
            .filter_map(|data| match data {
                // The root as a target says that there is no such service (RFC 2782).
                RData::SRV(srv) if !srv.target.is_root() && srv.port > 0 => Some(srv),
                _ => None,
            })
            .collect();
        targets.sort_by_key(|srv| srv.priority);
        let mut found: Vec<Found> = Vec::new();
        // Of those that have addresses, or may have some.
        let mut lowest = None;
        let mut failed = None;
        for srv in targets.into_iter().take(MOST_TARGETS) {
            match self.addresses(resolver, &srv.target.to_utf8()).await {
                Ok(Some((ips, target_ttl))) => {
                    ttl = ttl.min(target_ttl);
                    let rank = srv.priority - *lowest.get_or_insert(srv.priority);
                    found.extend(ips.into_iter().map(|ip| Found {
                        address: SocketAddr::new(ip, srv.port),
                        weight: Some(scaled(srv.weight)),
                        rank,
                    }));
                }
                Ok(None) => {}
                Err(error) => {
                    // It is there, wherever that is: those behind it do not step forward.
                    lowest.get_or_insert(srv.priority);
                    failed = Some(error);
                }
            }
        }
        match failed {
            Some(error) if found.is_empty() => Err(error),
            None if found.is_empty() => Ok(None),
            failed => Ok(Some((found, ttl, failed))),
        }
    }

    /// The addresses of the preferred kind; those of the other when there are none of it.
    async fn addresses(
        &self,
        resolver: &TokioResolver,
        name: &str,
    ) -> Result<Option<(Vec<IpAddr>, Duration)>, NetError> {
        let (v4, v6) = tokio::join!(
            lookup(resolver, name, RecordType::A),
            lookup(resolver, name, RecordType::AAAA)
        );
        let (first, second) = match self.prefer {
            Family::Ipv4 => (v4, v6),
            Family::Ipv6 => (v6, v4),
        };
        let usable = |(records, ttl): (Vec<RData>, Duration)| {
            let ips: Vec<IpAddr> = records
                .iter()
                .filter_map(RData::ip_addr)
                .filter(|ip| is_usable(*ip))
                .collect();
            (!ips.is_empty()).then_some((ips, ttl))
        };
        // One kind is enough to go on with; that the other cannot be asked for matters when there is nothing.
        match (
            first.map(|answer| answer.and_then(usable)),
            second.map(|answer| answer.and_then(usable)),
        ) {
            (Ok(Some(found)), _) => Ok(Some(found)),
            (Err(error), _) => Err(error),
            (Ok(None), second) => second,
        }
    }
}

/// What was found, how long it is good, and why that is not all.
type Asked = Result<Option<(Vec<Found>, Duration, Option<NetError>)>, NetError>;

/// The records of a name, and how long they are good; none when there are none.
async fn lookup(
    resolver: &TokioResolver,
    name: &str,
    kind: RecordType,
) -> Result<Option<(Vec<RData>, Duration)>, NetError> {
    match resolver.lookup(name, kind).await {
        Ok(lookup) => {
            let ttl = lookup.valid_until().saturating_duration_since(Instant::now());
            let records = lookup.answers().iter();
            let records = records
                .filter(|record| record.record_type() == kind)
                .take(MOST_ADDRESSES);
            let records: Vec<RData> = records.map(|record| record.data.clone()).collect();
            Ok((!records.is_empty()).then_some((records, ttl)))
        }
        Err(error) if error.is_nx_domain() || error.is_no_records_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn resolver(settings: &Resolver) -> Result<TokioResolver, NetError> {
    let provider = TokioRuntimeProvider::default();
    let mut builder = if settings.nameservers.is_empty() {
        TokioResolver::builder(provider)?
    } else {
        let servers = settings.nameservers.iter().map(|address| {
            let mut server = NameServerConfig::udp_and_tcp(address.ip());
            for connection in &mut server.connections {
                connection.port = address.port();
            }
            server
        });
        let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
        let mut builder = TokioResolver::builder_with_config(config, provider);
        // Who names the servers to ask means them.
        builder.options_mut().use_hosts_file = ResolveHosts::Never;
        builder
    };
    let options: &mut ResolverOpts = builder.options_mut();
    options.timeout = settings.timeout;
    options.attempts = settings.retries;
    // When to ask again is for us to know.
    options.cache_size = 0;
    builder.build()
}

/// A record's weight, 0 to 65,535, as a server's, 1 to 256: as HAProxy does it.
fn scaled(weight: u16) -> u16 {
    weight / 256 + 1
}

/// SRV records whose targets are looked up: each is two questions more.
const MOST_TARGETS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_of_records_become_weights_of_servers() {
        assert_eq!([0, 255, 256, u16::MAX].map(scaled), [1, 1, 2, 256]);
    }
}
