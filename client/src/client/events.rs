//! The application's end of a client: updates in order, and the cursor that goes with them.

use std::collections::HashMap;

use chappe_protocol::{ChannelId, Cursor, EventBody, Incarnation, Rev, UserId};
use tokio::sync::mpsc;

use crate::session::Update;

/// The updates of a client.
///
/// When the application does not take them, the client stops reading, and the server sees a slow
/// consumer; nothing is lost. While a command waits for its answer the client reads on, puts the
/// channels aside whose events find no room, and asks for them again later.
#[derive(Debug)]
pub struct Events {
    updates: mpsc::Receiver<Update>,
    me: Option<UserId>,
    incarnation: Option<Incarnation>,
    held: HashMap<ChannelId, (Incarnation, Rev)>,
}

impl Events {
    pub(super) fn new(updates: mpsc::Receiver<Update>) -> Self {
        Self { updates, me: None, incarnation: None, held: HashMap::new() }
    }

    /// The next update, or none when the client has ended. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Update> {
        let update = self.updates.recv().await?;
        self.follow(&update);
        Some(update)
    }

    /// Where the application is: what [`Events::next`] has given out, and no more. A client that
    /// resumes from here gets everything after it.
    ///
    /// None before anything was subscribed to. After an operator has adopted another log, the
    /// channels that were not yet reset are left out, as their revisions mean nothing any more.
    pub fn cursor(&self) -> Option<Cursor> {
        let incarnation = self.incarnation?;
        let of_now = self.held.iter().filter(|(_, (held_in, _))| *held_in == incarnation);
        let mut channels: Vec<_> = of_now.map(|(channel, (_, rev))| (*channel, *rev)).collect();
        channels.sort_unstable();
        (!channels.is_empty()).then_some(Cursor { incarnation, channels })
    }

    fn follow(&mut self, update: &Update) {
        match update {
            Update::Connected(connected) => {
                self.me = Some(connected.user);
                self.incarnation = Some(connected.incarnation);
            }
            Update::Subscribed(subscribed) => {
                if let Some(rev) = subscribed.rev {
                    let incarnation = self.incarnation;
                    let known = incarnation.map(|incarnation| (incarnation, rev));
                    if let Some(held) = known {
                        self.held.entry(subscribed.channel).or_insert(held);
                    }
                }
            }
            Update::Event(event) => match &event.body {
                EventBody::MemberRemoved(removed) if Some(removed.user) == self.me => {
                    self.held.remove(&event.channel);
                }
                EventBody::ChannelDeleted(_) => drop(self.held.remove(&event.channel)),
                _ => self.hold(event.channel, event.rev),
            },
            Update::Unknown(event) => self.hold(event.channel, event.rev),
            Update::Reset(reset) => {
                self.held.insert(reset.channel, (reset.incarnation, reset.base));
            }
            Update::Ended { channel, .. } => drop(self.held.remove(channel)),
            Update::Disconnected(_)
            | Update::Closed(_)
            | Update::Live(_)
            | Update::Signal(_)
            | Update::Anomaly(_) => {}
        }
    }

    fn hold(&mut self, channel: ChannelId, rev: Rev) {
        if let Some(incarnation) = self.incarnation {
            self.held.insert(channel, (incarnation, rev));
        }
    }
}
