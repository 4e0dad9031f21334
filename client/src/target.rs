//! Where a server is: the URL that a user gives, parsed once.

use std::{fmt, str::FromStr};

use http::Uri;

use crate::error::Error;

/// The path of the WebSocket service.
const WS_PATH: &str = "/v1/ws";
/// Chappe's own port, where a URL's scheme has no customary one.
const QUIC_PORT: u16 = 7400;

/// A server's address: `ws://`, `wss://` or `quic://`. `http://host` and `https://host` mean the
/// WebSocket service below them.
///
/// A token never belongs into a URL: one with user information, a query or a fragment is refused.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    pub(crate) scheme: Scheme,
    /// Host name or address, IPv6 without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Empty for QUIC.
    pub(crate) path: String,
}

/// The transport that a URL asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// WebSocket over TCP.
    Ws,
    /// WebSocket over TLS.
    Wss,
    /// QUIC.
    Quic,
}

impl Target {
    /// The transport.
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Whether the link is encrypted, and so the server's certificate is checked.
    pub const fn is_encrypted(&self) -> bool {
        matches!(self.scheme, Scheme::Wss | Scheme::Quic)
    }

    /// Host and port as the `Host` header spells them.
    pub(crate) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Ws => "ws",
            Scheme::Wss => "wss",
            Scheme::Quic => "quic",
        };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

impl FromStr for Target {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let refuse = |why: &str| Err(Error::Config(format!("not a server's URL: {why}")));
        if text.contains(['@', '?', '#']) {
            return refuse("user information, a query or a fragment does not belong there");
        }
        let Ok(uri) = text.parse::<Uri>() else {
            return refuse("it cannot be read");
        };
        let (scheme, customary_port, http) = match uri.scheme_str() {
            Some("ws") => (Scheme::Ws, 80, false),
            Some("http") => (Scheme::Ws, 80, true),
            Some("wss") => (Scheme::Wss, 443, false),
            Some("https") => (Scheme::Wss, 443, true),
            Some("quic") => (Scheme::Quic, QUIC_PORT, false),
            _ => return refuse("it starts with ws://, wss://, quic://, http:// or https://"),
        };
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        if host.is_empty() {
            return refuse("it names no host");
        }
        let path = uri.path().trim_end_matches('/');
        let path = match scheme {
            Scheme::Quic if path.is_empty() => String::new(),
            Scheme::Quic => return refuse("a quic:// URL has no path"),
            _ if http => format!("{}{WS_PATH}", path.trim_end_matches(WS_PATH)),
            _ if path.is_empty() => WS_PATH.to_owned(),
            _ => path.to_owned(),
        };
        let port = uri.port_u16().unwrap_or(customary_port);
        Ok(Self { scheme, host: host.to_owned(), port, path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn reads(text: &str, spelled: &str) {
        assert_eq!(text.parse::<Target>().unwrap().to_string(), spelled);
    }

    #[test]
    fn every_scheme_has_its_port_and_path() {
        reads("ws://127.0.0.1:7400", "ws://127.0.0.1:7400/v1/ws");
        reads("ws://h:1/other", "ws://h:1/other");
        reads("wss://h", "wss://h:443/v1/ws");
        reads("http://h:7400", "ws://h:7400/v1/ws");
        reads("http://h:7400/v1/ws", "ws://h:7400/v1/ws");
        reads("https://h/chat/", "wss://h:443/chat/v1/ws");
        reads("quic://h", "quic://h:7400");
        reads("quic://[::1]:9", "quic://[::1]:9");
    }

    #[test]
    fn what_is_not_a_servers_url_is_refused() {
        for text in [
            "",
            "h:7400",
            "ftp://h",
            "ws://",
            "quic://h/path",
            "ws://user:secret@h",
            "ws://h/?token=x",
            "ws://h/#x",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }
}
