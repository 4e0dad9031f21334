//! When the keys of an issuer are asked for, and how long they are believed. No clock and no
//! network: times go in, "ask now" comes out.
//!
//! However many unknown `kid`s callers bring, the issuer is asked once in 30 seconds. While he
//! does not answer, the keys that are here serve on, for a day.

use super::keys::{Key, KeySet};

/// The keys of an issuer, as far as they are known.
#[derive(Debug, Default)]
pub(super) struct Jwks {
    keys: KeySet,
    fetched_ms: Option<u64>,
    tried_ms: Option<u64>,
    under_way: bool,
}

/// What is known of a `kid`.
#[derive(Debug)]
pub(super) enum Lookup {
    /// The key.
    Known(Key),
    /// There is no such key.
    Unknown,
    /// Keys are on their way or may be asked for: then it will be known.
    Awaited,
    /// No keys could be had for a day, or never yet.
    Unavailable,
}

impl Jwks {
    /// Looks a key up.
    pub(super) fn find(&self, kid: &str, now_ms: u64) -> Lookup {
        let fresh = self.fetched_ms.is_some_and(|at_ms| now_ms < at_ms + STALE_MAX_MS);
        match self.keys.get(kid) {
            Some(key) if fresh => Lookup::Known(key.clone()),
            _ if self.under_way || self.may_ask(now_ms) => Lookup::Awaited,
            _ if fresh => Lookup::Unknown,
            _ => Lookup::Unavailable,
        }
    }

    /// Whether the caller is the one to ask the issuer now. He says then what came of it.
    pub(super) fn begin(&mut self, now_ms: u64) -> bool {
        if self.under_way || !self.may_ask(now_ms) {
            return false;
        }
        self.under_way = true;
        self.tried_ms = Some(now_ms);
        true
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.under_way
    }

    /// What came of asking: other keys, or nothing.
    pub(super) fn end(&mut self, keys: Option<KeySet>, now_ms: u64) {
        self.under_way = false;
        if let Some(keys) = keys {
            self.keys = keys;
            self.fetched_ms = Some(now_ms);
        }
    }

    /// How long until keys are asked for again without anybody needing them.
    pub(super) fn refresh_in_ms(&self, now_ms: u64) -> u64 {
        let wanted_ms = self.fetched_ms.map_or(now_ms, |at_ms| at_ms + REFRESH_MS);
        let allowed_ms = self.tried_ms.map_or(now_ms, |at_ms| at_ms + ASK_MS);
        wanted_ms.max(allowed_ms).saturating_sub(now_ms)
    }

    fn may_ask(&self, now_ms: u64) -> bool {
        self.tried_ms.is_none_or(|at_ms| now_ms >= at_ms + ASK_MS)
    }
}

/// Keys are asked for this often, so that a new one is here before it is used.
const REFRESH_MS: u64 = 10 * 60 * 1_000;
/// The issuer is asked at most this often, whoever needs keys.
const ASK_MS: u64 = 30_000;
/// Keys are believed this long without the issuer.
const STALE_MAX_MS: u64 = 24 * 60 * 60 * 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn set(kid: &str) -> KeySet {
        let json = format!(
            r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"{kid}","x":"{}"}}]}}"#,
            "A".repeat(43)
        );
        KeySet::parse(json.as_bytes(), &[super::super::KeyAlgorithm::EdDsa]).unwrap()
    }

    fn fetched(kid: &str, now_ms: u64) -> Jwks {
        let mut jwks = Jwks::default();
        assert!(jwks.begin(now_ms));
        jwks.end(Some(set(kid)), now_ms);
        jwks
    }

    #[test]
    fn ten_thousand_unknown_kids_ask_the_issuer_once_in_thirty_seconds() {
        let mut jwks = fetched("known", 0);
        let mut asked = 0;
        for step in 0..10_000 {
            let now_ms = step * 6; // a minute in all
            if let Lookup::Awaited = jwks.find(&format!("random-{step}"), now_ms)
                && jwks.begin(now_ms)
            {
                asked += 1;
                jwks.end(Some(set("known")), now_ms);
            }
        }
        assert_eq!(asked, 1);
    }

    #[test]
    fn a_new_key_is_found_and_the_old_one_serves_until_it_is_gone() {
        let mut jwks = fetched("old", 0);
        assert!(matches!(jwks.find("new", 40_000), Lookup::Awaited));
        assert!(matches!(jwks.find("old", 40_000), Lookup::Known(_)));
        assert!(jwks.begin(40_000));
        assert!(!jwks.begin(40_000), "one asks for all");
        assert!(matches!(jwks.find("new", 40_001), Lookup::Awaited));
        jwks.end(Some(set("new")), 40_100);
        assert!(matches!(jwks.find("new", 40_100), Lookup::Known(_)));
        assert!(matches!(jwks.find("old", 40_100), Lookup::Unknown));
    }

    #[test]
    fn known_keys_serve_for_a_day_while_the_issuer_is_silent() {
        let mut jwks = fetched("key", 0);
        let mut now_ms = 0;
        while now_ms < STALE_MAX_MS {
            assert!(matches!(jwks.find("key", now_ms), Lookup::Known(_)), "at {now_ms}");
            if jwks.begin(now_ms) {
                jwks.end(None, now_ms);
            }
            now_ms += 20 * 60 * 1_000;
        }
        assert!(jwks.begin(now_ms));
        jwks.end(None, now_ms);
        assert!(matches!(jwks.find("key", now_ms), Lookup::Unavailable));
    }

    #[test]
    fn keys_are_refreshed_before_anybody_misses_one() {
        let mut jwks = fetched("key", 0);
        assert_eq!(jwks.refresh_in_ms(0), REFRESH_MS);
        assert!(jwks.begin(REFRESH_MS));
        jwks.end(None, REFRESH_MS);
        assert_eq!(jwks.refresh_in_ms(REFRESH_MS), ASK_MS, "a failure is tried again soon");
    }
}
