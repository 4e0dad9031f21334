//! Which server certificates a client accepts: the system's authorities, one file of them, or
//! one certificate by its fingerprint. There is no way to accept any.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject};
use sha2::{Digest, Sha256};

use crate::error::Error;

/// Whom to trust as the server of an encrypted link.
#[derive(Debug, Clone, Default)]
pub enum Trust {
    /// The authorities that the operating system trusts.
    #[default]
    System,
    /// These authorities alone.
    Authorities(Vec<CertificateDer<'static>>),
    /// The one certificate with this fingerprint, whatever name and dates it bears.
    Fingerprint(Fingerprint),
}

/// The SHA-256 of a certificate's DER form, spelled `sha256:` and 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Trust {
    /// The authorities in a PEM file.
    pub fn ca_file(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let pem = std::fs::read(path).map_err(|error| {
            Error::Config(format!("cannot read the CA file {}: {error}", path.display()))
        })?;
        Self::ca_pem(&pem)
    }

    /// The authorities in a PEM text, at least one.
    pub fn ca_pem(pem: &[u8]) -> Result<Self, Error> {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        match certificates {
            Ok(certificates) if !certificates.is_empty() => Ok(Self::Authorities(certificates)),
            _ => Err(Error::Config("the CA file holds no certificate in PEM".to_owned())),
        }
    }

    /// The certificate with this fingerprint, as `sha256:HEX`.
    pub fn fingerprint(text: &str) -> Result<Self, Error> {
        Fingerprint::parse(text).map(Self::Fingerprint)
    }

    /// The TLS settings that enforce it.
    pub(crate) fn client_config(&self, alpn: &[u8]) -> Result<ClientConfig, Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::Config(error.to_string()))?;
        let mut config = match self {
            Self::System => builder.with_root_certificates(system_roots()?),
            Self::Authorities(authorities) => {
                let mut roots = RootCertStore::empty();
                for authority in authorities {
                    roots.add(authority.clone()).map_err(|error| {
                        Error::Config(format!("a certificate of the CA file is unusable: {error}"))
                    })?;
                }
                builder.with_root_certificates(roots)
            }
            Self::Fingerprint(expected) => {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(Pinned {
                    expected: *expected,
                    provider,
                }))
            }
        }
        .with_no_client_auth();
        config.alpn_protocols = vec![alpn.to_vec()];
        Ok(config)
    }
}

fn system_roots() -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    if usable == 0 {
        return Err(Error::Config(
            "the system has no trusted authorities: name a CA file or a fingerprint".to_owned(),
        ));
    }
    Ok(roots)
}

impl Fingerprint {
    /// The fingerprint of a certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(Sha256::digest(certificate).into())
    }

    /// Reads `sha256:HEX`; colons between the bytes, as some tools print them, are allowed.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let refuse = || Error::Config("a fingerprint is sha256: and 64 hex digits".to_owned());
        let hex = text.strip_prefix("sha256:").ok_or_else(refuse)?.replace(':', "");
        if hex.len() != 64 || !hex.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(refuse());
        }
        let mut bytes = [0; 32];
        for (byte, digits) in bytes.iter_mut().zip(hex.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| refuse())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| refuse())?;
        }
        Ok(Self(bytes))
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Accepts one certificate and no other. The handshake's signature is checked as ever: without
/// the private key, the certificate alone is of no use to an impostor.
#[derive(Debug)]
struct Pinned {
    expected: Fingerprint,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if Fingerprint::of(end_entity) == self.expected {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_reads_back() {
        let fingerprint = Fingerprint::of(&CertificateDer::from_slice(b"certificate"));
        assert_eq!(Fingerprint::parse(&fingerprint.to_string()), Ok(fingerprint));
    }

    #[test]
    fn a_fingerprint_without_its_algorithm_or_of_another_length_is_refused() {
        let hex = "ab".repeat(32);
        assert!(Fingerprint::parse(&format!("sha256:{hex}")).is_ok());
        assert!(Fingerprint::parse(&hex).is_err());
        assert!(Fingerprint::parse(&format!("sha1:{hex}")).is_err());
        assert!(Fingerprint::parse(&format!("sha256:{hex}00")).is_err());
        assert!(Fingerprint::parse(&format!("sha256:{}", "é".repeat(32))).is_err());
    }

    #[test]
    fn a_ca_file_without_a_certificate_is_refused() {
        assert!(Trust::ca_pem(b"").is_err());
        assert!(Trust::ca_pem(b"-----BEGIN NONSENSE-----").is_err());
    }
}
