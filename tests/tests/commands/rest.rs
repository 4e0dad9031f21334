//! A command's REST request, as the protocol's document describes it.

use serde_json::{Map, Value};

pub(crate) struct Request {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Option<Value>,
}

/// Each command's method, path, and whether it has a body. What stands in braces is taken out of
/// the body.
const ROUTES: &[(&str, &str, &str, bool)] = &[
    ("create_channel", "POST", "/v1/channels", true),
    ("list_channels", "GET", "/v1/channels?after&limit", false),
    ("update_channel", "PATCH", "/v1/channels/{channel}", true),
    ("delete_channel", "DELETE", "/v1/channels/{channel}", false),
    ("archive_channel", "PUT", "/v1/channels/{channel}/archive", false),
    ("unarchive_channel", "DELETE", "/v1/channels/{channel}/archive", false),
    ("list_members", "GET", "/v1/channels/{channel}/members?after&limit", false),
    ("join", "PUT", "/v1/channels/{channel}/members/@me", false),
    ("leave", "DELETE", "/v1/channels/{channel}/members/@me", false),
    ("add_member", "PUT", "/v1/channels/{channel}/members/{user}", true),
    ("set_role", "PATCH", "/v1/channels/{channel}/members/{user}", true),
    ("remove_member", "DELETE", "/v1/channels/{channel}/members/{user}", false),
    ("history", "GET", "/v1/channels/{channel}/messages?before&after&around&limit", false),
    ("publish", "POST", "/v1/channels/{channel}/messages", true),
    ("edit", "PATCH", "/v1/channels/{channel}/messages/{seq}", true),
    ("delete", "DELETE", "/v1/channels/{channel}/messages/{seq}", false),
    ("react", "PUT", "/v1/channels/{channel}/messages/{seq}/reactions/{emoji}/@me", false),
    ("unreact", "DELETE", "/v1/channels/{channel}/messages/{seq}/reactions/{emoji}/@me", false),
    ("mark_read", "PUT", "/v1/channels/{channel}/read", true),
    ("typing", "POST", "/v1/channels/{channel}/typing", false),
    ("signal", "POST", "/v1/channels/{channel}/signals", true),
    ("presence", "GET", "/v1/presence?users", false),
];

pub(crate) fn request(frame: &Value) -> Request {
    let mut frame = frame.as_object().unwrap().clone();
    let mut headers = Vec::new();
    if let Some(nonce) = frame.remove("nonce") {
        headers.push(("idempotency-key", nonce.as_str().unwrap().to_owned()));
    }
    if let Some(age_ms) = frame.remove("age_ms") {
        headers.push(("idempotency-age-ms", age_ms.to_string()));
    }
    let (command, body) = frame.iter().next().unwrap();
    let mut fields = body.as_object().unwrap().clone();
    if command == "get_channel" {
        return get_channel(&fields["channel"]);
    }
    let route = ROUTES.iter().find(|(name, ..)| name == command);
    let (_, method, template, has_body) = route.unwrap_or_else(|| panic!("no route: {command}"));
    let (template, query) = template.split_once('?').unwrap_or((template, ""));
    let path: Vec<_> = template.split('/').map(|part| fill_in(part, &mut fields)).collect();
    let query: Vec<_> = query
        .split('&')
        .filter_map(|name| fields.remove(name).map(|value| format!("{name}={}", encode(&value))))
        .collect();
    let mut path = path.join("/");
    if !query.is_empty() {
        path += &format!("?{}", query.join("&"));
    }
    assert!(*has_body || fields.is_empty(), "{command} has no place for {fields:?}");
    Request { method, path, headers, body: has_body.then_some(Value::Object(fields)) }
}

fn get_channel(channel: &Value) -> Request {
    let path = match (channel.get("id"), channel.get("name")) {
        (Some(id), None) => format!("/v1/channels/{}", encode(id)),
        (None, Some(name)) => format!("/v1/channels?name={}", encode(name)),
        _ => panic!("{channel} has no route"),
    };
    Request { method: "GET", path, headers: Vec::new(), body: None }
}

fn fill_in(part: &str, fields: &mut Map<String, Value>) -> String {
    match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
        Some(name) => encode(&fields.remove(name).unwrap_or_else(|| panic!("{name} is missing"))),
        None => part.to_owned(),
    }
}

/// A value in a URL.
fn encode(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    };
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    let encoded = text.bytes().map(|byte| match plain(&byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    });
    encoded.collect()
}
