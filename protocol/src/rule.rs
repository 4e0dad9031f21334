//! The rules that a value or a command can break, each with its code: one table, so that a
//! refusal's words are fixed and can never repeat what was sent.

use crate::code::ErrorCode;

/// Why a value was refused. The text says what the rule is and never repeats the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{rule}")]
pub struct InvalidValue {
    /// The code of the answer.
    pub code: ErrorCode,
    /// The rule that was broken, in the words of the answer.
    pub rule: &'static str,
}

macro_rules! rules {
    ($($name:ident: $code:ident, $rule:literal;)*) => {
        $(pub(crate) const $name: InvalidValue =
            InvalidValue { code: ErrorCode::$code, rule: $rule };)*

        impl InvalidValue {
            /// All rules.
            pub(crate) const ALL: &[Self] = &[$($name),*];
        }
    };
}

rules! {
    ID: Invalid, "an id is a decimal number of at most 64 bits, 63 for a user's";
    POSITION: Invalid, "a revision or message number stays below 2^40";
    CURSOR: Invalid, "not a cursor";
    TEXT_EMPTY: TextInvalid, "a text is not empty and not white space alone";
    TEXT_LONG: TextInvalid, "a text has at most 4000 code points";
    TEXT_CONTROL: TextInvalid, "a text has no control characters but tabs and line breaks";
    NAME_LENGTH: NameInvalid, "a channel name has 1 to 80 code points";
    NAME_CHARACTERS: NameInvalid, "a channel name has no control characters and no space at its ends";
    NAME_NUMBER: NameInvalid, "a channel name is not a number, which would read as an id";
    NAME_MISSING: NameInvalid, "a public, private or announcement channel has a name";
    NAME_REFUSED: NameInvalid, "a direct or group channel has no name";
    TOPIC_LONG: TopicInvalid, "a topic has at most 250 code points";
    TOPIC_CONTROL: TopicInvalid, "a topic has no control characters but tabs and line breaks";
    EMOJI_LENGTH: EmojiInvalid, "a reaction has 1 to 64 bytes";
    EMOJI_CHARACTERS: EmojiInvalid, "a reaction has no white space and no control characters";
    NONCE_LENGTH: NonceInvalid, "a nonce has 1 to 64 bytes";
    NONCE_CONTROL: NonceInvalid, "a nonce has no control characters";
    DATA_LARGE: DataTooLarge, "data is larger than 8 KiB of MessagePack";
    DATA_DEEP: DataTooLarge, "data is nested deeper than 12 levels";
    DATA_KEYS: DataTooLarge, "a map in data has at most 64 keys";
    MESSAGE_EMPTY: EmptyMessage, "a message has text, data or both";
    EDIT_EMPTY: EmptyMessage, "an edit changes text, data or both";
    MENTIONS: TooManyMentions, "a message has at most 50 mentions";
    MEMBERS: TooManyMembers, "a channel is made with at most 50 members";
    DIRECT_MEMBERS: Invalid, "a direct channel is made with exactly one other user";
    SUBSCRIPTIONS: TooManySubscriptions, "at most 1000 channels";
    SLOW_MODE: Invalid, "slow_mode_ms is at most six hours";
    PAGE_LIMIT: Invalid, "limit is 1 to 200";
    PAGE_PLACE: Invalid, "at most one of before, after and around";
    PRESENCE_USERS: Invalid, "presence is asked of 1 to 100 users";
    SEQ_ZERO: Invalid, "message numbers start at 1";
    CHANNELS_WORD: Invalid, "channels is the string `mine` or a list";
    NO_COMMAND: UnknownCommand, "the frame names no command that this server knows";
    TWO_COMMANDS: Invalid, "the frame names more than one command";
    NO_ID: Invalid, "the frame has no id";
    UNKNOWN_KIND: Invalid, "an event of a kind that this version lacks";
    BODY_BEFORE_KIND: Invalid, "an event's kind comes before its body";
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_rules_have_the_same_words() {
        let words: HashSet<_> = InvalidValue::ALL.iter().map(|rule| rule.rule).collect();
        assert_eq!(words.len(), InvalidValue::ALL.len());
    }
}
