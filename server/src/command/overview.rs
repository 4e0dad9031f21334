//! `chappe cluster`: who leads what, how far the projection is, who is connected.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::Failure;
use crate::{
    args,
    cluster::{View, report::Report},
    config::Config,
};

/// Prints what it looks like now, or again and again.
pub(super) async fn run(args: args::Cluster) -> Result<(), Failure> {
    let source = Source::of(&args)?;
    loop {
        let report = source.report().await?;
        let mut text = if args.json {
            serde_json::to_string(&report).map_err(anyhow::Error::from)?
        } else {
            report.to_string()
        };
        if args.watch && !args.json && io::stdout().is_terminal() {
            text.insert_str(0, CLEAR);
        }
        // A closed pipe must end the program, so no `println!`.
        writeln!(io::stdout().lock(), "{text}")?;
        if !args.watch {
            return verdict(&report);
        }
        tokio::time::sleep(WATCH_EVERY).await;
    }
}

fn verdict(report: &Report) -> Result<(), Failure> {
    if !report.is_reached() {
        return Err(Failure::Unreachable("no broker answers".to_owned()));
    }
    if !report.sound {
        return Err(anyhow!("not every partition is led by one broker").into());
    }
    Ok(())
}

/// Whom it asks.
enum Source {
    /// The brokers themselves.
    Brokers(View),
    /// A process that asks them, or is the only one.
    Admin(String),
}

impl Source {
    fn of(args: &args::Cluster) -> Result<Self, Failure> {
        if let Some(admin) = &args.admin {
            return Ok(Self::Admin(admin.clone()));
        }
        let config = Config::load_for_tools(args.config.as_deref())
            .map_err(|error| Failure::Usage(error.into()))?;
        if config.uplink.brokers.is_empty() {
            return Err(Failure::Usage(anyhow!(
                "uplink.brokers names no broker; for a process that is alone: --admin {}",
                config.listen.admin
            )));
        }
        Ok(Self::Brokers(View::Of(config.uplink.brokers.clone(), config.uplink.tls.files())))
    }

    async fn report(&self) -> Result<Report, Failure> {
        match self {
            Self::Brokers(view) => {
                view.report().await.map_err(|error| Failure::Usage(error.into()))
            }
            Self::Admin(address) => {
                let asked = timeout(ADMIN_TIMEOUT, fetch(address)).await;
                let late = || Failure::Unreachable(format!("{address}: no answer in time"));
                let page = asked
                    .map_err(|_| late())?
                    .map_err(|error| Failure::Unreachable(format!("{address}: {error:#}")))?;
                Ok(serde_json::from_slice(&page).context("the answer is no report")?)
            }
        }
    }
}

/// Gets `/cluster` of an admin listener.
async fn fetch(address: &str) -> anyhow::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /cluster HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
        bail!("this is no admin listener");
    };
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        bail!("it answered {status:?}");
    }
    Ok(answer.split_off(end + 4))
}

const WATCH_EVERY: Duration = Duration::from_secs(1);
/// A listener that asks all brokers gives each of them some seconds.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(20);
const ANSWER_BYTES_MAX: u64 = 16 << 20;
/// Puts the cursor to the top left and clears what is below.
const CLEAR: &str = "\x1b[H\x1b[2J";
