//! Questions of clients who is connected: asked of the presence backend, away from the shards, a
//! bounded number at once and each for a bounded time.
//!
//! A backend that does not answer makes presence unknown, and nothing else: no question fails for
//! it, and no shard waits.

use std::{
    fmt,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use chappe_protocol::UserId;
use chappe_storage::presence::{Presence, PresenceError};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, oneshot},
    time::timeout,
};

use super::circuit::Circuit;
use crate::clock::Now;

/// What was found out, for all users of a question at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// Whether each is connected, in the order asked.
    Online(Vec<bool>),
    /// It cannot be known now.
    Unknown,
    /// Too many questions are under way; this one was not asked.
    Overloaded,
}

/// A question that was taken, or its answer.
pub(crate) enum Begun {
    /// It needs no asking.
    Found(Found),
    /// It is being asked. What is dropped means unknown.
    Asking(oneshot::Receiver<Found>),
}

/// Where presence is asked for.
pub(crate) struct Lookup {
    backend: OnceLock<Backend>,
    places: Arc<Semaphore>,
    circuit: Arc<Mutex<Circuit>>,
}

struct Backend {
    /// Where questions run: the connection to the backend must not be tied to a shard's thread.
    runtime: Handle,
    presence: Arc<dyn Presence>,
}

impl Lookup {
    pub(crate) fn new() -> Self {
        let places = Arc::new(Semaphore::new(UNDER_WAY_MAX));
        Self { backend: OnceLock::new(), places, circuit: Arc::default() }
    }

    /// Asks `presence` from now on, on the runtime of the caller. Only the first counts.
    pub(crate) fn ask_of(&self, presence: Arc<dyn Presence>) {
        let runtime = Handle::current();
        let _ = self.backend.set(Backend { runtime, presence });
    }

    /// Begins to ask. Does not wait.
    pub(crate) fn begin(&self, users: Vec<UserId>) -> Begun {
        let Some(backend) = self.backend.get() else { return Begun::Found(Found::Unknown) };
        // Before the circuit: a question that finds no place must not use up its one try.
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return Begun::Found(Found::Overloaded);
        };
        if !lock(&self.circuit).admits(Now::read().boot_ms) {
            return Begun::Found(Found::Unknown);
        }
        let (presence, circuit) = (Arc::clone(&backend.presence), Arc::clone(&self.circuit));
        let (sender, found) = oneshot::channel();
        backend.runtime.spawn(async move {
            let answer = timeout(TIMEOUT, presence.online(&users)).await;
            let answer = answer.unwrap_or_else(|_| Err(PresenceError(LATE.to_owned())));
            drop(place);
            let _ = sender.send(note(&circuit, answer)); // whoever asked may be gone
        });
        Begun::Asking(found)
    }
}

fn note(circuit: &Mutex<Circuit>, answer: Result<Vec<bool>, PresenceError>) -> Found {
    match answer {
        Ok(online) => {
            lock(circuit).handle_answered();
            Found::Online(online)
        }
        Err(error) => {
            metrics::counter!("chappe_gateway_presence_failures_total").increment(1);
            if lock(circuit).handle_failed(Now::read().boot_ms) {
                tracing::warn!(%error, "presence is unknown for now");
            }
            Found::Unknown
        }
    }
}

impl fmt::Debug for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookup").field("circuit", &self.circuit).finish_non_exhaustive()
    }
}

/// A panic cannot leave it half changed.
fn lock(circuit: &Mutex<Circuit>) -> std::sync::MutexGuard<'_, Circuit> {
    circuit.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Questions under way at once, of all shards together.
const UNDER_WAY_MAX: usize = 64;
/// A question that is not answered by then is answered as unknown.
const TIMEOUT: Duration = Duration::from_millis(800);
const LATE: &str = "no answer in 800 ms";

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

    use chappe_storage::presence::{GatewayId, PresenceChange};

    use super::*;

    const ANSWERS: u8 = 0;
    const FAILS: u8 = 1;
    const HANGS: u8 = 2;

    /// Knows of user 1 alone; fails or hangs when told to.
    #[derive(Default)]
    struct Fickle {
        mood: AtomicU8,
        asked: AtomicUsize,
    }

    #[async_trait::async_trait]
    impl Presence for Fickle {
        async fn renew(&self, _: GatewayId, _: Duration) -> Result<bool, PresenceError> {
            Ok(true)
        }

        async fn update(
            &self,
            _: GatewayId,
            _: &[UserId],
            _: &[UserId],
        ) -> Result<(), PresenceError> {
            Ok(())
        }

        async fn end(&self, _: GatewayId) -> Result<(), PresenceError> {
            Ok(())
        }

        async fn online(&self, users: &[UserId]) -> Result<Vec<bool>, PresenceError> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            match self.mood.load(Ordering::SeqCst) {
                ANSWERS => Ok(users.iter().map(|user| user.get() == 1).collect()),
                FAILS => Err(PresenceError("gone".to_owned())),
                _ => std::future::pending().await,
            }
        }

        async fn changes(
            &self,
            _: GatewayId,
            _: &[UserId],
        ) -> Result<Vec<PresenceChange>, PresenceError> {
            Ok(Vec::new())
        }
    }

    fn lookup() -> (Lookup, Arc<Fickle>) {
        let (lookup, fickle) = (Lookup::new(), Arc::new(Fickle::default()));
        lookup.ask_of(Arc::clone(&fickle) as Arc<dyn Presence>);
        (lookup, fickle)
    }

    async fn ask(lookup: &Lookup) -> Found {
        match lookup.begin(vec![UserId::new(1), UserId::new(2)]) {
            Begun::Found(found) => found,
            Begun::Asking(asking) => asking.await.unwrap(),
        }
    }

    #[tokio::test]
    async fn without_a_backend_nobody_knows() {
        assert_eq!(ask(&Lookup::new()).await, Found::Unknown);
    }

    #[tokio::test]
    async fn a_backend_that_fails_makes_presence_unknown_and_is_not_asked_each_time() {
        let (lookup, fickle) = lookup();
        assert_eq!(ask(&lookup).await, Found::Online(vec![true, false]));
        fickle.mood.store(FAILS, Ordering::SeqCst);
        for _ in 0..100 {
            assert_eq!(ask(&lookup).await, Found::Unknown);
        }
        // A machine that stood still for a second in between asks once more.
        let asked = fickle.asked.load(Ordering::SeqCst);
        assert!((2..10).contains(&asked), "asked {asked} times");
        fickle.mood.store(ANSWERS, Ordering::SeqCst);
        while ask(&lookup).await == Found::Unknown {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(ask(&lookup).await, Found::Online(vec![true, false]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_backend_that_hangs_is_waited_for_a_moment_and_by_so_many() {
        let (lookup, fickle) = lookup();
        fickle.mood.store(HANGS, Ordering::SeqCst);
        let begun = || lookup.begin(vec![UserId::new(1)]);
        let asking: Vec<_> = (0..UNDER_WAY_MAX)
            .map(|_| match begun() {
                Begun::Asking(asking) => asking,
                Begun::Found(found) => panic!("{found:?}"),
            })
            .collect();
        assert!(matches!(begun(), Begun::Found(Found::Overloaded)));
        let started = tokio::time::Instant::now();
        for asked in asking {
            assert_eq!(asked.await, Ok(Found::Unknown));
        }
        assert!(started.elapsed() <= Duration::from_secs(1), "{:?}", started.elapsed());
        // There is room again, and those who come now are told at once.
        assert!(matches!(begun(), Begun::Found(Found::Unknown)));
    }
}
