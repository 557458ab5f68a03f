//! What `gateway check` warns of: certificates that are not valid, or soon will not be. The gateway would start with them all the same.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::certificates::{self, Age};
use crate::config::{
    At, Authorities, CertificateSource, Code, Config, ConfigError, ConfigErrors, Loaded, ServerTls, Verify,
};

/// All that there is to warn of as of `now`, in Unix time; none where that is nothing. What cannot be read is no warning: it has been
/// tried before.
pub(super) fn warnings(loaded: &Loaded, now: i64) -> Option<ConfigErrors> {
    let mut found = Found {
        now,
        told: HashSet::new(),
        warnings: Vec::new(),
    };
    found.of_config(&loaded.config);
    (!found.warnings.is_empty()).then(|| loaded.source.errors(found.warnings))
}

struct Found {
    now: i64,
    /// Files and places: defaults and templates say one for many.
    told: HashSet<(PathBuf, usize)>,
    warnings: Vec<ConfigError>,
}

impl Found {
    fn of_config(&mut self, config: &Config) {
        let binds = config.frontends.iter().flat_map(|frontend| &frontend.binds);
        for tls in binds.filter_map(|bind| bind.tls.as_ref()) {
            for source in &tls.certificates {
                self.of_source(source);
            }
            if let Some(clients) = &tls.clients {
                clients.files.iter().for_each(|file| self.of_authorities(file));
                clients.crls.iter().for_each(|file| self.of_list(file));
            }
        }
        let servers = config.backends.iter().flat_map(|backend| &backend.servers);
        for tls in servers.filter_map(|server| server.tls.as_ref()) {
            self.of_client(tls);
        }
        if let Some((tls, _)) = config.process.tracing.as_ref().and_then(|tracing| tracing.tls.as_ref()) {
            self.of_client(tls);
        }
    }

    fn of_source(&mut self, source: &CertificateSource) {
        // A folder that cannot be read is a fault, and has been told of.
        for files in certificates::files(source).unwrap_or_default() {
            self.of_certificate(&files.cert);
        }
    }

    fn of_client(&mut self, tls: &ServerTls) {
        if let Some(identity) = &tls.identity {
            self.of_certificate(&identity.cert);
        }
        if let Verify::Required(Authorities::File(file)) = &tls.verify {
            self.of_authorities(file);
        }
        tls.crls.iter().for_each(|file| self.of_list(file));
    }

    fn of_certificate(&mut self, file: &At<PathBuf>) {
        let ages = certificates::of_chain(&file.value, self.now).unwrap_or_default();
        if let Some((at, age)) = ages.first() {
            let whose = match at {
                0 => "the certificate".to_owned(),
                _ => format!("certificate {} of the chain", at + 1),
            };
            let help = match age {
                Age::Early(_) => "look at the clocks of this machine and of its authority, or wait",
                Age::Late(_) | Age::Over(_) => {
                    "renew it, and write the new one in its place: it is taken up without a reload"
                }
            };
            self.warn(file, &format!("{whose} {age}"), help);
        }
    }

    fn of_authorities(&mut self, file: &At<PathBuf>) {
        if let Ok(Some(age)) = certificates::of_authorities(&file.value, self.now) {
            let help =
                "whom it has issued is believed for no longer than it is valid itself: add its successor to the file";
            self.warn(file, &format!("the authority {age}"), help);
        }
    }

    fn of_list(&mut self, file: &At<PathBuf>) {
        let lists = certificates::revocation_lists(std::slice::from_ref(file));
        let next = lists.ok().and_then(|lists| lists.next_update).map(|(next, _)| next);
        if let Some(age) = certificates::of_revocation_list(next, self.now) {
            let help = "nobody is believed whose authority it is of: fetch the next one";
            self.warn(file, &format!("the revocation list {age}"), help);
        }
    }

    fn warn(&mut self, file: &At<PathBuf>, message: &str, help: &str) {
        if self.told.insert((file.value.clone(), file.span.offset())) {
            let message = format!("{}: {message}", shown(&file.value));
            let warning = ConfigError::new(Code::Tls, message).label(file.span, "named here");
            self.warnings.push(warning.help(help).as_warning());
        }
    }
}

fn shown(path: &Path) -> std::path::Display<'_> {
    path.display()
}
