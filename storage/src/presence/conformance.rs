//! The promises of the presence port, each as a test that a backend passes.
//!
//! [`presence_conformance!`](crate::presence_conformance) makes them tests of one backend. They
//! panic where a promise is broken.
#![allow(clippy::unwrap_used)] // what fails here fails a test

use std::future::Future;
use std::time::Duration;

use chappe_protocol::UserId;

use super::{GatewayId, Presence, PresenceChange};

/// A backend under test, in which nobody is connected at first.
pub trait Subject: Sized {
    /// The backend.
    type Presence: Presence;

    /// The lease that the tests take. They wait for its end, so a backend that cannot turn the
    /// clock takes a short one; at least 100 ms.
    const TTL: Duration;

    /// A new backend.
    fn new() -> impl Future<Output = Self>;

    /// The backend.
    fn presence(&self) -> &Self::Presence;

    /// Lets time pass for the backend.
    fn pass(&self, time: Duration) -> impl Future<Output = ()>;
}

/// Makes the suite tests of a backend, given its
/// [`Subject`](crate::presence::conformance::Subject).
#[macro_export]
macro_rules! presence_conformance {
    ($subject:ty) => {
        $crate::presence_conformance! { $subject:
            a_user_is_online_while_a_gateway_holds_him,
            a_user_of_two_gateways_is_online_until_both_let_him_go,
            entering_twice_is_entering_once,
            leaving_a_gateway_that_does_not_hold_him_changes_nothing,
            online_answers_in_the_order_asked,
            a_first_renewal_says_that_nothing_was_held,
            a_renewal_keeps_all_users,
            a_lease_that_is_not_renewed_ends_with_its_users,
            a_lease_that_ended_starts_again_without_users,
            a_gateway_that_ends_takes_its_users_along,
            users_cannot_be_entered_without_a_lease,
            changes_are_those_since_the_last_call,
            changes_tell_of_a_lease_that_ended,
            a_change_is_told_to_each_gateway_that_watches,
            a_user_who_moves_between_gateways_is_not_told_as_gone,
            what_happened_before_a_user_was_watched_is_not_told,
        }
    };
    ($subject:ty: $($promise:ident,)*) => {
        $(
            #[tokio::test]
            async fn $promise() {
                let subject = <$subject as $crate::presence::conformance::Subject>::new().await;
                $crate::presence::conformance::$promise(subject).await;
            }
        )*
    };
}

const A: GatewayId = GatewayId(1);
const B: GatewayId = GatewayId(u64::MAX);
const ANN: UserId = UserId::new(1);
const BOB: UserId = UserId::new(2);
const CAT: UserId = UserId::new(u64::MAX);

/// A subject whose two gateways have leases.
struct Scene<S: Subject> {
    subject: S,
}

impl<S: Subject> Scene<S> {
    async fn of(subject: S) -> Self {
        let scene = Self { subject };
        scene.renew(A).await;
        scene.renew(B).await;
        scene
    }

    async fn renew(&self, gateway: GatewayId) -> bool {
        self.subject.presence().renew(gateway, S::TTL).await.unwrap()
    }

    async fn enter(&self, gateway: GatewayId, users: &[UserId]) {
        self.subject.presence().update(gateway, users, &[]).await.unwrap();
    }

    async fn leave(&self, gateway: GatewayId, users: &[UserId]) {
        self.subject.presence().update(gateway, &[], users).await.unwrap();
    }

    async fn online<const N: usize>(&self, users: [UserId; N]) -> [bool; N] {
        self.subject.presence().online(&users).await.unwrap().try_into().unwrap()
    }

    /// What `gateway` is told, in the order of the users.
    async fn changes(&self, gateway: GatewayId, users: &[UserId]) -> Vec<(UserId, bool)> {
        let changes = self.subject.presence().changes(gateway, users).await.unwrap();
        let mut changes: Vec<_> =
            changes.into_iter().map(|PresenceChange { user, online }| (user, online)).collect();
        changes.sort();
        changes
    }

    /// Lets a part of a lease pass, in percent.
    async fn pass(&self, percent: u32) {
        self.subject.pass(S::TTL * percent / 100).await;
    }
}

/// Entered and he is online, taken out and he is not.
pub async fn a_user_is_online_while_a_gateway_holds_him(subject: impl Subject) {
    let scene = Scene::of(subject).await;
    assert_eq!(scene.online([ANN]).await, [false]);
    scene.enter(A, &[ANN, BOB]).await;
    assert_eq!(scene.online([ANN, BOB]).await, [true, true]);
    scene.leave(A, &[ANN]).await;
    assert_eq!(scene.online([ANN, BOB]).await, [false, true]);
    // Both at once.
    scene.subject.presence().update(A, &[ANN], &[BOB]).await.unwrap();
    assert_eq!(scene.online([ANN, BOB]).await, [true, false]);
}

/// A user with two devices may be connected to two gateways.
pub async fn a_user_of_two_gateways_is_online_until_both_let_him_go(subject: impl Subject) {
    let scene = Scene::of(subject).await;
    scene.enter(A, &[ANN]).await;
    scene.enter(B, &[ANN]).await;
    scene.leave(A, &[ANN]).await;
    assert_eq!(scene.online([ANN]).await, [true]);
    scene.leave(B, &[ANN]).await;
    assert_eq!(scene.online([ANN]).await, [false]);
}

/// A gateway counts his connections, presence does not.
pub async fn entering_twice_is_entering_once(subject: impl Subject) {
    let scene = Scene::of(subject).await;
    scene.enter(A, &[ANN, ANN]).await;
    scene.enter(A, &[ANN]).await;
    scene.leave(A, &[ANN]).await;
    assert_eq!(scene.online([ANN]).await, [false]);
}

/// Nobody is taken out of another gateway.
pub async fn leaving_a_gateway_that_does_not_hold_him_changes_nothing(subject: impl Subject) {
    let scene = Scene::of(subject).await;
    scene.leave(A, &[ANN]).await;
    scene.enter(B, &[ANN]).await;
    scene.leave(A, &[ANN, ANN]).await;
    assert_eq!(scene.online([ANN]).await, [true]);
}

/// One answer for each user asked for, also for one asked for twice.
pub async fn online_answers_in_the_order_asked(subject: impl Subject) {
    let scene = Scene::of(subject).await;
    scene.enter(A, &[BOB]).await;
    assert_eq!(scene.online([CAT, BOB, ANN, BOB]).await, [false, true, false, true]);
    assert_eq!(scene.online([]).await, [false; 0]);
}

/// The caller is to enter its users.
pub async fn a_first_renewal_says_that_nothing_was_held(subject: impl Subject) {
    let scene = Scene { subject };
    assert!(!scene.renew(A).await);
    assert!(scene.renew(A).await);
    assert!(!scene.renew(B).await);
}

/// One renewal is enough for all of them, as often as it comes in time.
pub async fn a_renewal_keeps_all_users(subject: impl Subject) {
    let scene = Scene::of(subject).await;
    scene.enter(A, &[ANN, BOB, CAT]).await;
    for _ in 0..4 {
        scene.pass(60).await;
        assert!(scene.renew(A).await);
        assert_eq!(scene.online([ANN, BOB, CAT]).await, [true; 3]);
    }
}

/// No call of anybody's is needed for it, and users whom another gateway holds stay.
pub async fn a_lease_that_is_not_renewed_ends_with_its_users(subject: impl Subject) {
    let scene = Scene::of(subject).await;
    scene.enter(A, &[ANN, BOB]).await;
    scene.enter(B, &[BOB, CAT]).await;
    scene.pass(60).await;
    scene.renew(B).await;
    assert_eq!(scene.online([ANN, BOB, CAT]).await, [true; 3]);
    scene.pass(60).await;
    assert_eq!(scene.online([ANN, BOB, CAT]).await, [false, true, true]);
}

/// Its gateway is told, so that it enters them again.
pub async fn a_lease_that_ended_starts_again_without_users(subject: impl Subject) {
    let scene = Scene::of(subject).await;
    scene.enter(A, &[ANN]).await;
    scene.pass(120).await;
    assert!(!scene.renew(A).await);
    assert_eq!(scene.online([ANN]).await, [false]);
    scene.enter(A, &[ANN]).await;
    assert_eq!(scene.online([ANN]).await, [true]);
}

/// A planned stop waits for no lease. Ending what has ended succeeds.
pub async fn a_gateway_that_ends_takes_its_users_along(subject: impl Subject) {
    let scene = Scene::of(subject).await;
    scene.enter(A, &[ANN, BOB]).await;
    scene.enter(B, &[BOB]).await;
    for _ in 0..2 {
        scene.subject.presence().end(A).await.unwrap();
    }
    assert_eq!(scene.online([ANN, BOB]).await, [false, true]);
    assert!(!scene.renew(A).await);
    assert_eq!(scene.online([ANN]).await, [false]);
}

/// They would have no end.
pub async fn users_cannot_be_entered_without_a_lease(subject: impl Subject) {
    let scene = Scene { subject };
    scene.subject.presence().update(A, &[ANN], &[]).await.unwrap_err();
    assert_eq!(scene.online([ANN]).await, [false]);
    scene.renew(A).await;
    scene.enter(A, &[ANN]).await;
    scene.pass(120).await;
    scene.subject.presence().update(A, &[BOB], &[]).await.unwrap_err();
    assert_eq!(scene.online([ANN, BOB]).await, [false, false]);
}

/// Each change is told once. One that was undone may be told as nothing at all.
pub async fn changes_are_those_since_the_last_call(subject: impl Subject) {
    let scene = Scene::of(subject).await;
    let all = [ANN, BOB, CAT];
    scene.enter(B, &[ANN]).await;
    assert_eq!(scene.changes(A, &all).await, []);
    scene.leave(B, &[ANN]).await;
    scene.enter(B, &[BOB]).await;
    assert_eq!(scene.changes(A, &all).await, [(ANN, false), (BOB, true)]);
    assert_eq!(scene.changes(A, &all).await, []);
    // Its own users too.
    scene.enter(A, &[CAT]).await;
    assert_eq!(scene.changes(A, &all).await, [(CAT, true)]);
    scene.leave(A, &[CAT]).await;
    scene.enter(A, &[CAT]).await;
    let undone = scene.changes(A, &all).await;
    assert!(undone.is_empty() || undone.last() == Some(&(CAT, true)), "{undone:?}");
}

/// Users of a dead gateway are told as gone.
pub async fn changes_tell_of_a_lease_that_ended(subject: impl Subject) {
    let scene = Scene::of(subject).await;
    scene.enter(B, &[ANN, BOB]).await;
    scene.enter(A, &[BOB]).await;
    assert_eq!(scene.changes(A, &[ANN, BOB]).await, []);
    scene.pass(60).await;
    scene.renew(A).await;
    scene.pass(60).await;
    assert_eq!(scene.changes(A, &[ANN, BOB]).await, [(ANN, false)]);
}

/// One gateway's look takes nothing from another's.
pub async fn a_change_is_told_to_each_gateway_that_watches(subject: impl Subject) {
    let scene = Scene::of(subject).await;
    for gateway in [A, B] {
        assert_eq!(scene.changes(gateway, &[ANN]).await, []);
    }
    scene.enter(A, &[ANN]).await;
    for gateway in [A, B] {
        assert_eq!(scene.changes(gateway, &[ANN]).await, [(ANN, true)]);
    }
}

/// He was online all the time.
pub async fn a_user_who_moves_between_gateways_is_not_told_as_gone(subject: impl Subject) {
    let scene = Scene::of(subject).await;
    scene.enter(A, &[ANN]).await;
    assert_eq!(scene.changes(A, &[ANN]).await, []);
    scene.enter(B, &[ANN]).await;
    scene.leave(A, &[ANN]).await;
    let told = scene.changes(A, &[ANN]).await;
    assert!(!told.contains(&(ANN, false)), "{told:?}");
    assert_eq!(scene.online([ANN]).await, [true]);
}

/// Watching begins with the call that first names a user, and begins anew if one left him out.
pub async fn what_happened_before_a_user_was_watched_is_not_told(subject: impl Subject) {
    let scene = Scene::of(subject).await;
    scene.enter(B, &[ANN]).await;
    assert_eq!(scene.changes(A, &[ANN]).await, []);
    assert_eq!(scene.changes(A, &[BOB]).await, []);
    scene.leave(B, &[ANN]).await;
    assert_eq!(scene.changes(A, &[BOB]).await, []);
    assert_eq!(scene.changes(A, &[ANN, BOB]).await, []);
    scene.enter(B, &[ANN]).await;
    assert_eq!(scene.changes(A, &[ANN, BOB]).await, [(ANN, true)]);
}
