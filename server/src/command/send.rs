//! `chappe send`: publishes a text, or each line of standard input.

use std::collections::VecDeque;

use chappe_protocol::{ChannelId, Text, reply::Change};
use tokio::{
    io::{AsyncBufReadExt, BufReader, stdin},
    task::JoinHandle,
};

use super::{Failure, output::Output, session::Session};
use crate::args;

/// Returns when everything is durable.
pub(super) async fn run(args: args::Send) -> Result<(), Failure> {
    let session = Session::open(&args.reach).await?;
    let output = Output::new(args.reach.json);
    let channel = session.channel(&args.channel).await?.channel.id;
    match args.text {
        Some(text) => {
            let change = session.client.send_text(channel, parse(text)?).await?;
            print(&output, &change)?;
        }
        None => lines(&session, channel, usize::from(args.in_flight), &output).await?,
    }
    session.client.close().await;
    Ok(())
}

type Sent = JoinHandle<Result<Change, chappe_client::Error>>;

/// One message a line; commands of one session take effect in the order in which they are sent.
async fn lines(
    session: &Session,
    channel: ChannelId,
    in_flight: usize,
    output: &Output,
) -> Result<(), Failure> {
    let mut input = BufReader::new(stdin()).lines();
    let mut waiting: VecDeque<Sent> = VecDeque::new();
    let mut sent = 0_u64;
    while let Some(line) = input.next_line().await? {
        if line.trim().is_empty() {
            continue; // a message is not empty
        }
        if waiting.len() >= in_flight {
            sent += acked(&mut waiting, output).await?;
        }
        let (client, text) = (session.client.clone(), parse(line)?);
        waiting.push_back(tokio::spawn(async move { client.send_text(channel, text).await }));
        // The task hands its command over before the next line is read: order is kept.
        tokio::task::yield_now().await;
    }
    while !waiting.is_empty() {
        sent += acked(&mut waiting, output).await?;
    }
    if !output.is_json() {
        println!("{sent} messages are durable");
    }
    Ok(())
}

async fn acked(waiting: &mut VecDeque<Sent>, output: &Output) -> Result<u64, Failure> {
    let Some(sent) = waiting.pop_front() else { return Ok(0) };
    let change = sent.await.map_err(anyhow::Error::from)??;
    if output.is_json() {
        print(output, &change)?;
    }
    Ok(1)
}

fn print(output: &Output, change: &Change) -> Result<(), Failure> {
    let seq = change.seq.unwrap_or_default();
    Ok(output.item(change, || format!("#{seq} rev {}", change.rev))?)
}

fn parse(text: String) -> Result<Text, Failure> {
    Text::parse(text).map_err(|error| Failure::Usage(error.into()))
}
