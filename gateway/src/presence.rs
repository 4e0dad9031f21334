//! The presence heartbeat: one lease for all users of this gateway, and who came and went. Beside
//! it stands what clients ask: [`Lookup`].
//!
//! Presence is lossy by design. While its backend does not answer nothing else is affected, and
//! what was missed is entered again with the next lease.

mod circuit;
mod lookup;

use std::{sync::Arc, time::Duration};

use chappe_protocol::UserId;
use chappe_storage::presence::{GatewayId, Presence, PresenceError};

pub(crate) use self::lookup::{Begun, Found, Lookup};
use crate::limits::Gate;

/// Keeps the lease and the users of a gateway until the future is dropped.
pub(crate) async fn keep(gateway: GatewayId, gate: &Gate, presence: Arc<dyn Presence>) {
    let mut rounds = 0_u32;
    // Everybody is entered at first, and again after a lease was lost or a call failed.
    let mut all = true;
    loop {
        all = match tell(gateway, gate, &*presence, all, rounds.is_multiple_of(RENEW_ROUNDS)).await
        {
            Ok(held) => !held,
            Err(error) => {
                metrics::counter!("chappe_gateway_presence_failures_total").increment(1);
                tracing::warn!(%error, "presence was not told");
                true
            }
        };
        rounds = if all { 0 } else { rounds.wrapping_add(1) };
        tokio::time::sleep(ROUND).await;
    }
}

/// Renews the lease if it is time to, and tells who came and went. Returns whether the lease was
/// held all the time.
async fn tell(
    gateway: GatewayId,
    gate: &Gate,
    presence: &dyn Presence,
    all: bool,
    renew: bool,
) -> Result<bool, PresenceError> {
    if gate.take_lost_track() {
        // The lease knows users of whom nobody here knows any more that they left.
        if let Err(error) = presence.end(gateway).await {
            gate.return_lost_track();
            return Err(error);
        }
        return Ok(false);
    }
    let held = !renew || presence.renew(gateway, LEASE).await? || all;
    if !held {
        return Ok(false);
    }
    let changed = gate.take_changed(all);
    for part in changed.chunks(USERS_AT_ONCE) {
        let of = |here: bool| -> Vec<UserId> {
            part.iter().filter(|(_, is)| *is == here).map(|(user, _)| *user).collect()
        };
        if let Err(error) = presence.update(gateway, &of(true), &of(false)).await {
            // Who left would stay online as long as the lease is held: nobody else remembers him.
            gate.return_changed(&changed);
            return Err(error);
        }
    }
    Ok(true)
}

/// A user who comes or goes is told of within this time.
const ROUND: Duration = Duration::from_secs(1);
/// The lease is renewed every so many rounds.
const RENEW_ROUNDS: u32 = 5;
/// A gateway that died is noticed after this time.
const LEASE: Duration = Duration::from_secs(15);
const USERS_AT_ONCE: usize = 1_000;

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use chappe_storage::presence::PresenceChange;

    use super::*;
    use crate::config::Limits;

    /// Writes down what it was told.
    #[derive(Default)]
    struct Told {
        users: Mutex<std::collections::BTreeSet<UserId>>,
        renewed: Mutex<u32>,
        loses: Mutex<bool>,
        fails_to_renew: Mutex<bool>,
        fails_to_update: Mutex<bool>,
    }

    /// Fails once if it was told to.
    fn fail_once(fails: &Mutex<bool>) -> Result<(), PresenceError> {
        match std::mem::take(&mut *fails.lock().unwrap()) {
            true => Err(PresenceError("no answer".to_owned())),
            false => Ok(()),
        }
    }

    #[async_trait::async_trait]
    impl Presence for Told {
        async fn renew(&self, _: GatewayId, _: Duration) -> Result<bool, PresenceError> {
            fail_once(&self.fails_to_renew)?;
            let first = std::mem::replace(&mut *self.renewed.lock().unwrap(), 1) == 0;
            if std::mem::take(&mut *self.loses.lock().unwrap()) {
                self.users.lock().unwrap().clear();
                return Ok(false);
            }
            Ok(!first)
        }

        async fn update(
            &self,
            _: GatewayId,
            entered: &[UserId],
            left: &[UserId],
        ) -> Result<(), PresenceError> {
            fail_once(&self.fails_to_update)?;
            let mut users = self.users.lock().unwrap();
            users.extend(entered);
            users.retain(|user| !left.contains(user));
            Ok(())
        }

        async fn end(&self, _: GatewayId) -> Result<(), PresenceError> {
            self.users.lock().unwrap().clear();
            *self.renewed.lock().unwrap() = 0;
            Ok(())
        }

        async fn online(&self, _: &[UserId]) -> Result<Vec<bool>, PresenceError> {
            Ok(Vec::new())
        }

        async fn changes(
            &self,
            _: GatewayId,
            _: &[UserId],
        ) -> Result<Vec<PresenceChange>, PresenceError> {
            Ok(Vec::new())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn users_are_entered_and_left_and_entered_again_after_a_lost_lease() {
        let gate = Arc::new(Gate::new(Limits::default()));
        let told = Arc::new(Told::default());
        let (ada, bob) = (UserId::new(1), UserId::new(2));
        assert!(gate.sign_in(ada, 0));
        let (gate_too, told_too) = (Arc::clone(&gate), Arc::clone(&told));
        tokio::spawn(async move { keep(GatewayId(1), &gate_too, told_too).await });
        let users = || told.users.lock().unwrap().iter().copied().collect::<Vec<_>>();
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        assert_eq!(users(), [ada]);
        assert!(gate.sign_in(bob, 0) && gate.sign_in(bob, 0));
        gate.sign_out(ada);
        gate.sign_out(bob);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(users(), [bob], "he is here with another device");
        *told.loses.lock().unwrap() = true;
        tokio::time::sleep(Duration::from_secs(7)).await;
        assert_eq!(users(), [bob]);
    }

    const ADA: UserId = UserId::new(1);
    const BOB: UserId = UserId::new(2);

    impl Told {
        fn online(&self) -> Vec<UserId> {
            self.users.lock().unwrap().iter().copied().collect()
        }
    }

    /// Ada and Bob are here and told of, on paused time.
    async fn both_told_of() -> (Arc<Gate>, Arc<Told>) {
        let gate = Arc::new(Gate::new(Limits::default()));
        let told = Arc::new(Told::default());
        assert!(gate.sign_in(ADA, 0) && gate.sign_in(BOB, 0));
        let (gate_too, told_too) = (Arc::clone(&gate), Arc::clone(&told));
        tokio::spawn(async move { keep(GatewayId(1), &gate_too, told_too).await });
        tokio::time::sleep(Duration::from_millis(4_500)).await;
        assert_eq!(told.online(), [ADA, BOB]);
        (gate, told)
    }

    /// Then Ada leaves, while a call fails once.
    async fn online_after_ada_left(fails: impl Fn(&Told) -> &Mutex<bool>) -> Vec<UserId> {
        let (gate, told) = both_told_of().await;
        *fails(&told).lock().unwrap() = true;
        gate.sign_out(ADA);
        tokio::time::sleep(Duration::from_secs(7)).await;
        assert!(!*fails(&told).lock().unwrap(), "the call was made");
        told.online()
    }

    #[tokio::test(start_paused = true)]
    async fn who_left_while_an_update_failed_is_taken_out_by_the_next() {
        assert_eq!(online_after_ada_left(|told| &told.fails_to_update).await, [UserId::new(2)]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_left_while_a_renewal_failed_is_taken_out_by_the_next_update() {
        assert_eq!(online_after_ada_left(|told| &told.fails_to_renew).await, [UserId::new(2)]);
    }

    #[tokio::test(start_paused = true)]
    async fn more_changes_than_are_remembered_begin_presence_anew() {
        let (gate, told) = both_told_of().await;
        gate.sign_out(ADA);
        for user in 3..100_000 {
            assert!(gate.sign_in(UserId::new(user), 0));
            gate.sign_out(UserId::new(user));
        }
        assert!(gate.take_lost_track(), "nobody knows any more that she left");
        gate.return_lost_track();
        tokio::time::sleep(Duration::from_secs(7)).await;
        assert_eq!(told.online(), [BOB]);
    }
}
