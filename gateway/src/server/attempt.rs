//! What runs of a configuration: it is built, and built again without the files of tenants that are at fault.
//!
//! A build goes on behind a fault, so that all tenants whose files are at fault are found by one and set aside together. Who had files
//! before is tried with those, and these may not do any more: three builds are the most there are, however many tenants fail.

use std::sync::Arc;

use super::places::{EchoServers, places};
use super::{ConfigSource, Running, StartError, fit};
use crate::backend::Place;
use crate::config::Config;
use crate::snapshot::{BuildErrors, Compiled, Snapshot};
use crate::telemetry::metrics::Registry;

/// What was made of a configuration.
pub(super) struct Built {
    /// The one that was tried last: it may have less in it than was loaded.
    pub(super) config: Arc<Config>,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) echo: EchoServers,
}

/// Builds what `source` has loaded as `config`, for so many workers, beside what runs, where something does.
pub(super) async fn build(
    mut config: Config,
    workers: usize,
    registry: &Arc<Registry>,
    running: Option<&Running>,
    source: &mut dyn ConfigSource,
) -> Result<Built, StartError> {
    let nothing = EchoServers::new();
    let previous = running.map(|running| &running.snapshot);
    let mut spare = Compiled::default();
    loop {
        fit(&mut config, workers)?;
        let known = running.map_or(&nothing, |running| &running.echo);
        let (places, echo) = places(&config, known, previous.map(|previous| &**previous))?;
        let tried = Arc::new(config);
        match once(&tried, places, registry, previous, &mut spare).await? {
            Ok(snapshot) => {
                return Ok(Built {
                    config: tried,
                    snapshot: Arc::new(snapshot),
                    echo,
                });
            }
            Err(errors) if errors.is_want() => return Err(errors.into()),
            Err(errors) => config = source.without(&errors).ok_or(errors)?,
        }
    }
}

/// On a thread of its own: components take their time to compile, and checks and signals go on.
async fn once(
    config: &Arc<Config>,
    places: Vec<Vec<Place>>,
    registry: &Arc<Registry>,
    previous: Option<&Arc<Snapshot>>,
    spare: &mut Compiled,
) -> Result<Result<Snapshot, BuildErrors>, StartError> {
    let (config, registry, previous) = (Arc::clone(config), Arc::clone(registry), previous.cloned());
    let mut known = std::mem::take(spare);
    let built = tokio::task::spawn_blocking(move || {
        let built = Snapshot::build(&config, places, &registry, previous.as_deref(), &mut known);
        (built, known)
    });
    match built.await {
        Ok((built, known)) => {
            *spare = known;
            Ok(built)
        }
        // A panic while building, which is a defect: what serves goes on.
        Err(error) => Err(StartError::Io(std::io::Error::other(error))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::config::{InForce, LastGood, Reading, Source};
    use crate::policy::guests::{GUEST, Guest, ZEROES};

    /// Counts what is built of files.
    struct Counted {
        reading: Reading,
        source: Source,
        builds: usize,
    }

    impl ConfigSource for Counted {
        fn load(&mut self) -> Option<Config> {
            None
        }

        fn without(&mut self, errors: &BuildErrors) -> Option<Config> {
            self.builds += 1;
            let loaded = self.reading.without(&self.source, errors.faults())?;
            self.source = loaded.source;
            Some(loaded.config)
        }

        fn taken_up(&mut self) {}

        fn refused(&mut self, _: StartError) {}
    }

    /// Builds what lies in a folder. With it come how many builds that took, and what its tenants are served by then.
    async fn built(folder: &Path, before: &LastGood, running: Option<&Running>) -> (Running, usize, LastGood) {
        let mut reading = Reading::of_file(&folder.join("config.kdl"), before).unwrap();
        let loaded = reading.lower().unwrap();
        let mut source = Counted {
            reading,
            source: loaded.source,
            builds: 1,
        };
        let built = build(loaded.config, 1, &Registry::new(), running, &mut source).await;
        let Built { config, snapshot, echo } = built.unwrap_or_else(|error| panic!("{error}"));
        let running = Running {
            config,
            snapshot,
            echo,
            services: None,
        };
        (running, source.builds, source.reading.last_good())
    }

    fn in_force(running: &Running) -> Vec<InForce> {
        running.config.tenants.iter().map(|tenant| tenant.in_force).collect()
    }

    /// Tenants whose files are at fault in ways that show in different steps of a build; and one who does well.
    const TENANTS: usize = 6;

    /// What a tenant's component is when it does no more do well.
    fn broken(tenant: usize) -> Vec<u8> {
        let guest = |guest: Guest<'_>| guest.component();
        match tenant {
            0 => b"no component".to_vec(),
            1 => guest(Guest {
                configure: "(unreachable)",
                ..GOOD
            }),
            2 => guest(Guest {
                describe: "(unreachable)",
                ..GOOD
            }),
            // It has no hook.
            3 => guest(GUEST),
            4 => guest(Guest {
                request_needs: &["nothing-that-there-is"],
                ..GOOD
            }),
            _ => guest(GOOD),
        }
    }

    const GOOD: Guest<'static> = Guest {
        on_request: Some(ZEROES),
        ..GUEST
    };

    fn write(folder: &Path, trust: &str) {
        let mut text = format!("{trust}\nfrontend \"web\" {{ bind \"127.0.0.1:0\"; default-backend \"app\"; tenants");
        (0..TENANTS).for_each(|tenant| text += &format!(" \"t{tenant}\""));
        text += " }\nbackend \"app\" { server \"s\" \"127.0.0.1:81\" }\n";
        for tenant in 0..TENANTS {
            text += &format!("tenant \"t{tenant}\" {{ hosts \"t{tenant}.example\"; include \"t{tenant}/*.kdl\" }}\n");
        }
        fs::write(folder.join("config.kdl"), text).unwrap();
    }

    fn write_tenant(folder: &Path, tenant: usize, component: Vec<u8>) {
        let folder = folder.join(format!("t{tenant}"));
        fs::create_dir_all(&folder).unwrap();
        let text = "plugin \"p\" \"p.wasm\" { on-failure \"deny\" }\nuse-plugin \"p\"\n";
        fs::write(folder.join("p.kdl"), text).unwrap();
        fs::write(folder.join("p.wasm"), component).unwrap();
    }

    #[tokio::test]
    async fn all_tenants_that_fail_in_a_build_are_set_aside_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        write(folder, "");
        let broken = || (0..TENANTS).for_each(|tenant| write_tenant(folder, tenant, broken(tenant)));
        let of = |of: InForce| [vec![of; TENANTS - 1], vec![InForce::Current]].concat();
        broken();
        let (running, builds, _) = built(folder, &LastGood::default(), None).await;
        assert_eq!((builds, in_force(&running)), (2, of(InForce::Nothing)));

        (0..TENANTS).for_each(|tenant| write_tenant(folder, tenant, GOOD.component()));
        let (running, builds, before) = built(folder, &LastGood::default(), None).await;
        assert_eq!((builds, in_force(&running)), (1, vec![InForce::Current; TENANTS]));
        broken();
        let (again, builds, _) = built(folder, &before, Some(&running)).await;
        assert_eq!((builds, in_force(&again)), (2, of(InForce::Before)));

        // The operator takes nobody any more who has not signed: what there was before does not do, either.
        write(folder, TRUST);
        let (again, builds, _) = built(folder, &before, Some(&running)).await;
        assert_eq!((builds, in_force(&again)), (3, vec![InForce::Nothing; TENANTS]));
    }

    const TRUST: &str = r#"trust "ci" key="MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=""#;
}
