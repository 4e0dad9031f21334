//! The certificate that WSS, HTTPS and QUIC serve: the operator's, or one made for localhost.
//!
//! The operator's files are read again when they change, so that a renewed certificate needs no
//! restart. The made one lives at most 13 days, because browsers pin no longer-lived ones
//! (`serverCertificateHashes` allows 14), and is renewed at start.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::{config::Tls, data_dir};

const LIFETIME: Duration = Duration::from_secs(13 * 24 * 60 * 60);
/// A made certificate is renewed at a start that finds less than this left.
const RENEW_BELOW: Duration = Duration::from_secs(7 * 24 * 60 * 60);
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The certificate cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    #[error("{path}: {what}")]
    File { path: PathBuf, what: String },
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
}

/// The certificate in force. Servers that were given it serve a new one from their next
/// handshake on.
#[derive(Debug, Clone)]
pub(crate) struct Certificate {
    current: watch::Receiver<Arc<CertifiedKey>>,
    made_for_localhost: bool,
}

impl Certificate {
    /// Loads the configured certificate, or makes or renews the one in `folder`. The returned
    /// task reads changed files again until it is dropped.
    pub(crate) fn load(
        tls: &Tls,
        folder: &Path,
    ) -> Result<(Self, impl Future<Output = ()> + use<>), CertificateError> {
        let made_for_localhost = tls.cert.is_none();
        let (cert, key) = match (&tls.cert, &tls.key) {
            (Some(cert), Some(key)) => (cert.clone(), key.clone()),
            _ => made_for_localhost_in(folder)?,
        };
        let (sender, current) = watch::channel(Arc::new(read(&cert, &key)?));
        Ok((Self { current, made_for_localhost }, reload(cert, key, sender)))
    }

    /// Whether this is the made certificate, which nobody's trust store knows.
    pub(crate) const fn made_for_localhost(&self) -> bool {
        self.made_for_localhost
    }

    /// `sha256:` and the digest of the certificate, as clients take it.
    pub(crate) fn fingerprint(&self) -> String {
        let key = self.current.borrow();
        let digest = key.cert.first().map(Sha256::digest).unwrap_or_default();
        digest.iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
    }

    /// A TLS configuration that always serves the certificate in force.
    pub(crate) fn server_config(&self, protocols: &[&[u8]]) -> Arc<rustls::ServerConfig> {
        let mut config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(self.clone()));
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        config.send_tls13_tickets = 1;
        Arc::new(config)
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.borrow()))
    }
}

async fn reload(cert: PathBuf, key: PathBuf, current: watch::Sender<Arc<CertifiedKey>>) {
    let mut seen = changed(&cert, &key);
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = changed(&cert, &key);
        if now == seen {
            continue;
        }
        // The two files may be seen between their changes: what does not fit is read again.
        match read(&cert, &key) {
            Ok(loaded) => {
                seen = now;
                current.send_replace(Arc::new(loaded));
                tracing::info!(path = %cert.display(), "certificate reloaded");
            }
            Err(error) => tracing::warn!(%error, "the changed certificate is not usable yet"),
        }
    }
}

fn changed(cert: &Path, key: &Path) -> [Option<SystemTime>; 2] {
    [cert, key].map(|path| fs::metadata(path).and_then(|meta| meta.modified()).ok())
}

fn read(cert: &Path, key: &Path) -> Result<CertifiedKey, CertificateError> {
    let failed = |path: &Path, what: String| CertificateError::File { path: path.to_owned(), what };
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| failed(cert, error.to_string()))?;
    if chain.is_empty() {
        return Err(failed(cert, "no certificate in it".to_owned()));
    }
    let private =
        PrivateKeyDer::from_pem_file(key).map_err(|error| failed(key, error.to_string()))?;
    CertifiedKey::from_der(chain, private, &aws_lc_rs::default_provider())
        .map_err(|error| failed(key, error.to_string()))
}

/// The certificate for localhost in `folder`, made when it is missing or about to expire.
fn made_for_localhost_in(folder: &Path) -> Result<(PathBuf, PathBuf), CertificateError> {
    let (cert, key) = (folder.join("localhost.crt"), folder.join("localhost.key"));
    let failed = |error: std::io::Error| CertificateError::File {
        path: cert.clone(),
        what: error.to_string(),
    };
    if fresh(&cert) && key.exists() {
        return Ok((cert, key));
    }
    fs::create_dir_all(folder).map_err(failed)?;
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let mut params = rcgen::CertificateParams::new(names)?;
    params.distinguished_name.push(rcgen::DnType::CommonName, "chappe on localhost");
    let now = SystemTime::now();
    params.not_before = (now - Duration::from_secs(60 * 60)).into();
    params.not_after = (now - Duration::from_secs(60 * 60) + LIFETIME).into();
    let made = params.self_signed(&pair)?;
    data_dir::write_private(&key, pair.serialize_pem().as_bytes()).map_err(failed)?;
    fs::write(&cert, made.pem()).map_err(failed)?;
    Ok((cert, key))
}

/// By the file's age: it was written when its certificate was made.
fn fresh(cert: &Path) -> bool {
    let made = fs::metadata(cert).and_then(|meta| meta.modified());
    let age = made.map(|made| made.elapsed().unwrap_or_default());
    age.is_ok_and(|age| age < LIFETIME - RENEW_BELOW)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_certificate_is_kept_and_has_a_fingerprint() {
        let folder = tempfile::tempdir().unwrap();
        let (first, _) = Certificate::load(&Tls::default(), folder.path()).unwrap();
        let (second, _) = Certificate::load(&Tls::default(), folder.path()).unwrap();
        assert!(first.made_for_localhost());
        assert_eq!(first.fingerprint(), second.fingerprint());
        assert_eq!(first.fingerprint().len(), "sha256:".len() + 64);
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_certificate_is_served_without_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let (current, reload) = Certificate::load(&Tls::default(), folder.path()).unwrap();
        let before = current.fingerprint();
        let mut served = current.current.clone();
        let reloading = tokio::spawn(reload);
        tokio::task::yield_now().await;
        fs::remove_file(folder.path().join("localhost.crt")).unwrap();
        made_for_localhost_in(folder.path()).unwrap();
        served.changed().await.unwrap();
        assert_ne!(current.fingerprint(), before);
        reloading.abort();
    }

    #[test]
    fn a_key_that_does_not_fit_is_refused() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (cert, _) = made_for_localhost_in(one.path()).unwrap();
        let (_, key) = made_for_localhost_in(other.path()).unwrap();
        assert!(read(&cert, &key).is_err());
    }
}
