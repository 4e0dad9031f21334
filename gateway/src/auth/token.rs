//! A JWT taken apart: strict about its form, silent about what it claims.
//!
//! It refuses what other readers might read differently: padded or non-canonical base64url,
//! duplicate keys, anything but three parts, and headers that ask to be believed (`jku`, `x5u`,
//! `jwk`) or to be read by other rules (`crit`, `b64`).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor},
};
use serde_json::{Map, Value};

use super::TOKEN_BYTES_MAX;

/// The three parts of a token whose form is right.
#[derive(Debug)]
pub(super) struct Token<'a> {
    /// What the signature is over.
    pub(super) signed: &'a [u8],
    pub(super) signature: &'a str,
    pub(super) algorithm: String,
    pub(super) kid: String,
    /// The claims. Nothing of them is true before the signature was checked.
    pub(super) claims: Map<String, Value>,
}

/// The token's form is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

impl<'a> Token<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, Malformed> {
        if text.len() > TOKEN_BYTES_MAX {
            return Err(Malformed);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(Malformed)?;
        // The engine refuses padding, other alphabets and stray bits at the end.
        URL_SAFE_NO_PAD.decode(signature).map_err(|_| Malformed)?;
        let header = object(header)?;
        if REFUSED_HEADERS.iter().any(|name| header.contains_key(*name)) {
            return Err(Malformed);
        }
        let typ = header.get("typ").map_or(Some("JWT"), Value::as_str).ok_or(Malformed)?;
        if !TYPES.iter().any(|known| typ.eq_ignore_ascii_case(known)) {
            return Err(Malformed);
        }
        let text = |name: &str| header.get(name).and_then(Value::as_str).ok_or(Malformed);
        let (algorithm, kid) = (text("alg")?.to_owned(), text("kid")?.to_owned());
        if kid.is_empty() || kid.len() > KID_BYTES_MAX {
            return Err(Malformed);
        }
        let claims = object(claims)?;
        Ok(Self { signed: signed.as_bytes(), signature, algorithm, kid, claims })
    }
}

fn object(part: &str) -> Result<Map<String, Value>, Malformed> {
    let json = URL_SAFE_NO_PAD.decode(part).map_err(|_| Malformed)?;
    let StrictObject(object) = serde_json::from_slice(&json).map_err(|_| Malformed)?;
    Ok(object)
}

/// A JSON object whose keys are all different: of two, readers would choose differently.
struct StrictObject(Map<String, Value>);

impl<'de> Deserialize<'de> for StrictObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;

        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = StrictObject;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<StrictObject, A::Error> {
                let mut object = Map::new();
                while let Some((key, value)) = map.next_entry()? {
                    if object.insert(key, value).is_some() {
                        return Err(de::Error::custom("duplicate key"));
                    }
                }
                Ok(StrictObject(object))
            }
        }

        deserializer.deserialize_map(ObjectVisitor)
    }
}

const REFUSED_HEADERS: &[&str] = &["jku", "x5u", "jwk", "x5c", "crit", "b64", "zip", "enc"];
/// What a token may say it is: a JWT, or an access token by RFC 9068.
const TYPES: &[&str] = &["JWT", "at+jwt", "application/at+jwt"];
const KID_BYTES_MAX: usize = 256;
