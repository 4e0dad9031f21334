//! One signed-in client for a tool, and what all tools do with it.

use std::{future::Future, time::Duration};

use chappe_client::{Client, Error, Events, Options, TokenSource, Trust};
use chappe_protocol::{
    ChannelId, ChannelName,
    command::{ChannelRef, GetChannel, ListMembers},
    limits,
    message::Member,
    reply::ChannelReply,
};
use tokio::runtime;

use super::Failure;
use crate::args::Reach;

/// How long a command may wait for a server that comes and goes.
const DEADLINE: Duration = Duration::from_secs(30);

/// A signed-in client.
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) events: Events,
}

/// Runs a tool's future on this thread.
pub(super) fn block_on(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

impl Session {
    /// Connects and signs in.
    pub(super) async fn open(reach: &Reach) -> Result<Self, Failure> {
        let token = reach.token.clone().ok_or_else(|| {
            Failure::Usage(anyhow::anyhow!(
                "no token: set CHAPPE_TOKEN, for instance to $(chappe token --user alice)"
            ))
        })?;
        let mut options = Options::new(&reach.url, TokenSource::fixed(token))?
            .client("chappe", env!("CARGO_PKG_VERSION"))
            .command_deadline(DEADLINE);
        if let Some(ca) = &reach.ca {
            options = options.trust(Trust::ca_file(ca)?);
        }
        if let Some(fingerprint) = &reach.fingerprint {
            options = options.trust(Trust::fingerprint(fingerprint)?);
        }
        let (client, events) = Client::connect(options).await.map_err(|error| match error {
            error if error.is_unreachable() => {
                Failure::Unreachable(format!("{}: {error}", reach.url))
            }
            error => error.into(),
        })?;
        Ok(Self { client, events })
    }

    /// The channel with this id or name.
    pub(super) async fn channel(&self, text: &str) -> Result<ChannelReply, Failure> {
        let channel = match text.parse::<ChannelId>() {
            Ok(id) => ChannelRef::Id(id),
            Err(_) => ChannelRef::Name(
                ChannelName::parse(text).map_err(|error| Failure::Usage(error.into()))?,
            ),
        };
        let found = self.client.ask(GetChannel { channel }).await;
        found.map_err(|error| match error {
            Error::Refused(mut refused) => {
                refused.message = format!("channel {text}: {}", refused.message);
                Failure::Refused(Error::Refused(refused))
            }
            error => error.into(),
        })
    }

    /// All members of a channel.
    pub(super) async fn members(&self, channel: ChannelId) -> Result<Vec<Member>, Failure> {
        let (mut members, mut after) = (Vec::new(), None);
        loop {
            let limit = Some(limits::PAGE_ITEMS_MAX);
            let page = self.client.list_members(ListMembers { channel, after, limit }).await?;
            members.extend(page.members);
            after = page.next;
            if after.is_none() {
                return Ok(members);
            }
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Config(text) => Self::Usage(anyhow::anyhow!(text)),
            error if error.is_unreachable() => Self::Unreachable(error.to_string()),
            error => Self::Refused(error),
        }
    }
}
