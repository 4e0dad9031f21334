//! Connections that sign in and then do nothing, in a process of their own: what a server's
//! memory is then made of is its own, and its files are.
//!
//! `idle-clients DATA SUBJECT COUNT` connects to the server of a data directory, says `ready` on
//! standard output once all are signed in, waits for a line on standard input, says how many are
//! still open, and ends with its connections when its input does.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use chappe_tests::{Client, Run, Transport, allow_open_files, token};
use tokio::sync::{Semaphore, mpsc};

/// Connections that are made at the same time.
const AT_ONCE: usize = 64;
/// Files beside the connections.
const FILES: u64 = 64;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [data, subject, count] = &arguments[..] else { panic!("DATA SUBJECT COUNT") };
    let (data, count) = (PathBuf::from(data), count.parse::<usize>().unwrap());
    allow_open_files(count as u64 + FILES);
    let open = Arc::new(AtomicUsize::new(0));
    connect_all(&data, subject, count, &open).await;
    println!("ready");

    // The connections are the runtime's workers'; this thread may wait.
    for line in std::io::stdin().lines() {
        line.unwrap();
        println!("{}", open.load(Ordering::Acquire));
    }
}

/// Returns when everybody is signed in.
async fn connect_all(data: &Path, subject: &str, count: usize, open: &Arc<AtomicUsize>) {
    let run = Arc::new(Run::read(data).expect("the server runs"));
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let (signed_in, mut signing_in) = mpsc::channel::<()>(1);
    for number in 0..count {
        let place = Arc::clone(&places).acquire_owned().await.unwrap();
        let token = token::mint(data, &format!("idle-{number}{subject}"));
        let (run, open, signed_in) = (Arc::clone(&run), Arc::clone(open), signed_in.clone());
        tokio::spawn(async move {
            let mut client = Client::connect_to(&run, Transport::WsMessagePack).await;
            client.sign_in(&token, None).await;
            open.fetch_add(1, Ordering::AcqRel);
            drop((place, signed_in));
            client.idle().await;
            open.fetch_sub(1, Ordering::AcqRel);
        });
    }
    drop(signed_in);
    assert!(signing_in.recv().await.is_none(), "nothing is sent");
    assert_eq!(open.load(Ordering::Acquire), count, "who is signed in stays");
}
