//! The audit on made-up deliveries: what is clean, and each way not to be.

use chappe_protocol::{ChannelId, Rev};

use super::*;

const fn id(publisher: u32, number: u32) -> MessageId {
    MessageId { publisher, number }
}

/// Two users follow channel 0 from rev 10, and user 0 has sent three messages, acknowledged at
/// 11, 12, 13.
fn three_acked() -> Audit {
    let mut audit = Audit::new(2, 1);
    audit.handle_follows(0, 0, 10);
    audit.handle_follows(1, 0, 10);
    for number in 0..3 {
        audit.handle_sent(id(0, number), 0);
        audit.handle_acked(id(0, number), 11 + u64::from(number), true);
    }
    audit
}

fn deliver(audit: &mut Audit, user: u32, rev: u64, number: u32) {
    audit.handle_delivery(user, 0, rev, Some(id(0, number)));
}

#[track_caller]
fn finds(audit: Audit, breaches: &[(Breach, u64)]) {
    let findings = audit.close();
    assert_eq!(findings.breaches, breaches, "{:?}", findings.findings);
}

fn count(audit: Audit, breach: Breach) -> u64 {
    let breaches = audit.close().breaches;
    breaches.iter().find(|(of, _)| *of == breach).map_or(0, |(_, count)| *count)
}

#[test]
fn everything_delivered_once_and_in_order_is_clean() {
    let mut audit = three_acked();
    for number in 0..3 {
        let rev = 11 + u64::from(number);
        assert_eq!(audit.handle_delivery(0, 0, rev, Some(id(0, number))), Delivered::Some);
        assert_eq!(audit.handle_delivery(1, 0, rev, Some(id(0, number))), Delivered::All);
    }
    assert_eq!(audit.outstanding(), 0);
    finds(audit, &[]);
}

#[test]
fn a_delivery_may_come_before_its_acknowledgement() {
    let mut audit = Audit::new(1, 1);
    audit.handle_follows(0, 0, 0);
    audit.handle_sent(id(0, 0), 0);
    deliver(&mut audit, 0, 1, 0);
    assert_eq!(audit.outstanding(), 0);
    audit.handle_acked(id(0, 0), 1, true);
    finds(audit, &[]);
}

#[test]
fn what_one_follower_did_not_get_is_lost() {
    let mut audit = three_acked();
    for number in 0..3 {
        deliver(&mut audit, 0, 11 + u64::from(number), number);
    }
    deliver(&mut audit, 1, 11, 0);
    assert_eq!(audit.outstanding(), 2);
    finds(audit, &[(Breach::Lost, 2)]);
}

#[test]
fn a_skipped_revision_is_a_gap_and_lost() {
    let mut audit = three_acked();
    for user in 0..2 {
        deliver(&mut audit, user, 11, 0);
        deliver(&mut audit, user, 13, 2);
    }
    finds(audit, &[(Breach::Lost, 2), (Breach::Gap, 2)]);
}

#[test]
fn a_revision_that_comes_twice_is_repeated() {
    let mut audit = three_acked();
    for user in 0..2 {
        for number in 0..3 {
            deliver(&mut audit, user, 11 + u64::from(number), number);
        }
    }
    deliver(&mut audit, 1, 13, 2);
    assert_eq!(count(audit, Breach::Repeated), 1);
}

#[test]
fn a_message_at_two_revisions_is_doubled() {
    let mut audit = three_acked();
    for user in 0..2 {
        for number in 0..3 {
            deliver(&mut audit, user, 11 + u64::from(number), number);
        }
        deliver(&mut audit, user, 14, 1);
    }
    finds(audit, &[(Breach::Doubled, 1), (Breach::Misplaced, 1)]);
}

#[test]
fn two_followers_that_see_different_things_are_noticed() {
    let mut audit = three_acked();
    for user in 0..2 {
        deliver(&mut audit, user, 11, 0);
        deliver(&mut audit, user, 12, 1);
    }
    deliver(&mut audit, 0, 13, 2);
    audit.handle_delivery(1, 0, 13, None);
    finds(audit, &[(Breach::Lost, 1), (Breach::Diverging, 1)]);
}

#[test]
fn an_acknowledgement_of_another_revision_is_misplaced() {
    let mut audit = Audit::new(1, 1);
    audit.handle_follows(0, 0, 0);
    for number in 0..2 {
        audit.handle_sent(id(0, number), 0);
    }
    deliver(&mut audit, 0, 1, 0);
    deliver(&mut audit, 0, 2, 1);
    audit.handle_acked(id(0, 0), 2, true);
    assert!(count(audit, Breach::Misplaced) > 0);
}

#[test]
fn an_acknowledged_message_whose_place_another_takes_is_not_taken_for_delivered() {
    for other_acked in [true, false] {
        let mut audit = Audit::new(1, 1);
        audit.handle_follows(0, 0, 0);
        for number in 0..2 {
            audit.handle_sent(id(0, number), 0);
        }
        audit.handle_acked(id(0, 0), 1, true);
        deliver(&mut audit, 0, 1, 1);
        if other_acked {
            audit.handle_acked(id(0, 1), 1, true);
        }
        let breaches = audit.close().breaches;
        assert!(breaches.iter().any(|(breach, _)| *breach == Breach::Lost), "{breaches:?}");
        assert!(breaches.iter().any(|(breach, _)| *breach == Breach::Misplaced), "{breaches:?}");
    }
}

#[test]
fn what_was_refused_must_not_be_there_whichever_comes_first() {
    for refused_first in [true, false] {
        let mut audit = Audit::new(1, 1);
        audit.handle_follows(0, 0, 0);
        audit.handle_sent(id(0, 0), 0);
        if refused_first {
            audit.handle_failed(id(0, 0), Outcome::Refused);
        }
        deliver(&mut audit, 0, 1, 0);
        if !refused_first {
            audit.handle_failed(id(0, 0), Outcome::Refused);
        }
        finds(audit, &[(Breach::RefusedButThere, 1)]);
    }
}

#[test]
fn what_is_unknown_may_be_there_or_not() {
    let mut audit = Audit::new(1, 1);
    audit.handle_follows(0, 0, 0);
    for number in 0..2 {
        audit.handle_sent(id(0, number), 0);
        audit.handle_failed(id(0, number), Outcome::Unknown);
    }
    deliver(&mut audit, 0, 1, 0);
    let findings = audit.close();
    assert!(findings.is_clean(), "{:?}", findings.findings);
    assert_eq!((findings.unknown, findings.unknown_but_there), (2, 1));
}

#[test]
fn a_publishers_order_is_kept_unless_it_was_told_to_try_again() {
    for (in_order, breaches) in [(true, &[(Breach::Disordered, 1)][..]), (false, &[])] {
        let mut audit = Audit::new(1, 1);
        audit.handle_follows(0, 0, 0);
        for number in 0..2 {
            audit.handle_sent(id(0, number), 0);
        }
        audit.handle_acked(id(0, 1), 1, true);
        audit.handle_acked(id(0, 0), 2, in_order);
        deliver(&mut audit, 0, 1, 1);
        deliver(&mut audit, 0, 2, 0);
        // The later message stands first: a breach only if the earlier one was never sent again.
        finds(audit, if in_order { breaches } else { &[] });
    }
}

#[test]
fn what_the_client_mended_is_still_a_breach() {
    let channel = ChannelId::new(1);
    let (held, found) = (Rev::new(1), Rev::new(3));
    for (anomaly, breach) in [
        (Anomaly::Gap { channel, held, found }, Breach::Gap),
        (Anomaly::Repeated { channel, held, found }, Breach::Repeated),
        (Anomaly::Behind { channel, held, head: found }, Breach::Gap),
    ] {
        let mut audit = Audit::new(1, 1);
        audit.handle_anomaly(0, 0, anomaly);
        finds(audit, &[(breach, 1)]);
    }
}

#[test]
fn a_reset_and_an_end_are_breaches() {
    let mut audit = Audit::new(1, 1);
    audit.handle_follows(0, 0, 0);
    audit.handle_reset(0, 0, 5);
    audit.handle_ended(0, "forbidden");
    finds(audit, &[(Breach::Reset, 1), (Breach::Ended, 1)]);
}

#[test]
fn a_history_without_an_acknowledged_message_is_noticed() {
    let mut audit = three_acked();
    for user in 0..2 {
        for number in 0..3 {
            deliver(&mut audit, user, 11 + u64::from(number), number);
        }
    }
    let full = HashMap::from([(11, id(0, 0)), (12, id(0, 1)), (13, id(0, 2))]);
    audit.handle_history(0, &full);
    assert!(audit.breaches.is_empty());
    let short = HashMap::from([(11, id(0, 0)), (13, id(0, 1))]);
    audit.handle_history(0, &short);
    finds(audit, &[(Breach::NotInHistory, 2)]);
}
