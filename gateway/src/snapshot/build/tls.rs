//! TLS: of binds, and with servers.

use std::sync::Arc;

use super::Builder;
use crate::backend::{Connector, Connectors};
use crate::certificates::SystemRoots;
use crate::config::{self, CheckKind, CheckVersion, Mode, ServerTls};
use crate::listener::Termination;
use crate::snapshot::BuildError;
use crate::telemetry::trace::{Collector, CollectorError};

impl Builder<'_> {
    /// How a bind speaks TLS, if it does.
    pub(super) fn tls(
        &mut self,
        frontend: &config::Frontend,
        position: usize,
        bind: &config::Bind,
    ) -> Option<Option<Arc<Termination>>> {
        let Some(tls) = &bind.tls else { return Some(None) };
        // The same bind of the configuration before, for clients that come back.
        let before = self.previous.and_then(|previous| {
            let before = previous.frontend(&frontend.name, frontend.mode)?;
            let same = before.config.binds.get(position)?.address == bind.address;
            before.tls.get(position)?.as_deref().filter(|_| same)
        });
        match Termination::new(tls, bind.alpn.clone(), (&frontend.name, bind), self.registry, before) {
            Ok(termination) => Some(Some(termination)),
            Err(errors) => {
                self.errors.extend(errors.into_iter().map(|source| BuildError::Tls {
                    bind: bind.origin.clone(),
                    tls: Box::new(tls.clone()),
                    source,
                }));
                None
            }
        }
    }

    /// Where spans go. An error leaves none, and is reported.
    pub(super) fn collector(&mut self, system: &SystemRoots) -> Option<Collector> {
        let tracing = self.config.process.tracing.as_ref()?;
        match Collector::new(tracing, system) {
            Ok(collector) => Some(collector),
            Err(errors) => {
                self.errors.extend(errors.into_iter().map(|error| match error {
                    CollectorError::Tls { tls, source } => BuildError::ServerTls { tls, source },
                    CollectorError::Header { path, why } => BuildError::CollectorHeader {
                        origin: tracing.origin.clone(),
                        path,
                        why,
                    },
                }));
                None
            }
        }
    }

    /// How TLS is spoken with a backend's servers. An error leaves none, and is reported.
    pub(super) fn connectors(&mut self, backend: &config::Backend, system: &SystemRoots) -> Connectors {
        let of_server = |server: &config::Server| (server.tls.clone(), backend.mode, server.http2, server.name.clone());
        let servers: Vec<_> = backend.servers.iter().map(of_server).collect();
        let mut connector = |(tls, mode, http2, name): (Option<ServerTls>, Mode, bool, Arc<str>)| {
            let tls = tls?;
            let whose = (&backend.name, &name);
            match Connector::new(&tls, (mode, http2), system, whose, self.registry.process()) {
                Ok(connector) => Some(Arc::new(connector)),
                Err(errors) => {
                    let tls = Box::new(tls);
                    let error = |source| BuildError::ServerTls {
                        tls: tls.clone(),
                        source,
                    };
                    self.errors.extend(errors.into_iter().map(error));
                    None
                }
            }
        };
        let servers = servers.into_iter().map(&mut connector).collect();
        let check = backend.check.as_ref().and_then(|check| {
            let (mode, http2) = match &check.kind {
                CheckKind::Tcp(_) => (Mode::Tcp, false),
                CheckKind::Http(http) => (Mode::Http, http.version == Some(CheckVersion::Http2)),
                CheckKind::Grpc(_) => (Mode::Http, true),
            };
            connector((check.tls.clone(), mode, http2, Arc::from("check")))
        });
        Connectors { servers, check }
    }
}
