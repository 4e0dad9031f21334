//! A length that a frame declares is never believed: nothing is reserved for it.
//!
//! Alone in its process, because it watches how much address space the process takes.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use chappe_protocol::{Encoding, ErrorCode, reply::HistoryReply};

/// The most address space that the process had so far, in KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmPeak:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn giant_declared_lengths_reserve_nothing() {
    // A text, an array and a map of 2^32 − 1 where a frame expects them, and where it does not.
    let heads = [b'\xdb', b'\xdd', b'\xdf'];
    let prefixes: [&[u8]; 6] = [
        b"",
        b"\x82\xa2id\x01\xa4ping",
        b"\x82\xa2id\x01\xa7publish\x82\xa7channel\x01\xa4text",
        b"\x82\xa2id\x01\xa7publish\x82\xa7channel\x01\xa8mentions",
        b"\x82\xa2id\x01\xa6signal\x82\xa7channel\x01\xa4data",
        b"\x82\xa2id\x01\xa2ok\x81\xa8messages",
    ];
    let before = peak_kib();
    for prefix in prefixes {
        for head in heads {
            for tail in [&b""[..], b"\xa1a", &[0x01; 300]] {
                let bytes = [prefix, &[head, 0xff, 0xff, 0xff, 0xff], tail].concat();
                let error = Encoding::MessagePack.decode_client(&bytes).unwrap_err();
                assert_eq!(error.code, ErrorCode::Malformed, "{bytes:x?}");
                assert!(Encoding::MessagePack.decode_server(&bytes).is_err());
                assert!(Encoding::MessagePack.decode_ok::<HistoryReply>(&bytes).is_err());
            }
        }
    }
    let grown_kib = peak_kib() - before;
    assert!(grown_kib < 1024 * 1024, "the process grew by {grown_kib} KiB");
}
