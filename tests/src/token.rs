//! Tokens, minted from a server's development secret as any other tool could.

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

/// A token of the development issuer, good for an hour.
pub fn mint(data: &Path, subject: &str) -> String {
    mint_with(data, &claims(subject, now_s() + 3_600))
}

/// A token that ended a minute ago.
pub fn mint_expired(data: &Path, subject: &str) -> String {
    mint_with(data, &claims(subject, now_s() - 60))
}

/// A token with these very claims.
pub fn mint_with(data: &Path, claims: &Value) -> String {
    let secret = fs::read(data.join("secret")).unwrap();
    let header = Header { kid: Some("chappe-dev".to_owned()), ..Header::new(Algorithm::HS256) };
    jsonwebtoken::encode(&header, claims, &EncodingKey::from_secret(&secret)).unwrap()
}

/// The claims of a good token.
pub fn claims(subject: &str, expires_s: u64) -> Value {
    json!({"iss": "chappe-dev", "aud": "chappe", "sub": subject, "exp": expires_s})
}

/// Seconds since 1970 UTC.
pub fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}
