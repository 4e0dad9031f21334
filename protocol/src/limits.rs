//! The limits of the protocol: what a client may send, and how long it may take.

use serde::{Deserialize, Serialize};

/// Largest frame of a client, in bytes of its encoding.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;
/// Largest frame before the session said `hello`.
pub const FRAME_BYTES_MAX_BEFORE_HELLO: usize = 8 * 1024;
/// Deepest nesting of maps and arrays in a frame, in both encodings.
pub const DEPTH_MAX: usize = 16;
/// Most keys of one map.
pub const KEYS_MAX: usize = 64;
/// Longest message text, in Unicode code points.
pub const TEXT_CODE_POINTS_MAX: usize = 4_000;
/// Largest `data`, in bytes of its MessagePack form.
pub const DATA_BYTES_MAX: usize = 8 * 1024;
/// Deepest nesting inside `data`: an event or a page puts four levels around it and stays within
/// [`DEPTH_MAX`], so what one client may send every other can read.
pub const DATA_DEPTH_MAX: usize = 12;
/// Longest nonce, in bytes.
pub const NONCE_BYTES_MAX: usize = 64;
/// Longest channel name, in code points.
pub const NAME_CODE_POINTS_MAX: usize = 80;
/// Longest topic, in code points.
pub const TOPIC_CODE_POINTS_MAX: usize = 250;
/// Longest reaction, in bytes.
pub const EMOJI_BYTES_MAX: usize = 64;
/// Most kinds of reaction on one message.
pub const REACTION_KINDS_MAX: usize = 50;
/// Most reactions on one message, over all kinds: keeps its row far below what a store takes.
pub const REACTIONS_MAX: usize = 1_000;
/// Most mentions in one message.
pub const MENTIONS_MAX: usize = 50;
/// Most subscriptions of one connection, and most entries of a resume cursor.
pub const SUBSCRIPTIONS_MAX: usize = 1_000;
/// Most members that a channel is created with.
pub const INITIAL_MEMBERS_MAX: usize = 50;
/// Most members of a group channel.
pub const GROUP_MEMBERS_MAX: usize = 50;
/// Most items of one page (messages, members, channels).
pub const PAGE_ITEMS_MAX: u32 = 200;
/// Most users whose presence is asked at once.
pub const PRESENCE_USERS_MAX: usize = 100;
/// Items of a page when the request names no limit.
pub const PAGE_ITEMS_DEFAULT: u32 = 50;
/// Longest slow-mode interval: six hours.
pub const SLOW_MODE_MS_MAX: u32 = 6 * 60 * 60 * 1000;
/// A client says `hello` within this time.
pub const HELLO_TIMEOUT_MS: u64 = 5_000;
/// The server pings this often.
pub const PING_INTERVAL_MS: u64 = 25_000;
/// A connection that sent nothing for this long is dead.
pub const DEAD_AFTER_MS: u64 = 60_000;
/// A command repeated with its nonce within this time gets its first result.
pub const NONCE_WINDOW_MS: u64 = 10 * 60 * 1000;
/// A retry whose first attempt is older is refused as `nonce_expired`: a minute below the
/// window, for the time it may spend on its way.
pub const NONCE_AGE_MS_MAX: u64 = 9 * 60 * 1000;

/// The limits in force, as `hello` tells them to a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Largest frame in bytes.
    pub frame_bytes: u32,
    /// Longest text in code points.
    pub text_code_points: u32,
    /// Largest `data` in bytes of MessagePack.
    pub data_bytes: u32,
    /// Most subscriptions of a connection.
    pub subscriptions: u32,
    /// Most items of a page.
    pub page_items: u32,
    /// How long a nonce is remembered, in milliseconds.
    pub nonce_window_ms: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame_bytes: FRAME_BYTES_MAX as u32,
            text_code_points: TEXT_CODE_POINTS_MAX as u32,
            data_bytes: DATA_BYTES_MAX as u32,
            subscriptions: SUBSCRIPTIONS_MAX as u32,
            page_items: PAGE_ITEMS_MAX,
            nonce_window_ms: NONCE_WINDOW_MS as u32,
        }
    }
}
