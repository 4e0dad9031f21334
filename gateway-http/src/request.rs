//! A REST request becomes the very frame that a WebSocket would have brought, so that one codec
//! decides what is valid, whatever the transport.

use std::{net::SocketAddr, time::Duration};

use axum::body::Body as HttpBody;
use bytes::Bytes;
use chappe_protocol::{ClientFrame, Encoding, ErrorCode, Nonce, limits};
use http::{HeaderMap, HeaderName, StatusCode, header, request::Parts};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::IgnoredAny;

use crate::{
    problem::Problem,
    routes::{Field, Kind, Route},
};

/// The client's address, behind trusted proxies the one that they tell. The front puts it into
/// each request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client(pub(crate) SocketAddr);

/// The client's address.
pub(crate) fn client(parts: &Parts) -> SocketAddr {
    let client = parts.extensions.get::<Client>();
    client.expect("the front puts the client's address into each request").0
}

/// The token of `Authorization: Bearer`.
pub(crate) fn bearer(headers: &HeaderMap) -> Result<String, Problem> {
    let missing = || {
        Problem::with_message(ErrorCode::TokenInvalid, "the request has no Authorization: Bearer")
    };
    let mut lines = headers.get_all(header::AUTHORIZATION).into_iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return Err(missing()) };
    let (scheme, token) =
        line.to_str().ok().and_then(|line| line.split_once(' ')).ok_or_else(missing)?;
    let token = token.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return Err(missing());
    }
    Ok(token.to_owned())
}

/// The nonce and how long ago its first attempt was made, in milliseconds.
pub(crate) fn idempotency(headers: &HeaderMap) -> Result<(Option<Nonce>, u64), Problem> {
    let Some(key) = single(headers, &IDEMPOTENCY_KEY)? else { return Ok((None, 0)) };
    let key = key.to_str().map_err(|_| Problem::from(ErrorCode::NonceInvalid))?;
    // The header's draft writes the key as a quoted string, most clients do not quote it.
    let key = key.strip_prefix('"').and_then(|key| key.strip_suffix('"')).unwrap_or(key);
    let nonce = Nonce::parse(key).map_err(|_| Problem::from(ErrorCode::NonceInvalid))?;
    let age_ms = match single(headers, &IDEMPOTENCY_AGE_MS)? {
        Some(age) => age.to_str().ok().and_then(parse_number).ok_or_else(|| {
            Problem::with_message(ErrorCode::Invalid, "Idempotency-Age-Ms is not a number")
        })?,
        None => 0,
    };
    Ok((Some(nonce), age_ms))
}

/// The pairs of the query.
pub(crate) fn query_pairs(parts: &Parts) -> Result<Vec<(String, String)>, Problem> {
    if parts.uri.query().is_none() {
        return Ok(Vec::new());
    }
    let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
    match pairs {
        Ok(pairs) => Ok(pairs.0),
        Err(_) => Err(Problem::with_message(ErrorCode::Malformed, "the query cannot be read")),
    }
}

/// Refuses a body that the headers already condemn, before any of it is read.
pub(crate) fn check_body_headers(headers: &HeaderMap) -> Result<(), Problem> {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        // A length that two parties can read differently is how requests are smuggled.
        let problem =
            Problem::with_message(ErrorCode::Invalid, "a body comes with its Content-Length");
        return Err(problem.status(StatusCode::LENGTH_REQUIRED).body_unread());
    }
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    let length = length.and_then(parse_number).unwrap_or(0);
    if length > limits::FRAME_BYTES_MAX as u64 {
        let problem = Problem::with_message(ErrorCode::FrameTooLarge, "the body is too large");
        return Err(problem.body_unread());
    }
    if length > 0 && !is_json(headers) {
        return Err(Problem::from(ErrorCode::UnsupportedEncoding).body_unread());
    }
    Ok(())
}

/// Reads a body whose headers were checked.
pub(crate) async fn read_body(body: HttpBody, within: Duration) -> Result<Bytes, Problem> {
    let read = Limited::new(body, limits::FRAME_BYTES_MAX).collect();
    match tokio::time::timeout(within, read).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(Problem::with_message(ErrorCode::FrameTooLarge, "the body is too large"))
        }
        Ok(Err(_)) => {
            Err(Problem::with_message(ErrorCode::Malformed, "the body ended before its length"))
        }
        Err(_) => {
            let late = Problem::with_message(ErrorCode::Malformed, "the body did not come in time");
            Err(late.status(StatusCode::REQUEST_TIMEOUT))
        }
    }
}

/// Builds the frame of `route`'s command from what the request holds, and reads it back.
pub(crate) fn decode(
    route: &Route,
    captures: &[(String, String)],
    query: &[(String, String)],
    body: &[u8],
) -> Result<ClientFrame, Problem> {
    let mut fields = Vec::new();
    for field in route.captures {
        let found = captures.iter().find(|(name, _)| name == field.name);
        let (_, value) = found.expect("the path holds the route's captures");
        write_field(field, value, &mut fields)?;
    }
    for field in route.query {
        let mut found = query.iter().filter(|(name, _)| name == field.name);
        if let Some((_, value)) = found.next() {
            write_field(field, value, &mut fields)?;
        }
        if found.next().is_some() {
            return Err(invalid(field.name, "comes twice"));
        }
    }
    splice(&mut fields, object_fields(body)?);
    decode_fields(route.command, &fields)
}

/// Reads a command whose fields are `fields`, comma-separated JSON.
pub(crate) fn decode_fields(command: &str, fields: &[u8]) -> Result<ClientFrame, Problem> {
    let mut frame = Vec::with_capacity(fields.len() + command.len() + 16);
    frame.extend_from_slice(br#"{"id":0,""#);
    frame.extend_from_slice(command.as_bytes());
    frame.extend_from_slice(br#"":{"#);
    frame.extend_from_slice(fields);
    frame.extend_from_slice(b"}}");
    let frame = Encoding::Json.decode_client(&frame)?;
    assert_eq!(frame.command.name(), command, "a body is one object and ends inside its command");
    Ok(frame)
}

/// What stands between the braces of `json`, which must be one complete JSON object.
///
/// It is checked whole before it is put between other bytes: `{},"x":{}` would reach beyond.
pub(crate) fn object_fields(json: &[u8]) -> Result<&[u8], Problem> {
    let json = json.trim_ascii();
    if json.is_empty() {
        return Ok(json);
    }
    let text = std::str::from_utf8(json).map_err(|_| Problem::from(ErrorCode::Malformed))?;
    if serde_json::from_str::<IgnoredAny>(text).is_err() {
        return Err(Problem::with_message(ErrorCode::Malformed, "the body is not valid JSON"));
    }
    match json {
        [b'{', fields @ .., b'}'] => Ok(fields.trim_ascii()),
        _ => Err(Problem::with_message(ErrorCode::Invalid, "the body is not a JSON object")),
    }
}

fn splice(fields: &mut Vec<u8>, more: &[u8]) {
    if !fields.is_empty() && !more.is_empty() {
        fields.push(b',');
    }
    fields.extend_from_slice(more);
}

fn write_field(field: &Field, value: &str, out: &mut Vec<u8>) -> Result<(), Problem> {
    let name = field.name;
    let text = || serde_json::to_string(value).map_err(|_| invalid(name, "is not a text"));
    let json = match field.kind {
        Kind::Text => format!(r#""{name}":{}"#, text()?),
        Kind::TextList => {
            let texts: Vec<&str> = value.split(',').collect();
            let texts = serde_json::to_string(&texts).map_err(|_| invalid(name, "is not a list"));
            format!(r#""{name}":{}"#, texts?)
        }
        Kind::Number => {
            let number = parse_number(value).ok_or_else(|| invalid(name, "is not a number"))?;
            format!(r#""{name}":{number}"#)
        }
        Kind::ChannelById => format!(r#""channel":{{"id":{}}}"#, text()?),
        Kind::ChannelByName => format!(r#""channel":{{"name":{}}}"#, text()?),
    };
    splice(out, json.as_bytes());
    Ok(())
}

/// One spelling for each number, as in the protocol: no sign, no leading zero.
pub(crate) fn parse_number(text: &str) -> Option<u64> {
    let canonical = text == "0" || text.starts_with(|first: char| ('1'..='9').contains(&first));
    if canonical { text.parse().ok() } else { None }
}

fn single<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a http::HeaderValue>, Problem> {
    let mut lines = headers.get_all(name).into_iter();
    match (lines.next(), lines.next()) {
        (line, None) => Ok(line),
        _ => Err(invalid(name.as_str(), "comes twice")),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let Some(content_type) = content_type else { return false };
    let (media_type, parameters) =
        content_type.split_once(';').map_or((content_type, ""), |(start, rest)| (start, rest));
    let utf8 = parameters.split(';').all(|parameter| match parameter.trim().split_once('=') {
        Some((name, value)) if name.eq_ignore_ascii_case("charset") => {
            value.trim_matches('"').eq_ignore_ascii_case("utf-8")
        }
        _ => true,
    });
    media_type.trim().eq_ignore_ascii_case("application/json") && utf8
}

fn invalid(field: &str, what: &str) -> Problem {
    Problem::with_message(ErrorCode::Invalid, &format!("{field} {what}"))
}

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENCY_AGE_MS: HeaderName = HeaderName::from_static("idempotency-age-ms");

#[cfg(test)]
mod tests {
    use chappe_protocol::{Command, command};

    use super::*;
    use crate::routes::ROUTES;

    fn route(command: &str) -> &'static Route {
        ROUTES.iter().rfind(|route| route.command == command).unwrap()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[track_caller]
    fn refused(body: &str, code: ErrorCode) {
        let channel = pairs(&[("channel", "7")]);
        let problem = decode(route("publish"), &channel, &[], body.as_bytes()).unwrap_err();
        assert_eq!(problem.number(), code.number(), "{body}");
    }

    #[test]
    fn path_query_and_body_make_one_command() {
        let captures = pairs(&[("channel", "7"), ("seq", "9")]);
        let frame = decode(route("edit"), &captures, &[], br#" {"text":"hi"} "#).unwrap();
        let Command::Edit(command::Edit { channel, seq, text, .. }) = frame.command else {
            panic!("another command")
        };
        assert_eq!((channel.get(), seq.get(), text.as_deref()), (7, 9, Some("hi")));

        let query = pairs(&[("before", "40"), ("limit", "5"), ("colour", "red")]);
        let frame = decode(route("history"), &pairs(&[("channel", "7")]), &query, b"").unwrap();
        let Command::History(history) = frame.command else { panic!("another command") };
        assert_eq!((history.before.map(|seq| seq.get()), history.limit), (Some(40), Some(5)));
    }

    #[test]
    fn a_body_cannot_reach_out_of_its_command() {
        refused(r#"{},"nonce":"n""#, ErrorCode::Malformed);
        refused(r#"{}},"join":{"channel":"1""#, ErrorCode::Malformed);
        refused(r#"{"text":"x"} {}"#, ErrorCode::Malformed);
        refused(r#"{"text":"x""#, ErrorCode::Malformed);
        refused(r#"["text"]"#, ErrorCode::Invalid);
        refused("\"text\"", ErrorCode::Invalid);
    }

    #[test]
    fn a_body_may_not_repeat_what_the_path_says() {
        refused(r#"{"channel":"8","text":"x"}"#, ErrorCode::Malformed);
    }

    #[test]
    fn a_body_has_the_codes_of_a_frame() {
        refused(r#"{"text":" "}"#, ErrorCode::TextInvalid);
        let deep = format!(r#"{{"data":{}1{}}}"#, "[".repeat(30), "]".repeat(30));
        refused(&deep, ErrorCode::TooDeep);
        let keys: Vec<_> = (0..65).map(|n| format!(r#""k{n}":1"#)).collect();
        refused(&format!(r#"{{"data":{{{}}}}}"#, keys.join(",")), ErrorCode::TooDeep);
        refused(&format!(r#"{{"data":"{}"}}"#, "x".repeat(9_000)), ErrorCode::DataTooLarge);
    }

    #[test]
    fn a_list_is_separated_by_commas() {
        let ask = |value| decode(route("presence"), &[], &pairs(&[("users", value)]), b"");
        let Command::Presence(presence) = ask("7,9,7").unwrap().command else {
            panic!("another command")
        };
        assert_eq!(presence.users.iter().map(|user| user.get()).collect::<Vec<_>>(), [7, 9, 7]);
        let many = vec!["1"; 101].join(",");
        for bad in ["", ",", "7,", "7, 9", "x", "-1", "9223372036854775808", many.as_str()] {
            assert_eq!(ask(bad).unwrap_err().number(), ErrorCode::Invalid.number(), "{bad}");
        }
        let none = decode(route("presence"), &[], &[], b"").unwrap_err();
        assert_eq!(none.number(), ErrorCode::Invalid.number());
    }

    #[test]
    fn a_number_has_one_spelling() {
        let query = |value| pairs(&[("limit", value)]);
        for bad in ["", "-1", "+1", "01", "1.0", "1e3", "x", "99999999999999999999"] {
            let channel = pairs(&[("channel", "7")]);
            assert!(decode(route("history"), &channel, &query(bad), b"").is_err(), "{bad}");
        }
    }
}
