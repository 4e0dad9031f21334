//! A back end's key: an opaque token of which the server keeps the digest alone.

use std::{fmt, str::FromStr};

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// A key for a back end.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey {
    name: String,
    sha256: [u8; 32],
}

/// The text is not a SHA-256 in hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the digest of an API key is 64 hexadecimal digits")]
pub struct ParseApiKeyError;

impl ApiKey {
    /// The key whose SHA-256 is `sha256`, in hexadecimal.
    pub fn new(name: impl Into<String>, sha256: &str) -> Result<Self, ParseApiKeyError> {
        let Digest32(sha256) = sha256.parse()?;
        Ok(Self { name: name.into(), sha256 })
    }

    /// Who uses it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Finds the key that `token` is. Takes as long for a wrong one, whatever it shares with one.
    pub(super) fn find<'a>(keys: &'a [Self], token: &str) -> Option<&'a Self> {
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let mut found = None;
        for key in keys {
            if bool::from(key.sha256.ct_eq(&digest)) {
                found = Some(key);
            }
        }
        found
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey").field("name", &self.name).finish_non_exhaustive()
    }
}

struct Digest32([u8; 32]);

impl FromStr for Digest32 {
    type Err = ParseApiKeyError;

    fn from_str(text: &str) -> Result<Self, ParseApiKeyError> {
        let mut digest = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return Err(ParseApiKeyError);
        }
        for (place, byte) in digest.iter_mut().enumerate() {
            let digits = &text[2 * place..2 * place + 2];
            if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(ParseApiKeyError);
            }
            *byte = u8::from_str_radix(digits, 16).map_err(|_| ParseApiKeyError)?;
        }
        Ok(Self(digest))
    }
}
