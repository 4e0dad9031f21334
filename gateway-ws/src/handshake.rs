//! The handshake: a request that asks for a WebSocket, checked, and the `101` that answers it.
//!
//! It refuses before the upgrade: a page of an origin that is not allowed, a token in a URL, a
//! subprotocol that it does not have. No cookie is ever looked at.

use std::net::SocketAddr;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use chappe_gateway::frontend::{ConnectRefused, Kernel};
use chappe_protocol::{Encoding, ErrorCode, WireError};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version, header,
    request::Parts,
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::{link::WsLink, socket::Settle};

/// A handshake that was good: what to answer it with, and what becomes of its socket.
#[derive(Debug)]
pub struct Upgrade {
    /// The headers of the `101`.
    pub headers: HeaderMap,
    encoding: Encoding,
    token: Option<String>,
    peer: SocketAddr,
}

/// Decides about a request to become a WebSocket. `peer` is the client's address, behind trusted
/// proxies the one that they tell.
pub fn upgrade<K: Kernel>(
    kernel: &K,
    parts: &Parts,
    peer: SocketAddr,
) -> Result<Upgrade, Box<Response<Bytes>>> {
    check_request(parts)?;
    let origins: Vec<_> = parts.headers.get_all(header::ORIGIN).iter().collect();
    let allowed = match origins[..] {
        [] => true, // no browser: there is no page that could act for someone else
        [origin] => origin.to_str().is_ok_and(|origin| kernel.origin_allowed(origin)),
        _ => false,
    };
    if !allowed {
        return Err(coded(ErrorCode::OriginForbidden));
    }
    let key = check_key(&parts.headers)?;
    let (encoding, subprotocol) = choose_subprotocol(&parts.headers)?;
    let token = bearer(&parts.headers)?;
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, key);
    if let Some(subprotocol) = subprotocol {
        let value = HeaderValue::from_static(subprotocol);
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, value);
    }
    Ok(Upgrade { headers, encoding, token, peer })
}

impl Upgrade {
    /// Hands the socket over to a shard, once the `101` was written. `read_ahead` is what the
    /// client sent behind its request and was read with it.
    pub fn hand_over<K: Kernel, S: Settle>(
        self,
        kernel: &K,
        socket: S,
        read_ahead: Bytes,
        transport: &'static str,
    ) -> Result<(), ConnectRefused> {
        let Self { encoding, token, peer, .. } = self;
        // A copy: even an empty slice keeps the whole buffer that it was read into.
        let read_ahead = Bytes::copy_from_slice(&read_ahead);
        kernel.connect(
            peer.ip(),
            Box::new(move || {
                let link = WsLink::new(socket, peer, encoding, token, read_ahead)?;
                Ok(Box::new(link.over(transport)))
            }),
        )
    }
}

fn check_request(parts: &Parts) -> Result<(), Box<Response<Bytes>>> {
    if has_token(parts.uri.query().unwrap_or_default()) {
        return Err(coded(ErrorCode::TokenInUrl));
    }
    if parts.method != Method::GET {
        return Err(coded(ErrorCode::MethodNotAllowed));
    }
    if parts.version != Version::HTTP_11 {
        return Err(refuse(
            StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            "a WebSocket begins with HTTP/1.1",
        ));
    }
    let body = parts.headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0")
        || parts.headers.contains_key(header::TRANSFER_ENCODING);
    if body {
        return Err(refuse(StatusCode::BAD_REQUEST, "a handshake has no body"));
    }
    let asks = |name: HeaderName, token: &str| {
        let values = parts.headers.get_all(name);
        let mut tokens = values.iter().filter_map(|value| value.to_str().ok());
        tokens.any(|value| value.split(',').any(|one| one.trim().eq_ignore_ascii_case(token)))
    };
    if !asks(header::UPGRADE, "websocket") || !asks(header::CONNECTION, "upgrade") {
        return Err(upgrade_required("this address speaks WebSocket"));
    }
    let versions: Vec<_> = parts.headers.get_all(header::SEC_WEBSOCKET_VERSION).iter().collect();
    if !matches!(versions[..], [version] if version == "13") {
        return Err(upgrade_required("the version of WebSocket spoken here is 13"));
    }
    Ok(())
}

/// The answer to the client's key, which is 16 bytes in base64.
fn check_key(headers: &HeaderMap) -> Result<HeaderValue, Box<Response<Bytes>>> {
    let keys: Vec<_> = headers.get_all(header::SEC_WEBSOCKET_KEY).iter().collect();
    let good =
        |key: &HeaderValue| STANDARD.decode(key.as_bytes()).is_ok_and(|bytes| bytes.len() == 16);
    match keys[..] {
        [key] if good(key) => HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok(),
        _ => None,
    }
    .ok_or_else(|| refuse(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is 16 bytes in base64"))
}

/// The first of the client's subprotocols that is spoken here. A client that offers none speaks
/// JSON.
fn choose_subprotocol(
    headers: &HeaderMap,
) -> Result<(Encoding, Option<&'static str>), Box<Response<Bytes>>> {
    let mut offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().peekable();
    if offered.peek().is_none() {
        return Ok((Encoding::Json, None));
    }
    let names = offered.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    for name in names {
        for encoding in [Encoding::Json, Encoding::MessagePack] {
            if name.trim() == encoding.subprotocol() {
                return Ok((encoding, Some(encoding.subprotocol())));
            }
        }
    }
    Err(refuse(
        StatusCode::BAD_REQUEST,
        "the subprotocols spoken here are chappe.v1.json and chappe.v1.msgpack",
    ))
}

/// The token of an `Authorization` header, if there is one.
fn bearer(headers: &HeaderMap) -> Result<Option<String>, Box<Response<Bytes>>> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let token = match (values.next(), values.next()) {
        (None, _) => return Ok(None),
        (Some(value), None) => value.to_str().ok().and_then(|text| text.split_once(' ')),
        (Some(_), Some(_)) => None,
    };
    match token {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
            Ok(Some(token.trim().to_owned()))
        }
        _ => Err(coded(ErrorCode::TokenInvalid)),
    }
}

/// Whether a query carries a token: URLs end up in logs.
fn has_token(query: &str) -> bool {
    let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.any(|(name, value)| {
        let name = name.to_ascii_lowercase();
        // A JWT is told by the beginning of its header: `{"`.
        TOKEN_NAMES.contains(&name.as_str()) || (value.starts_with("eyJ") && value.contains('.'))
    })
}

fn upgrade_required(rule: &'static str) -> Box<Response<Bytes>> {
    let mut response = refuse(StatusCode::UPGRADE_REQUIRED, rule);
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    response
}

fn coded(code: ErrorCode) -> Box<Response<Bytes>> {
    let status = StatusCode::from_u16(code.http_status()).unwrap_or(StatusCode::BAD_REQUEST);
    problem(status, &WireError::new(code))
}

/// A refusal of HTTP's own, which has no code of ours.
fn refuse(status: StatusCode, rule: &'static str) -> Box<Response<Bytes>> {
    problem(status, &WireError::with_message(ErrorCode::Invalid, rule))
}

/// A refusal as `application/problem+json`, with the protocol's code beside HTTP's.
pub(crate) fn problem(status: StatusCode, error: &WireError) -> Box<Response<Bytes>> {
    let body = serde_json::json!({
        "type": "about:blank",
        "title": error.name,
        "status": status.as_u16(),
        "detail": error.message,
        "code": error.code,
        "retry_after_ms": error.retry_after_ms,
    });
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    Box::new(response)
}

const TOKEN_NAMES: &[&str] = &["token", "access_token", "id_token", "jwt", "auth", "authorization"];
