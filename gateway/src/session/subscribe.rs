//! Subscriptions: named channels, or all of the user's, now and later.

use chappe_protocol::{
    ChannelId, ErrorCode, Event, EventBody, Incarnation, WireError,
    command::ChannelFrom,
    reply::{ChannelsReply, Reply, SubscribeReply, Subscribed},
};
use chappe_uplink::Refusal;

use super::{
    Session,
    command::coded,
    operation::{Membership, Subscribe, Work},
    wire,
};
use crate::{
    desk::Desk,
    hub::{Joined, Purpose},
};

impl Session {
    /// Subscribes to channels by name, each from where the client says.
    pub(super) fn subscribe_these(
        &mut self,
        desk: &mut Desk,
        frame: u32,
        incarnation: Option<Incarnation>,
        channels: &[ChannelFrom],
    ) {
        let Some(caller) = self.caller.clone() else { return };
        let incarnation = incarnation.or(desk.hub.incarnation());
        let places = channels.iter().map(|channel| (channel.id, None)).collect();
        let work = Work::Subscribe(Box::new(Subscribe { places, listing: None }));
        let serial = self.begin(desk, Some(frame), work);
        for channel in channels {
            let from = incarnation.zip(channel.from);
            desk.hub.subscribe(self.peer, &caller, channel.id, from, Purpose::Asked(serial));
        }
        self.subscribed_if_complete(desk, serial);
    }

    /// Subscribes to all channels of the user, and to his inbox, which tells of later ones.
    pub(super) fn subscribe_mine(&mut self, desk: &mut Desk, frame: u32) {
        // From now on, so that none is missed while they are listed.
        self.mine = true;
        let subscribe = Subscribe { places: Vec::new(), listing: Some(None) };
        let serial = self.begin(desk, Some(frame), Work::Subscribe(Box::new(subscribe)));
        self.send(desk, serial);
    }

    /// A page of the user's channels.
    pub(super) fn mine_listed(&mut self, desk: &mut Desk, serial: u64, page: ChannelsReply) {
        let Some(caller) = self.caller.clone() else { return };
        let Some(place) = self.find(serial) else { return };
        let Work::Subscribe(subscribe) = &mut self.operations[place].work else { return };
        let mut found: Vec<_> = page.channels.iter().map(|mine| mine.channel).collect();
        if page.next.is_none() {
            found.push(ChannelId::inbox(caller.user)); // its top bit makes it the last id
        }
        subscribe.places.extend(found.iter().map(|channel| (*channel, None)));
        subscribe.listing = page.next.map(Some);
        for channel in found {
            desk.hub.subscribe(self.peer, &caller, channel, None, Purpose::Asked(serial));
        }
        self.send(desk, serial);
        self.subscribed_if_complete(desk, serial);
    }

    /// Ends subscriptions.
    pub(super) fn unsubscribe(&mut self, desk: &mut Desk, channels: &[ChannelId]) {
        for channel in channels {
            desk.hub.unsubscribe(self.peer, *channel);
        }
    }

    /// The leader's answer about one channel.
    pub(crate) fn handle_joined(
        &mut self,
        desk: &mut Desk,
        serial: u64,
        channel: ChannelId,
        outcome: Result<Joined, Refusal>,
    ) {
        let Some(place) = self.find(serial) else { return };
        let subscribed = match outcome {
            Ok(joined) => Subscribed {
                channel,
                rev: Some(joined.rev),
                head: Some(joined.head),
                catching_up: joined.catching_up,
                error: None,
            },
            Err(refusal) => failed(channel, wire(refusal)),
        };
        match &mut self.operations[place].work {
            Work::Subscribe(subscribe) => {
                subscribe.take(subscribed);
                self.subscribed_if_complete(desk, serial);
            }
            Work::SignIn(sign_in) => {
                sign_in.subscribe.take(subscribed);
                self.open_if_complete(desk, serial);
            }
            _ => {}
        }
    }

    /// Not all leaders answered in time: the client hears which channels it has.
    pub(super) fn subscribe_overdue(&mut self, desk: &mut Desk, serial: u64) {
        desk.hub.give_up(serial);
        let Some(place) = self.find(serial) else { return };
        let Work::Subscribe(subscribe) = &mut self.operations[place].work else { return };
        if subscribe.listing.is_some() {
            return self.finish(desk, serial, Err(coded(ErrorCode::Unavailable)));
        }
        for (channel, place) in &mut subscribe.places {
            place.get_or_insert_with(|| failed(*channel, coded(ErrorCode::Unavailable)));
        }
        self.subscribed_if_complete(desk, serial);
    }

    /// Something happened in the inbox of the session's user.
    pub(crate) fn handle_inbox(&mut self, desk: &mut Desk, event: &Event) {
        match &event.body {
            EventBody::ChannelAdded(body) => {
                self.inbox_showed(desk, body.channel, body.rev, Membership::Member);
                if let Some(caller) = self.caller.clone().filter(|_| self.mine) {
                    let from = Some((body.incarnation, body.rev));
                    let purpose = Purpose::Followed;
                    desk.hub.subscribe(self.peer, &caller, body.channel, from, purpose);
                }
            }
            // Its reading ends by the channel's own event, at the very revision.
            EventBody::ChannelRemoved(body) => {
                self.inbox_showed(desk, body.channel, body.rev, Membership::NoMember);
            }
            EventBody::SessionsClosed(body)
                if body.session.is_none_or(|session| session == self.id) =>
            {
                self.refuse_with(desk, None, ErrorCode::SessionRevoked);
            }
            _ => {}
        }
    }

    /// Replies once all leaders answered, and lets events flow then.
    fn subscribed_if_complete(&mut self, desk: &mut Desk, serial: u64) {
        let Some(place) = self.find(serial) else { return };
        let Work::Subscribe(subscribe) = &mut self.operations[place].work else { return };
        if !subscribe.is_complete() {
            return;
        }
        let places = std::mem::take(&mut subscribe.places);
        let channels: Vec<_> = places.into_iter().filter_map(|(_, place)| place).collect();
        let granted: Vec<_> = channels
            .iter()
            .filter(|place| place.error.is_none())
            .map(|place| place.channel)
            .collect();
        self.finish(desk, serial, Ok(Reply::Subscribe(SubscribeReply { channels })));
        for channel in granted {
            desk.hub.release(self.peer, channel);
        }
    }
}

fn failed(channel: ChannelId, error: WireError) -> Subscribed {
    Subscribed { channel, rev: None, head: None, catching_up: false, error: Some(error) }
}
