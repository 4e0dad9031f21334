//! The golden transcripts are complete, well-formed, and say the same in both encodings.
//! `UPDATE=1` writes their MessagePack forms anew.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod ordered;
mod transcript;

use std::collections::{BTreeSet, HashMap};

use chappe_protocol::{Command, Encoding, ErrorCode, frame::Incoming, reply};
use ordered::Ordered;
use serde::{Serialize, de::DeserializeOwned};
use transcript::{Frame, Transcript};

const JSON: Encoding = Encoding::Json;
const MSGPACK: Encoding = Encoding::MessagePack;

fn all() -> Vec<Transcript> {
    ["commands", "errors"].into_iter().flat_map(Transcript::read_all).collect()
}

#[test]
fn transcripts_are_written_in_their_canonical_form() {
    for transcript in all() {
        let rendered = transcript.render();
        if rendered != transcript.text && std::env::var_os("UPDATE").is_some() {
            std::fs::write(&transcript.path, &rendered).unwrap();
        } else {
            assert_eq!(rendered, transcript.text, "{}: run with UPDATE=1", transcript.name);
        }
    }
}

#[test]
fn every_command_and_every_error_code_has_its_transcript() {
    let names = |folder: &str| -> BTreeSet<String> {
        let stem = |t: Transcript| t.name.rsplit('/').next().unwrap().to_owned();
        Transcript::read_all(folder).into_iter().map(stem).collect()
    };
    let commands = Command::NAMES.iter().map(|name| (*name).to_owned());
    assert_eq!(names("commands"), commands.collect());
    let codes = ErrorCode::ALL.iter().map(|code| code.name().to_owned());
    assert_eq!(names("errors"), codes.collect());
}

#[test]
fn a_transcript_shows_what_it_is_named_after() {
    for transcript in all() {
        let (folder, name) = transcript.name.split_once('/').unwrap();
        let shown = match folder {
            "commands" => transcript.frames().iter().any(|frame| {
                frame.from_client && frame.frame.as_ref().is_some_and(|f| f.get(name).is_some())
            }),
            _ => transcript.steps().iter().any(|step| shown_error(step) == Some(name)),
        };
        assert!(shown, "{} does not show it", transcript.name);
    }
}

fn shown_error(step: &Ordered) -> Option<&str> {
    let holder = step.get("json").or_else(|| step.get("response"))?;
    let error = holder.get("error")?;
    let name = error.get("name")?.text()?;
    let code = ErrorCode::ALL.iter().find(|code| code.name() == name).unwrap();
    assert_eq!(error.get("code").unwrap().number(), Some(code.number().into()), "{name}");
    assert_eq!(error.get("retry_after_ms").is_some(), code.retry_after_ms().is_some(), "{name}");
    Some(name)
}

#[test]
fn both_encodings_of_a_client_frame_are_read_alike() {
    for transcript in all() {
        for frame in transcript.frames().iter().filter(|frame| frame.from_client) {
            let (json, msgpack) =
                (JSON.decode_client(&frame.json), MSGPACK.decode_client(&frame.msgpack));
            match (json, msgpack) {
                (Err(json), Err(msgpack)) => {
                    assert_eq!((json.code, json.id), (msgpack.code, msgpack.id));
                    let (_, name) = transcript.name.split_once('/').unwrap();
                    assert_eq!(json.code.name(), name, "the codec refuses it otherwise");
                }
                (json, msgpack) => assert_eq!(json, msgpack, "{}", transcript.name),
            }
        }
    }
}

#[test]
fn both_encodings_of_a_server_frame_are_read_alike_and_hold_nothing_unknown() {
    for transcript in all() {
        // Which command each actor's ids stand for.
        let mut asked: HashMap<(String, u64), Command> = HashMap::new();
        for frame in transcript.frames() {
            if frame.from_client {
                if let Ok(read) = JSON.decode_client(&frame.json) {
                    asked.insert((frame.actor, read.id.into()), read.command);
                }
                continue;
            }
            let json = JSON.decode_server(&frame.json).unwrap();
            assert_eq!(Ok(&json), MSGPACK.decode_server(&frame.msgpack).as_ref());
            match json {
                Incoming::Ok { id } => check_ok(&asked[&(frame.actor.clone(), id.into())], &frame),
                Incoming::Unknown | Incoming::UnknownEvent(_) => {
                    panic!("{}: {}", transcript.name, String::from_utf8_lossy(&frame.json))
                }
                _ => {}
            }
        }
    }
}

fn check_ok(command: &Command, frame: &Frame) {
    match command {
        Command::Hello(_) => check::<reply::HelloReply>(frame),
        Command::Refresh(_) => check::<reply::RefreshReply>(frame),
        Command::Ping(_)
        | Command::Pong(_)
        | Command::Typing(_)
        | Command::Signal(_)
        | Command::Unsubscribe(_) => check::<reply::Done>(frame),
        Command::GetChannel(_) => check::<reply::ChannelReply>(frame),
        Command::ListChannels(_) => check::<reply::ChannelsReply>(frame),
        Command::ListMembers(_) => check::<reply::MembersReply>(frame),
        Command::Presence(_) => check::<reply::PresenceReply>(frame),
        Command::History(_) => check::<reply::HistoryReply>(frame),
        Command::Subscribe(_) => check::<reply::SubscribeReply>(frame),
        _ => check::<reply::Change>(frame),
    }
}

/// Both encodings give the same body, and writing it again gives what is in the file.
fn check<T: Serialize + DeserializeOwned>(frame: &Frame) {
    let json = serde_json::to_value(JSON.decode_ok::<T>(&frame.json).unwrap()).unwrap();
    let msgpack = serde_json::to_value(MSGPACK.decode_ok::<T>(&frame.msgpack).unwrap()).unwrap();
    assert_eq!(json, msgpack);
    let written: serde_json::Value = serde_json::from_slice(&frame.json).unwrap();
    assert_eq!(json, written["ok"], "{}", String::from_utf8_lossy(&frame.json));
}
