//! Hearing a channel: who may, and where he starts; and what is told to those who hear it without
//! being recorded.

use chappe_protocol::{ChannelId, ErrorCode, Incarnation, Rev};
use chappe_uplink::{
    Answer, Attach, Attached, Caller, Refusal, Request, SignalTo, Standing, Start,
};

use crate::{
    answers::Out,
    channel::ChannelState,
    config::Now,
    decide::{Access, may_signal},
    partition::Partition,
    slot::Waiting,
};

impl Partition {
    /// Takes up an attach. The place to start from is decided with the state that the answer
    /// rests on; the events after its head follow it on the pipe.
    pub(crate) fn take_attach(&mut self, now: Now, waiting: Waiting) {
        let Request::Attach(attach) = &waiting.request else { return };
        let channel = attach.channel;
        let Some(waiting) = self.when_known(now, channel, waiting) else { return };
        let (Request::Attach(attach), Some(to)) = (&waiting.request, waiting.to()) else { return };
        let incarnation = self.count.incarnation;
        let Some(slot) = self.slots.get_mut(&channel) else { return };
        let Some(state) = slot.known() else { return };
        match attached(state, attach, incarnation) {
            Ok(attached) => {
                slot.attaching += 1;
                self.push(Out::Attached(to, channel, attached));
            }
            Err(refusal) => self.answer(now, to, Err(refusal)),
        }
    }

    /// Takes up a signal.
    pub(crate) fn take_signal(&mut self, now: Now, waiting: Waiting) {
        let Request::Signal(signal) = &waiting.request else { return };
        let channel = signal.channel;
        let Some(waiting) = self.when_known(now, channel, waiting) else { return };
        let (Request::Signal(signal), Some(to)) = (&waiting.request, waiting.to()) else { return };
        let Some(state) = self.slots.get(&channel).and_then(|slot| slot.known()) else { return };
        if let Err(refusal) = may_signal(state, &signal.caller) {
            return self.answer(now, to, Err(refusal));
        }
        let by = signal.caller.user;
        self.push(Out::Signal(SignalTo { channel, by, data: signal.data.clone() }));
        self.answer(now, to, Ok(Answer::Done));
    }
}

fn attached(
    state: &ChannelState,
    attach: &Attach,
    incarnation: Incarnation,
) -> Result<Attached, Refusal> {
    let head = state.head.rev;
    // A gateway attaches again for readers whom the leader let in before.
    let since = match &attach.caller {
        Some(caller) => readable_since(state, attach.channel, caller)?,
        None => Rev::ZERO,
    };
    let start = match attach.from {
        None => Start::After(head),
        Some((of, _)) if of != incarnation => Start::Reset(head),
        // What he holds is not of this log.
        Some((_, from)) if from > head => Start::Reset(head),
        Some((_, from)) if from < since => Start::Reset(since),
        Some((_, from)) => Start::After(from),
    };
    Ok(Attached { head, start })
}

/// The revision that a reader starts at the earliest, if he may read the channel at all.
pub(crate) fn readable_since(
    state: &ChannelState,
    channel: ChannelId,
    caller: &Caller,
) -> Result<Rev, Refusal> {
    match channel.inbox_owner() {
        Some(owner) if owner == caller.user && caller.standing != Standing::Service => {
            Ok(Rev::ZERO)
        }
        Some(_) => Err(Refusal::new(ErrorCode::NotFound)),
        None => Access::of(state, caller).map(|access| access.since),
    }
}
