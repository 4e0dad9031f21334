//! Frames as JSON values, in either encoding of the wire. An id is a string in JSON and a number
//! in MessagePack; everything else is the same.

use serde_json::Value;

/// How frames are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Text.
    Json,
    /// Binary.
    MessagePack,
}

/// Fields that hold ids, alone or in lists, wherever they stand outside `data`.
const ID_FIELDS: &[&str] = &[
    "channel", "channels", "user", "users", "by", "session", "next", "id", "after", "mentions",
    "members", "heads",
];

impl Encoding {
    /// A frame's bytes.
    pub fn write(self, frame: &Value) -> Vec<u8> {
        match self {
            Self::Json => serde_json::to_vec(frame).unwrap(),
            Self::MessagePack => {
                let mut frame = frame.clone();
                for_each_id(&mut frame, None, &mut |value| {
                    let id = value.as_str().and_then(|text| text.parse::<u64>().ok());
                    // `007` is no id, and stays what it is.
                    if let Some(id) = id.filter(|id| value.as_str() == Some(&id.to_string())) {
                        *value = id.into();
                    }
                });
                rmp_serde::to_vec(&frame).unwrap()
            }
        }
    }

    /// The frames of a message.
    pub fn read(self, message: &[u8]) -> Vec<Value> {
        match self {
            Self::Json => {
                let frames = serde_json::Deserializer::from_slice(message).into_iter();
                frames.map(|frame| frame.expect("the server sends JSON")).collect()
            }
            Self::MessagePack => {
                let mut rest = message;
                let mut frames = Vec::new();
                while !rest.is_empty() {
                    let frame = rmp_serde::from_read(&mut rest);
                    frames.push(with_ids(frame.expect("the server sends MessagePack")));
                }
                frames
            }
        }
    }
}

fn with_ids(mut frame: Value) -> Value {
    // The id of a request, and of its reply, is a number in both.
    let request = frame.as_object_mut().and_then(|frame| frame.remove("id"));
    for_each_id(&mut frame, None, &mut |value| {
        if let Some(id) = value.as_u64() {
            *value = id.to_string().into();
        }
    });
    if let (Some(request), Some(map)) = (request, frame.as_object_mut()) {
        map.insert("id".to_owned(), request);
    }
    frame
}

/// Visits the scalars that may be ids.
fn for_each_id(value: &mut Value, field: Option<&str>, visit: &mut dyn FnMut(&mut Value)) {
    let is_id = field.is_some_and(|field| ID_FIELDS.contains(&field));
    match value {
        Value::Object(map) => {
            for (key, value) in map.iter_mut().filter(|(key, _)| *key != "data") {
                for_each_id(value, Some(key), visit);
            }
        }
        Value::Array(items) => {
            for item in items {
                match item {
                    // A pair of an id and a revision.
                    Value::Array(pair) if is_id => visit(&mut pair[0]),
                    Value::Object(_) => for_each_id(item, None, visit),
                    scalar if is_id => visit(scalar),
                    _ => {}
                }
            }
        }
        // A channel's `members` is their number.
        scalar if is_id && field != Some("members") => visit(scalar),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ids_are_numbers_in_messagepack_alone() {
        let frame = json!({"id": 7, "publish": {"channel": "5", "text": "5", "mentions": ["1", "2"],
            "data": {"user": "9"}}, "heads": [["3", 4]], "members": 2});
        let bytes = Encoding::MessagePack.write(&frame);
        let plain: Value = rmp_serde::from_slice(&bytes).unwrap();
        assert_eq!(plain["publish"]["channel"], 5);
        assert_eq!(plain["publish"]["text"], "5");
        assert_eq!(plain["publish"]["mentions"], json!([1, 2]));
        assert_eq!(plain["publish"]["data"], json!({"user": "9"}));
        assert_eq!(Encoding::MessagePack.read(&bytes), [frame]);
    }
}
