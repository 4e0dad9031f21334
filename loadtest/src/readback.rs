//! Reads a channel's whole history back, page by page.

use std::time::Duration;

use anyhow::Result;
use chappe_client::{Client, Error};
use chappe_protocol::{ChannelId, Message, Rev, Seq, command::History, limits::PAGE_ITEMS_MAX};

use crate::args::{Reach, Tokens};

/// Why a history could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadbackError {
    /// The server did not give it.
    #[error("cannot read the history: {0}")]
    Refused(#[from] Error),
    /// It is not what a history promises to be.
    #[error("{0}")]
    Broken(String),
}

/// Signs in to read; each page is asked for until the deadline.
pub(crate) async fn sign_in(
    reach: &Reach,
    tokens: &Tokens,
    user: &str,
    deadline: Duration,
) -> Result<Client> {
    let options = reach.options(&reach.urls[0], tokens.of(user)?)?.command_deadline(deadline);
    let (client, _events) = Client::connect(options).await?;
    Ok(client)
}

/// All messages of a channel, checked for what a history promises: numbers from 1 on without a
/// gap, each created at a higher revision than the one before.
pub(crate) async fn messages(
    client: &Client,
    channel: ChannelId,
) -> Result<Vec<Message>, ReadbackError> {
    let broken = |words: String| ReadbackError::Broken(format!("channel {channel}: {words}"));
    let mut messages: Vec<Message> = Vec::new();
    loop {
        let after = messages.last().map_or(Seq::ZERO, |last| last.seq);
        let (before, around) = (None, None);
        let limit = Some(PAGE_ITEMS_MAX);
        let history = History { channel, before, after: Some(after), around, limit };
        let page = client.history(history).await?;
        for message in page.messages {
            let (last_seq, last_rev) =
                messages.last().map_or((Seq::ZERO, Rev::ZERO), |last| (last.seq, last.rev));
            let (seq, rev) = (message.seq, message.rev);
            if seq != last_seq.next() {
                return Err(broken(format!("message {seq} follows {last_seq}")));
            }
            if rev <= last_rev {
                return Err(broken(format!("message {seq} at rev {rev}, after one at {last_rev}")));
            }
            messages.push(message);
        }
        if !page.more_after {
            return Ok(messages);
        }
        if messages.last().is_none_or(|last| last.seq <= after) {
            return Err(broken(format!("an empty page after {after} promises more")));
        }
    }
}
