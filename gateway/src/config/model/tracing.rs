//! Where spans go.

use std::path::PathBuf;

use http::{HeaderName, HeaderValue};
use rustls_pki_types::ServerName;

use super::{At, Authorities, Origin, ServerTls, Verify};

/// `tracing "https://collector:4318" sample=0.01 service="edge" queue=2048 { tls ca="ca.pem"; header "Authorization" file="token" }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tracing {
    /// The collector.
    pub endpoint: Endpoint,
    /// Of traces that begin here, so many in 2^32 are recorded; [`u32::MAX`] is all.
    pub sample: u32,
    /// What the gateway is called there.
    pub service: String,
    /// Exchanges whose spans may wait to be sent.
    pub queue: usize,
    /// How TLS is spoken with the collector, and the name that it has to show; none means plainly.
    pub tls: Option<(ServerTls, ServerName<'static>)>,
    /// What it is sent beside spans, in order.
    pub headers: Vec<CollectorHeader>,
    /// Where it stands.
    pub origin: Origin,
}

/// A collector that speaks OTLP over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its host and port as they were written.
    pub authority: String,
    /// Its name or address, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What its paths begin with, without a slash at the end.
    pub path: String,
}

/// `header "X-Tenant" "shop"` or `header "Authorization" file="token"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectorHeader {
    /// The field.
    pub name: HeaderName,
    /// Its value.
    pub value: CollectorValue,
}

/// What a collector is sent in a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CollectorValue {
    /// This; it is not shown anywhere.
    Said(HeaderValue),
    /// What stands in this file.
    File(At<PathBuf>),
}

impl Tracing {
    /// Whether it says the same, wherever it and its parts stand in their texts.
    pub fn is_same(&self, other: &Self) -> bool {
        self.nowhere() == other.nowhere()
    }

    fn nowhere(&self) -> Self {
        let nowhere = Origin {
            file: "".into(),
            line: 0,
            span: (0, 0).into(),
        };
        let mut this = self.clone();
        let mut files = Vec::new();
        if let Some((tls, _)) = &mut this.tls {
            tls.origin = nowhere.clone();
            files.extend(&mut tls.crls);
            if let Verify::Required(Authorities::File(file)) = &mut tls.verify {
                files.push(file);
            }
            if let Some(identity) = &mut tls.identity {
                files.push(&mut identity.cert);
                files.extend(identity.key.iter_mut().chain(&mut identity.ocsp));
            }
        }
        for header in &mut this.headers {
            if let CollectorValue::File(file) = &mut header.value {
                files.push(file);
            }
        }
        for file in files {
            file.span = nowhere.span;
        }
        this.origin = nowhere;
        this
    }
}
