//! Key sets: which keys are used and which are passed over.

use super::*;

const ALL: &[KeyAlgorithm] = &[KeyAlgorithm::Rs256, KeyAlgorithm::Es256, KeyAlgorithm::EdDsa];

fn ed() -> Value {
    json!({"kty": "OKP", "kid": "k", "crv": "Ed25519", "x": b64(&[9; 32])})
}

fn rsa(bits: usize, exponent: &[u8]) -> Value {
    let mut modulus = vec![0xff; bits / 8];
    modulus[bits / 8 - 1] = 0x01;
    json!({"kty": "RSA", "kid": "k", "n": b64(&modulus), "e": b64(exponent)})
}

#[track_caller]
fn check(key: &Value, used: bool) {
    let set = json!({"keys": [key]}).to_string();
    let parsed = KeySet::parse(set.as_bytes(), ALL);
    assert_eq!(parsed.is_ok_and(|set| set.get("k").is_some()), used, "{key}");
}

#[test]
fn keys_that_may_not_sign_are_passed_over() {
    check(&ed(), true);
    check(&with(ed(), "use", json!("sig")), true);
    check(&with(ed(), "use", json!("enc")), false);
    check(&with(ed(), "use", json!(7)), false);
    check(&with(ed(), "key_ops", json!(["verify"])), true);
    check(&with(ed(), "key_ops", json!(["encrypt"])), false);
    check(&with(ed(), "key_ops", json!("verify")), false);
    check(&with(ed(), "alg", json!("EdDSA")), true);
    check(&with(ed(), "alg", json!("RS256")), false);
    check(&with(ed(), "kid", None), false);
    check(&with(ed(), "kid", json!("")), false);
    check(&with(ed(), "crv", json!("Ed448")), false);
    check(&with(ed(), "x", json!(b64(&[9; 31]))), false);
    check(&json!({"kty": "oct", "kid": "k", "k": b64(&[9; 64])}), false);
    check(
        &json!({"kty": "EC", "kid": "k", "crv": "P-384", "x": b64(&[1; 48]), "y": b64(&[1; 48])}),
        false,
    );
    check(
        &json!({"kty": "EC", "kid": "k", "crv": "P-256", "x": b64(&[1; 32]), "y": b64(&[1; 33])}),
        false,
    );
}

#[test]
fn rsa_keys_below_2048_bits_or_with_a_weak_exponent_are_passed_over() {
    check(&rsa(2_048, &[1, 0, 1]), true);
    check(&rsa(4_096, &[1, 0, 1]), true);
    check(&rsa(2_040, &[1, 0, 1]), false);
    check(&rsa(1_024, &[1, 0, 1]), false);
    check(&rsa(16_384, &[1, 0, 1]), false);
    check(&rsa(2_048, &[1]), false);
    check(&rsa(2_048, &[3]), false);
    check(&rsa(2_048, &[1, 0, 0]), false);
    check(&rsa(2_048, &[]), false);
    // Zeros in front do not make a short modulus long.
    let mut padded = vec![0; 128];
    padded.extend_from_slice(&[0xff; 128]);
    check(&json!({"kty": "RSA", "kid": "k", "n": b64(&padded), "e": "AQAB"}), false);
}

#[test]
fn of_two_keys_with_one_name_neither_is_used() {
    let set = json!({"keys": [ed(), with(ed(), "x", json!(b64(&[8; 32]))), with(ed(), "kid", json!("other"))]});
    let set = KeySet::parse(set.to_string().as_bytes(), ALL).unwrap();
    assert!(set.get("k").is_none());
    assert!(set.get("other").is_some());
}

#[test]
fn an_algorithm_that_is_not_configured_is_not_used() {
    let set = json!({"keys": [ed()]}).to_string();
    assert_eq!(
        KeySet::parse(set.as_bytes(), &[KeyAlgorithm::Rs256]).err(),
        Some(KeySetError::NoKeys)
    );
}

#[test]
fn what_is_no_key_set_is_said_so() {
    for text in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[}"#] {
        assert_eq!(
            KeySet::parse(text.as_bytes(), ALL).err(),
            Some(KeySetError::Malformed),
            "{text}"
        );
    }
}
