//! Answers to reads: a name that was looked up is read on, a page that is too large is cut.

use chappe_protocol::{
    ChannelId, Message,
    command::History,
    reply::{HistoryReply, Reply},
};
use chappe_uplink::{Answer, Generation, ReadQuery};

use super::{
    Session,
    operation::{Read, Work},
};
use crate::{desk::Desk, weight};

impl Session {
    /// Takes the leader's answer to a read.
    pub(super) fn read_answered(
        &mut self,
        desk: &mut Desk,
        place: usize,
        generation: Generation,
        answer: Answer,
    ) {
        let operation = &mut self.operations[place];
        let serial = operation.serial;
        let Work::Read(read) = &mut operation.work else { return };
        if read.channel.is_some_and(|channel| desk.hub.refuses(channel, generation)) {
            return self.ask_later(desk, place);
        }
        let channel = read.channel.unwrap_or(ChannelId::new(0));
        let reply = match (answer, &read.query) {
            (Answer::Resolved(resolved), _) => {
                **read = Read { channel: Some(resolved.channel), query: ReadQuery::Channel };
                return self.send(desk, serial);
            }
            (Answer::Channel(reply), _) => {
                self.saw(channel, reply.rev);
                Reply::Channel(Box::new(reply))
            }
            (Answer::Messages(page), ReadQuery::Messages(asked)) => {
                let page = fit(page, asked, desk.config.limits.outbox_bytes / 4);
                self.saw(channel, page.rev);
                Reply::History(page)
            }
            (Answer::Members(page), _) => Reply::Members(page),
            (Answer::MyChannels(page), _) => Reply::Channels(page),
            (_, _) => {
                tracing::error!("a leader answered something else than was read");
                let error = super::command::coded(chappe_protocol::ErrorCode::Unavailable);
                return self.finish(desk, serial, Err(error));
            }
        };
        self.finish(desk, serial, Ok(reply));
    }
}

/// Leaves out what makes a page too large, on the side away from where it was asked from. The
/// client learns that there is more.
fn fit(mut page: HistoryReply, asked: &History, bytes_max: usize) -> HistoryReply {
    let mut bytes: usize = page.messages.iter().map(weight::of_message).sum();
    let around = asked.around;
    while bytes > bytes_max && page.messages.len() > 1 {
        let drop_last = match (asked.after, around, page.messages.first(), page.messages.last()) {
            (Some(_), ..) => true,
            (None, Some(middle), Some(first), Some(last)) => {
                last.seq.get().abs_diff(middle.get()) >= first.seq.get().abs_diff(middle.get())
            }
            _ => false,
        };
        let dropped: Option<Message> = if drop_last {
            page.more_after = true;
            page.messages.pop()
        } else {
            page.more_before = true;
            Some(page.messages.remove(0))
        };
        bytes -= dropped.as_ref().map_or(0, weight::of_message);
    }
    page
}
