//! What a server does and says when it is up.

use std::{io::Write, net::Ipv4Addr, time::Duration};

use anyhow::Context;
use chappe_gateway::{
    Gateway,
    frontend::{Call, Kernel},
};
use chappe_protocol::{
    ChannelName, ErrorCode, Nonce, WireError, command::CreateChannel, message::ChannelKind,
};

use crate::{
    command::token,
    config::{Config, cluster::Role},
    data_dir::Run,
};

/// How long the printed token is good for: an evening of trying things out.
const TOKEN_SECONDS: u64 = 12 * 60 * 60;
const ATTEMPTS: u32 = 50;
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Makes the public channels that shall exist.
pub(super) async fn make_channels(
    gateway: &Gateway,
    own_key: &str,
    names: &[String],
) -> anyhow::Result<()> {
    for name in names {
        let parsed =
            ChannelName::parse(name.as_str()).with_context(|| format!("--channel {name}"))?;
        let call = Call {
            token: own_key.to_owned(),
            peer: Ipv4Addr::LOCALHOST.into(),
            nonce: Some(Nonce::parse(format!("start-{:016x}", rand_u64()?))?),
            age_ms: 0,
            command: CreateChannel {
                kind: ChannelKind::Public,
                name: Some(parsed),
                topic: None,
                members: Vec::new(),
            }
            .into(),
        };
        make_channel(gateway, call).await.with_context(|| format!("cannot make channel {name}"))?;
    }
    Ok(())
}

async fn make_channel(gateway: &Gateway, call: Call) -> anyhow::Result<()> {
    let mut last: Option<WireError> = None;
    for _ in 0..ATTEMPTS {
        match gateway.call(call.clone()).await {
            Ok(_) => return Ok(()),
            Err(error) if error.code == ErrorCode::NameTaken.number() => return Ok(()),
            Err(error) if error.code < 2_000 => last = Some(error),
            Err(error) => anyhow::bail!("{} {}: {}", error.code, error.name, error.message),
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
    let last = last.map(|error| format!("{} {}", error.code, error.name)).unwrap_or_default();
    anyhow::bail!("no answer but {last}")
}

/// Prints what is there and what to type next.
pub(super) fn print(config: &Config, run: &Run, secret: Option<&[u8]>) -> anyhow::Result<()> {
    let (ws, http) = if run.tls { ("wss", "https") } else { ("ws", "http") };
    let mut out = std::io::stdout().lock();
    writeln!(out, "Chappe {} is up.", env!("CARGO_PKG_VERSION"))?;
    writeln!(out)?;
    if let Some(tcp) = run.tcp {
        if config.runs(Role::GatewayWs) {
            writeln!(out, "  WebSocket  {ws}://{tcp}/v1/ws")?;
        }
        if config.runs(Role::GatewayHttp) {
            writeln!(out, "  HTTP       {http}://{tcp}/   a page to try it in")?;
        }
    }
    if let (Some(quic), Some(fingerprint)) = (run.quic, &run.fingerprint) {
        writeln!(out, "  QUIC       quic://{quic}   certificate {fingerprint}")?;
    }
    if let Some(uplink) = run.uplink {
        writeln!(out, "  uplink     {uplink}   for gateways")?;
    }
    writeln!(out, "  metrics    http://{}/metrics", run.admin)?;
    writeln!(out, "  data       {}", config.data.display())?;
    // What to type next is for who has everything in one process.
    let (Some(secret), Some(tcp)) = (secret.filter(|_| config.roles.is_empty()), run.tcp) else {
        return Ok(out.flush()?);
    };
    let token = token::sign(secret, "alice", TOKEN_SECONDS, false)?;
    writeln!(out, "\nA token for alice, good for 12 hours:\n\n{token}\n")?;
    writeln!(out, "Next, in another terminal:\n")?;
    let data = config.data.display();
    writeln!(out, "  alias chappe={}", program())?;
    writeln!(out, "  export CHAPPE_TOKEN=$(chappe token --data {data} --user alice)")?;
    if tcp.port() != 7400 {
        writeln!(out, "  export CHAPPE_URL={ws}://{tcp}")?;
    }
    writeln!(out, "  chappe channel join general")?;
    writeln!(out, "  chappe send general 'Hello, world'")?;
    writeln!(out, "  chappe tail general --from 0")?;
    Ok(out.flush()?)
}

/// How to call this program again.
fn program() -> String {
    let path = std::env::current_exe().map(|path| path.display().to_string());
    path.unwrap_or_else(|_| "chappe".to_owned())
}

fn rand_u64() -> anyhow::Result<u64> {
    Ok(getrandom::u64()?)
}
