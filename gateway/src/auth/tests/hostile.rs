//! Broken and hostile tokens, each refused with the same code and words. Each names its clause of
//! the security rules, and every clause has its tokens; how keys are asked for (the rest of J3) is
//! beside this, and how sessions end (the rest of J2) with the sessions.

use std::collections::BTreeSet;

use super::*;

/// What an attacker changes: a header, claims, or the finished token.
struct Case {
    clause: &'static str,
    name: &'static str,
    token: String,
    expect: ErrorCode,
}

struct Table<'a> {
    keys: &'a Keys,
    cases: Vec<Case>,
}

impl Table<'_> {
    fn token(&mut self, clause: &'static str, name: &'static str, token: String) {
        self.cases.push(Case { clause, name, token, expect: ErrorCode::TokenInvalid });
    }

    fn header(&mut self, clause: &'static str, name: &'static str, header: &Value) {
        let token = self.keys.signed(header, &claims());
        self.token(clause, name, token);
    }

    fn claims(&mut self, clause: &'static str, name: &'static str, claims: &Value) {
        let token = self.keys.signed(&header("ec"), claims);
        self.token(clause, name, token);
    }
}

/// What a token may be refused for, as the rules name it.
const CLAUSES: &[&str] = &[
    "J1 alg none",
    "J1 HS256 with the RSA public key",
    "J1 alg ≠ the key's",
    "J1 alg outside the set",
    "J1 HS256 outside development",
    "J1 kid",
    "J1 headers",
    "J1 typ",
    "J1 iss",
    "J1 aud",
    "J1 azp",
    "J1 sub",
    "J1 exp",
    "J1 nbf",
    "J1 iat",
    "J1 trailing data",
    "J1 non-canonical base64",
    "J1 signature",
    "J1 form",
    "J1 size",
];

#[test]
fn every_clause_has_a_token_that_breaks_it() {
    let keys = Keys::make();
    let auth = keys.accept();
    // The issuer was asked a moment ago: an unknown name is unknown, not awaited.
    assert!(auth.jwks().begin(NOW.boot_ms));
    auth.jwks().end(None, NOW.boot_ms);
    let mut table = Table { keys: &keys, cases: Vec::new() };
    algorithms(&mut table);
    key_names(&mut table);
    headers(&mut table);
    claims_of_others(&mut table);
    dates(&mut table);
    forms(&mut table);
    assert!(table.cases.len() >= 70, "{}", table.cases.len());
    let covered: BTreeSet<_> = table.cases.iter().map(|case| case.clause).collect();
    assert_eq!(covered, CLAUSES.iter().copied().collect());
    for Case { clause, name, token, expect } in table.cases {
        let verdict = auth.verify(&token, NOW);
        assert_eq!(verdict, Verdict::Refused(expect), "{clause}: {name}");
    }
}

/// Session tokens: no audience, an authorized party perhaps, a life of a minute.
#[test]
fn session_tokens_are_refused_by_issuer_party_and_date() {
    let keys = Keys::make();
    let lenient = Rules { audiences: Vec::new(), ..rules() };
    let strict = Rules { authorized_party_required: true, ..lenient.clone() };
    let (lenient, strict) = (keys.accept_with(lenient), keys.accept_with(strict));
    let session = with(claims(), "aud", None);
    let bare = with(session.clone(), "azp", None);
    let iss = |value: Value| with(session.clone(), "iss", value);
    let azp = |value: Value| with(session.clone(), "azp", value);
    let (invalid, expired) = (ErrorCode::TokenInvalid, ErrorCode::TokenExpired);
    for (clause, name, auth, claims, expect) in [
        ("J2 iss", "another issuer", &lenient, iss(json!("https://evil.example")), invalid),
        ("J2 iss", "an issuer below ours", &lenient, iss(json!(format!("{ISSUER}/x"))), invalid),
        ("J2 iss", "none", &lenient, with(session.clone(), "iss", None), invalid),
        ("J2 azp", "another party", &lenient, azp(json!("https://evil.example")), invalid),
        (
            "J2 azp",
            "a party below ours",
            &lenient,
            azp(json!("https://app.example.com.x")),
            invalid,
        ),
        ("J2 azp", "another party", &strict, azp(json!("https://evil.example")), invalid),
        ("J2 azp", "several", &strict, azp(json!(["https://app.example.com"])), invalid),
        ("J2 azp", "none where one is required", &strict, bare.clone(), invalid),
        ("J2 exp", "none", &lenient, with(bare.clone(), "exp", None), invalid),
        (
            "J2 exp",
            "a minute and the leeway",
            &lenient,
            with(bare, "exp", json!(NOW_S - 5)),
            expired,
        ),
    ] {
        let verdict = auth.verify(&keys.signed(&header("ec"), &claims), NOW);
        assert_eq!(verdict, Verdict::Refused(expect), "{clause}: {name}");
    }
    assert!(matches!(
        lenient.verify(&keys.signed(&header("ec"), &session), NOW),
        Verdict::Accepted(_)
    ));
}

/// Tokens that are signed well, with a key that the issuer publishes and that may not sign them.
#[test]
fn keys_of_the_issuer_that_may_not_sign_tokens_sign_nobody_in() {
    let keys = Keys::make();
    let ec = &keys.set["keys"][1];
    let published = |key: Value| {
        let mut set = keys.set.clone();
        set["keys"][1] = key;
        keys.accept_set(rules(), &set)
    };
    let token = keys.signed(&header("ec"), &claims());
    assert!(matches!(published(ec.clone()).verify(&token, NOW), Verdict::Accepted(_)));
    for (clause, key) in [
        ("J3 use=enc", with(ec.clone(), "use", json!("enc"))),
        ("J3 a use that is no text", with(ec.clone(), "use", json!(["sig"]))),
        ("J3 key_ops", with(ec.clone(), "key_ops", json!(["deriveKey"]))),
        ("J3 alg of another kind", with(ec.clone(), "alg", json!("RS256"))),
        ("J3 alg of encryption", with(ec.clone(), "alg", json!("ECDH-ES"))),
        ("J3 another curve", with(ec.clone(), "crv", json!("P-384"))),
        ("J3 a key without a name", with(ec.clone(), "kid", None)),
        ("J3 a key of another name", with(ec.clone(), "kid", json!("EC"))),
        ("J3 rotated away", keys.set["keys"][0].clone()),
        ("J3 another key of that name", Keys::make().set["keys"][1].clone()),
    ] {
        let auth = published(key);
        // It was asked a moment ago: the name is not looked for again.
        assert!(auth.jwks().begin(NOW.boot_ms));
        auth.jwks().end(None, NOW.boot_ms);
        let verdict = auth.verify(&token, NOW);
        assert_eq!(verdict, Verdict::Refused(ErrorCode::TokenInvalid), "{clause}");
    }
    // A shared secret in a public set would be everybody's.
    let shared = json!({"kty": "oct", "kid": "ec", "alg": "HS256", "k": b64(&[7; 32])});
    let auth = published(shared);
    assert!(auth.jwks().begin(NOW.boot_ms));
    auth.jwks().end(None, NOW.boot_ms);
    let head = json!({"alg": "HS256", "typ": "JWT", "kid": "ec"}).to_string();
    let secret = EncodingKey::from_secret(&[7; 32]);
    let token = sign(&head, &claims().to_string(), &secret, Algorithm::HS256);
    let verdict = auth.verify(&token, NOW);
    assert_eq!(verdict, Verdict::Refused(ErrorCode::TokenInvalid), "J3 a shared secret");
}

fn algorithms(table: &mut Table<'_>) {
    let claims_text = claims().to_string();
    for none in ["none", "None", "nOnE", "NONE", ""] {
        let header = json!({"alg": none, "typ": "JWT", "kid": "rsa"}).to_string();
        let unsigned = format!("{}.{}.", b64(header.as_bytes()), b64(claims_text.as_bytes()));
        table.token("J1 alg none", "without a signature", unsigned);
    }
    table.header("J1 alg none", "with a good signature", &with(header("ec"), "alg", json!("none")));
    // The public key is known to everybody: as an HMAC secret it would sign anything.
    let modulus = table.keys.rsa_modulus.clone();
    let pem_like =
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----", b64(&modulus));
    for secret in [&modulus[..], b64(&modulus).as_bytes(), pem_like.as_bytes()] {
        let header = with(header("rsa"), "alg", json!("HS256")).to_string();
        let key = EncodingKey::from_secret(secret);
        let token = sign(&header, &claims_text, &key, Algorithm::HS256);
        table.token("J1 HS256 with the RSA public key", "as the secret", token);
    }
    let header_text = with(header("rsa"), "alg", json!("RS256")).to_string();
    let hmac = sign(&header_text, &claims_text, &EncodingKey::from_secret(b"x"), Algorithm::HS256);
    table.token("J1 alg ≠ the key's", "HMAC that says RS256", hmac);
    for (kid, algorithm) in [("ec", "RS256"), ("rsa", "ES256"), ("ed", "ES256"), ("ec", "EdDSA")] {
        let header = with(header(kid), "alg", json!(algorithm));
        table.header("J1 alg ≠ the key's", "in the header", &header);
    }
    for algorithm in ["HS256", "HS512", "ES256K", "PS256", "RS1", "rs256"] {
        let header = with(header("rsa"), "alg", json!(algorithm));
        table.header("J1 alg outside the set", algorithm, &header);
    }
    for algorithm in [Algorithm::RS384, Algorithm::RS512, Algorithm::PS256] {
        let header = with(header("rsa"), "alg", serde_json::to_value(algorithm).unwrap());
        let rsa = &table.keys.rsa;
        let token = sign(&header.to_string(), &claims_text, rsa, algorithm);
        table.token("J1 alg outside the set", "signed with it", token);
    }
    table.header("J1 alg outside the set", "missing", &with(header("ec"), "alg", None));
    table.header("J1 alg outside the set", "a number", &with(header("ec"), "alg", json!(256)));
    let shared = EncodingKey::from_secret(&[7; 32]);
    let development = json!({"alg": "HS256", "typ": "JWT", "kid": DEVELOPMENT_ISSUER}).to_string();
    let theirs = json!({"iss": DEVELOPMENT_ISSUER, "aud": DEVELOPMENT_AUDIENCE, "sub": "ada",
                        "exp": NOW_S + 60});
    let token = sign(&development, &theirs.to_string(), &shared, Algorithm::HS256);
    table.token("J1 HS256 outside development", "a development token", token);
}

fn key_names(table: &mut Table<'_>) {
    table.header("J1 kid", "missing", &with(header("ec"), "kid", None));
    let long = "k".repeat(257);
    let odd = ["", "unknown", "../../etc/passwd", "' OR 1=1 --", "ec\u{0}", "EC", " ec", &long];
    for kid in odd {
        let header = with(header("rsa"), "kid", json!(kid)).to_string();
        let key = &table.keys.rsa;
        let token = sign(&header, &claims().to_string(), key, Algorithm::RS256);
        // A name that might be a new key's is asked for once; here that was a moment ago.
        table.token("J1 kid", "not one of ours", token);
    }
    for kid in [json!(7), json!(["ec"]), json!(null), json!({"ec": 1})] {
        table.header("J1 kid", "no text", &with(header("rsa"), "kid", kid));
    }
    let huge = with(header("ec"), "kid", json!("x".repeat(1 << 20)));
    table.header("J1 kid", "a megabyte", &huge);
}

fn headers(table: &mut Table<'_>) {
    let own_key = table.keys.set["keys"][1].clone();
    for (name, value) in [
        ("jku", json!("https://evil.example/keys")),
        ("x5u", json!("https://evil.example/certificate")),
        ("jwk", own_key),
        ("x5c", json!(["MIIB"])),
        ("crit", json!(["exp"])),
        ("b64", json!(false)),
        ("zip", json!("DEF")),
        ("enc", json!("A128GCM")),
    ] {
        table.header("J1 headers", name, &with(header("ec"), name, value));
    }
    for typ in [json!("secevent+jwt"), json!("JWE"), json!(""), json!(7)] {
        table.header("J1 typ", "not ours", &with(header("ec"), "typ", typ));
    }
}

fn claims_of_others(table: &mut Table<'_>) {
    for iss in [
        json!("https://issuer.example/"),
        json!("https://evil.example"),
        json!(""),
        json!([ISSUER]),
        json!(null),
    ] {
        table.claims("J1 iss", "another", &with(claims(), "iss", iss));
    }
    table.claims("J1 iss", "missing", &with(claims(), "iss", None));
    for aud in [
        json!("another"),
        json!(["one", "two"]),
        json!([]),
        json!(7),
        json!("CHAPPE"),
        json!({"chappe": 1}),
    ] {
        table.claims("J1 aud", "another", &with(claims(), "aud", aud));
    }
    table.claims("J1 aud", "missing", &with(claims(), "aud", None));
    for azp in
        [json!("https://evil.example"), json!(["https://app.example.com"]), json!(7), json!("")]
    {
        table.claims("J1 azp", "another", &with(claims(), "azp", azp));
    }
    for sub in [json!(""), json!(7), json!(null), json!("x".repeat(256))] {
        table.claims("J1 sub", "no name", &with(claims(), "sub", sub));
    }
    table.claims("J1 sub", "missing", &with(claims(), "sub", None));
}

fn dates(table: &mut Table<'_>) {
    table.claims("J1 exp", "missing", &with(claims(), "exp", None));
    for exp in
        [json!("tomorrow"), json!(-1), json!(1e300), json!(null), json!([NOW_S + 60]), json!(true)]
    {
        table.claims("J1 exp", "no date", &with(claims(), "exp", exp));
    }
    table.claims("J1 exp", "past", &with(claims(), "exp", json!(NOW_S - 60)));
    if let Some(past) = table.cases.last_mut() {
        past.expect = ErrorCode::TokenExpired;
    }
    for nbf in [json!(NOW_S + 60), json!("soon"), json!(-1)] {
        table.claims("J1 nbf", "not yet", &with(claims(), "nbf", nbf));
    }
    for iat in [json!(NOW_S + 3_600), json!("now")] {
        table.claims("J1 iat", "from the future", &with(claims(), "iat", iat));
    }
}

/// A good token whose signature, which is another each time, has a letter of its alphabet alone.
fn with_letters_of_its_alphabet(table: &Table<'_>) -> String {
    let mut tokens = std::iter::repeat_with(|| table.keys.signed(&header("ec"), &claims()));
    let has_one = |token: &String| token.rsplit_once('.').unwrap().1.contains(['-', '_']);
    tokens.find(has_one).unwrap()
}

fn forms(table: &mut Table<'_>) {
    let good = with_letters_of_its_alphabet(table);
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (head, body) = signed.split_once('.').unwrap();
    for (name, token) in [
        ("another part", format!("{good}.x")),
        ("an empty part", format!("{good}.")),
        ("a space behind it", format!("{good} ")),
        ("a line break behind it", format!("{good}\n")),
        ("a space before it", format!(" {good}")),
        ("nothing", String::new()),
        ("dots", "..".to_owned()),
        ("two parts", signed.to_owned()),
        ("one part", head.to_owned()),
    ] {
        table.token("J1 trailing data", name, token);
    }
    for (name, token) in [
        ("padding", format!("{good}=")),
        ("padding of the header", format!("{head}=.{body}.{signature}")),
        ("stray bits", format!("{signed}.{}", with_stray_bits(signature))),
        ("another alphabet", format!("{signed}.{}", signature.replacen(['-', '_'], "+", 1))),
        (
            "a line break inside",
            format!("{head}.{body}.{}\n{}", &signature[..10], &signature[10..]),
        ),
    ] {
        table.token("J1 non-canonical base64", name, token);
    }
    for (name, token) in [
        ("none", format!("{signed}.")),
        ("cut", format!("{signed}.{}", &signature[..80])),
        ("of zeros", format!("{signed}.{}", b64(&[0; 64]))),
        ("of another token", {
            let other = table.keys.signed(&header("ec"), &with(claims(), "sub", json!("bob")));
            format!("{signed}.{}", other.rsplit_once('.').unwrap().1)
        }),
        ("over other claims", {
            let root = with(claims(), "sub", json!("root")).to_string();
            format!("{head}.{}.{signature}", b64(root.as_bytes()))
        }),
        ("by a stranger's key of that name", Keys::make().signed(&header("ec"), &claims())),
    ] {
        table.token("J1 signature", name, token);
    }
    let ec = &table.keys.ec;
    let twice_alg = r#"{"alg":"none","kid":"ec","alg":"ES256"}"#;
    let twice_sub = claims().to_string().replacen('{', r#"{"sub":"root","#, 1);
    let deep = format!("{}{}", "[".repeat(2_000), "]".repeat(2_000));
    let texts: Vec<(&str, String, String)> = vec![
        ("alg twice", twice_alg.to_owned(), claims().to_string()),
        ("sub twice", header("ec").to_string(), twice_sub),
        ("claims are a list", header("ec").to_string(), "[]".to_owned()),
        ("claims are no JSON", header("ec").to_string(), "{".to_owned()),
        ("a header that is a list", "[]".to_owned(), claims().to_string()),
        ("claims too deep", header("ec").to_string(), format!(r#"{{"a":{deep}}}"#)),
        ("something behind the claims", header("ec").to_string(), format!("{} 1", claims())),
    ];
    let made: Vec<_> = texts
        .iter()
        .map(|(name, header, claims)| (*name, sign(header, claims, ec, Algorithm::ES256)))
        .collect();
    for (name, token) in made {
        table.token("J1 form", name, token);
    }
    let padded = with(claims(), "padding", json!("x".repeat(8_192)));
    table.claims("J1 size", "more than 8 KiB", &padded);
}

/// The same bytes spelt otherwise: the last character of 64 bytes in base64 has four unused bits.
fn with_stray_bits(signature: &str) -> String {
    let (rest, last) = signature.split_at(signature.len() - 1);
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let value = alphabet.find(last).unwrap();
    format!("{rest}{}", &alphabet[value + 1..value + 2])
}
