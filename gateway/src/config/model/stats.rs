//! What is shown of the gateway to who looks after it, and said of it to who sends clients.

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::{At, BackendId, Origin};

/// `stats { bind "127.0.0.1:8404"; … }`.
#[derive(Debug, Clone)]
pub struct Stats {
    /// Where it is served.
    pub binds: Vec<SocketAddr>,
    /// `allow`: who is answered; everybody when empty.
    pub allow: Vec<IpNet>,
    /// `auth`: who may see it; nobody is asked who he is when empty.
    pub logins: Vec<Login>,
    /// `refresh`: how often browsers ask for the page again.
    pub refresh: Option<Duration>,
    /// `hide-version`.
    pub hide_version: bool,
    /// `monitor`: whether the gateway is well.
    pub monitor: Option<Monitor>,
    /// Where it stands.
    pub origin: Origin,
}

/// `auth "ops" password="$6$…"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// Who.
    pub user: String,
    /// What crypt(3) makes of the password, with SHA-256 (`$5$`) or SHA-512 (`$6$`).
    pub password: String,
}

/// `monitor "/healthz" { require "app" servers=1 }`: a path that says whether clients should be sent here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Monitor {
    /// The path.
    pub path: String,
    /// What has to be there for work.
    pub needs: Vec<Need>,
}

/// `require "app" servers=1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// A backend.
    pub backend: At<BackendId>,
    /// How many of its servers, at least.
    pub servers: usize,
}
