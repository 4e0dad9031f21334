//! A leader for tests: it decides like one, in memory and at once, and can be told to misbehave.
//!
//! It stands for everything behind the uplink where a test is about the gateway. It keeps no log,
//! checks no roles beyond membership, and is never part of a server.

mod broker;
mod leader;

pub use self::{broker::ToyBroker, leader::ToyLeader};

use chappe_protocol::UserId;

use crate::auth::{AuthConfig, Authenticator, DEVELOPMENT_AUDIENCE, DEVELOPMENT_ISSUER};

/// The secret of the tokens that [`token`] makes.
pub const SECRET: &[u8] = b"a secret of thirty-two bytes, or";

/// Accepts the tokens that [`token`] makes.
pub fn authenticator() -> Authenticator {
    let config = AuthConfig {
        development_secret: Some(SECRET.to_vec()),
        admin_role: "admin".to_owned(),
        ..AuthConfig::default()
    };
    #[expect(clippy::expect_used, reason = "for tests")]
    Authenticator::new(config).expect("the configuration is good")
}

/// A token that signs `name` in for an hour.
pub fn token(name: &str) -> String {
    token_until(name, crate::clock::Now::read().unix_ms / 1_000 + 3_600)
}

/// A token that signs `name` in for an hour, as an administrator.
pub fn admin_token(name: &str) -> String {
    signed(name, crate::clock::Now::read().unix_ms / 1_000 + 3_600, &["admin"])
}

/// A token that signs `name` in until a second since 1970.
pub fn token_until(name: &str, exp: u64) -> String {
    signed(name, exp, &[])
}

fn signed(name: &str, exp: u64, roles: &[&str]) -> String {
    let claims = serde_json::json!({
        "iss": DEVELOPMENT_ISSUER, "aud": DEVELOPMENT_AUDIENCE, "sub": name, "name": name,
        "exp": exp, "roles": roles,
    });
    let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
    header.kid = Some(DEVELOPMENT_ISSUER.to_owned());
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET);
    jsonwebtoken::encode(&header, &claims, &key).unwrap_or_default()
}

/// The user that [`token`] signs in.
pub fn user(name: &str) -> UserId {
    UserId::of(DEVELOPMENT_ISSUER, name)
}
