//! Asks another service about each request, and lets in what it answers with 200.

use gateway_plugin_sdk::needs::RequestNeed;
use gateway_plugin_sdk::{
    Answer, Call, CallAnswered, CallError, ConfigError, Failure, Needs, Outcome, Plugin, Reply, Request, RequestEdits,
    RequestFilter, plugin,
};
use serde::Deserialize;

/// What the operator writes in `config { … }`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The backend that is asked, which the plugin has to be granted: `call "auth"`.
    backend: String,
    /// What it is asked for: `path "/check"`.
    path: String,
}

/// The plugin.
pub struct Auth {
    backend: String,
    path: String,
    credentials: RequestNeed,
}

impl Plugin for Auth {
    type Config = Config;
    const NAME: &'static str = "my-plugin";
    const ABOUT: &'static str = "Asks another service about each request.";

    fn configure(config: Config, needs: &mut Needs) -> Result<Self, ConfigError> {
        if !config.path.starts_with('/') {
            return Err(ConfigError::new("a path begins with `/`").at("/path"));
        }
        Ok(Self {
            backend: config.backend,
            path: config.path,
            credentials: needs.request.header("authorization"),
        })
    }
}

impl RequestFilter for Auth {
    fn on_request(&self, request: &Request<'_>, _: &mut RequestEdits) -> Result<Outcome, Failure> {
        let Some(credentials) = request.get(self.credentials) else {
            return Ok(Reply::new(401).body("my-plugin wants to know who you are\n").into());
        };
        // No instance waits for the answer. What the other hook has to know goes into the call's `state`.
        let call = Call::get(&self.backend, &self.path).header("authorization", credentials);
        Ok(call.into())
    }
}

impl CallAnswered for Auth {
    fn on_answer(
        &self,
        _: &Request<'_>,
        answer: Result<Answer, CallError>,
        _state: &[u8],
        edits: &mut RequestEdits,
    ) -> Result<Outcome, Failure> {
        match answer {
            Ok(answer) if answer.status == 200 => {
                // The service says who it is; nobody else is believed.
                edits.set_header("x-user", answer.header("x-user").unwrap_or_default())?;
                Ok(Outcome::Proceed)
            }
            Ok(_) => Ok(Reply::new(403).body("my-plugin says no\n").into()),
            // It did not come in time, was too long, or never came at all.
            Err(_) => Ok(Reply::new(503).body("my-plugin could not ask\n").into()),
        }
    }
}

plugin!(Auth: RequestFilter + CallAnswered);

#[cfg(test)]
mod tests {
    use gateway_plugin_sdk::test::{Host, Request};
    use gateway_plugin_sdk::{Answer, CallError};

    use super::Auth;

    fn answer(status: u16) -> Answer {
        Answer {
            status,
            headers: vec![("x-user".to_owned(), b"ada".to_vec())],
            body: Vec::new(),
        }
    }

    #[test]
    fn the_service_decides_who_comes_in() {
        let config = r#"{"backend": "auth", "path": "/check"}"#;
        let plugin = Host::new().configure::<Auth>(config).unwrap();

        let stranger = plugin.on_request(&Request::get("/")).unwrap();
        assert_eq!(stranger.reply.unwrap().status(), 401);

        let request = Request::get("/").with_header("authorization", "Bearer s3cret");
        let call = plugin.on_request(&request).unwrap().call.unwrap();
        assert_eq!((call.backend(), call.target()), ("auth", b"/check".as_slice()));

        let known = plugin.on_answer(&request, &call, Ok(answer(200))).unwrap();
        assert_eq!(
            (known.reply, known.request.header("x-user")),
            (None, vec!["ada".to_owned()])
        );
        let unknown = plugin.on_answer(&request, &call, Ok(answer(401))).unwrap();
        assert_eq!(unknown.reply.unwrap().status(), 403);
        let alone = plugin.on_answer(&request, &call, Err(CallError::Timeout)).unwrap();
        assert_eq!(alone.reply.unwrap().status(), 503);
    }

    #[test]
    fn what_is_no_path_is_a_mistake() {
        let config = r#"{"backend": "auth", "path": "check"}"#;
        assert!(Host::new().configure::<Auth>(config).is_err());
    }
}
