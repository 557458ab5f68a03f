//! Maps: their files are read when a configuration is loaded, and again at each reload.

use std::io;

use super::super::hosts::HostRewrite;
use super::super::routes::Route;
use super::{BuildError, Builder};
use crate::config::{self, BackendId, MapFile};
use crate::policy::maps::{Map, MapError, Maps};
use crate::regular_file;

impl Builder<'_> {
    /// Reads all maps. What is wrong with one is reported, and it is left out.
    pub(super) fn read_maps(maps: &[MapFile], errors: &mut Vec<BuildError>) -> Maps {
        let mut read = Maps::new();
        for of in maps {
            match read_map(of) {
                Ok(map) => {
                    read.insert(of.name.clone(), map.into());
                }
                Err(wrong) => errors.extend(
                    wrong
                        .into_iter()
                        .map(|error| BuildError::Map { map: of.clone(), error }),
                ),
            }
        }
        read
    }

    /// The hosts that servers are asked for, by backend; nothing where no edit says any.
    pub(super) fn hosts(&mut self, frontend: &config::Frontend) -> Option<Vec<Option<Box<[HostRewrite]>>>> {
        let (config, maps) = (self.config, &self.maps);
        let numbered = config.backends.iter().enumerate();
        let hosts: Result<Vec<_>, String> = numbered
            .map(|(i, backend)| HostRewrite::all(frontend, backend, BackendId(i), maps))
            .collect();
        match hosts {
            Ok(hosts) if hosts.iter().all(Option::is_none) => Some(Vec::new()),
            Ok(hosts) => Some(hosts),
            // A map that could not be read has been reported.
            Err(_) if maps.len() < config.maps.len() => None,
            Err(message) => {
                let origin = frontend.origin.clone();
                self.fail(BuildError::Rule { origin, message })
            }
        }
    }

    /// Where requests and connections go, by what is said in a frontend or of one of its tenants.
    pub(super) fn routes(&mut self, frontend: &config::Frontend, said: &[config::Route]) -> Option<Vec<Route>> {
        let mut routes = Vec::with_capacity(said.len());
        for route in said {
            match Route::new(route, &frontend.name, &self.config.backends, &self.maps) {
                Ok(made) => {
                    for nameless in made.nameless(route, &frontend.name, &self.maps) {
                        let map = self.config.maps.iter().find(|map| map.name == nameless.map);
                        self.errors.extend(map.map(|map| BuildError::MappedBackend {
                            map: map.clone(),
                            line: nameless.line,
                            name: nameless.name,
                            route: route.origin.clone(),
                        }));
                    }
                    routes.push(Some(made));
                }
                // A map that could not be read has been reported.
                Err(_) if self.maps.len() < self.config.maps.len() => routes.push(None),
                Err(message) => {
                    let origin = route.origin.clone();
                    routes.push(self.fail(BuildError::Rule { origin, message }));
                }
            }
        }
        routes.into_iter().collect()
    }
}

fn read_map(of: &MapFile) -> Result<Map, Vec<MapError>> {
    let whole = |message: String| vec![MapError { line: 0, message }];
    let bytes = regular_file::read(&of.path.value, of.max_size).map_err(|error| {
        whole(match error.kind() {
            io::ErrorKind::FileTooLarge => {
                format!("it has more than {} bytes: `max-size=` allows no more", of.max_size)
            }
            _ => error.to_string(),
        })
    })?;
    match std::str::from_utf8(&bytes) {
        Ok(text) => Map::read(of, text),
        Err(error) => {
            let before = &bytes[..error.valid_up_to()];
            let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
            let message = "not UTF-8".to_owned();
            Err(vec![MapError { line, message }])
        }
    }
}
