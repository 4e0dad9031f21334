//! Fetching keys from an issuer who misbehaves, changes them, or is gone (J3).

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use rustls::RootCertStore;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use super::*;

/// An issuer's web server: gives each request the same answer and counts them.
struct Web {
    address: std::net::SocketAddr,
    asked: Arc<AtomicUsize>,
    answer: Arc<Mutex<Vec<u8>>>,
}

impl Web {
    async fn start(answer: Vec<u8>, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let answer = Arc::new(Mutex::new(answer));
        let (count, shared) = (Arc::clone(&asked), Arc::clone(&answer));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (count, shared, tls) = (Arc::clone(&count), Arc::clone(&shared), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => answer_one(socket, &count, &shared).await,
                        Some(tls) => {
                            if let Ok(socket) = tls.accept(socket).await {
                                answer_one(socket, &count, &shared).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, asked, answer }
    }

    fn url(&self) -> JwksUrl {
        JwksUrl::on_loopback(&format!("http://{}/keys", self.address)).unwrap()
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn answer(&self, answer: Vec<u8>) {
        *self.answer.lock().unwrap() = answer;
    }
}

async fn answer_one<S>(mut socket: S, count: &AtomicUsize, answer: &Mutex<Vec<u8>>)
where
    S: AsyncReadExt + AsyncWriteExt + Unpin,
{
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match socket.read_u8().await {
            Ok(byte) => request.push(byte),
            Err(_) => return,
        }
    }
    assert!(
        request.starts_with(b"GET /keys HTTP/1.1\r\n"),
        "{}",
        String::from_utf8_lossy(&request)
    );
    count.fetch_add(1, Ordering::SeqCst);
    let answer = answer.lock().unwrap().clone();
    let silent = answer.is_empty();
    let _ = socket.write_all(&answer).await; // the other side may have given up
    if silent {
        let _ = socket.read_u8().await;
    }
    let _ = socket.shutdown().await;
}

fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn accept(url: JwksUrl) -> Arc<Authenticator> {
    let issuer = Issuer {
        rules: rules(),
        algorithms: vec![KeyAlgorithm::Rs256, KeyAlgorithm::Es256, KeyAlgorithm::EdDsa],
        keys: KeySource::Url(url),
    };
    let config = AuthConfig { issuer: Some(issuer), ..AuthConfig::default() };
    Arc::new(Authenticator::new(config).unwrap())
}

/// The time on both clocks, for tokens of this very moment.
fn now() -> Now {
    Now { unix_ms: NOW.unix_ms, ..Now::read() }
}

#[tokio::test]
async fn the_first_caller_has_the_keys_fetched_and_others_wait_with_him() {
    let keys = Keys::make();
    let web = Web::start(ok(&keys.set.to_string()), None).await;
    let auth = accept(web.url());
    let token = keys.signed(&header("ec"), &claims());
    assert_eq!(auth.verify(&token, now()), Verdict::KeysNeeded);
    let waiting: Vec<_> = (0..10)
        .map(|_| {
            let auth = Arc::clone(&auth);
            tokio::spawn(async move { auth.refresh().await })
        })
        .collect();
    for waits in waiting {
        waits.await.unwrap();
    }
    assert!(matches!(auth.verify(&token, now()), Verdict::Accepted(_)));
    assert_eq!(web.asked(), 1);
}

#[tokio::test]
async fn ten_thousand_unknown_names_ask_the_issuer_at_most_twice() {
    let keys = Keys::make();
    let web = Web::start(ok(&keys.set.to_string()), None).await;
    let auth = accept(web.url());
    for number in 0..10_000 {
        let header = with(header("rsa"), "kid", json!(format!("random-{number}")));
        let token = format!("{}.{}.{}", b64(header.to_string().as_bytes()), b64(b"{}"), b64(b"x"));
        if auth.verify(&token, now()) == Verdict::KeysNeeded {
            auth.refresh().await;
        }
        assert_eq!(auth.verify(&token, now()), Verdict::Refused(ErrorCode::TokenInvalid));
    }
    assert!(web.asked() <= 2, "{}", web.asked());
}

#[tokio::test]
async fn an_issuer_that_misbehaves_is_not_believed() {
    let keys = Keys::make();
    let set = keys.set.to_string();
    let large = format!("{{\"keys\":[],\"pad\":\"{}\"}}", "x".repeat(256 * 1024));
    for (name, answer) in [
        (
            "a redirect",
            b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
                .to_vec(),
        ),
        ("an error", [b"HTTP/1.1 500 Oh\r\nContent-Length: 9999\r\n\r\n", set.as_bytes()].concat()),
        ("too much", ok(&large)),
        (
            "too much in chunks",
            [
                &b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n50000\r\n"[..],
                &vec![b' '; 0x50000],
                b"\r\n0\r\n\r\n",
            ]
            .concat(),
        ),
        (
            "cut short",
            [&b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n"[..], set.as_bytes()].concat(),
        ),
        ("no key set", ok("<html>")),
        ("no usable key", ok(r#"{"keys":[]}"#)),
        ("no HTTP", b"hello".to_vec()),
    ] {
        let web = Web::start(answer, None).await;
        let auth = accept(web.url());
        let token = keys.signed(&header("ec"), &claims());
        auth.refresh().await;
        assert_eq!(auth.verify(&token, now()), Verdict::Refused(ErrorCode::Unavailable), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_does_not_answer_is_given_up_after_five_seconds() {
    let web = Web::start(Vec::new(), None).await;
    let auth = accept(web.url());
    let began = tokio::time::Instant::now();
    auth.refresh().await;
    assert_eq!(began.elapsed().as_secs(), 5);
}

#[tokio::test]
async fn keys_serve_on_while_the_issuer_is_down() {
    let keys = Keys::make();
    let web = Web::start(ok(&keys.set.to_string()), None).await;
    let auth = accept(web.url());
    auth.refresh().await;
    web.answer(b"HTTP/1.1 503 Down\r\nContent-Length: 0\r\n\r\n".to_vec());
    let later = Now { boot_ms: now().boot_ms + 60 * 60 * 1_000, ..now() };
    let token = keys.signed(&header("ed"), &claims());
    assert!(matches!(auth.verify(&token, later), Verdict::Accepted(_)));
}

#[tokio::test]
async fn a_caller_who_is_cancelled_does_not_stop_others_from_asking() {
    let keys = Keys::make();
    let web = Web::start(Vec::new(), None).await;
    let auth = accept(web.url());
    let asking = tokio::time::timeout(Duration::from_millis(50), auth.refresh()).await;
    assert!(asking.is_err());
    assert!(!auth.jwks().is_under_way());
    let token = keys.signed(&header("ec"), &claims());
    assert_eq!(
        auth.verify(&token, now()),
        Verdict::Refused(ErrorCode::Unavailable),
        "asked just now"
    );
}

#[tokio::test]
async fn https_is_checked_against_the_roots_and_the_name() {
    let keys = Keys::make();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = made.signing_key.serialize_der().try_into().unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let tls = TlsAcceptor::from(Arc::new(config));
    let web = Web::start(ok(&keys.set.to_string()), Some(tls)).await;
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let port = web.address.port();
    let good =
        JwksUrl::with_roots(&format!("https://localhost:{port}/keys"), roots.clone()).unwrap();
    assert!(fetch::get(&good).await.is_ok());
    let stranger = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let mut others = RootCertStore::empty();
    others.add(stranger.cert.der().clone()).unwrap();
    let untrusted = JwksUrl::with_roots(&format!("https://localhost:{port}/keys"), others).unwrap();
    assert!(matches!(fetch::get(&untrusted).await, Err(FetchError::Io(_))));
    let misnamed = JwksUrl::with_roots(&format!("https://127.0.0.1:{port}/keys"), roots).unwrap();
    assert!(matches!(fetch::get(&misnamed).await, Err(FetchError::Io(_))));
}

#[test]
fn only_https_and_the_loopback_of_tests_are_urls_of_keys() {
    let roots = RootCertStore::empty;
    for url in [
        "http://issuer.example/keys",
        "ftp://x/",
        "issuer.example",
        "",
        "https://u:p@x/",
        "file:///etc/passwd",
    ] {
        assert!(JwksUrl::with_roots(url, roots()).is_err(), "{url}");
    }
    for url in [
        "http://issuer.example/",
        "http://127.0.0.1.evil.example/",
        "http://10.0.0.1/",
        "http://localhost/",
        "http://x@127.0.0.1/",
        "https://127.0.0.1/",
    ] {
        assert!(JwksUrl::on_loopback(url).is_err(), "{url}");
    }
    assert!(JwksUrl::on_loopback("http://[::1]:8080/keys").is_ok());
}
