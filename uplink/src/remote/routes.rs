//! Which broker a request goes to, and what becomes of those whose broker is gone or deposed.
//!
//! Each broker says what it leads; the highest generation wins, and no registry is asked. It is
//! fed and drained: no socket, no clock, no task.
//!
//! A session's commands for a channel keep their order through all of it. Whenever one is answered
//! `resend`, by a leader or from here, the session's later ones that still carry the same attempt
//! are answered so too, wherever they would go by then: the gateway sends all of them again, in
//! order, with a higher attempt.

use std::collections::{HashMap, VecDeque};

use chappe_protocol::{ChannelId, ErrorCode, Incarnation, PartitionId, SessionId};

use crate::{Action, Generation, Leading, Refusal, Request, Response};

/// A broker, numbered by whoever drives this.
pub(super) type Node = usize;

/// What is known of the brokers, and what they were asked.
#[derive(Debug, Default)]
pub(super) struct Routes {
    /// How many partitions the log has; 0 before any broker has said so.
    partitions: u32,
    leaders: HashMap<PartitionId, (Generation, Node)>,
    /// The newest leadership that was heard of, also when its broker is out of reach: an older one
    /// is not believed again.
    newest: HashMap<PartitionId, Generation>,
    pending: HashMap<u64, Pending>,
    /// Attempts that are over, and when they were found to be.
    stopped: HashMap<(SessionId, ChannelId), (u32, u64)>,
    swept_ms: u64,
    responses: VecDeque<Response>,
}

/// A request without an answer.
#[derive(Debug, Clone, Copy)]
struct Pending {
    node: Node,
    partition: PartitionId,
    ticket: Option<Ticket>,
}

/// A command's place in its session's order.
#[derive(Debug, Clone, Copy)]
struct Ticket {
    session: SessionId,
    channel: ChannelId,
    attempt: u32,
}

impl Routes {
    /// Where a request goes. None if it goes nowhere: it is answered from here then, if it has an
    /// answer.
    pub(super) fn route(&mut self, now_ms: u64, request: &Request) -> Option<Node> {
        let (token, channel, ticket) = about(request);
        let leader = (self.partitions > 0).then(|| channel.partition(self.partitions));
        let leader = leader.and_then(|id| self.leaders.get(&id).map(|(_, node)| (id, *node)));
        let stopped = ticket.is_some_and(|ticket| !self.admits(ticket));
        match (leader, token) {
            (Some((partition, node)), Some(token)) if !stopped => {
                self.pending.insert(token, Pending { node, partition, ticket });
                Some(node)
            }
            (Some((_, node)), None) => Some(node),
            (_, Some(token)) => {
                self.give_back(now_ms, token, ticket, Refusal::resend());
                None
            }
            (None, None) => None, // who is not attached needs no detaching
        }
    }

    /// Takes a response of a broker.
    pub(super) fn handle_response(&mut self, now_ms: u64, node: Node, response: Response) {
        match response {
            Response::Leading(leading) => self.handle_leading(now_ms, node, leading),
            Response::Answer { token, generation, result } => {
                // Answered from here already, when its leader was deposed or out of reach.
                let Some(pending) = self.pending.remove(&token) else { return };
                if let (Some(ticket), Err(refusal)) = (pending.ticket, &result)
                    && refusal.resend
                {
                    self.stop(now_ms, ticket);
                }
                self.responses.push_back(Response::Answer { token, generation, result });
            }
            other => self.responses.push_back(other),
        }
    }

    /// A broker is out of reach. What it was asked may or may not have happened.
    pub(super) fn handle_ended(&mut self, now_ms: u64, node: Node) {
        let before = self.leaders.len();
        self.leaders.retain(|_, (_, leader)| *leader != node);
        self.give_back_where(now_ms, |pending| pending.node == node);
        if self.leaders.len() != before {
            self.tell();
        }
    }

    /// The next thing for the gateway.
    pub(super) fn poll_response(&mut self) -> Option<Response> {
        self.responses.pop_front()
    }

    /// What a broker leads: all of it.
    fn handle_leading(&mut self, now_ms: u64, node: Node, leading: Leading) {
        self.partitions = leading.partitions;
        let before = self.leaders.clone();
        let leads: HashMap<_, _> = leading.leads.into_iter().collect();
        self.leaders.retain(|id, (_, leader)| *leader != node || leads.contains_key(id));
        for (partition, generation) in leads {
            let newest = self.newest.entry(partition).or_insert(generation);
            if *newest <= generation {
                *newest = generation;
                self.leaders.insert(partition, (generation, node));
            }
        }
        if self.leaders == before {
            return;
        }
        // The old leader may still be asleep with them; whatever it will say comes too late.
        let moved = |partition: &PartitionId| {
            let leader = |leaders: &HashMap<_, (Generation, Node)>| {
                leaders.get(partition).map(|(_, leader)| *leader)
            };
            leader(&before).filter(|old| leader(&self.leaders).is_some_and(|new| new != *old))
        };
        let moved: HashMap<PartitionId, Node> =
            before.keys().filter_map(|id| Some((*id, moved(id)?))).collect();
        self.give_back_where(now_ms, |pending| {
            moved.get(&pending.partition) == Some(&pending.node)
        });
        self.tell();
    }

    /// Tells the gateway who is in reach and leads.
    fn tell(&mut self) {
        let mut leads: Vec<_> =
            self.leaders.iter().map(|(id, (generation, _))| (*id, *generation)).collect();
        leads.sort_unstable();
        self.responses.push_back(Response::Leading(Leading { partitions: self.partitions, leads }));
    }

    fn give_back_where(&mut self, now_ms: u64, gone: impl Fn(&Pending) -> bool) {
        let gone = self.pending.iter().filter(|(_, pending)| gone(pending));
        let mut tokens: Vec<u64> = gone.map(|(token, _)| *token).collect();
        tokens.sort_unstable(); // in the order in which they were asked
        for token in tokens {
            let Some(pending) = self.pending.remove(&token) else { continue };
            let unknown = Refusal { code: ErrorCode::Unknown, ..Refusal::resend() };
            self.give_back(now_ms, token, pending.ticket, unknown);
        }
    }

    fn give_back(&mut self, now_ms: u64, token: u64, ticket: Option<Ticket>, refusal: Refusal) {
        if let Some(ticket) = ticket {
            self.stop(now_ms, ticket);
        }
        let generation = Generation { incarnation: Incarnation(0), epoch: 0 };
        self.responses.push_back(Response::Answer { token, generation, result: Err(refusal) });
    }

    /// Whether a command may go on: neither it nor one before it was given back since its session
    /// last began anew.
    fn admits(&mut self, ticket: Ticket) -> bool {
        let order = (ticket.session, ticket.channel);
        match self.stopped.get(&order) {
            Some((attempt, _)) if ticket.attempt <= *attempt => false,
            Some(_) => {
                self.stopped.remove(&order);
                true
            }
            None => true,
        }
    }

    fn stop(&mut self, now_ms: u64, ticket: Ticket) {
        let stopped = self.stopped.entry((ticket.session, ticket.channel)).or_default();
        *stopped = (stopped.0.max(ticket.attempt), now_ms);
        if now_ms >= self.swept_ms + STOPPED_MS {
            self.swept_ms = now_ms;
            self.stopped.retain(|_, (_, since_ms)| *since_ms + STOPPED_MS > now_ms);
        }
    }
}

/// The token of a request that is answered, its channel, and its order if it is a command.
fn about(request: &Request) -> (Option<u64>, ChannelId, Option<Ticket>) {
    match request {
        Request::Command(command) => {
            let (session, channel, attempt) = (command.session, command.channel, command.attempt);
            // Of relayed facts one is under way at a time, and it is sent again as it was.
            let is_ordered = !matches!(command.action, Action::Relay(_));
            let ticket = is_ordered.then_some(Ticket { session, channel, attempt });
            (Some(command.token), channel, ticket)
        }
        Request::Attach(attach) => (Some(attach.token), attach.channel, None),
        Request::Detach(detach) => (None, detach.channel, None),
        Request::Read(read) => (Some(read.token), read.channel, None),
        Request::Signal(signal) => (Some(signal.token), signal.channel, None),
    }
}

/// A session whose commands were given back sends them again within a second; what is older than
/// this belongs to a session that has ended.
const STOPPED_MS: u64 = 60_000;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chappe_protocol::{
        Event, EventBody, Nonce, Rev, UserId, event::NothingBody, reply::Change,
    };

    use super::*;
    use crate::{Answer, Attach, Caller, Command, Detach, Relay, RelayKind, Standing};

    const PARTITIONS: u32 = 2;

    fn channel_in(partition: u32) -> ChannelId {
        let ids = (1..).map(ChannelId::new);
        ids.into_iter().find(|id| id.partition(PARTITIONS) == PartitionId(partition)).unwrap()
    }

    fn at(epoch: u64) -> Generation {
        Generation { incarnation: Incarnation(1), epoch }
    }

    fn leading(leads: &[(u32, u64)]) -> Response {
        let leads = leads.iter().map(|(id, epoch)| (PartitionId(*id), at(*epoch))).collect();
        Response::Leading(Leading { partitions: PARTITIONS, leads })
    }

    fn command(token: u64, partition: u32, attempt: u32) -> Request {
        let caller = Caller { user: UserId::new(1), name: None, standing: Standing::User };
        Request::Command(Box::new(Command {
            token,
            caller,
            session: SessionId::new(9),
            attempt,
            position: token,
            channel: channel_in(partition),
            nonce: Nonce::parse(format!("n{token}")).unwrap(),
            client_nonce: true,
            age_ms: 0,
            action: Action::Join,
        }))
    }

    fn ok(token: u64, epoch: u64) -> Response {
        let (channel, rev) = (channel_in(0), Rev::new(token));
        let change = Change { channel, rev, seq: None, at: 0, inbox: None };
        let result = Ok(Box::new(Answer::Change(change)));
        Response::Answer { token, generation: at(epoch), result }
    }

    fn resend(token: u64, epoch: u64) -> Response {
        Response::Answer { token, generation: at(epoch), result: Err(Refusal::resend()) }
    }

    /// What the gateway hears, in words.
    fn heard(routes: &mut Routes) -> Vec<String> {
        std::iter::from_fn(|| routes.poll_response())
            .map(|response| match response {
                Response::Leading(leading) => {
                    let leads = leading.leads.iter();
                    let leads: Vec<_> = leads
                        .map(|(id, generation)| format!("{id}@{}", generation.epoch))
                        .collect();
                    format!("leading {}", leads.join(" "))
                }
                Response::Answer { token, result: Ok(_), .. } => format!("{token} ok"),
                Response::Answer { token, result: Err(refusal), .. } => {
                    assert!(refusal.resend);
                    format!("{token} {}", refusal.code.name())
                }
                _ => "event".to_owned(),
            })
            .collect()
    }

    fn led_by_two() -> Routes {
        let mut routes = Routes::default();
        routes.handle_response(0, 0, leading(&[(0, 5)]));
        routes.handle_response(0, 1, leading(&[(1, 6)]));
        assert_eq!(heard(&mut routes), ["leading 0@5", "leading 0@5 1@6"]);
        routes
    }

    #[test]
    fn each_request_goes_to_its_partitions_leader() {
        let mut routes = led_by_two();
        assert_eq!(routes.route(0, &command(1, 0, 0)), Some(0));
        assert_eq!(routes.route(0, &command(2, 1, 0)), Some(1));
        let detach = Request::Detach(Detach { channel: channel_in(1) });
        assert_eq!(routes.route(0, &detach), Some(1));
        routes.handle_response(0, 1, ok(2, 6));
        assert_eq!(heard(&mut routes), ["2 ok"]);
    }

    #[test]
    fn without_a_leader_a_request_is_given_back() {
        let mut routes = Routes::default();
        assert_eq!(routes.route(0, &command(1, 0, 0)), None);
        let channel = channel_in(0);
        assert_eq!(routes.route(0, &Request::Detach(Detach { channel })), None);
        let attach = Attach { token: 2, channel, caller: None, from: None };
        assert_eq!(routes.route(0, &Request::Attach(attach)), None);
        assert_eq!(heard(&mut routes), ["1 unavailable", "2 unavailable"]);
    }

    #[test]
    fn the_highest_generation_wins_and_an_older_one_is_never_believed_again() {
        let mut routes = led_by_two();
        routes.handle_response(0, 1, leading(&[(0, 7), (1, 6)]));
        assert_eq!(routes.route(0, &command(1, 0, 0)), Some(1));
        routes.handle_response(0, 0, leading(&[(0, 5)])); // it has not noticed yet
        assert_eq!(routes.route(0, &command(2, 0, 0)), Some(1));
        routes.handle_ended(0, 1);
        routes.handle_response(0, 0, leading(&[(0, 5)]));
        assert_eq!(routes.route(0, &command(3, 0, 0)), None);
        let said = heard(&mut routes);
        assert_eq!(
            said,
            ["leading 0@7 1@6", "1 unknown", "2 unknown", "leading ", "3 unavailable"]
        );
        routes.handle_response(0, 0, leading(&[(0, 9)]));
        assert_eq!(routes.route(0, &command(4, 0, 1)), Some(0));
    }

    #[test]
    fn a_broker_that_does_not_lead_a_partition_any_more_is_not_asked() {
        let mut routes = led_by_two();
        routes.handle_response(0, 0, leading(&[]));
        assert_eq!(heard(&mut routes), ["leading 1@6"]);
        assert_eq!(routes.route(0, &command(1, 0, 0)), None);
    }

    #[test]
    fn what_a_lost_broker_was_asked_is_given_back_and_its_late_answer_is_not_heard() {
        let mut routes = led_by_two();
        routes.route(0, &command(1, 0, 0));
        routes.route(0, &command(2, 1, 0));
        routes.handle_ended(0, 0);
        assert_eq!(heard(&mut routes), ["1 unknown", "leading 1@6"]);
        routes.handle_response(0, 0, ok(1, 5));
        routes.handle_response(0, 1, ok(2, 6));
        assert_eq!(heard(&mut routes), ["2 ok"]);
    }

    #[test]
    fn what_a_deposed_leader_sleeps_on_is_given_back_when_the_new_one_is_known() {
        let mut routes = led_by_two();
        routes.route(0, &command(1, 0, 0));
        routes.handle_response(0, 1, leading(&[(0, 8), (1, 6)]));
        assert_eq!(heard(&mut routes), ["1 unknown", "leading 0@8 1@6"]);
    }

    #[test]
    fn no_later_command_overtakes_one_that_was_given_back() {
        let mut routes = led_by_two();
        routes.route(0, &command(1, 0, 0));
        routes.handle_response(0, 1, leading(&[(0, 8), (1, 6)]));
        // On its way before the gateway heard of the first.
        assert_eq!(routes.route(0, &command(2, 0, 0)), None);
        assert_eq!(routes.route(0, &command(3, 1, 0)), Some(1), "another channel's goes on");
        assert_eq!(routes.route(0, &command(4, 0, 1)), Some(1));
        assert_eq!(routes.route(0, &command(5, 0, 1)), Some(1));
        let said = heard(&mut routes);
        assert_eq!(said, ["1 unknown", "leading 0@8 1@6", "2 unavailable"]);
    }

    #[test]
    fn nor_does_it_when_the_leader_itself_gave_the_first_back_and_then_moved() {
        let mut routes = led_by_two();
        routes.route(0, &command(1, 0, 0));
        routes.handle_response(0, 0, resend(1, 5));
        routes.handle_response(0, 1, leading(&[(0, 8), (1, 6)]));
        assert_eq!(routes.route(0, &command(2, 0, 0)), None);
        assert_eq!(routes.route(0, &command(3, 0, 1)), Some(1));
    }

    #[test]
    fn a_relayed_fact_that_was_given_back_goes_out_again_as_it_is() {
        let (source, rev, by) = (channel_in(1), Rev::new(1), UserId::new(1));
        let relay =
            Relay { source, incarnation: Incarnation(1), rev, by, kind: RelayKind::Removed };
        let relayed = |token| {
            let Request::Command(mut command) = command(token, 0, 0) else { panic!("a command") };
            command.action = Action::Relay(relay.clone());
            Request::Command(command)
        };
        let mut routes = Routes::default();
        assert_eq!(routes.route(0, &relayed(1)), None, "nobody leads yet");
        routes.handle_response(0, 0, leading(&[(0, 5)]));
        assert_eq!(routes.route(0, &relayed(2)), Some(0));
        routes.handle_response(0, 0, resend(2, 5));
        assert_eq!(routes.route(0, &relayed(3)), Some(0));
    }

    #[test]
    fn sessions_that_ended_are_forgotten() {
        let mut routes = Routes::default();
        routes.route(0, &command(1, 0, 0));
        assert_eq!(routes.stopped.len(), 1);
        routes.route(2 * STOPPED_MS, &command(2, 1, 0));
        assert_eq!(routes.stopped.len(), 1);
    }

    #[test]
    fn events_pass() {
        let mut routes = led_by_two();
        let body = EventBody::Nothing(NothingBody {});
        let (channel, by, rev) = (channel_in(0), UserId::new(1), Rev::new(1));
        let event = Arc::new(Event { channel, rev, by, at: 0, nonce: None, body });
        routes.handle_response(0, 0, Response::Event { generation: at(5), event });
        assert_eq!(heard(&mut routes), ["event"]);
    }
}
