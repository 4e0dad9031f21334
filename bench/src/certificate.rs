//! A certificate for localhost and clients that trust it alone.

use std::{fs, path::Path, sync::Arc};

use anyhow::Result;
use rustls::{ClientConfig, RootCertStore};

use crate::process::Certificate;

/// Makes one in `dir`.
pub(crate) fn make(dir: &Path) -> Result<(Certificate, Arc<ClientConfig>)> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let certificate = Certificate { cert: dir.join("cert.pem"), key: dir.join("key.pem") };
    fs::write(&certificate.cert, made.cert.pem())?;
    fs::write(&certificate.key, made.signing_key.serialize_pem())?;
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone())?;
    let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    Ok((certificate, Arc::new(client)))
}
