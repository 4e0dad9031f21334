//! Where tokens come from: a fixed one, or a provider that makes fresh ones.

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

/// What a session signs in with: a JWT or an API key.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    text: String,
    /// Seconds since 1970 UTC.
    expires_at_s: Option<u64>,
}

impl Token {
    /// Wraps a token. Its expiry is read from it if it is a JWT that tells one; nothing else in it
    /// is looked at, and nothing is verified: that is the server's business.
    pub fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        let expires_at_s = expiry(&text);
        Self { text, expires_at_s }
    }

    /// The token itself. Secret.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// When it expires, in seconds since 1970 UTC, if it says so.
    pub const fn expires_at_s(&self) -> Option<u64> {
        self.expires_at_s
    }
}

fn expiry(text: &str) -> Option<u64> {
    #[derive(serde::Deserialize)]
    struct Claims {
        exp: f64,
    }
    let mut parts = text.split('.');
    let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
    let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    (claims.exp >= 0.0).then_some(claims.exp as u64)
}

// A token is a secret: it must not reach a log by way of a debug print.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token(expires_at_s: {:?})", self.expires_at_s)
    }
}

type Fetch = dyn Fn() -> Pin<Box<dyn Future<Output = Result<Token, String>> + Send>> + Send + Sync;

/// Where a client takes its tokens from.
#[derive(Clone)]
pub struct TokenSource(Source);

#[derive(Clone)]
enum Source {
    Fixed(Token),
    Provider(Arc<Fetch>),
}

impl TokenSource {
    /// One token for good: when it expires, the session ends.
    pub fn fixed(text: impl Into<String>) -> Self {
        Self(Source::Fixed(Token::new(text)))
    }

    /// Calls `fetch` for a fresh token before each connection and before the present one expires.
    /// Its error is for people and must not hold the token.
    pub fn provider<F, Fut>(fetch: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Token, String>> + Send + 'static,
    {
        Self(Source::Provider(Arc::new(move || Box::pin(fetch()))))
    }

    /// Whether a later call may give another token.
    pub(crate) fn renews(&self) -> bool {
        matches!(self.0, Source::Provider(_))
    }

    pub(crate) async fn fetch(&self) -> Result<Token, String> {
        match &self.0 {
            Source::Fixed(token) => Ok(token.clone()),
            Source::Provider(fetch) => fetch().await,
        }
    }
}

impl From<&str> for TokenSource {
    fn from(text: &str) -> Self {
        Self::fixed(text)
    }
}

impl From<String> for TokenSource {
    fn from(text: String) -> Self {
        Self::fixed(text)
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.renews() { "TokenSource::provider" } else { "TokenSource::fixed" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expiry_of_a_jwt_is_read_and_an_api_key_has_none() {
        let payload = URL_SAFE_NO_PAD.encode(br#"{"sub":"a","exp":1700000000}"#);
        assert_eq!(Token::new(format!("h.{payload}.s")).expires_at_s(), Some(1_700_000_000));
        assert_eq!(Token::new("ck_0123.not-json.x").expires_at_s(), None);
        assert_eq!(Token::new("plain").expires_at_s(), None);
    }

    #[test]
    fn a_token_is_not_printed() {
        assert!(!format!("{:?}", Token::new("secret")).contains("secret"));
    }
}
