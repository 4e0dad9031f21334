//! `chappe presence`: asks which users are connected.

use chappe_protocol::{UserId, reply::PresenceState};

use super::{Failure, output::Output, session::Session};
use crate::args;

/// Prints a line for each user.
pub(super) async fn run(args: args::Presence) -> Result<(), Failure> {
    let users: Result<Vec<UserId>, _> = args.users.iter().map(|text| text.parse()).collect();
    let users = users.map_err(|error| Failure::Usage(anyhow::Error::new(error)))?;
    let session = Session::open(&args.reach).await?;
    let output = Output::new(args.reach.json);
    for found in session.client.presence(users).await?.users {
        output.item(&found, || {
            let state = match found.presence {
                PresenceState::Online => "online",
                PresenceState::Offline => "offline",
                PresenceState::Unknown => "unknown",
            };
            format!("{}  {state}", found.user)
        })?;
    }
    session.client.close().await;
    Ok(())
}
