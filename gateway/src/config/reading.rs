//! A configuration's files, read once, and what is made of them: with all that its tenants include, or without the files of tenants that
//! cannot be used.
//!
//! A fault is a tenant's when one of its places is in a file of the tenant's, or when the file cannot be read; all others are the
//! operator's. Files of a tenant are taken together: those that were in force before take the place of all of them, or none do.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kdl::KdlDocument;

use super::diagnostics::{Code, ConfigError, ConfigErrors, MAX_ERRORS, Source};
use super::include::{self, TenantFile, TenantFiles};
use super::lists::{Lists, Texts};
use super::model::{Config, InForce, TenantFault};
use super::{Loaded, MAX_BYTES, lower, syntax};

/// A configuration and the files of its tenants, as they lay there at one moment.
pub struct Reading {
    name: String,
    text: String,
    base_dir: PathBuf,
    document: KdlDocument,
    /// What the operator has said wrong of files.
    errors: Vec<ConfigError>,
    /// In the order of the text.
    tenants: Vec<Including>,
    /// What they name.
    lists: Lists,
}

/// Files that tenants were last served by, by the tenants' names.
#[derive(Debug, Clone, Default)]
pub struct LastGood(HashMap<String, Before>);

/// What one tenant was last served by.
#[derive(Debug, Clone)]
struct Before {
    files: Arc<[TenantFile]>,
    lists: Texts,
}

/// One tenant's files.
struct Including {
    files: TenantFiles,
    /// Those that it was last served by.
    before: Option<Before>,
    in_force: InForce,
    faults: Vec<TenantFault>,
}

/// A fault, and the number of the tenant whose it is.
type Blamed = (Option<usize>, ConfigError);

impl Reading {
    /// Reads a configuration file and what its tenants include. Where a tenant's files turn out to be at fault, those that `before` has of
    /// it take their place, unless the operator wants it otherwise.
    ///
    /// # Errors
    /// When the file cannot be read, or is not KDL.
    pub fn of_file(path: &Path, before: &LastGood) -> Result<Self, ConfigErrors> {
        let name = path.display().to_string();
        let text = super::text_of(path, &name)?;
        let mut reading = Self::of_text(&name, text, path.parent().unwrap_or(Path::new("")), before)?;
        reading.lists = Lists::of_files();
        Ok(reading)
    }

    /// The same of a text, whose lists are not looked into.
    pub(super) fn of_text(name: &str, text: String, base_dir: &Path, before: &LastGood) -> Result<Self, ConfigErrors> {
        if text.len() > MAX_BYTES {
            let message = format!("{name} is longer than {} MiB", MAX_BYTES >> 20);
            let error = ConfigError::new(Code::Io, message).help("move what it repeats into `defaults`");
            return Err(ConfigErrors::new(name, "", vec![error]));
        }
        let document = syntax::document(&text).map_err(|errors| ConfigErrors::new(name, &text, errors))?;
        let (tenants, errors) = include::read(&document, base_dir);
        let including = |files: TenantFiles| Including {
            before: before.0.get(&files.name).cloned(),
            files,
            in_force: InForce::Current,
            faults: Vec::new(),
        };
        Ok(Self {
            name: name.to_owned(),
            text,
            base_dir: base_dir.to_owned(),
            document,
            errors,
            tenants: tenants.into_iter().map(including).collect(),
            lists: Lists::default(),
        })
    }

    /// From now on any fault is one of the whole configuration.
    pub(super) fn refusing(mut self) -> Self {
        self.tenants.iter_mut().for_each(|tenant| tenant.files.refuses = true);
        self
    }

    /// What the files mean. Those of tenants that are at fault are set aside, and the faults come with the rest.
    ///
    /// # Errors
    /// With everything that is wrong, when something of it is not a tenant's to answer for.
    pub fn lower(&mut self) -> Result<Loaded, ConfigErrors> {
        let mut first = None;
        let mut aside = Vec::new();
        loop {
            let (source, faults) = match self.attempt() {
                Ok((config, source)) => {
                    return Ok(Loaded { config, source, aside });
                }
                Err(failed) => failed,
            };
            let all = || source.errors(faults.iter().map(|(_, error)| error.clone()).collect());
            // What is wrong in tenants' files alone may have kept what the operator has to mend from being said.
            if !faults.iter().all(|(tenant, _)| self.may_set_aside(*tenant)) {
                first.get_or_insert_with(all);
            }
            match self.set_aside(&source, &faults) {
                Some(told) => aside.push(told),
                // What the operator has to mend may only follow from what is wrong in a tenant's file: all is said.
                None => return Err(first.unwrap_or_else(all)),
            }
        }
    }

    /// As [`lower`](Self::lower), when it turned out that these faults keep what was last made of the files from running. None where
    /// they are not all of tenants whose files can be set aside.
    pub fn without(&mut self, source: &Source, faults: Vec<ConfigError>) -> Option<Loaded> {
        let faults: Vec<Blamed> = faults.into_iter().map(|error| (source.tenant(&error), error)).collect();
        if !faults.iter().all(|(tenant, _)| self.may_set_aside(*tenant)) {
            return None;
        }
        let told = self.set_aside(source, &faults)?;
        let mut loaded = self.lower().ok()?;
        loaded.aside.insert(0, told);
        Some(loaded)
    }

    /// What the tenants are served by once this is in force.
    pub fn last_good(&self) -> LastGood {
        let tenants = self.tenants.iter().enumerate().filter_map(|(number, tenant)| {
            let before = match tenant.in_force {
                InForce::Current => Before {
                    files: tenant.files.files().cloned().collect(),
                    lists: self.lists.of_tenant(number),
                },
                InForce::Before => tenant.before.clone()?,
                InForce::Nothing => return None,
            };
            Some((tenant.files.name.clone(), before))
        });
        LastGood(tenants.collect())
    }

    /// What the files that are not set aside mean, or what is wrong with them.
    fn attempt(&mut self) -> Result<(Config, Source), (Source, Vec<Blamed>)> {
        let mut source = Source::new(&self.name, &self.text);
        let mut errors = self.errors.clone();
        let mut unread = Vec::new();
        let mut inclusions = Vec::new();
        for (number, tenant) in self.tenants.iter().enumerate() {
            let files = &tenant.files;
            inclusions.extend(match (tenant.in_force, &tenant.before) {
                (InForce::Current, _) => {
                    unread.extend(files.faults.iter().map(|fault| (Some(number), fault.clone())));
                    files.as_they_are(&mut source, number, &mut errors)
                }
                (InForce::Before, Some(before)) => files.as_they_were(&before.files, &mut source, number, &mut errors),
                (InForce::Before, None) | (InForce::Nothing, _) => files.as_none(),
            });
        }
        let mut lists = std::mem::take(&mut self.lists);
        lists.begin(&source);
        let (lowered, lists) = lower::config(&source, &self.base_dir, &self.document, &inclusions, lists);
        lists.settle(&mut source);
        self.lists = lists;
        let mut config = match lowered {
            Ok(config) if errors.is_empty() && unread.is_empty() => config,
            lowered => {
                errors.extend(lowered.err().into_iter().flatten());
                let blamed = errors.into_iter().map(|error| (source.tenant(&error), error));
                let blamed = blamed.chain(unread).collect();
                return Err((source, blamed));
            }
        };
        for (of, tenant) in config.tenants.iter_mut().zip(&self.tenants) {
            of.in_force = tenant.in_force;
            of.faults.clone_from(&tenant.faults);
        }
        Ok((config, source))
    }

    /// Whether it is a tenant whose files can be set aside.
    fn may_set_aside(&self, tenant: Option<usize>) -> bool {
        tenant.is_some_and(|tenant| self.tenants[tenant].can_be_set_aside())
    }

    /// Sets the files of the tenants aside whose faults these are, and answers what is told of it. None where nothing was.
    fn set_aside(&mut self, source: &Source, faults: &[Blamed]) -> Option<ConfigErrors> {
        let mut told = Vec::new();
        let mut blamed = BTreeSet::new();
        for (number, error) in faults {
            let Some(number) = *number else { continue };
            let tenant = &mut self.tenants[number];
            if tenant.can_be_set_aside() {
                tenant.note(source, error);
                told.push(error.clone());
                blamed.insert(number);
            }
        }
        for number in blamed {
            let tenant = &mut self.tenants[number];
            tenant.set_aside();
            // As the files, so the lists that they name.
            if let (InForce::Before, Some(before)) = (tenant.in_force, &tenant.before) {
                self.lists.replace(number, before.lists.clone());
            }
        }
        (!told.is_empty()).then(|| source.errors(told))
    }
}

impl Including {
    fn can_be_set_aside(&self) -> bool {
        !self.files.refuses && self.in_force != InForce::Nothing
    }

    /// What was in force before goes on, where there is such and the operator still includes all of it: what he has taken away does
    /// not stay by a fault in what is left.
    fn set_aside(&mut self) {
        let mut before = self.before.iter().flat_map(|before| before.files.iter());
        self.in_force = match self.in_force {
            InForce::Current if self.before.is_some() && before.all(|file| self.files.mean(file)) => InForce::Before,
            _ => InForce::Nothing,
        };
    }

    fn note(&mut self, source: &Source, error: &ConfigError) {
        let (file, position) = source.whereabouts(error);
        let fault = TenantFault {
            file,
            position,
            message: error.message().to_owned(),
        };
        if self.faults.len() < MAX_ERRORS && !self.faults.contains(&fault) {
            self.faults.push(fault);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs;

    /// What has a use only by what tenants' files say today.
    const MAIN: &str = r#"
process { policy heavy-threads=2 compile-cpu="5s"; compile-cache "cache"; rate-limit-table entries=2000 }
trust "ci" key="MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE="
tenant "acme" {
    hosts "acme.example"
    grant "log" "buckets"
    backends "acme"
    plugin "guard" "guard.wasm" { on-failure "deny" }
    acl "office" { source "10.0.0.0/8" }
    deny { path "/block" }
    include "tenants/acme/*.kdl"
}
tenant "rival" { hosts "rival.example"; include "tenants/rival/*.kdl" }
frontend "web" { bind "127.0.0.1:80"; timeout tunnel="1h"; rate-limit-headers; tenants "acme" "rival"; default-backend "app" }
backend "app" { timeout tunnel="2h"; server "s" "127.0.0.1:81" }
backend "acme" { server "s" "127.0.0.1:82" }
"#;
    const AUTH: &str = r#"
plugin "auth" "auth.wasm" { grant "log" "buckets"; heavy; route-to "acme"; on-failure "deny" }
use-plugin "auth" if="office"
use-plugin "guard"
deny if="office" { path-prefix "/private/" }
return if="office" { body "%{trace-id} %{request-id}" }
"#;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            let folder = Self(tempfile::tempdir().unwrap());
            folder.write("config.kdl", MAIN);
            folder.write("tenants/acme/auth.kdl", AUTH);
            folder.write("tenants/rival/auth.kdl", "");
            folder
        }

        fn write(&self, name: &str, text: &str) {
            let path = self.0.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn read(&self, before: &LastGood) -> (Result<Loaded, ConfigErrors>, Reading) {
            let mut reading = Reading::of_file(&self.0.path().join("config.kdl"), before).unwrap();
            (reading.lower(), reading)
        }
    }

    fn in_force(loaded: &Loaded) -> Vec<InForce> {
        loaded.config.tenants.iter().map(|tenant| tenant.in_force).collect()
    }

    #[test]
    fn without_a_tenants_files_nothing_of_the_operators_is_for_nothing() {
        let folder = Folder::new();
        let (loaded, reading) = folder.read(&LastGood::default());
        assert_eq!(loaded.unwrap().config.plugins.len(), 2);
        let before = reading.last_good();
        folder.write("tenants/acme/auth.kdl", "plugin {");
        folder.write("tenants/rival/auth.kdl", "hosts \"acme.example\"");
        let (loaded, _) = folder.read(&LastGood::default());
        let loaded = loaded.unwrap();
        assert_eq!(in_force(&loaded), [InForce::Nothing, InForce::Nothing]);
        assert_eq!(loaded.aside.len(), 1, "both are found at once");
        let (loaded, _) = folder.read(&before);
        let loaded = loaded.unwrap();
        assert_eq!(in_force(&loaded), [InForce::Before, InForce::Before]);
        assert_eq!(loaded.config.plugins.len(), 2);
        let fault = &loaded.config.tenants[1].faults[0];
        assert!(fault.place().ends_with("tenants/rival/auth.kdl:1:1"), "{fault:?}");
        assert_eq!(fault.message, "a tenant's file has no `hosts`");
        assert!(
            loaded.config.tenants[0].faults[0]
                .place()
                .contains("tenants/acme/auth.kdl:1:")
        );
    }

    #[test]
    fn who_has_very_many_faults_hides_nobody_elses() {
        let folder = Folder::new();
        folder.write("tenants/acme/auth.kdl", &"x;".repeat(20_000));
        folder.write("tenants/rival/auth.kdl", "y");
        let (loaded, _) = folder.read(&LastGood::default());
        let loaded = loaded.unwrap();
        assert_eq!(in_force(&loaded), [InForce::Nothing, InForce::Nothing]);
        assert_eq!(loaded.aside.len(), 1, "both at once");
        assert_eq!(loaded.config.tenants[0].faults.len(), MAX_ERRORS);
    }

    #[test]
    fn with_a_fault_of_the_operators_everything_is_said() {
        let folder = Folder::new();
        folder.write("config.kdl", &MAIN.replace("default-backend", "default-backnd"));
        folder.write("tenants/acme/auth.kdl", "plugin {");
        let (loaded, _) = folder.read(&LastGood::default());
        let said = format!("{:?}", loaded.unwrap_err());
        assert!(
            said.contains("default-backnd") && said.contains("tenants/acme/auth.kdl:1:"),
            "{said}"
        );
    }

    /// A word that nobody can read may be what uses a name, so that nothing is said of it; set aside, the file is no reason any more.
    #[test]
    fn a_fault_of_the_operators_that_a_tenants_file_hides_is_said_when_that_is_set_aside() {
        let folder = Folder::new();
        folder.write("config.kdl", &format!("{MAIN}acl \"spare\" {{ path \"/x\" }}\n"));
        folder.write("tenants/rival/auth.kdl", "spare");
        let (loaded, _) = folder.read(&LastGood::default());
        let said = format!("{:?}", loaded.unwrap_err());
        assert!(said.contains("the acl \"spare\" is never used"), "{said}");
    }

    #[test]
    fn what_turns_out_later_to_be_at_fault_is_set_aside_then() {
        let folder = Folder::new();
        let (_, reading) = folder.read(&LastGood::default());
        let before = reading.last_good();
        let (loaded, mut reading) = folder.read(&before);
        let Loaded { config, source, .. } = loaded.unwrap();
        let of = |plugin: &str| {
            config
                .plugins
                .iter()
                .find(|known| &*known.name == plugin)
                .unwrap()
                .origin
                .span
        };
        let fault = |plugin| ConfigError::new(Code::Policy, "it does not run").label(of(plugin), "this one");
        assert!(
            reading
                .without(&source, vec![fault("acme/auth"), fault("acme/guard")])
                .is_none(),
            "the operator's"
        );
        let loaded = reading.without(&source, vec![fault("acme/auth")]).unwrap();
        assert_eq!(in_force(&loaded), [InForce::Before, InForce::Current]);
        assert_eq!(loaded.aside.len(), 1);
        let loaded = reading.without(&loaded.source, vec![fault("acme/auth")]).unwrap();
        assert_eq!(in_force(&loaded), [InForce::Nothing, InForce::Current]);
        assert!(loaded.config.plugins.iter().all(|plugin| plugin.folder.is_none()));
        assert_eq!(loaded.config.tenants[0].faults.len(), 1, "said once");
        assert!(!reading.last_good().0.contains_key("acme"));
    }
}
