//! Signs the users' tokens with a server's development secret.

use std::{
    fmt, fs,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;

/// Bytes of a development secret.
const SECRET_BYTES: usize = 32;
/// Longer than any run, so that no token expires in the middle of one.
const TOKEN_SECONDS: u64 = 7 * 24 * 60 * 60;

/// The key of development tokens.
#[derive(Clone)]
pub(crate) struct DevelopmentKey(EncodingKey);

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: &'a str,
    iat: u64,
    exp: u64,
}

impl DevelopmentKey {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let secret =
            fs::read(path).with_context(|| format!("cannot read the secret {}", path.display()))?;
        ensure!(secret.len() == SECRET_BYTES, "a development secret has {SECRET_BYTES} bytes");
        Ok(Self(EncodingKey::from_secret(&secret)))
    }

    /// A token for `user`.
    pub(crate) fn sign(&self, user: &str) -> Result<String> {
        let iat = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let claims =
            Claims { iss: "chappe-dev", aud: "chappe", sub: user, iat, exp: iat + TOKEN_SECONDS };
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some("chappe-dev".to_owned());
        Ok(jsonwebtoken::encode(&header, &claims, &self.0)?)
    }
}

// A key is a secret: it must not reach a log by way of a debug print.
impl fmt::Debug for DevelopmentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DevelopmentKey")
    }
}
