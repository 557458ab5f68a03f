//! User names and passwords (RFC 7617), against hashes of the kind that `/etc/shadow` and `mkpasswd` have.
//!
//! Such a hash takes milliseconds on purpose, and a browser sends its password with every request. So an instance remembers
//! by a digest which passwords it has found right; and whoever tries many wrong ones is made to wait, by the address that
//! they come from, since each costs that time. Who has been found right goes on meanwhile, at an address that others share, unless it is
//! his password that is guessed at there: what is remembered answers no more guesses than what is not.

mod hash;

use std::cell::RefCell;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gateway_plugin_sdk::buckets::{self, Rate, Taken};
use gateway_plugin_sdk::config::one_or_many;
use gateway_plugin_sdk::needs::RequestNeed;
use gateway_plugin_sdk::{
    ConfigError, Failure, Needs, Outcome, Plugin, Reply, Request, RequestEdits, RequestFilter, fields, plugin, tags,
};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use hash::Hash;

/// What the operator writes in `config { … }`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// `user name="ada" hash="$6$…"`: who is let in.
    #[serde(default, deserialize_with = "one_or_many")]
    user: Vec<Named>,
    /// The same as lines `ada:$6$…`: a file, mostly.
    users: Option<String>,
    /// What clients are told that the password is for.
    #[serde(default = "default_realm")]
    realm: String,
    /// The request field in which the server is told who it is.
    user_header: Option<String>,
    /// Whether the server gets the password, too.
    #[serde(default)]
    forward: bool,
    /// Wrong passwords that one address (IPv6: one /64) may send in a minute.
    #[serde(default = "default_attempts")]
    attempts: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
    hash: String,
}

/// The plugin.
#[derive(Debug)]
pub struct BasicAuth {
    /// By name.
    users: Vec<User>,
    challenge: String,
    user_header: Option<String>,
    forward: bool,
    attempts: Rate,
    authorization: RequestNeed,
    client_ip: RequestNeed,
}

#[derive(Debug)]
struct User {
    name: String,
    hash: Hash,
    /// The password that was right last, by its digest.
    known: RefCell<Option<[u8; 32]>>,
}

impl Plugin for BasicAuth {
    type Config = Config;
    const NAME: &'static str = "basic-auth";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ABOUT: &'static str = "Asks for a user name and a password.";

    fn configure(config: Config, needs: &mut Needs) -> Result<Self, ConfigError> {
        let is_text = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
        if config.realm.is_empty() || !config.realm.bytes().all(is_text) {
            let message = "has to be printable ASCII without quotes and backslashes";
            return Err(ConfigError::new(message).at("/realm"));
        }
        if let Some(header) = &config.user_header {
            if header.eq_ignore_ascii_case("authorization") {
                return Err(ConfigError::new("this is no field to tell the server a name in").at("/user-header"));
            }
            fields::check_name(header).map_err(|refused| ConfigError::from(refused).at("/user-header"))?;
        }
        if config.attempts == 0 {
            return Err(ConfigError::new("without attempts nobody gets in").at("/attempts"));
        }
        Ok(Self {
            users: users(&config)?,
            challenge: format!("Basic realm=\"{}\", charset=\"UTF-8\"", config.realm),
            user_header: config.user_header,
            forward: config.forward,
            attempts: Rate {
                tokens: config.attempts,
                period_ms: 60_000,
                burst: config.attempts,
            },
            authorization: needs.request.header("authorization"),
            client_ip: needs.request.client_ip(),
        })
    }
}

impl RequestFilter for BasicAuth {
    fn on_request(&self, request: &Request<'_>, edits: &mut RequestEdits) -> Result<Outcome, Failure> {
        let mut values = request.all(self.authorization);
        let credentials = match (values.next(), values.next()) {
            (Some(value), None) => Credentials::parse(value),
            _ => None,
        };
        let Some(credentials) = credentials else {
            return Ok(self.refuse().into());
        };
        let user = match self.user_of(&credentials, network(request.get(self.client_ip).unwrap_or_default())) {
            Ok(user) => user,
            Err(refused) => return Ok(refused.into()),
        };
        if let Some(header) = &self.user_header {
            edits.set_header(header, &user.name)?;
        }
        if !self.forward {
            edits.remove_header("authorization")?;
        }
        tags::set("basic-auth.user", &user.name)?;
        Ok(Outcome::Proceed)
    }
}

/// What a client says that it is.
struct Credentials {
    name: Vec<u8>,
    password: Vec<u8>,
}

impl BasicAuth {
    fn user(&self, name: &[u8]) -> Option<&User> {
        let found = self
            .users
            .binary_search_by(|user| user.name.as_bytes().cmp(name))
            .ok()?;
        self.users.get(found)
    }

    /// Whose password it is, where its address has tries left; or what it gets.
    fn user_of(&self, credentials: &Credentials, address: &[u8]) -> Result<&User, Reply> {
        let named = self.user(&credentials.name);
        let known = named.filter(|user| user.remembers(&credentials.password));
        let tries = Tries {
            key: address,
            bucket: "attempts",
            rate: self.attempts,
        };
        let used_up = tries.are_used_up();
        if !used_up && let Some(user) = known.or_else(|| self.check(credentials)) {
            return Ok(user);
        }
        // Of those who have a name here, each has as many at that address. No name has a control character.
        let key = [&credentials.name[..], &[0], address].concat();
        let of_name = Tries {
            key: &key,
            bucket: "guesses",
            rate: self.attempts,
        };
        match known {
            // Right ones are remembered and cost little. Were they counted, a reload would lock out an office of people behind
            // one address: each of them would cost an attempt on each worker. Those looked at on several workers at once may
            // be so many more than there are attempts left.
            _ if !used_up => {
                tries.use_one();
                if named.is_some() {
                    of_name.use_one();
                }
                Err(self.refuse())
            }
            Some(_) if of_name.are_used_up() => Err(of_name.wait()),
            Some(user) => Ok(user),
            None => {
                if named.is_some_and(User::is_remembered) {
                    of_name.use_one();
                }
                Err(tries.wait())
            }
        }
    }

    /// Whose password it is. A name that nobody has takes as long as a wrong password.
    fn check(&self, credentials: &Credentials) -> Option<&User> {
        let Some(user) = self.user(&credentials.name) else {
            let somebody = self.users.first()?;
            let _ = std::hint::black_box(somebody.hash.is_of(&credentials.password));
            return None;
        };
        if !user.hash.is_of(&credentials.password) {
            return None;
        }
        *user.known.borrow_mut() = Some(user.digest(&credentials.password));
        Some(user)
    }

    fn refuse(&self) -> Reply {
        let reply = Reply::new(401).header("www-authenticate", &self.challenge);
        reply.header("cache-control", "no-store")
    }
}

/// How often somebody may be wrong.
struct Tries<'a> {
    bucket: &'static str,
    key: &'a [u8],
    rate: Rate,
}

impl Tries<'_> {
    fn take(&self, tokens: u32) -> Taken {
        buckets::take(self.bucket, self.key, self.rate, tokens)
    }

    fn are_used_up(&self) -> bool {
        self.take(0).remaining == 0
    }

    fn use_one(&self) {
        self.take(1);
    }

    fn wait(&self) -> Reply {
        // None is there, and none is taken.
        let seconds = self.take(1).retry_after_ms.div_ceil(1000).max(1);
        Reply::new(429).header("retry-after", seconds.to_string())
    }
}

impl User {
    /// Whether this password was right before.
    fn remembers(&self, password: &[u8]) -> bool {
        let known = *self.known.borrow();
        known.is_some_and(|known| bool::from(known.ct_eq(&self.digest(password))))
    }

    fn is_remembered(&self) -> bool {
        self.known.borrow().is_some()
    }

    /// With the hash in it, whose salt nobody else has.
    fn digest(&self, password: &[u8]) -> [u8; 32] {
        let digest = Sha256::new().chain_update(self.hash.salt()).chain_update([0]);
        digest.chain_update(password).finalize().into()
    }
}

impl Credentials {
    fn parse(value: &[u8]) -> Option<Self> {
        if value.len() > MAX_FIELD {
            return None;
        }
        let (scheme, text) = value.split_at_checked(BASIC.len())?;
        if !scheme.eq_ignore_ascii_case(BASIC) {
            return None;
        }
        let decoded = STANDARD.decode(text.trim_ascii()).ok()?;
        let colon = decoded.iter().position(|byte| *byte == b':')?;
        let (name, password) = decoded.split_at(colon);
        let password = password.get(1..).filter(|password| password.len() <= MAX_PASSWORD)?;
        Some(Self {
            name: name.to_vec(),
            password: password.to_vec(),
        })
    }
}

/// All users, by name.
fn users(config: &Config) -> Result<Vec<User>, ConfigError> {
    let mut users = Vec::new();
    let mut add = |name: &str, hash: &str, at: String| {
        // White space at an end would be lost in a field.
        let is_name = !name.is_empty()
            && name.len() <= MAX_NAME
            && name.trim() == name
            && !name.contains(':')
            && !name.chars().any(char::is_control);
        if !is_name {
            let message = format!(
                "a name has 1 to {MAX_NAME} bytes, neither colons nor control characters, and no white space at its ends"
            );
            return Err(ConfigError::new(message).at(at));
        }
        let hash =
            Hash::parse(hash).map_err(|message| ConfigError::new(format!("the hash of {name:?}: {message}")).at(at))?;
        users.push(User {
            name: name.to_owned(),
            hash,
            known: RefCell::default(),
        });
        Ok(())
    };
    for (index, user) in config.user.iter().enumerate() {
        add(&user.name, &user.hash, format!("/user/{index}"))?;
    }
    for (index, line) in config.users.as_deref().unwrap_or_default().lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, hash)) = line.split_once(':') else {
            return Err(ConfigError::new(format!("line {} is no `name:hash`", index + 1)).at("/users"));
        };
        add(name, hash, "/users".to_owned())?;
    }
    if users.is_empty() {
        return Err(ConfigError::new("nobody has a password: give a `user`, or `users`"));
    }
    users.sort_by(|one, other| one.name.cmp(&other.name));
    for pair in users.windows(2) {
        if let [one, other] = pair
            && one.name == other.name
        {
            return Err(ConfigError::new(format!("there are two users {:?}", one.name)));
        }
    }
    Ok(users)
}

/// An address, or of an IPv6 one what a single customer mostly has all of.
fn network(address: &[u8]) -> &[u8] {
    match address.len() {
        16 => address.get(..8).unwrap_or(address),
        _ => address,
    }
}

fn default_realm() -> String {
    "gateway".to_owned()
}

/// A person mistypes a few; a few hundred people may sit behind one address.
fn default_attempts() -> u64 {
    30
}

const BASIC: &[u8] = b"Basic ";

/// Bytes of the field.
const MAX_FIELD: usize = 1024;

/// Bytes: the time that a hash takes grows with the password, and a stranger chooses it.
const MAX_PASSWORD: usize = 128;

/// Bytes.
const MAX_NAME: usize = 128;

plugin!(BasicAuth: RequestFilter);
