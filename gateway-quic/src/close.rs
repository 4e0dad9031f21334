//! Closing so that what was said before is heard: closing a QUIC connection drops what is still
//! on its way.

use std::time::Duration;

use chappe_protocol::CloseCode;
use quinn::{Connection, ConnectionError, RecvStream, SendStream};
use tokio::time::{Instant, timeout_at};

use crate::link::Boxed;

/// Ends all streams, waits until the client has acknowledged them or the time is up, and closes.
pub(crate) async fn close_after(
    connection: Connection,
    control: Option<(SendStream, RecvStream)>,
    mut lanes: Vec<SendStream>,
    linger: Duration,
    code: CloseCode,
    reason: String,
) {
    let until = Instant::now() + linger;
    // Its other half is kept: dropping it would tell the client to stop talking before it was told
    // why.
    let (control, _unread) = control.unzip();
    lanes.extend(control);
    for stream in &mut lanes {
        drop(stream.finish()); // fails if the client stopped it: then nothing is waited for
    }
    for stream in &lanes {
        if timeout_at(until, stream.stopped()).await.is_err() {
            break;
        }
    }
    connection.close(u32::from(code.number()).into(), reason.as_bytes());
}

/// Waits for the end of a connection.
pub(crate) fn closed(connection: &Connection) -> Boxed<ConnectionError> {
    let connection = connection.clone();
    Box::pin(async move { connection.closed().await })
}
