//! Tokens as issuers make them, and as attackers do. Each case names its clause of the security
//! rules: J1 what is refused, J2 what short-lived session tokens need, J3 how keys are had.

mod fetching;
mod hostile;
mod key_sets;

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rsa::{KeyPair, KeySize},
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chappe_protocol::ErrorCode;
use chappe_uplink::Standing;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use super::*;

const ISSUER: &str = "https://issuer.example";
const NOW: Now = Now { boot_ms: 1_000_000, unix_ms: 1_800_000_000_000 };
const NOW_S: u64 = NOW.unix_ms / 1_000;

/// An issuer with a key of each kind.
struct Keys {
    rsa: EncodingKey,
    rsa_modulus: Vec<u8>,
    ec: EncodingKey,
    ed: EncodingKey,
    set: Value,
}

impl Keys {
    fn make() -> Self {
        let rsa = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let rsa_der = AsDer::<Pkcs8V1Der<'_>>::as_der(&rsa).unwrap();
        let modulus = rsa.public_key().modulus().big_endian_without_leading_zero().to_vec();
        let random = aws_lc_rs::rand::SystemRandom::new();
        let ec_der =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let ec =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, ec_der.as_ref()).unwrap();
        let point = ec.public_key().as_ref();
        let ed_der = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let ed = Ed25519KeyPair::from_pkcs8(ed_der.as_ref()).unwrap();
        let set = json!({"keys": [
            {"kty": "RSA", "kid": "rsa", "use": "sig", "alg": "RS256", "n": b64(&modulus), "e": "AQAB"},
            {"kty": "EC", "kid": "ec", "crv": "P-256", "x": b64(&point[1..33]), "y": b64(&point[33..])},
            {"kty": "OKP", "kid": "ed", "crv": "Ed25519", "x": b64(ed.public_key().as_ref())},
        ]});
        Self {
            // As PEM, because the library reads PKCS#8 in that form alone.
            rsa: EncodingKey::from_rsa_pem(pem(rsa_der.as_ref()).as_bytes()).unwrap(),
            rsa_modulus: modulus,
            ec: EncodingKey::from_ec_der(ec_der.as_ref()),
            ed: EncodingKey::from_ed_der(ed_der.as_ref()),
            set,
        }
    }

    fn accept(&self) -> Authenticator {
        self.accept_with(rules())
    }

    /// Accepts this issuer's tokens, by a key file.
    fn accept_with(&self, rules: Rules) -> Authenticator {
        self.accept_set(rules, &self.set)
    }

    /// The same with a key set of the test's making.
    fn accept_set(&self, rules: Rules, set: &Value) -> Authenticator {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        std::fs::write(&path, set.to_string()).unwrap();
        let algorithms = vec![KeyAlgorithm::Rs256, KeyAlgorithm::Es256, KeyAlgorithm::EdDsa];
        let issuer = Issuer { rules, algorithms, keys: KeySource::File(path) };
        let config = AuthConfig {
            issuer: Some(issuer),
            admin_role: "chappe-admin".to_owned(),
            ..AuthConfig::default()
        };
        Authenticator::new(config).unwrap()
    }

    fn signed(&self, header: &Value, claims: &Value) -> String {
        let (key, algorithm) = match header["kid"].as_str() {
            Some("ec") => (&self.ec, Algorithm::ES256),
            Some("ed") => (&self.ed, Algorithm::EdDSA),
            _ => (&self.rsa, Algorithm::RS256),
        };
        sign(&header.to_string(), &claims.to_string(), key, algorithm)
    }
}

fn rules() -> Rules {
    Rules {
        issuer: ISSUER.to_owned(),
        audiences: vec!["chappe".to_owned()],
        authorized_parties: vec!["https://app.example.com".to_owned()],
        authorized_party_required: false,
    }
}

fn sign(header: &str, claims: &str, key: &EncodingKey, algorithm: Algorithm) -> String {
    let signed = format!("{}.{}", b64(header.as_bytes()), b64(claims.as_bytes()));
    let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), key, algorithm).unwrap();
    format!("{signed}.{signature}")
}

fn header(kid: &str) -> Value {
    let algorithm = match kid {
        "ec" => "ES256",
        "ed" => "EdDSA",
        _ => "RS256",
    };
    json!({"alg": algorithm, "typ": "JWT", "kid": kid})
}

fn claims() -> Value {
    json!({"iss": ISSUER, "aud": "chappe", "sub": "ada", "name": "Ada", "exp": NOW_S + 60,
           "nbf": NOW_S - 1, "iat": NOW_S - 1, "azp": "https://app.example.com"})
}

/// The value with one entry replaced, or without it.
fn with(mut value: Value, key: &str, new: impl Into<Option<Value>>) -> Value {
    let object = value.as_object_mut().unwrap();
    match new.into() {
        Some(new) => drop(object.insert(key.to_owned(), new)),
        None => drop(object.remove(key)),
    }
    value
}

fn pem(der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"))
}

fn b64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

#[test]
fn a_good_token_of_each_algorithm_signs_in() {
    let keys = Keys::make();
    let auth = keys.accept();
    for kid in ["rsa", "ec", "ed"] {
        let token = keys.signed(&header(kid), &claims());
        let Verdict::Accepted(identity) = auth.verify(&token, NOW) else { panic!("{kid}") };
        assert_eq!(identity.caller.user, UserId::of(ISSUER, "ada"));
        assert_eq!(identity.caller.name.as_deref(), Some("Ada"));
        assert_eq!(identity.caller.standing, Standing::User);
        assert_eq!(identity.expires_ms, Some((NOW_S + 60) * 1_000));
    }
}

#[test]
fn a_role_makes_an_administrator_in_either_spelling() {
    let keys = Keys::make();
    let auth = keys.accept();
    for (claim, value, standing) in [
        ("roles", json!(["editor", "chappe-admin"]), Standing::Admin),
        ("roles", json!("chappe-admin"), Standing::Admin),
        ("role", json!("chappe-admin"), Standing::Admin),
        ("roles", json!(["chappe-administrator"]), Standing::User),
        ("roles", json!({"chappe-admin": true}), Standing::User),
        ("role", json!(""), Standing::User),
    ] {
        let token = keys.signed(&header("ec"), &with(claims(), claim, value.clone()));
        let Verdict::Accepted(identity) = auth.verify(&token, NOW) else { panic!("{value}") };
        assert_eq!(identity.caller.standing, standing, "{claim}: {value}");
    }
}

#[test]
fn clocks_may_differ_by_five_seconds_and_no_more() {
    let keys = Keys::make();
    let auth = keys.accept();
    for (claim, value, expect) in [
        ("exp", NOW_S - 4, None),
        ("exp", NOW_S - 5, Some(ErrorCode::TokenExpired)),
        ("nbf", NOW_S + 5, None),
        ("nbf", NOW_S + 6, Some(ErrorCode::TokenInvalid)),
        ("iat", NOW_S + 5, None),
        ("iat", NOW_S + 6, Some(ErrorCode::TokenInvalid)),
    ] {
        let token = keys.signed(&header("ed"), &with(claims(), claim, json!(value)));
        let verdict = auth.verify(&token, NOW);
        let refused = match verdict {
            Verdict::Refused(code) => Some(code),
            Verdict::Accepted(_) => None,
            Verdict::KeysNeeded => panic!("the keys are here"),
        };
        assert_eq!(refused, expect, "{claim} {value}");
    }
}

#[test]
fn session_tokens_without_audience_need_an_authorized_party_where_they_have_one() {
    let keys = Keys::make();
    let no_audience = Rules { audiences: Vec::new(), ..rules() };
    let required = Rules { authorized_party_required: true, ..no_audience.clone() };
    let bare = with(with(claims(), "aud", None), "azp", None);
    let foreign = with(bare.clone(), "azp", json!("https://evil.example"));
    let ours = with(bare.clone(), "azp", json!("https://app.example.com"));
    for (rules, claims, accepted) in [
        (&no_audience, &bare, true),
        (&no_audience, &ours, true),
        (&no_audience, &foreign, false),
        (&required, &bare, false),
        (&required, &ours, true),
    ] {
        let auth = keys.accept_with(rules.clone());
        let verdict = auth.verify(&keys.signed(&header("ec"), claims), NOW);
        assert_eq!(matches!(verdict, Verdict::Accepted(_)), accepted, "{rules:?} {claims}");
    }
}

#[test]
fn an_api_key_is_a_back_end_and_a_near_miss_is_nobody() {
    let digest = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"; // of `foo`
    let config = AuthConfig {
        api_keys: vec![ApiKey::new("billing", digest).unwrap()],
        ..AuthConfig::default()
    };
    let auth = Authenticator::new(config).unwrap();
    let Verdict::Accepted(identity) = auth.verify("foo", NOW) else { panic!("the key is good") };
    assert_eq!(identity.caller.standing, Standing::Service);
    assert_eq!((identity.caller.name.as_deref(), identity.expires_ms), (Some("billing"), None));
    for token in ["", "fo", "foo ", "Foo", digest] {
        assert_eq!(auth.verify(token, NOW), Verdict::Refused(ErrorCode::TokenInvalid), "{token:?}");
    }
    for digest in ["", "2c26", &digest.replace('2', "g"), &format!("{digest}00")] {
        assert!(ApiKey::new("x", digest).is_err(), "{digest}");
    }
}

#[test]
fn a_configuration_that_lets_anybody_in_is_refused() {
    let weak = AuthConfig { development_secret: Some(vec![7; 31]), ..AuthConfig::default() };
    assert!(matches!(Authenticator::new(weak), Err(AuthConfigError::WeakSecret)), "J1");
    for name in ["HS256", "none", "RS384", "ES256K", "PS256", ""] {
        assert!(KeyAlgorithm::from_name(name).is_none(), "J1 {name} outside development");
    }
    let nameless = Issuer {
        rules: Rules::default(),
        algorithms: vec![KeyAlgorithm::Es256],
        keys: KeySource::File("/nowhere".into()),
    };
    let nameless = AuthConfig { issuer: Some(nameless), ..AuthConfig::default() };
    assert!(matches!(Authenticator::new(nameless), Err(AuthConfigError::NoIssuer)));
    let missing = Issuer {
        rules: rules(),
        algorithms: vec![KeyAlgorithm::Es256],
        keys: KeySource::File("/nowhere/keys.json".into()),
    };
    let missing = AuthConfig { issuer: Some(missing), ..AuthConfig::default() };
    assert!(matches!(Authenticator::new(missing), Err(AuthConfigError::Keys(_))));
}
