//! Who a caller is, from his token alone: a JWT of a configured issuer, or a back end's API key.
//!
//! Nothing here asks the network while a caller waits; keys that are missing are asked for once
//! for everybody. A token is never logged and never repeated in an answer.

mod api_key;
mod claims;
mod fetch;
mod jwks;
mod keys;
#[cfg(test)]
mod tests;
mod token;

use std::{
    fmt,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chappe_protocol::{ErrorCode, UserId};
use chappe_uplink::{Caller, Standing};
use tokio::sync::watch;

pub use self::{
    api_key::{ApiKey, ParseApiKeyError},
    claims::{LEEWAY_MS, Rules},
    fetch::{FetchError, JwksUrl},
    keys::{KeyAlgorithm, KeySetError},
};
use self::{
    jwks::{Jwks, Lookup},
    keys::{Key, KeySet},
    token::Token,
};
use crate::clock::Now;

/// Largest token.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// The issuer, the audience and the key of development tokens.
pub const DEVELOPMENT_ISSUER: &str = "chappe-dev";
/// See [`DEVELOPMENT_ISSUER`].
pub const DEVELOPMENT_AUDIENCE: &str = "chappe";

/// Who may sign in.
#[derive(Clone, Default)]
pub struct AuthConfig {
    /// The secret of development tokens (HS256), at least 32 bytes; none refuses them.
    pub development_secret: Option<Vec<u8>>,
    /// The issuer of JWTs; none accepts only development tokens and API keys.
    pub issuer: Option<Issuer>,
    /// The role that makes its bearer an administrator; none when empty.
    pub admin_role: String,
    /// Back ends' keys.
    pub api_keys: Vec<ApiKey>,
}

impl fmt::Debug for AuthConfig {
    /// Without the secret, which belongs into no log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthConfig")
            .field("development", &self.development_secret.is_some())
            .field("issuer", &self.issuer)
            .field("admin_role", &self.admin_role)
            .field("api_keys", &self.api_keys)
            .finish()
    }
}

/// An issuer of JWTs.
#[derive(Debug, Clone)]
pub struct Issuer {
    /// What its tokens must say.
    pub rules: Rules,
    /// The algorithms that its keys may be used with.
    pub algorithms: Vec<KeyAlgorithm>,
    /// Where its keys are.
    pub keys: KeySource,
}

/// Where an issuer's keys are.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// In a file, which may be replaced while the server runs.
    File(PathBuf),
    /// At a URL.
    Url(JwksUrl),
}

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthConfigError {
    /// An HS256 secret that could be guessed.
    #[error("a development secret has at least 32 bytes")]
    WeakSecret,
    /// An issuer without a name would accept anybody's tokens.
    #[error("an issuer has a name")]
    NoIssuer,
    /// The key file cannot be used.
    #[error("the key set cannot be read: {0}")]
    Keys(#[from] FetchError),
}

/// Someone who signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Who, and what he may do in the instance.
    pub caller: Caller,
    /// When his token ends, in milliseconds since 1970 UTC; an API key does not.
    pub expires_ms: Option<u64>,
}

/// What a token is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It signs this caller in.
    Accepted(Identity),
    /// It does not.
    Refused(ErrorCode),
    /// It may be signed with a key that is not here yet: wait for [`Authenticator::refresh`] and
    /// ask once more.
    KeysNeeded,
}

/// Tells who a caller is.
#[derive(Debug)]
pub struct Authenticator {
    development: Option<(Rules, Key)>,
    issuer: Option<Issuer>,
    jwks: Mutex<Jwks>,
    /// Raised whenever asking for keys came to an end.
    asked: watch::Sender<u64>,
    admin_role: String,
    api_keys: Vec<ApiKey>,
}

impl Authenticator {
    /// Checks the configuration and reads the key file, if there is one. A URL is asked when the
    /// first caller needs a key, or by [`Authenticator::keep_fresh`] before that.
    pub fn new(config: AuthConfig) -> Result<Self, AuthConfigError> {
        let development = match &config.development_secret {
            Some(secret) if secret.len() < 32 => return Err(AuthConfigError::WeakSecret),
            Some(secret) => Some((development_rules(), Key::shared(secret))),
            None => None,
        };
        let authenticator = Self {
            development,
            issuer: config.issuer,
            jwks: Mutex::default(),
            asked: watch::Sender::new(0),
            admin_role: config.admin_role,
            api_keys: config.api_keys,
        };
        if let Some(issuer) = &authenticator.issuer {
            if issuer.rules.issuer.is_empty() {
                return Err(AuthConfigError::NoIssuer);
            }
            if let KeySource::File(path) = &issuer.keys {
                let json = fetch::read_file(path)?;
                let keys = KeySet::parse(&json, &issuer.algorithms).map_err(FetchError::from)?;
                authenticator.jwks().end(Some(keys), Now::read().boot_ms);
            }
        }
        Ok(authenticator)
    }

    /// What a token is worth now.
    pub fn verify(&self, token: &str, now: Now) -> Verdict {
        if token.len() > TOKEN_BYTES_MAX {
            return Verdict::Refused(ErrorCode::TokenInvalid);
        }
        if let Some(key) = ApiKey::find(&self.api_keys, token) {
            return Verdict::Accepted(service(key));
        }
        let Ok(token) = Token::parse(token) else {
            return Verdict::Refused(ErrorCode::TokenInvalid);
        };
        if let Some((rules, key)) = &self.development
            && token.kid == DEVELOPMENT_ISSUER
        {
            return self.judge(&token, rules, key, now);
        }
        let Some(issuer) = &self.issuer else {
            return Verdict::Refused(ErrorCode::TokenInvalid);
        };
        let found = self.jwks().find(&token.kid, now.boot_ms);
        match found {
            Lookup::Known(key) => self.judge(&token, &issuer.rules, &key, now),
            Lookup::Unknown => Verdict::Refused(ErrorCode::TokenInvalid),
            Lookup::Awaited => Verdict::KeysNeeded,
            Lookup::Unavailable => Verdict::Refused(ErrorCode::Unavailable),
        }
    }

    /// Asks the issuer for keys, or waits while another caller does. Returns when that came to an
    /// end, whatever it brought.
    pub async fn refresh(&self) {
        let mut asked = self.asked.subscribe();
        let begun = self.jwks().begin(Now::read().boot_ms);
        if !begun {
            if self.jwks().is_under_way() {
                let _ = asked.changed().await; // the sender lives as long as we do
            }
            return;
        }
        let under_way = UnderWay { authenticator: self, keys: None };
        under_way.finish(self.fetch().await);
    }

    /// Asks for keys from time to time, so that a new one is here before a caller brings it.
    pub async fn keep_fresh(&self) {
        if self.issuer.is_none() {
            return;
        }
        loop {
            let wait_ms = self.jwks().refresh_in_ms(Now::read().boot_ms);
            tokio::time::sleep(Duration::from_millis(wait_ms.max(100))).await;
            self.refresh().await;
        }
    }

    async fn fetch(&self) -> Result<KeySet, FetchError> {
        let Some(issuer) = &self.issuer else { return Err(FetchError::NoIssuer) };
        let json = match &issuer.keys {
            KeySource::File(path) => fetch::read_file(path)?,
            KeySource::Url(url) => fetch::get(url).await?,
        };
        Ok(KeySet::parse(&json, &issuer.algorithms)?)
    }

    fn judge(&self, token: &Token<'_>, rules: &Rules, key: &Key, now: Now) -> Verdict {
        if !key.signed(token) {
            return Verdict::Refused(ErrorCode::TokenInvalid);
        }
        match rules.check(&token.claims, &self.admin_role, now.unix_ms) {
            Ok(identity) => Verdict::Accepted(identity),
            Err(code) => Verdict::Refused(code),
        }
    }

    fn jwks(&self) -> MutexGuard<'_, Jwks> {
        self.jwks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Someone asks the issuer. Also when he is cancelled, others may ask after him.
struct UnderWay<'a> {
    authenticator: &'a Authenticator,
    keys: Option<KeySet>,
}

impl UnderWay<'_> {
    fn finish(mut self, fetched: Result<KeySet, FetchError>) {
        match fetched {
            Ok(keys) => {
                metrics::counter!("chappe_gateway_jwks_fetches_total").increment(1);
                self.keys = Some(keys);
            }
            Err(error) => {
                metrics::counter!("chappe_gateway_jwks_failures_total").increment(1);
                tracing::warn!(%error, "the issuer's keys could not be had; those here serve on");
            }
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.authenticator.jwks().end(self.keys.take(), Now::read().boot_ms);
        self.authenticator.asked.send_modify(|times| *times += 1);
    }
}

fn development_rules() -> Rules {
    Rules {
        issuer: DEVELOPMENT_ISSUER.to_owned(),
        audiences: vec![DEVELOPMENT_AUDIENCE.to_owned()],
        ..Rules::default()
    }
}

/// The caller that an API key is.
fn service(key: &ApiKey) -> Identity {
    let user = UserId::of("chappe-api-key", key.name());
    let caller = Caller { user, name: Some(key.name().into()), standing: Standing::Service };
    Identity { caller, expires_ms: None }
}
