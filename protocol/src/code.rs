//! The numbered error and close codes: the one table that server, clients and documents share.
//!
//! The thousands of an error code tell a client what to do: 1xxx retry, 2xxx mend the request,
//! 3xxx reconnect or sign in again, 4xxx give up.

/// What a client does about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The same again with the same nonce, after `retry_after_ms` or with back-off.
    Again,
    /// Not before the request was changed.
    AfterMending,
    /// After connecting or signing in again.
    AfterSignIn,
    /// Never.
    Never,
}

macro_rules! error_codes {
    ($($(#[$doc:meta])* $variant:ident = $number:literal $name:literal, $status:literal, $closes:expr, $message:literal;)*) => {
        /// Why a command was refused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum ErrorCode {
            $($(#[$doc])* #[doc = concat!("`", $name, "`: ", $message)] $variant,)*
        }

        impl ErrorCode {
            /// All codes, by number.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The number on the wire.
            pub const fn number(self) -> u16 {
                match self { $(Self::$variant => $number,)* }
            }

            /// The name on the wire.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The message when there is nothing more to say.
            pub const fn message(self) -> &'static str {
                match self { $(Self::$variant => $message,)* }
            }

            /// The HTTP status of a REST answer with this code.
            pub const fn http_status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }

            /// How the connection is closed after this error, or none if it stays.
            pub const fn closes(self) -> Option<CloseCode> {
                match self { $(Self::$variant => $closes,)* }
            }

            /// The code with this number.
            pub const fn from_number(number: u16) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

use CloseCode as Close;

error_codes! {
    Unavailable = 1001 "unavailable", 503, None, "the channel's leader cannot answer now";
    Overloaded = 1002 "overloaded", 503, None, "a queue is full; nothing was accepted";
    Unknown = 1003 "unknown", 504, None, "it may or may not have happened; a retry with the same nonce tells";
    LogUnavailable = 1004 "log_unavailable", 503, None, "the log takes no writes now";
    StoreUnavailable = 1005 "store_unavailable", 503, None, "the store cannot be read now";
    ProjectionBehind = 1006 "projection_behind", 503, None, "the store is behind the log by half its budget";
    RateLimited = 1030 "rate_limited", 429, None, "too many requests";
    SlowMode = 1031 "slow_mode", 429, None, "the channel is in slow mode";
    Malformed = 2001 "malformed", 400, Some(Close::ProtocolError), "the frame is not valid in its encoding";
    TooDeep = 2002 "too_deep", 400, Some(Close::ProtocolError), "the frame is nested too deep or a map has too many keys";
    FrameTooLarge = 2003 "frame_too_large", 413, Some(Close::ProtocolError), "the frame is too large";
    UnknownCommand = 2004 "unknown_command", 404, None, "the frame names no command that this server knows";
    Invalid = 2005 "invalid", 422, None, "a field is missing or wrong";
    TextInvalid = 2010 "text_invalid", 422, None, "a text has 1 to 4000 code points and no control characters";
    DataTooLarge = 2011 "data_too_large", 422, None, "data is larger than 8 KiB of MessagePack";
    EmptyMessage = 2012 "empty_message", 422, None, "a message has text, data or both";
    NameInvalid = 2013 "name_invalid", 422, None, "a channel name has 1 to 80 code points, no control characters and is not a number";
    TopicInvalid = 2014 "topic_invalid", 422, None, "a topic has at most 250 code points and no control characters";
    EmojiInvalid = 2015 "emoji_invalid", 422, None, "a reaction has 1 to 64 bytes and no white space";
    NonceInvalid = 2016 "nonce_invalid", 422, None, "a nonce has 1 to 64 bytes and no control characters";
    NonceReused = 2017 "nonce_reused", 409, None, "the nonce was used for another command";
    NonceExpired = 2018 "nonce_expired", 410, None, "the first attempt is too old to tell whether it happened";
    NameTaken = 2020 "name_taken", 409, None, "another channel has this name";
    TooManySubscriptions = 2021 "too_many_subscriptions", 409, None, "at most 1000 subscriptions a connection";
    TooManyMentions = 2022 "too_many_mentions", 422, None, "at most 50 mentions a message";
    TooManyReactions = 2023 "too_many_reactions", 409, None, "the message has as many reactions as it may have";
    TooManyMembers = 2024 "too_many_members", 409, None, "the channel has as many members as it may have";
    NotAMember = 2025 "not_a_member", 403, None, "only members of the channel may do this";
    ChannelArchived = 2026 "channel_archived", 409, None, "the channel is archived";
    LastOwner = 2027 "last_owner", 409, None, "a channel keeps at least one owner";
    WrongKind = 2028 "wrong_kind", 409, None, "channels of this kind do not allow it";
    AlreadySignedIn = 2029 "already_signed_in", 409, None, "the connection is signed in; use refresh";
    HelloRequired = 3001 "hello_required", 401, Some(Close::Unauthenticated), "the first frame of a connection is hello";
    HelloTimeout = 3002 "hello_timeout", 401, Some(Close::Unauthenticated), "no hello came in time";
    TokenInvalid = 3003 "token_invalid", 401, Some(Close::Unauthenticated), "the token is not acceptable";
    TokenExpired = 3004 "token_expired", 401, Some(Close::Expired), "the token has expired";
    WrongUser = 3005 "wrong_user", 403, Some(Close::Forbidden), "the new token is another user's";
    SessionRevoked = 3006 "session_revoked", 401, Some(Close::Revoked), "the session was closed by an operator";
    Draining = 3007 "draining", 503, Some(Close::Drain), "this server is about to stop";
    SlowConsumer = 3008 "slow_consumer", 503, Some(Close::Slow), "the connection does not read fast enough";
    TooManyConnections = 3009 "too_many_connections", 429, Some(Close::Rate), "too many connections";
    Forbidden = 4101 "forbidden", 403, None, "the caller's role does not allow it";
    NotFound = 4102 "not_found", 404, None, "no such thing, or not yours to see";
    OriginForbidden = 4103 "origin_forbidden", 403, Some(Close::Forbidden), "this origin may not connect";
    TokenInUrl = 4104 "token_in_url", 400, Some(Close::Unauthenticated), "a token does not belong into a URL";
    MethodNotAllowed = 4105 "method_not_allowed", 405, None, "the route does not have this method";
    UnsupportedEncoding = 4106 "unsupported_encoding", 415, None, "only application/json is understood here";
}

impl ErrorCode {
    /// What a client does about it.
    pub const fn retry(self) -> Retry {
        match self.number() / 1000 {
            1 => Retry::Again,
            2 => Retry::AfterMending,
            3 => Retry::AfterSignIn,
            _ => Retry::Never,
        }
    }

    /// How long a client waits before it tries again, in milliseconds, when the server knows no
    /// better; none for codes that a retry does not mend.
    ///
    /// A leader changes within seconds and a queue drains in less; what a disk or a store has
    /// takes longer, and asking again sooner would only add to it.
    pub const fn retry_after_ms(self) -> Option<u64> {
        match self {
            Self::Unavailable | Self::Overloaded => Some(250),
            Self::Unknown | Self::RateLimited | Self::SlowMode => Some(1_000),
            Self::StoreUnavailable | Self::ProjectionBehind => Some(2_000),
            Self::LogUnavailable => Some(5_000),
            _ => None,
        }
    }
}

macro_rules! close_codes {
    ($($variant:ident = $number:literal $name:literal, $reconnect:literal, $resume:literal, $message:literal;)*) => {
        /// Why the server closed a connection: a WebSocket close code, the same number in QUIC.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum CloseCode {
            $(#[doc = concat!("`", $name, "`: ", $message)] $variant,)*
        }

        impl CloseCode {
            /// All codes, by number.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The number on the wire.
            pub const fn number(self) -> u16 {
                match self { $(Self::$variant => $number,)* }
            }

            /// Its name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What happened, for people.
            pub const fn message(self) -> &'static str {
                match self { $(Self::$variant => $message,)* }
            }

            /// Whether a client connects again by itself.
            pub const fn reconnects(self) -> bool {
                match self { $(Self::$variant => $reconnect,)* }
            }

            /// Whether its cursor is still good then.
            pub const fn resumes(self) -> bool {
                match self { $(Self::$variant => $resume,)* }
            }

            /// The code with this number.
            pub const fn from_number(number: u16) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

close_codes! {
    Normal = 1000 "normal", false, true, "the connection ended as asked";
    Drain = 1012 "drain", true, true, "the server is about to stop; connect again after the given delay";
    Unauthenticated = 4001 "unauthenticated", false, true, "sign in with a valid token";
    Forbidden = 4003 "forbidden", false, false, "not allowed";
    Rate = 4008 "rate", true, true, "too much at once; connect again with back-off";
    Slow = 4009 "slow", true, true, "the connection does not read fast enough; connect again and resume";
    Expired = 4010 "expired", false, true, "the token has expired; get a new one";
    Revoked = 4011 "revoked", false, false, "the session was closed by an operator";
    ProtocolError = 4012 "protocol_error", false, true, "the client broke the protocol";
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn numbers_and_names_are_unique_and_ascending() {
        let numbers: Vec<_> = ErrorCode::ALL.iter().map(|code| code.number()).collect();
        assert!(numbers.is_sorted_by(|a, b| a < b));
        let names: HashSet<_> = ErrorCode::ALL.iter().map(|code| code.name()).collect();
        assert_eq!(names.len(), ErrorCode::ALL.len());
    }

    #[test]
    fn exactly_the_codes_that_ask_for_a_retry_say_when() {
        for code in ErrorCode::ALL {
            let again = code.retry() == Retry::Again;
            assert_eq!(code.retry_after_ms().is_some(), again, "{code:?}");
        }
    }

    #[test]
    fn a_code_that_closes_says_so_by_its_range() {
        for code in ErrorCode::ALL.iter().filter(|code| code.retry() == Retry::AfterSignIn) {
            assert!(code.closes().is_some(), "{code:?} asks to reconnect and leaves it open");
        }
    }

    #[test]
    fn numbers_read_back() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_number(code.number()), Some(*code));
        }
        for code in CloseCode::ALL {
            assert_eq!(CloseCode::from_number(code.number()), Some(*code));
        }
    }
}
