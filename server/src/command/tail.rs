//! `chappe tail`: prints a channel's events as they happen.

use std::io::ErrorKind;

use chappe_client::Update;
use chappe_protocol::{Rev, command::ChannelFrom, id::POSITION_MAX};

use super::{Failure, output::Output, session::Session};
use crate::args;

/// Runs until it is interrupted, has printed enough, or may not go on.
pub(super) async fn run(args: args::Tail) -> Result<(), Failure> {
    let mut session = Session::open(&args.reach).await?;
    let mut output = Output::new(args.reach.json);
    let found = session.channel(&args.channel).await?;
    let id = found.channel.id;
    if !output.is_json() {
        output.learn(&session.members(id).await?);
    }
    let from = match args.from {
        Some(rev) if rev >= POSITION_MAX => {
            return Err(Failure::Usage(anyhow::anyhow!("--from is a revision, below 2^40")));
        }
        from => from.map(Rev::new),
    };
    // Catching up may bring more events than wait unread, so they are read meanwhile.
    let client = session.client.clone();
    let subscribing =
        tokio::spawn(async move { client.subscribe_to(ChannelFrom { id, from }).await });
    let mut left = args.count.unwrap_or(u64::MAX);
    let mut subscribing = Some(subscribing);
    while left > 0 {
        let update = tokio::select! {
            update = session.events.next() => update,
            subscribed = async {
                match &mut subscribing {
                    Some(subscribing) => subscribing.await,
                    None => std::future::pending().await,
                }
            } => {
                subscribing = None;
                subscribed.map_err(anyhow::Error::from)??;
                continue;
            }
        };
        let Some(update) = update else { break };
        match update {
            Update::Event(event) if event.channel == id => {
                left -= 1;
                match output.event(&event) {
                    Err(error) if error.kind() == ErrorKind::BrokenPipe => break,
                    printed => printed?,
                }
            }
            update => tell(update)?,
        }
    }
    session.client.close().await;
    Ok(())
}

/// What is not an event goes to standard error, so that programs read events alone.
fn tell(update: Update) -> Result<(), Failure> {
    match update {
        Update::Disconnected(error) => eprintln!("chappe: {error}; connecting again"),
        Update::Reset(reset) => {
            eprintln!("chappe: earlier events are not kept; going on after revision {}", reset.base)
        }
        Update::Ended { error, .. } => {
            return Err(Failure::Refused(chappe_client::Error::Refused(error)));
        }
        Update::Closed(error) => return Err(error.into()),
        _ => {}
    }
    Ok(())
}
