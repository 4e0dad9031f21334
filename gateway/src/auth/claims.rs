//! What a token's claims must say, once its signature is known to be good.

use std::sync::Arc;

use chappe_protocol::{ErrorCode, UserId};
use chappe_uplink::{Caller, Standing};
use serde_json::{Map, Value};

use super::Identity;

/// What the tokens of an issuer must say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// `iss`, exactly.
    pub issuer: String,
    /// `aud` must name one of these. With none it is not asked for.
    pub audiences: Vec<String>,
    /// `azp`, where a token has it, must be one of these. With none it is not looked at.
    pub authorized_parties: Vec<String>,
    /// A token without `azp` is refused.
    pub authorized_party_required: bool,
}

/// Clocks of issuer and server may differ by this much.
pub const LEEWAY_MS: u64 = 5_000;

impl Rules {
    /// Who the claims say signed in.
    pub(super) fn check(
        &self,
        claims: &Map<String, Value>,
        admin_role: &str,
        unix_ms: u64,
    ) -> Result<Identity, ErrorCode> {
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        ensure(text("iss") == Some(&self.issuer))?;
        self.check_audience(claims.get("aud"))?;
        self.check_party(claims.get("azp"))?;
        let expires_ms = date_ms(claims.get("exp").ok_or(ErrorCode::TokenInvalid)?)?;
        for name in ["nbf", "iat"] {
            if let Some(date) = claims.get(name) {
                ensure(date_ms(date)? <= unix_ms + LEEWAY_MS)?;
            }
        }
        if expires_ms + LEEWAY_MS <= unix_ms {
            return Err(ErrorCode::TokenExpired);
        }
        let subject = text("sub").ok_or(ErrorCode::TokenInvalid)?;
        ensure((1..=SUBJECT_BYTES_MAX).contains(&subject.len()))?;
        let admin = !admin_role.is_empty() && has_role(claims, admin_role);
        let caller = Caller {
            user: UserId::of(&self.issuer, subject),
            name: text("name").or_else(|| text("preferred_username")).and_then(shown_name),
            standing: if admin { Standing::Admin } else { Standing::User },
        };
        Ok(Identity { caller, expires_ms: Some(expires_ms) })
    }

    fn check_audience(&self, audience: Option<&Value>) -> Result<(), ErrorCode> {
        if self.audiences.is_empty() {
            return Ok(());
        }
        let ours = |value: &Value| {
            value.as_str().is_some_and(|text| self.audiences.iter().any(|ours| ours == text))
        };
        ensure(match audience {
            Some(Value::Array(audiences)) => audiences.iter().any(ours),
            Some(audience) => ours(audience),
            None => false,
        })
    }

    fn check_party(&self, party: Option<&Value>) -> Result<(), ErrorCode> {
        ensure(match party {
            None => !self.authorized_party_required,
            Some(_) if self.authorized_parties.is_empty() => true,
            Some(party) => party
                .as_str()
                .is_some_and(|text| self.authorized_parties.iter().any(|ours| ours == text)),
        })
    }
}

fn ensure(holds: bool) -> Result<(), ErrorCode> {
    if holds { Ok(()) } else { Err(ErrorCode::TokenInvalid) }
}

/// A `NumericDate`: seconds since 1970, also with a fraction.
fn date_ms(date: &Value) -> Result<u64, ErrorCode> {
    let seconds = date.as_f64().ok_or(ErrorCode::TokenInvalid)?;
    ensure((0.0..SECONDS_MAX).contains(&seconds))?;
    Ok((seconds * 1_000.0) as u64)
}

fn has_role(claims: &Map<String, Value>, role: &str) -> bool {
    let is = |value: &Value| value.as_str() == Some(role);
    match (claims.get("roles"), claims.get("role")) {
        (Some(Value::Array(roles)), _) => roles.iter().any(is),
        (Some(single), _) | (None, Some(single)) => is(single),
        (None, None) => false,
    }
}

/// A name that can be shown: short and without control characters, or none.
fn shown_name(name: &str) -> Option<Arc<str>> {
    let name: String = name.chars().filter(|c| !c.is_control()).take(NAME_CHARS_MAX).collect();
    let name = name.trim();
    if name.is_empty() { None } else { Some(Arc::from(name)) }
}

/// The year 9999: what lies beyond is no date.
const SECONDS_MAX: f64 = 253_402_300_800.0;
const SUBJECT_BYTES_MAX: usize = 255;
const NAME_CHARS_MAX: usize = 80;
