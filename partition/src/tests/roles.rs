//! Who may do what: every command, by every role, in every kind of channel.

use chappe_protocol::{
    ChannelId, Seq, UserId,
    command::UpdateChannel,
    message::{ChannelKind, Role},
};
use chappe_uplink::{Action, Standing};

use super::begin;
use crate::testing::{Asker, World};

/// The users of the matrix, beside the owner (1): admin, moderator, member, nobody, an
/// instance's admin, a back end; and a member to do things to.
const ASKERS: [(&str, u64); 7] = [
    ("owner", 1),
    ("admin", 2),
    ("moderator", 3),
    ("member", 4),
    ("nobody", 5),
    ("instance admin", 6),
    ("service", 7),
];
const VICTIM: u64 = 8;

/// What each of them hears, in one word; one word for all is repeated.
struct Row {
    does: &'static str,
    heard: [&'static str; 7],
}

const PUBLIC: &[Row] = &[
    Row { does: "publish", heard: ["ok", "ok", "ok", "ok", "not_a_member", "ok", "ok"] },
    Row { does: "react", heard: ["ok", "ok", "ok", "ok", "not_a_member", "ok", "ok"] },
    Row { does: "typing", heard: ["done", "done", "done", "done", "not_a_member", "done", "done"] },
    Row { does: "history", heard: ["page"; 7] },
    Row { does: "attach", heard: ["attached"; 7] },
    Row {
        does: "edit other's",
        heard: [
            "forbidden",
            "forbidden",
            "forbidden",
            "forbidden",
            "not_a_member",
            "forbidden",
            "forbidden",
        ],
    },
    Row {
        does: "delete other's",
        heard: ["ok", "ok", "ok", "forbidden", "not_a_member", "ok", "forbidden"],
    },
    Row {
        does: "update",
        heard: ["ok", "ok", "forbidden", "forbidden", "not_a_member", "ok", "forbidden"],
    },
    Row {
        does: "archive",
        heard: ["ok", "ok", "forbidden", "forbidden", "not_a_member", "ok", "forbidden"],
    },
    Row {
        does: "delete channel",
        heard: ["ok", "forbidden", "forbidden", "forbidden", "not_a_member", "ok", "forbidden"],
    },
    Row {
        does: "add member",
        heard: ["ok", "ok", "ok", "forbidden", "not_a_member", "ok", "forbidden"],
    },
    Row {
        does: "add moderator",
        heard: ["ok", "ok", "forbidden", "forbidden", "not_a_member", "ok", "forbidden"],
    },
    Row {
        does: "add admin",
        heard: ["ok", "forbidden", "forbidden", "forbidden", "not_a_member", "ok", "forbidden"],
    },
    Row {
        does: "remove member",
        heard: ["ok", "ok", "ok", "forbidden", "not_a_member", "ok", "forbidden"],
    },
    Row {
        does: "remove moderator",
        heard: ["ok", "ok", "ok", "forbidden", "not_a_member", "ok", "forbidden"],
    },
    Row {
        does: "remove owner",
        heard: [
            "last_owner",
            "forbidden",
            "forbidden",
            "forbidden",
            "not_a_member",
            "last_owner",
            "forbidden",
        ],
    },
    Row {
        does: "make moderator",
        heard: ["ok", "ok", "forbidden", "forbidden", "not_a_member", "ok", "forbidden"],
    },
    Row {
        does: "make owner",
        heard: ["ok", "forbidden", "forbidden", "forbidden", "not_a_member", "ok", "forbidden"],
    },
    Row { does: "join", heard: ["ok", "ok", "ok", "ok", "ok", "ok", "forbidden"] },
    Row {
        does: "leave",
        heard: ["last_owner", "ok", "ok", "ok", "not_a_member", "not_a_member", "not_a_member"],
    },
];

fn standing(asker: &str) -> Standing {
    match asker {
        "instance admin" => Standing::Admin,
        "service" => Standing::Service,
        _ => Standing::User,
    }
}

/// A channel with a message of the victim's, and everybody in his role.
fn channel_of(kind: ChannelKind) -> (World, ChannelId) {
    let mut world = World::embedded();
    begin(&mut world);
    let owner = Asker::new(0, 1);
    let channel = owner.create_kind(&mut world, "matrix", kind, &[]);
    for (user, role) in [(2, Role::Admin), (3, Role::Moderator), (4, Role::Member)] {
        owner.add(&mut world, &format!("add {user}"), channel, user, role);
    }
    owner.add(&mut world, "victim", channel, VICTIM, Role::Moderator);
    Asker::new(0, VICTIM).publish(&mut world, "theirs", channel, "theirs");
    let member = Action::SetRole { user: UserId::new(VICTIM), role: Role::Member };
    owner.command(&mut world, "demoted", channel, member);
    world.trace.clear();
    (world, channel)
}

fn act(world: &mut World, asker: &Asker, does: &str, channel: ChannelId) {
    let victim = UserId::new(VICTIM);
    let add = |role| Action::AddMember { user: UserId::new(9), role };
    let set = |role| Action::SetRole { user: victim, role };
    let remove = |user| Action::RemoveMember { user: UserId::new(user) };
    match does {
        "publish" => asker.publish(world, "x", channel, "x"),
        "react" => asker.react(world, "x", channel, 1, "+1"),
        "typing" => asker.typing(world, "x", channel),
        "history" => asker.history(world, "x", channel),
        "attach" => asker.attach(world, "x", channel, None),
        "edit other's" => asker.edit(world, "x", channel, 1, "mine now"),
        "delete other's" => {
            asker.command(world, "x", channel, Action::Delete { seq: Seq::new(1) });
        }
        "update" => {
            let update =
                UpdateChannel { channel, name: None, topic: None, slow_mode_ms: Some(1_000) };
            asker.command(world, "x", channel, Action::Update(update));
        }
        "archive" => asker.command(world, "x", channel, Action::Archive),
        "delete channel" => asker.command(world, "x", channel, Action::DeleteChannel),
        "add member" => asker.command(world, "x", channel, add(Role::Member)),
        "add moderator" => asker.command(world, "x", channel, add(Role::Moderator)),
        "add admin" => asker.command(world, "x", channel, add(Role::Admin)),
        "remove member" => asker.command(world, "x", channel, remove(VICTIM)),
        "remove moderator" => asker.command(world, "x", channel, remove(3)),
        "remove owner" => asker.command(world, "x", channel, remove(1)),
        "make moderator" => asker.command(world, "x", channel, set(Role::Moderator)),
        "make owner" => asker.command(world, "x", channel, set(Role::Owner)),
        "join" => asker.command(world, "x", channel, Action::Join),
        "leave" => asker.command(world, "x", channel, Action::Leave),
        other => panic!("no such row: {other}"),
    }
}

fn word(line: &str) -> &str {
    let heard = line.strip_prefix("x: ").unwrap();
    let first = heard.split(' ').next().unwrap();
    if first == "messages" { "page" } else { first }
}

fn check_matrix(kind: ChannelKind, expected: impl Fn(&Row, usize) -> &'static str) {
    let mut wrong = Vec::new();
    for row in PUBLIC {
        for (i, (name, user)) in ASKERS.iter().enumerate() {
            let (mut world, channel) = channel_of(kind);
            let asker = Asker { standing: standing(name), ..Asker::new(0, *user) };
            act(&mut world, &asker, row.does, channel);
            let heard = world.trace.lines.iter().find(|line| line.starts_with("x: "));
            let heard = heard.map_or("nothing", |line| word(line)).to_owned();
            if heard != expected(row, i) {
                wrong.push(format!("{name} {}: {heard}, not {}", row.does, expected(row, i)));
            }
        }
    }
    assert!(wrong.is_empty(), "{kind:?}:\n{}", wrong.join("\n"));
}

#[test]
fn in_a_public_channel_each_role_may_what_the_matrix_says() {
    check_matrix(ChannelKind::Public, |row, asker| row.heard[asker]);
}

#[test]
fn in_a_private_channel_and_a_group_it_is_not_there_for_those_outside() {
    for kind in [ChannelKind::Private, ChannelKind::Group] {
        check_matrix(kind, |row, asker| match ASKERS[asker].0 {
            "nobody" => "not_found",
            _ => row.heard[asker],
        });
    }
}

#[test]
fn in_an_announcement_channel_moderators_and_above_speak() {
    check_matrix(ChannelKind::Announcement, |row, asker| match (row.does, ASKERS[asker].0) {
        ("publish" | "typing", "member") => "forbidden",
        _ => row.heard[asker],
    });
}

#[test]
fn a_direct_channel_has_two_equal_members_and_no_settings() {
    let mut world = World::embedded();
    begin(&mut world);
    let (ann, bob, carl) = (Asker::new(0, 1), Asker::new(0, 2), Asker::new(0, 3));
    let channel = ann.create_kind(&mut world, "direct", ChannelKind::Direct, &[2]);
    bob.publish(&mut world, "m", channel, "hello");
    let same = bob.create_kind(&mut world, "from the other end", ChannelKind::Direct, &[1]);
    assert_eq!(same, channel);
    for (label, action) in [
        ("join", Action::Join),
        ("leave", Action::Leave),
        ("archive", Action::Archive),
        ("gone", Action::DeleteChannel),
        ("add", Action::AddMember { user: UserId::new(3), role: Role::Member }),
        ("remove", Action::RemoveMember { user: UserId::new(2) }),
        ("role", Action::SetRole { user: UserId::new(2), role: Role::Owner }),
    ] {
        ann.command(&mut world, label, channel, action);
    }
    ann.delete(&mut world, "his", channel, 1);
    carl.history(&mut world, "carl", channel);
    assert_eq!(
        world.trace.lines,
        [
            "direct: ok rev 1",
            "m: ok rev 2 seq 1",
            "from the other end: ok rev 1",
            "join: wrong_kind",
            "leave: wrong_kind",
            "archive: wrong_kind",
            "gone: wrong_kind",
            "add: wrong_kind",
            "remove: wrong_kind",
            "role: wrong_kind",
            "his: forbidden",
            "carl: not_found",
        ]
    );
}

#[test]
fn the_last_owner_goes_last_and_may_step_down_for_another() {
    let mut world = World::embedded();
    let (ann, channel) = begin(&mut world);
    let bob = Asker::new(0, 2);
    bob.command(&mut world, "join", channel, Action::Join);
    let step_down = Action::SetRole { user: UserId::new(1), role: Role::Member };
    ann.command(&mut world, "alone", channel, step_down.clone());
    let promote = Action::SetRole { user: UserId::new(2), role: Role::Owner };
    ann.command(&mut world, "promote", channel, promote);
    ann.command(&mut world, "down", channel, step_down);
    ann.command(&mut world, "leave", channel, Action::Leave);
    bob.command(&mut world, "last", channel, Action::Leave);
    assert_eq!(
        world.trace.lines,
        [
            "join: ok rev 2",
            "alone: last_owner",
            "promote: ok rev 3",
            "down: ok rev 4",
            "leave: ok rev 5",
            "last: ok rev 6",
        ]
    );
}

#[test]
fn a_back_end_owns_what_it_made_and_is_no_member_of_it() {
    let mut world = World::embedded();
    begin(&mut world);
    let service = Asker { standing: Standing::Service, ..Asker::new(0, 7) };
    let channel = service.create_kind(&mut world, "made", ChannelKind::Private, &[2]);
    service.add(&mut world, "add", channel, 3, Role::Owner);
    service.read(
        &mut world,
        "members",
        channel,
        chappe_uplink::ReadQuery::Members { after: None, limit: 10 },
    );
    service.create_kind(&mut world, "direct", ChannelKind::Direct, &[2]);
    assert_eq!(
        world.trace.lines,
        ["made: ok rev 1", "add: ok rev 2", "members: members 2 3", "direct: forbidden"]
    );
}

#[test]
fn an_inbox_is_its_owners_to_read_and_nobodys_to_write() {
    let mut world = World::embedded();
    begin(&mut world);
    let inbox = ChannelId::inbox(UserId::new(1));
    let (ann, bob) = (Asker::new(0, 1), Asker::new(0, 2));
    let admin = Asker { standing: Standing::Admin, ..Asker::new(0, 6) };
    let service = Asker { standing: Standing::Service, ..Asker::new(0, 7) };
    ann.attach(&mut world, "hers", inbox, None);
    for (label, asker) in [("bob", &bob), ("admin", &admin), ("service", &service)] {
        asker.attach(&mut world, label, inbox, None);
        asker.events(&mut world, label, inbox, 0);
        asker.publish(&mut world, label, inbox, "x");
    }
    ann.publish(&mut world, "publish", inbox, "x");
    ann.command(&mut world, "join", inbox, Action::Join);
    let relay = chappe_uplink::Relay {
        source: ChannelId::new(5),
        incarnation: chappe_protocol::Incarnation(1),
        rev: chappe_protocol::Rev::new(1),
        by: UserId::new(2),
        kind: chappe_uplink::RelayKind::Removed,
    };
    bob.command(&mut world, "relay", inbox, Action::Relay(relay));
    ann.command(&mut world, "own sessions", inbox, Action::CloseSessions { session: None });
    admin.command(&mut world, "sessions", inbox, Action::CloseSessions { session: None });
    assert_eq!(
        world.trace.lines,
        [
            "hers: attached at 1, from 1",
            "bob: not_found",
            "bob: not_found",
            "bob: not_found",
            "admin: not_found",
            "admin: not_found",
            "admin: not_found",
            "service: not_found",
            "service: not_found",
            "service: not_found",
            "publish: not_found",
            "join: not_found",
            "relay: forbidden",
            "own sessions: forbidden",
            "pipe 1: 2 sessions.closed",
            "sessions: ok rev 2",
        ]
    );
}
