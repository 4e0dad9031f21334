//! The threads that are a member of the group: one polls and waits for hand-overs, one commits.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use chappe_protocol::PartitionId;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};
use rdkafka::{ClientContext, Offset as Place, TopicPartitionList};
use tokio::sync::watch;

use super::config::{GroupConfig, JoinError};
use super::held::Held;
use crate::log::kafka::connection::{SERVED_EVERY, Voice, log_line};
use crate::ownership::{CommitError, Progress};

/// Starts the threads. `ended` is dropped when the member has left.
pub(super) fn start(
    config: GroupConfig,
    held: Arc<Held>,
    ended: watch::Sender<()>,
) -> Result<(), JoinError> {
    let consumer = join(&config, &held)?;
    let run = move || {
        let mut next = Some(consumer);
        while let Some(consumer) = next.take() {
            let Some(error) = serve(&config, &held, consumer) else { break };
            tracing::error!(%error, "the member cannot go on; another one takes its place");
            held.lost_all();
            next = join_again(&config, &held);
        }
        held.end();
        drop(ended);
    };
    let spawned = thread::Builder::new().name("kafka-member".to_owned()).spawn(run);
    spawned.map(drop).map_err(|error| JoinError(error.to_string()))
}

fn join(config: &GroupConfig, held: &Arc<Held>) -> Result<BaseConsumer<Membership>, JoinError> {
    let membership = Membership {
        held: Arc::clone(held),
        hand_over: config.hand_over,
        voice: Voice::default(),
        broken: Mutex::default(),
    };
    let consumer: KafkaResult<BaseConsumer<_>> = config.member().create_with_context(membership);
    let consumer = consumer.map_err(|error| JoinError(error.to_string()))?;
    consumer.subscribe(&[&config.topic]).map_err(|error| JoinError(error.to_string()))?;
    Ok(consumer)
}

/// Tries until it works, or nobody wants it any more.
fn join_again(config: &GroupConfig, held: &Arc<Held>) -> Option<BaseConsumer<Membership>> {
    while !held.is_leaving() {
        thread::sleep(REJOIN_AFTER);
        match join(config, held) {
            Ok(consumer) => return Some(consumer),
            Err(error) => tracing::error!(%error, "no member of the group"),
        }
    }
    None
}

/// Polls until the member is to leave, or cannot go on. At the end the consumer is closed, which
/// revokes everything and says goodbye after that. (Unsubscribing first loses the goodbye at
/// times, and the partitions wait for the session's end.)
fn serve(
    config: &GroupConfig,
    held: &Arc<Held>,
    consumer: BaseConsumer<Membership>,
) -> Option<KafkaError> {
    let consumer = Arc::new(consumer);
    let commits = {
        let (topic, held) = (config.topic.clone(), Arc::clone(held));
        let consumer = Arc::clone(&consumer);
        let run = move || serve_commits(&topic, &held, &consumer);
        thread::Builder::new().name("kafka-commits".to_owned()).spawn(run)
    };
    let Ok(commits) = commits else { return Some(KafkaError::Canceled) };
    let mut fatal = None;
    while fatal.is_none() && !held.is_leaving() {
        // Nothing comes but events, which the membership serves.
        if let Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) = consumer.poll(POLL) {
            fatal = Some(error);
        }
        wake(&consumer);
        let broken =
            consumer.context().broken.lock().unwrap_or_else(PoisonError::into_inner).take();
        fatal = fatal.or(broken);
    }
    held.close_commits();
    // One may still be under way; the library gives it up in its time.
    commits.join().ok();
    fatal
}

/// Lets the library look at what is due. By itself it does when something happens to it, and once a
/// second otherwise (`rd_kafka_thread_main` in librdkafka's `rdkafka.c`): a shorter heartbeat would
/// be late, and so would this member be for what others wait for. A question wakes it.
fn wake(consumer: &BaseConsumer<Membership>) {
    drop(consumer.assignment());
}

/// Sends commits, one request at a time. On a thread of its own: the library tells the outcome
/// only to whoever waits for it.
fn serve_commits(topic: &str, held: &Held, consumer: &BaseConsumer<Membership>) {
    while let Some(request) = held.next_request() {
        let outcome = commit(topic, consumer, &request);
        // A member that was thrown out may not have been told yet.
        held.answer(match outcome {
            Ok(()) if consumer.assignment_lost() => Err(CommitError::NotOwner),
            Ok(()) => Ok(()),
            Err(error) => Err(consumer.context().judge(&error)),
        });
    }
}

/// Sends a request and waits for its answer.
fn commit(
    topic: &str,
    consumer: &BaseConsumer<Membership>,
    request: &[(PartitionId, Progress)],
) -> KafkaResult<()> {
    let mut list = TopicPartitionList::with_capacity(request.len());
    for (partition, progress) in request {
        let mut element = list.add_partition(topic, partition.0 as i32);
        element.set_offset(Place::Offset(progress.offset.0 as i64))?;
        element.set_metadata(&progress.note);
    }
    consumer.commit(&list, CommitMode::Sync)
}

/// What the library calls on the member's thread.
struct Membership {
    held: Arc<Held>,
    hand_over: Duration,
    voice: Voice,
    /// Why this member cannot go on.
    broken: Mutex<Option<KafkaError>>,
}

impl Membership {
    fn assign(&self, consumer: &BaseConsumer<Self>, list: &mut TopicPartitionList) {
        // With a place of its own nobody looks for the committed one.
        let placed = list.set_all_offsets(Place::Offset(0));
        if let Err(error) = placed.and_then(|()| consumer.incremental_assign(list)) {
            // The group believes that we lead these. Only another member puts that right.
            *self.broken.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            return;
        }
        if let Err(error) = consumer.pause(list) {
            tracing::warn!(%error, "records are fetched that nobody reads");
        }
        self.held.assigned(&partitions(list));
    }

    fn revoke(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        let revoked = partitions(list);
        self.keep_until_others_may_join(consumer);
        if !consumer.assignment_lost() {
            let left = self.held.hand_over(&revoked, self.hand_over);
            if !left.is_empty() {
                tracing::warn!(partitions = left.len(), "given up without a hand-over");
            }
        }
        // First this side forgets: then Kafka may tell another.
        self.held.gave_up(&revoked);
        if let Err(error) = consumer.incremental_unassign(list) {
            tracing::warn!(%error, "partitions were not given up in order");
        }
    }

    /// Waits while nobody could take up what is given away. The library joins once a second, and
    /// those who take part in this rebalance have just joined: the next, in which they are given
    /// it, could not begin before. Until then it stays here.
    fn keep_until_others_may_join(&self, consumer: &BaseConsumer<Self>) {
        let until = Instant::now() + JOINS_EVERY;
        while Instant::now() < until && !self.held.is_leaving() && !consumer.assignment_lost() {
            thread::sleep(POLL);
        }
    }

    fn judge(&self, error: &KafkaError) -> CommitError {
        match error.rdkafka_error_code() {
            Some(
                RDKafkaErrorCode::IllegalGeneration
                | RDKafkaErrorCode::UnknownMemberId
                | RDKafkaErrorCode::FencedInstanceId
                | RDKafkaErrorCode::FencedMemberEpoch
                | RDKafkaErrorCode::StaleMemberEpoch
                | RDKafkaErrorCode::AssignmentLost,
            ) => CommitError::NotOwner,
            Some(RDKafkaErrorCode::RebalanceInProgress) => CommitError::Deciding,
            _ => CommitError::Unavailable(self.voice.explain(error)),
        }
    }
}

impl ClientContext for Membership {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, line: &str) {
        log_line(facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.voice.heard(&error, reason);
    }
}

impl ConsumerContext for Membership {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        what: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        match what {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assign(consumer, list),
            _ => self.revoke(consumer, list),
        }
    }

    fn main_queue_min_poll_interval(&self) -> rdkafka::util::Timeout {
        SERVED_EVERY.into()
    }
}

fn partitions(list: &TopicPartitionList) -> Vec<PartitionId> {
    list.elements().iter().map(|element| PartitionId(element.partition() as u32)).collect()
}

/// The wish to leave is looked for so often.
const POLL: Duration = Duration::from_millis(50);
/// `rkcg_join_intvl` in librdkafka's `rdkafka_cgrp.c`.
const JOINS_EVERY: Duration = Duration::from_secs(1);
const REJOIN_AFTER: Duration = Duration::from_secs(1);
