//! Who may sign in, as the configuration says.

use std::sync::Arc;

use anyhow::Context;
use chappe_gateway::auth::{
    ApiKey, AuthConfig, Authenticator, Issuer, JwksUrl, KeyAlgorithm, KeySource, Rules,
};
use sha2::{Digest, Sha256};

use crate::{config::Config, data_dir::DataDir};

/// The name under which the server's own commands are recorded.
const OWN_NAME: &str = "chappe";

/// The authenticator and what goes with it.
pub(super) struct Built {
    pub(super) authenticator: Arc<Authenticator>,
    /// An API key of this process alone, for what it does itself at start.
    pub(super) own_key: String,
    /// The secret of development tokens, where they are accepted.
    pub(super) development_secret: Option<Vec<u8>>,
}

pub(super) fn build(config: &Config, data: &DataDir) -> anyhow::Result<Built> {
    let auth = &config.auth;
    let development_secret = config.development().then(|| data.secret()).transpose()?;
    let mut random = [0; 32];
    getrandom::fill(&mut random)?;
    let own_key = hex(&random);
    let mut api_keys = vec![ApiKey::new(OWN_NAME, &hex(&Sha256::digest(&own_key)))?];
    for key in &auth.api_keys {
        let key = ApiKey::new(key.name.clone(), &key.sha256)
            .with_context(|| format!("auth.api_keys: {}", key.name))?;
        api_keys.push(key);
    }
    let authenticator = Authenticator::new(AuthConfig {
        development_secret: development_secret.clone(),
        issuer: issuer(config)?,
        admin_role: auth.admin_role.clone(),
        api_keys,
    })
    .context("auth")?;
    Ok(Built { authenticator: Arc::new(authenticator), own_key, development_secret })
}

fn issuer(config: &Config) -> anyhow::Result<Option<Issuer>> {
    let auth = &config.auth;
    let keys = match (&auth.jwks_url, &auth.jwks_file) {
        (Some(url), _) => KeySource::Url(JwksUrl::new(url).context("auth.jwks_url")?),
        (None, Some(file)) => KeySource::File(file.clone()),
        (None, None) => return Ok(None),
    };
    let algorithms = auth
        .algorithms
        .iter()
        .map(|name| {
            KeyAlgorithm::from_name(name)
                .with_context(|| format!("auth.algorithms: {name} is not RS256, ES256 or EdDSA"))
        })
        .collect::<Result<_, _>>()?;
    let rules = Rules {
        issuer: auth.issuer.clone().unwrap_or_default(),
        audiences: auth.audiences.clone(),
        authorized_parties: auth.authorized_parties.clone(),
        authorized_party_required: false,
    };
    Ok(Some(Issuer { rules, algorithms, keys }))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}
