//! `chappe history`: prints a page of a channel's messages.

use chappe_protocol::{Seq, command::History, id::POSITION_MAX};

use super::{Failure, output::Output, session::Session};
use crate::args;

/// Prints the page, oldest first.
pub(super) async fn run(args: args::History) -> Result<(), Failure> {
    let session = Session::open(&args.reach).await?;
    let mut output = Output::new(args.reach.json);
    let channel = session.channel(&args.channel).await?.channel.id;
    if !output.is_json() {
        output.learn(&session.members(channel).await?);
    }
    let command = History {
        channel,
        before: seq(args.before)?,
        after: seq(args.after)?,
        around: seq(args.around)?,
        limit: Some(args.limit),
    };
    let page = session.client.history(command).await?;
    for message in &page.messages {
        output.message(message)?;
    }
    if page.more_before
        && !output.is_json()
        && let Some(first) = page.messages.first()
    {
        eprintln!("chappe: there is more before; --before {}", first.seq);
    }
    session.client.close().await;
    Ok(())
}

fn seq(value: Option<u64>) -> Result<Option<Seq>, Failure> {
    match value {
        Some(value) if value >= POSITION_MAX => {
            Err(Failure::Usage(anyhow::anyhow!("a message number is below 2^40")))
        }
        value => Ok(value.map(Seq::new)),
    }
}
