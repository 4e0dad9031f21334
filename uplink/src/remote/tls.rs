//! TLS between gateways and brokers: both show a certificate of the same authority.
//!
//! The files are read for each connection, so that renewed certificates need no restart. There are
//! few connections, and they last.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::task::spawn_blocking;

/// The files of one process, PEM. A process is both sides: a broker also connects to the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authority whose certificates the other side must show.
    pub ca: PathBuf,
    /// The chain that this side shows. A broker's must name the host that gateways connect to.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// The files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// One of them cannot be read, or holds something else.
    #[error("{}: {what}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        what: String,
    },
    /// They do not go together.
    #[error("the certificate cannot be used: {0}")]
    Unusable(String),
}

impl TlsFiles {
    /// What a side that connects needs.
    pub(super) fn client(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let (chain, key) = self.identity()?;
        let config = ClientConfig::builder()
            .with_root_certificates(self.roots()?)
            .with_client_auth_cert(chain, key)
            .map_err(unusable)?;
        Ok(Arc::new(config))
    }

    /// What a side that listens needs. Who shows no certificate of the authority is refused.
    pub(super) fn server(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let (chain, key) = self.identity()?;
        let verifier =
            WebPkiClientVerifier::builder(Arc::new(self.roots()?)).build().map_err(unusable)?;
        let config = ServerConfig::builder()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(unusable)?;
        Ok(Arc::new(config))
    }

    fn roots(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in self.certificates(&self.ca)? {
            roots.add(certificate).map_err(|error| self.failed(&self.ca, error))?;
        }
        Ok(roots)
    }

    fn identity(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
        let key = PrivateKeyDer::from_pem_file(&self.key)
            .map_err(|error| self.failed(&self.key, error))?;
        Ok((self.certificates(&self.cert)?, key))
    }

    fn certificates(&self, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
            .map_err(|error| self.failed(path, error))?
            .collect();
        let chain = chain.map_err(|error| self.failed(path, error))?;
        if chain.is_empty() {
            return Err(self.failed(path, "no certificate in it"));
        }
        Ok(chain)
    }

    fn failed(&self, path: &Path, what: impl ToString) -> TlsError {
        TlsError::File { path: path.to_owned(), what: what.to_string() }
    }
}

/// What one side makes of the files as they are now.
pub(super) struct Renewed<T> {
    files: TlsFiles,
    make: fn(&TlsFiles) -> Result<Arc<T>, TlsError>,
    last: Mutex<Arc<T>>,
}

impl<T: Send + Sync + 'static> Renewed<T> {
    pub(super) fn new(
        files: &TlsFiles,
        make: fn(&TlsFiles) -> Result<Arc<T>, TlsError>,
    ) -> Result<Arc<Self>, TlsError> {
        let last = Mutex::new(make(files)?);
        Ok(Arc::new(Self { files: files.clone(), make, last }))
    }

    /// What is to be used for a new connection. Files that cannot be used, as those of which one is
    /// replaced and the other is not yet, leave it as it was.
    pub(super) async fn current(self: &Arc<Self>) -> Arc<T> {
        let this = Arc::clone(self);
        // A disk may take its time.
        let made = spawn_blocking(move || (this.make)(&this.files)).await;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match made {
            Ok(Ok(made)) => *last = made,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the uplink goes on with the certificate that it had");
            }
            Err(_) => {} // the runtime ends
        }
        Arc::clone(&last)
    }
}

fn unusable(error: impl ToString) -> TlsError {
    TlsError::Unusable(error.to_string())
}

/// A handshake that failed, as the error of a connection.
pub(super) fn refused(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("TLS: {error}"))
}
