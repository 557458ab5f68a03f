//! Where each server is: its address, the name that leads to it, or a server that is built in and runs here.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::backend::resolve::Whereabouts;
use crate::backend::{Place, echo};
use crate::config::{Config, Mode, ServerAddress};
use crate::snapshot::Snapshot;

/// The built-in servers by backend and name. One that goes on being configured goes on running.
pub(super) type EchoServers = HashMap<(Arc<str>, Arc<str>, Mode), (SocketAddr, Arc<echo::Echo>)>;

/// Starts the built-in servers that do not run yet; answers where every server is, and all built-in servers of `config`. A
/// server that goes on with the same name is still where it was.
pub(super) fn places(
    config: &Config,
    running: &EchoServers,
    before: Option<&Snapshot>,
) -> io::Result<(Vec<Vec<Place>>, EchoServers)> {
    let mut needed = EchoServers::new();
    let mut addresses = Vec::new();
    for backend in &config.backends {
        let mut servers = Vec::new();
        for server in &backend.servers {
            servers.push(match &server.address {
                ServerAddress::Fixed(address) => Place::Fixed(address.clone()),
                ServerAddress::Name(source) => {
                    let known = before.and_then(|before| before.whereabouts(&backend.name, &server.name));
                    let known = known.filter(|known| known.is_of(source)).cloned();
                    Place::Named(known.unwrap_or_else(|| Whereabouts::new(source)))
                }
                ServerAddress::Echo => {
                    let key = (backend.name.clone(), server.name.clone(), backend.mode);
                    let echo = match running.get(&key) {
                        Some(running) => running.clone(),
                        None => {
                            let (address, echo) = echo::start(backend.mode, &server.name)?;
                            (address, Arc::new(echo))
                        }
                    };
                    let address = echo.0;
                    needed.insert(key, echo);
                    Place::Fixed(address.into())
                }
            });
        }
        addresses.push(servers);
    }
    Ok((addresses, needed))
}
