//! Everything that crosses the wire reads back as it was written, in both encodings.

use std::fmt::Debug;

use chappe_protocol::{
    ClientFrame, Cursor, Encoding, ServerFrame,
    frame::Incoming,
    reply::{
        Change, ChannelReply, ChannelsReply, Done, HelloReply, HistoryReply, MembersReply,
        PresenceReply, RefreshReply, Reply, SubscribeReply,
    },
};
use proptest::prelude::*;
use serde::{Serialize, de::DeserializeOwned};

use crate::arbitrary::{command, cursor, server};

const BOTH: [Encoding; 2] = [Encoding::Json, Encoding::MessagePack];

fn encoded(encoding: Encoding, frame: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    encoding.encode(frame, &mut bytes);
    bytes
}

fn reads_as(frame: &ServerFrame<'_>, expected: &Incoming) {
    for encoding in BOTH {
        let bytes = encoded(encoding, frame);
        assert_eq!(encoding.decode_server(&bytes).as_ref(), Ok(expected), "{encoding:?}");
    }
}

fn replies_as<T: DeserializeOwned + PartialEq + Debug>(bytes: &[u8], encoding: Encoding, body: &T) {
    assert_eq!(encoding.decode_ok::<T>(bytes).as_ref(), Ok(body), "{encoding:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_client_frame_reads_back(frame in command::client_frame()) {
        for encoding in BOTH {
            let bytes = encoded(encoding, &frame);
            let read = encoding.decode_client(&bytes);
            prop_assert_eq!(read.as_ref(), Ok(&frame));
        }
    }

    #[test]
    fn client_frames_in_one_message_read_back_in_order(
        frames in proptest::collection::vec(command::client_frame(), 1..5),
    ) {
        for encoding in BOTH {
            let bytes: Vec<u8> = frames.iter().flat_map(|frame| encoded(encoding, frame)).collect();
            let mut rest = &*bytes;
            let read: Vec<ClientFrame> =
                frames.iter().map(|_| encoding.take_client(&mut rest).unwrap()).collect();
            prop_assert_eq!(&read, &frames);
            prop_assert!(rest.is_empty());
        }
    }

    #[test]
    fn an_event_reads_back(event in server::event()) {
        reads_as(&ServerFrame::Event { event: &event }, &Incoming::Event(Box::new(event.clone())));
    }

    #[test]
    fn a_reply_reads_back(id in any::<u32>(), reply in server::reply()) {
        let frame = ServerFrame::Ok { id, ok: &reply };
        reads_as(&frame, &Incoming::Ok { id });
        for encoding in BOTH {
            let bytes = encoded(encoding, &frame);
            match &reply {
                Reply::Hello(body) => replies_as::<HelloReply>(&bytes, encoding, body),
                Reply::Refresh(body) => replies_as::<RefreshReply>(&bytes, encoding, body),
                Reply::Done(body) => replies_as::<Done>(&bytes, encoding, body),
                Reply::Change(body) => replies_as::<Change>(&bytes, encoding, body),
                Reply::Channel(body) => replies_as::<ChannelReply>(&bytes, encoding, body),
                Reply::Channels(body) => replies_as::<ChannelsReply>(&bytes, encoding, body),
                Reply::Members(body) => replies_as::<MembersReply>(&bytes, encoding, body),
                Reply::Presence(body) => replies_as::<PresenceReply>(&bytes, encoding, body),
                Reply::History(body) => replies_as::<HistoryReply>(&bytes, encoding, body),
                Reply::Subscribe(body) => replies_as::<SubscribeReply>(&bytes, encoding, body),
            }
        }
    }

    #[test]
    fn a_refusal_reads_back(id in any::<Option<u32>>(), error in server::error()) {
        let frame = ServerFrame::Error { id, error: error.clone() };
        reads_as(&frame, &Incoming::Error { id, error });
    }

    #[test]
    fn notices_read_back(
        live in server::live(),
        reset in server::reset(),
        signal in server::signal(),
        ping in server::ping(),
        closing in server::closing(),
    ) {
        reads_as(&ServerFrame::Live { live: live.clone() }, &Incoming::Live(live));
        reads_as(&ServerFrame::Reset { reset: reset.clone() }, &Incoming::Reset(reset));
        reads_as(&ServerFrame::Signal { signal: signal.clone() }, &Incoming::Signal(signal));
        reads_as(&ServerFrame::Ping { ping: ping.clone() }, &Incoming::Ping(ping));
        reads_as(&ServerFrame::Closing { closing: closing.clone() }, &Incoming::Closing(closing));
    }

    #[test]
    fn a_cursor_has_one_spelling(cursor in cursor(), change in any::<prop::sample::Index>()) {
        let text = cursor.to_text();
        prop_assert_eq!(Cursor::parse(&text), Ok(cursor));
        let longer = format!("{text}A");
        prop_assert!(Cursor::parse(&longer).is_err());
        let shorter = &text[..change.index(text.len())];
        prop_assert!(Cursor::parse(shorter).is_err());
    }
}
