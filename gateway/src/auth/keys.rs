//! The keys that tokens are checked with. A key says with which algorithm it is used; what a
//! token's header says must agree and chooses nothing.

use std::{collections::HashMap, fmt};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;

use super::token::Token;

/// The algorithms that keys of an issuer may be used with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyAlgorithm {
    /// RSA PKCS#1 v1.5 with SHA-256, keys of 2,048 to 8,192 bits.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl KeyAlgorithm {
    /// The algorithm with this name in `alg`.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "RS256" => Some(Self::Rs256),
            "ES256" => Some(Self::Es256),
            "EdDSA" => Some(Self::EdDsa),
            _ => None,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }

    const fn library(self) -> Algorithm {
        match self {
            Self::Rs256 => Algorithm::RS256,
            Self::Es256 => Algorithm::ES256,
            Self::EdDsa => Algorithm::EdDSA,
        }
    }
}

/// The key set cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// It is not what RFC 7517 describes.
    #[error("not a JSON Web Key Set")]
    Malformed,
    /// None of its keys can be used: too weak, for encryption, without `kid`, or of an algorithm
    /// that is not allowed here.
    #[error("no key of the set can be used")]
    NoKeys,
}

/// One key.
#[derive(Clone)]
pub(super) struct Key {
    algorithm: Algorithm,
    name: &'static str,
    key: DecodingKey,
}

impl Key {
    /// The key of development tokens.
    pub(super) fn shared(secret: &[u8]) -> Self {
        Self { algorithm: Algorithm::HS256, name: "HS256", key: DecodingKey::from_secret(secret) }
    }

    /// Whether the token says this key's algorithm and is signed with it.
    pub(super) fn signed(&self, token: &Token<'_>) -> bool {
        token.algorithm == self.name
            && jsonwebtoken::crypto::verify(
                token.signature,
                token.signed,
                &self.key,
                self.algorithm,
            )
            .unwrap_or(false)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("algorithm", &self.name).finish_non_exhaustive()
    }
}

/// The usable keys of a set, by `kid`.
#[derive(Debug, Clone, Default)]
pub(super) struct KeySet {
    keys: HashMap<String, Key>,
}

impl KeySet {
    /// Reads a key set and keeps what may be used. Of two keys with one `kid` neither is: which
    /// one a token meant could not be told.
    pub(super) fn parse(json: &[u8], allowed: &[KeyAlgorithm]) -> Result<Self, KeySetError> {
        let set: Value = serde_json::from_slice(json).map_err(|_| KeySetError::Malformed)?;
        let listed = set.get("keys").and_then(Value::as_array).ok_or(KeySetError::Malformed)?;
        let mut keys = HashMap::new();
        for jwk in listed.iter().take(KEYS_MAX) {
            let Some((kid, key)) = read_key(jwk, allowed) else { continue };
            keys.entry(kid).and_modify(|twice| *twice = None).or_insert(Some(key));
        }
        let keys: HashMap<_, _> =
            keys.into_iter().filter_map(|(kid, key)| Some((kid, key?))).collect();
        if keys.is_empty() { Err(KeySetError::NoKeys) } else { Ok(Self { keys }) }
    }

    pub(super) fn get(&self, kid: &str) -> Option<&Key> {
        self.keys.get(kid)
    }
}

fn read_key(jwk: &Value, allowed: &[KeyAlgorithm]) -> Option<(String, Key)> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    let kid = text("kid").filter(|kid| !kid.is_empty())?;
    if jwk.get("use").is_some() && text("use") != Some("sig") {
        return None;
    }
    if let Some(operations) = jwk.get("key_ops") {
        let verifies = |operation: &Value| operation.as_str() == Some("verify");
        if !operations.as_array()?.iter().any(verifies) {
            return None;
        }
    }
    let (algorithm, key) = match (text("kty")?, text("crv")) {
        ("RSA", _) => (KeyAlgorithm::Rs256, read_rsa(text("n")?, text("e")?)?),
        ("EC", Some("P-256")) => {
            let (x, y) = (text("x")?, text("y")?);
            (is_bytes(x, 32) && is_bytes(y, 32)).then_some(())?;
            (KeyAlgorithm::Es256, DecodingKey::from_ec_components(x, y).ok()?)
        }
        ("OKP", Some("Ed25519")) => {
            let x = text("x").filter(|x| is_bytes(x, 32))?;
            (KeyAlgorithm::EdDsa, DecodingKey::from_ed_components(x).ok()?)
        }
        _ => return None,
    };
    let named = jwk.get("alg").is_none() || text("alg") == Some(algorithm.name());
    if !named || !allowed.contains(&algorithm) {
        return None;
    }
    let name = algorithm.name();
    Some((kid.to_owned(), Key { algorithm: algorithm.library(), name, key }))
}

/// An RSA key of 2,048 to 8,192 bits with an exponent that is in use.
fn read_rsa(modulus: &str, exponent: &str) -> Option<DecodingKey> {
    let n = URL_SAFE_NO_PAD.decode(modulus).ok()?;
    let e = URL_SAFE_NO_PAD.decode(exponent).ok()?;
    let n = &n[n.iter().position(|byte| *byte != 0)?..];
    let bits = 8 * n.len() - n[0].leading_zeros() as usize;
    let exponent = e.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
    let usable = e.len() <= 8 && exponent % 2 == 1 && exponent >= 65_537;
    ((2_048..=8_192).contains(&bits) && usable).then(|| DecodingKey::from_rsa_raw_components(n, &e))
}

fn is_bytes(text: &str, length: usize) -> bool {
    URL_SAFE_NO_PAD.decode(text).is_ok_and(|bytes| bytes.len() == length)
}

/// Keys of a set that are looked at.
const KEYS_MAX: usize = 100;
