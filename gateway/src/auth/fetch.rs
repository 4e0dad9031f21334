//! Fetching an issuer's key set: one GET, bounded in size and time, that follows no redirect.

use std::{fs, io::Read, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header, uri::Scheme};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::keys::KeySetError;

/// The key set could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No issuer is configured.
    #[error("no issuer is configured")]
    NoIssuer,
    /// The URL is not https.
    #[error("a key set's URL begins with https://, names a host and holds no credentials")]
    Url,
    /// The machine's certificates cannot be read.
    #[error("no root certificates")]
    Roots,
    /// The file, the connection or TLS failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The exchange broke HTTP's rules.
    #[error("{0}")]
    Http(#[from] hyper::Error),
    /// The answer was not 200. A redirect is no answer.
    #[error("answered with status {0}")]
    Status(StatusCode),
    /// More than 256 KiB, or cut short.
    #[error("the answer is larger than 256 KiB or incomplete")]
    Body,
    /// It took too long.
    #[error("no answer within 5 seconds")]
    Timeout,
    /// It is no key set.
    #[error(transparent)]
    Keys(#[from] KeySetError),
}

/// Where a key set is, and whose certificate is believed there.
#[derive(Debug, Clone)]
pub struct JwksUrl {
    uri: Uri,
    tls: Option<Arc<ClientConfig>>,
}

impl JwksUrl {
    /// An https URL; the server's certificate is checked against the machine's roots.
    pub fn new(url: &str) -> Result<Self, FetchError> {
        let uri = parse(url, &Scheme::HTTPS)?;
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(FetchError::Roots);
        }
        Ok(Self { uri, tls: Some(Arc::new(client_config(roots)?)) })
    }

    /// An https URL whose certificate is checked against these roots alone.
    pub fn with_roots(url: &str, roots: RootCertStore) -> Result<Self, FetchError> {
        let uri = parse(url, &Scheme::HTTPS)?;
        Ok(Self { uri, tls: Some(Arc::new(client_config(roots)?)) })
    }

    /// An http URL of this very machine (127.0.0.1 or `[::1]`), for tests: what a loopback
    /// interface carries, nobody else can change.
    pub fn on_loopback(url: &str) -> Result<Self, FetchError> {
        let uri = parse(url, &Scheme::HTTP)?;
        match uri.host() {
            Some("127.0.0.1" | "[::1]") => Ok(Self { uri, tls: None }),
            _ => Err(FetchError::Url),
        }
    }
}

/// Reads a key set's file.
pub(super) fn read_file(path: &Path) -> Result<Vec<u8>, FetchError> {
    let mut json = Vec::new();
    fs::File::open(path)?.take(BYTES_MAX as u64 + 1).read_to_end(&mut json)?;
    if json.len() > BYTES_MAX { Err(FetchError::Body) } else { Ok(json) }
}

/// Fetches a key set.
pub(super) async fn get(url: &JwksUrl) -> Result<Vec<u8>, FetchError> {
    let exchange = async {
        let host = url.uri.host().ok_or(FetchError::Url)?;
        let port = url.uri.port_u16().unwrap_or(if url.tls.is_some() { 443 } else { 80 });
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let socket = TcpStream::connect((bare, port)).await?;
        match &url.tls {
            None => exchange(&url.uri, socket).await,
            Some(config) => {
                let name = ServerName::try_from(bare.to_owned()).map_err(|_| FetchError::Url)?;
                let connector = TlsConnector::from(Arc::clone(config));
                exchange(&url.uri, connector.connect(name, socket).await?).await
            }
        }
    };
    tokio::time::timeout(TIMEOUT, exchange).await.map_err(|_| FetchError::Timeout)?
}

async fn exchange<S>(uri: &Uri, stream: S) -> Result<Vec<u8>, FetchError>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let mut connection = std::pin::pin!(connection);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header(header::HOST, uri.authority().map_or("", |authority| authority.as_str()))
        .header(header::ACCEPT, "application/json")
        .body(Empty::<Bytes>::new())
        .map_err(|_| FetchError::Url)?;
    let answer = async {
        let response = sender.send_request(request).await?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), BYTES_MAX);
        Ok(body.collect().await.map_err(|_| FetchError::Body)?.to_bytes().to_vec())
    };
    // The connection is driven beside the exchange and given up with it.
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        ended = &mut connection => {
            ended?;
            answer.await
        }
    }
}

fn parse(url: &str, scheme: &Scheme) -> Result<Uri, FetchError> {
    let uri: Uri = url.parse().map_err(|_| FetchError::Url)?;
    let plain = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    if uri.scheme() == Some(scheme) && plain { Ok(uri) } else { Err(FetchError::Url) }
}

fn client_config(roots: RootCertStore) -> Result<ClientConfig, FetchError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(std::io::Error::other)?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

const BYTES_MAX: usize = 256 * 1024;
const TIMEOUT: Duration = Duration::from_secs(5);
