//! Who may see the stats: credentials of the Basic scheme (RFC 7617) and the hashes of `auth`.

use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, header};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use crate::config::Login;

/// Users and their passwords.
pub(super) struct Logins {
    logins: Arc<[Login]>,
    /// What was let in last, digested: a browser that comes back each second is not to cost a hash each time.
    known: Mutex<Option<[u8; 32]>>,
}

impl Logins {
    pub(super) fn new(logins: &[Login]) -> Self {
        Self {
            logins: logins.into(),
            known: Mutex::new(None),
        }
    }

    /// Whether whoever sends this may see it; everybody may when there are no users.
    pub(super) async fn let_in(&self, headers: &HeaderMap, trials: &Semaphore) -> bool {
        if self.logins.is_empty() {
            return true;
        }
        let Some(said) = credentials(headers) else { return false };
        let digest: [u8; 32] = Sha256::digest(said.as_bytes()).into();
        // Of digests: how long the comparison takes tells nothing of what was sent.
        if *self.known.lock().unwrap_or_else(PoisonError::into_inner) == Some(digest) {
            return true;
        }
        // Never closed.
        let Ok(_turn) = trials.acquire().await else {
            return false;
        };
        let logins = Arc::clone(&self.logins);
        let is_right = tokio::task::spawn_blocking(move || is_right(&logins, &said)).await;
        let is_right = is_right.unwrap_or(false);
        if is_right {
            *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(digest);
        }
        is_right
    }
}

/// `user:password`.
fn credentials(headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    let (scheme, encoded) = value.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let said = STANDARD.decode(encoded.trim()).ok()?;
    if said.len() > MOST_CREDENTIALS {
        return None;
    }
    String::from_utf8(said).ok()
}

/// Takes milliseconds, whether there is such a user or not.
fn is_right(logins: &[Login], said: &str) -> bool {
    let Some((user, password)) = said.split_once(':') else {
        return false;
    };
    let login = logins.iter().find(|login| login.user == user);
    let Some(tried) = login.or(logins.first()) else {
        return false;
    };
    let matches = match tried.password.starts_with("$5$") {
        true => sha_crypt::sha256_check(password, &tried.password).is_ok(),
        false => sha_crypt::sha512_check(password, &tried.password).is_ok(),
    };
    matches && login.is_some()
}

/// Bytes: hashing takes longer the longer a password is.
const MOST_CREDENTIALS: usize = 512;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// As openssl passwd -6 -salt salt secret, and with -5, write it.
    fn logins() -> Logins {
        let login = |user: &str, password: &str| Login {
            user: user.to_owned(),
            password: password.to_owned(),
        };
        Logins::new(&[
            login(
                "ops",
                "$6$salt$egUxKNxDs8kPfh8iPMNcosMhb2eWah6d3R44JDm5Rj/j/XWR5E33QPd0YmHXoDHOIDR6kL5D3JcQcz0O8FHE00",
            ),
            login("other", "$5$salt$kpa26zwgX83BPSR8d7w93OIXbFt/d3UOTZaAu5vsTM6"),
        ])
    }

    #[tokio::test]
    async fn who_knows_the_password_is_let_in() {
        let (logins, trials) = (logins(), Semaphore::new(1));
        let basic = |said: &str| format!("Basic {}", STANDARD.encode(said));
        for (value, expected) in [
            (basic("ops:secret"), true),
            (basic("ops:secret"), true),
            (basic("other:secret"), true),
            (basic("ops:wrong"), false),
            (basic("nobody:secret"), false),
            (basic("ops"), false),
            (basic(":"), false),
            (basic(&format!("ops:{}", "x".repeat(600))), false),
            (format!("bAsIc {}", STANDARD.encode("ops:secret")), true),
            ("Bearer secret".to_owned(), false),
            ("Basic".to_owned(), false),
            ("Basic !!!".to_owned(), false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, HeaderValue::from_str(&value).unwrap());
            assert_eq!(logins.let_in(&headers, &trials).await, expected, "{value}");
            headers.append(header::AUTHORIZATION, HeaderValue::from_str(&value).unwrap());
            assert!(!logins.let_in(&headers, &trials).await, "twice: {value}");
        }
        assert!(!logins.let_in(&HeaderMap::new(), &trials).await);
    }
}
