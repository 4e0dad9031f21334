//! `chappe token`: signs a development token with the server's own secret.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;

use crate::{args, data_dir};

/// The issuer of development tokens.
pub(crate) const ISSUER: &str = "chappe-dev";
/// The audience of development tokens.
pub(crate) const AUDIENCE: &str = "chappe";
/// The name of the development key.
pub(crate) const KEY_ID: &str = "chappe-dev";

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: &'a str,
    name: &'a str,
    iat: u64,
    exp: u64,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    roles: &'a [&'a str],
}

/// Prints a token.
pub(crate) fn run(args: &args::Token) -> anyhow::Result<()> {
    let secret = data_dir::read_secret(&args.data).map_err(|error| {
        anyhow::anyhow!("{error}\nIs this the data directory of a server that ran before?")
    })?;
    println!("{}", sign(&secret, &args.user, args.ttl.as_secs(), args.admin)?);
    Ok(())
}

/// Signs a token for `user` that is good for `ttl_seconds`.
pub(crate) fn sign(
    secret: &[u8],
    user: &str,
    ttl_seconds: u64,
    admin: bool,
) -> anyhow::Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let claims = Claims {
        iss: ISSUER,
        aud: AUDIENCE,
        sub: user,
        name: user,
        iat: now,
        exp: now.saturating_add(ttl_seconds),
        roles: if admin { &["chappe-admin"] } else { &[] },
    };
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some(KEY_ID.to_owned());
    Ok(jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(secret))?)
}
