//! Members against real nodes; and what is held, without them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chappe_protocol::PartitionId;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tokio::sync::{mpsc, oneshot};

use super::held::Held;
use super::{Group, GroupConfig};
use crate::log::Offset;
use crate::log::kafka::Connection;
use crate::log::kafka::tests::relay::Relays;
use crate::log::kafka::tests::{Topic, cluster, unique};
use crate::ownership::{Change, Changes, CommitError, Ownership, Progress};

const PARTITIONS: u32 = 12;
const P0: PartitionId = PartitionId(0);
const PATIENCE: Duration = Duration::from_secs(40);

/// A group under test: who owns what by the changes that were told, and every change with its
/// time. Two owners at once fail it, unless one of them was cut off.
struct World {
    topic: Topic,
    group: String,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    owners: BTreeMap<PartitionId, &'static str>,
    /// Who is cut off: what he believes does not count.
    alone: Option<&'static str>,
    changes: Vec<(Instant, &'static str, Change)>,
}

impl World {
    async fn new() -> Self {
        let topic = Topic::new(PARTITIONS).await;
        Self { topic, group: unique("chappe-test"), seen: Arc::default() }
    }

    fn config(&self, connection: Connection, name: &'static str) -> GroupConfig {
        let connection = Connection { client_id: name.to_owned(), ..connection };
        GroupConfig::new(connection, &self.group, &self.topic.name, PARTITIONS)
    }

    fn join(&self, name: &'static str) -> Arc<Group> {
        self.join_by(cluster(), name, Duration::ZERO)
    }

    /// A member that takes so long to hand over.
    fn join_by(&self, connection: Connection, name: &'static str, takes: Duration) -> Arc<Group> {
        let (group, changes) = Group::join(self.config(connection, name)).unwrap();
        let group = Arc::new(group);
        tokio::spawn(follow(name, changes, Arc::downgrade(&group), Arc::clone(&self.seen), takes));
        group
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Seen) -> bool) -> Instant {
        let begin = Instant::now();
        while !is_so(&self.seen.lock().unwrap()) {
            let seen = self.seen.lock().unwrap();
            assert!(begin.elapsed() < PATIENCE, "not {what}: {:?} {:?}", seen.owners, seen.changes);
            drop(seen);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Instant::now()
    }

    /// Waits until these own everything, about as much each.
    async fn until_shared(&self, among: &[&str]) -> Instant {
        let share = PARTITIONS as usize / among.len();
        let has = |seen: &Seen, name: &str| seen.owners.values().filter(|o| **o == name).count();
        self.until("shared", |seen| among.iter().all(|name| has(seen, name) == share)).await
    }

    fn changes_of(&self, name: &str, since: Instant) -> Vec<Change> {
        let seen = self.seen.lock().unwrap();
        let of = seen.changes.iter().filter(|(at, who, _)| *who == name && *at >= since);
        of.map(|(_, _, change)| *change).collect()
    }
}

async fn follow(
    name: &'static str,
    mut changes: Changes,
    group: std::sync::Weak<Group>,
    seen: Arc<Mutex<Seen>>,
    takes: Duration,
) {
    while let Some(change) = changes.recv().await {
        let revoked = {
            let mut seen = seen.lock().unwrap();
            seen.changes.push((Instant::now(), name, change));
            match change {
                Change::Assigned(partition) => {
                    let before = seen.owners.insert(partition, name);
                    assert!(before.is_none() || before == seen.alone, "{partition:?}: {before:?}");
                    None
                }
                Change::Lost(partition) | Change::Revoked(partition) => {
                    if seen.owners.get(&partition) == Some(&name) {
                        seen.owners.remove(&partition);
                    }
                    matches!(change, Change::Revoked(_)).then_some(partition)
                }
            }
        };
        if let (Some(partition), Some(group)) = (revoked, group.upgrade()) {
            tokio::spawn(async move {
                tokio::time::sleep(takes).await;
                group.release(partition);
            });
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_share_all_partitions_and_one_that_leaves_gives_its_own_away_at_once() {
    let world = World::new().await;
    let one = world.join("one");
    world.until_shared(&["one"]).await;
    let two = world.join("two");
    world.until_shared(&["one", "two"]).await;
    let three = world.join("three");
    let begin = world.until_shared(&["one", "two", "three"]).await;
    two.leave().await;
    let end = world.until_shared(&["one", "three"]).await;
    assert!(end - begin < Duration::from_secs(2), "moved after {:?}", end - begin);
    let gone = world.changes_of("two", begin);
    assert_eq!(gone.len(), 4, "{gone:?}");
    assert!(gone.iter().all(|change| matches!(change, Change::Revoked(_))), "{gone:?}");
    // What did not have to move stayed where it was.
    for stays in ["one", "three"] {
        let changes = world.changes_of(stays, begin);
        assert!(changes.iter().all(|change| matches!(change, Change::Assigned(_))), "{changes:?}");
    }
    assert_eq!(two.commit(P0, at(1)).await, Err(CommitError::NotOwner));
    drop((one, three));
    world.until("empty", |seen| seen.owners.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_partition_waits_for_its_hand_over_but_not_for_ever() {
    let world = World::new().await;
    let takes = Duration::from_millis(600);
    let one = world.join_by(cluster(), "one", takes);
    world.until_shared(&["one"]).await;
    let two = world.join_by(cluster(), "two", Duration::from_secs(60));
    world.until_shared(&["one", "two"]).await;
    let at = |change: fn(PartitionId) -> Change, name: &str| {
        let seen = world.seen.lock().unwrap();
        let of = |(_, who, what): &&(Instant, &str, Change)| {
            *who == name && (0..PARTITIONS).any(|id| *what == change(PartitionId(id)))
        };
        seen.changes.iter().rfind(of).unwrap().0
    };
    let handed_over = at(Change::Assigned, "two") - at(Change::Revoked, "one");
    assert!(handed_over >= takes, "after {handed_over:?}");
    // The second one never releases, and is not waited for beyond the deadline.
    let begin = Instant::now();
    two.leave().await;
    world.until_shared(&["one"]).await;
    assert!(begin.elapsed() >= Duration::from_secs(1), "after {:?}", begin.elapsed());
    assert!(begin.elapsed() < Duration::from_secs(4), "after {:?}", begin.elapsed());
    drop(one);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_committed_is_the_groups_offset() {
    let world = World::new().await;
    let one = world.join("one");
    assert_eq!(one.commit(P0, at(7)).await, Err(CommitError::NotOwner));
    world.until_shared(&["one"]).await;
    let commits = (0..PARTITIONS).map(|id| {
        let one = Arc::clone(&one);
        tokio::spawn(async move { one.commit(PartitionId(id), at(100 + u64::from(id))).await })
    });
    for commit in commits.collect::<Vec<_>>() {
        assert_eq!(commit.await.unwrap(), Ok(()));
    }
    assert_eq!(one.commit(P0, at(7)).await, Ok(()));
    let config = world.config(cluster(), "looks");
    let topic = world.topic.name.clone();
    let looked = tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer = config.member().create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_range(&topic, 0, PARTITIONS as i32 - 1);
        let found = consumer.committed_offsets(list, Duration::from_secs(10)).unwrap();
        found.elements().iter().map(|found| found.offset().to_raw().unwrap()).collect::<Vec<_>>()
    });
    let expected: Vec<i64> = std::iter::once(7).chain(101..112).collect();
    assert_eq!(looked.await.unwrap(), expected);
    // Whoever comes next finds it, with its note, also one that owns nothing.
    let two = world.join("two");
    assert_eq!(two.committed(P0).await, Ok(Some(at(7))));
    assert_eq!(two.committed(PartitionId(11)).await, Ok(Some(at(111))));
}

/// As if it had been killed: nobody hears of it any more, and it says no goodbye.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_falls_silent_loses_everything_and_commits_nothing() {
    let relays = Relays::new().await;
    let world = World::new().await;
    let one = world.join("one");
    let two = world.join_by(relays.connection(), "two", Duration::ZERO);
    world.until_shared(&["one", "two"]).await;
    let own =
        *world.seen.lock().unwrap().owners.iter().find(|(_, name)| **name == "two").unwrap().0;
    assert_eq!(two.commit(own, at(1)).await, Ok(()));
    world.seen.lock().unwrap().alone = Some("two");
    relays.cut();
    let cut = Instant::now();
    let taken = world.until_shared(&["one"]).await - cut;
    assert!(taken < Duration::from_secs(9), "moved after {taken:?}");
    let alone = two.commit(own, at(2)).await;
    assert!(alone.is_err(), "somebody who is alone commits");
    // Back again, it believes that it leads until it is told. Nothing it commits counts until it
    // is given something anew.
    relays.mend();
    let mut told = Vec::new();
    let begin = Instant::now();
    loop {
        let committed = two.commit(own, at(3)).await;
        let changes = world.changes_of("two", cut);
        if changes.iter().any(|change| matches!(change, Change::Assigned(_))) {
            break;
        }
        assert!(committed.is_err(), "{committed:?} after {changes:?}");
        told.push(committed);
        assert!(begin.elapsed() < PATIENCE, "it never comes back: {changes:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(told.contains(&Err(CommitError::NotOwner)), "{told:?}");
    let changes = world.changes_of("two", cut);
    let lost = changes.iter().take_while(|change| matches!(change, Change::Lost(_))).count();
    assert_eq!(lost, 6, "{changes:?}");
    world.until_shared(&["one", "two"]).await;
    drop((one, two));
}

#[tokio::test]
async fn a_group_that_cannot_be_is_refused() {
    let config = || GroupConfig::new(cluster(), "group", "topic", 4);
    for config in [
        GroupConfig { partitions: 0, ..config() },
        GroupConfig { group: String::new(), ..config() },
        GroupConfig { heartbeat: Duration::from_secs(3), ..config() },
        GroupConfig { connection: Connection::to(" "), ..config() },
    ] {
        assert!(Group::join(config).is_err());
    }
}

fn at(offset: u64) -> Progress {
    Progress { offset: Offset(offset), note: format!("up to {offset}") }
}

fn held() -> (Held, Changes) {
    let (sender, changes) = mpsc::channel(4);
    (Held::new(2, sender), changes)
}

fn ask(held: &Held, offset: u64) -> oneshot::Receiver<Result<(), CommitError>> {
    let (answer, answered) = oneshot::channel();
    held.ask(P0, at(offset), answer).unwrap();
    answered
}

#[test]
fn a_commit_rests_on_a_request_that_was_sent_after_it() {
    let (held, _changes) = held();
    held.assigned(&[P0]);
    let mut first = ask(&held, 5);
    let mut second = ask(&held, 3);
    assert_eq!(held.next_request(), Some(vec![(P0, at(5))]));
    let mut late = ask(&held, 9);
    held.answer(Ok(()));
    assert_eq!(first.try_recv(), Ok(Ok(())));
    assert_eq!(second.try_recv(), Ok(Ok(())));
    assert!(late.try_recv().is_err());
    assert_eq!(held.next_request(), Some(vec![(P0, at(9))]));
    held.answer(Ok(()));
    assert_eq!(late.try_recv(), Ok(Ok(())));
}

#[test]
fn a_commit_of_what_was_lost_meanwhile_fails_also_when_it_comes_back() {
    let (held, mut changes) = held();
    held.assigned(&[P0]);
    let mut asked = ask(&held, 5);
    held.next_request().unwrap();
    held.gave_up(&[P0]);
    held.assigned(&[P0]);
    assert_eq!(asked.try_recv(), Ok(Err(CommitError::NotOwner)));
    let mut again = ask(&held, 6);
    held.answer(Ok(()));
    assert!(again.try_recv().is_err(), "the old answer is not the new one's");
    let told: Vec<_> = std::iter::from_fn(|| changes.try_recv().ok()).collect();
    assert_eq!(told, [Change::Assigned(P0), Change::Lost(P0), Change::Assigned(P0)]);
}

#[test]
fn whoever_does_not_read_leaves() {
    let (held, mut changes) = held();
    for _ in 0..2 {
        held.assigned(&[P0]);
        held.gave_up(&[P0]);
    }
    assert!(!held.is_leaving());
    held.assigned(&[P0]);
    assert!(held.is_leaving());
    let told: Vec<_> = std::iter::from_fn(|| changes.try_recv().ok()).collect();
    assert_eq!(told.len(), 4);
    assert_eq!(changes.try_recv(), Err(mpsc::error::TryRecvError::Disconnected));
}

#[test]
fn a_partition_that_is_not_the_logs_is_not_led() {
    let (held, mut changes) = held();
    held.assigned(&[PartitionId(2), PartitionId(1)]);
    assert_eq!(changes.try_recv(), Ok(Change::Assigned(PartitionId(1))));
    assert!(changes.try_recv().is_err());
}
