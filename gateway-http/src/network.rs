//! Ranges of addresses, and who a request comes from behind trusted proxies.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use http::HeaderMap;

/// A range of addresses in CIDR notation: `10.0.0.0/8`, `fd00::/8`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    base: IpAddr,
    prefix: u8,
}

/// The text is not a range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an address range: expected one like 10.0.0.0/8 or fd00::/8, without host bits")]
pub struct ParseNetworkError;

impl Network {
    /// Whether `address` lies in the range. An IPv4 address in IPv6 clothes is an IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.base, address.to_canonical()) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                masked(base.to_bits().into(), 32, self.prefix)
                    == masked(address.to_bits().into(), 32, self.prefix)
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                masked(base.to_bits(), 128, self.prefix)
                    == masked(address.to_bits(), 128, self.prefix)
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = ParseNetworkError;

    fn from_str(text: &str) -> Result<Self, ParseNetworkError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let base: IpAddr = address.parse().map_err(|_| ParseNetworkError)?;
        let (bits, width) = match base {
            IpAddr::V4(base) => (base.to_bits().into(), 32),
            IpAddr::V6(base) => (base.to_bits(), 128),
        };
        let prefix = match prefix {
            Some(prefix) => prefix.parse().map_err(|_| ParseNetworkError)?,
            None => width,
        };
        // Host bits are a slip of the pen, and guessing which part was meant opens a door.
        if prefix > width || masked(bits, width, prefix) != bits {
            return Err(ParseNetworkError);
        }
        Ok(Self { base, prefix })
    }
}

/// The client's address: the peer's, or the one that trusted proxies tell of.
///
/// `X-Forwarded-For` is read from its end, where our own proxies write, up to the first address
/// that is not one of them: what stands before that is the client's own word.
pub(crate) fn client_address(
    peer: SocketAddr,
    headers: &HeaderMap,
    trusted: &[Network],
) -> SocketAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    if !is_trusted(peer.ip()) {
        return peer;
    }
    let mut client = peer;
    for line in headers.get_all("x-forwarded-for").into_iter().rev() {
        let Ok(line) = line.to_str() else { return client };
        for entry in line.rsplit(',') {
            let Some(address) = parse_forwarded(entry.trim()) else { return client };
            client = SocketAddr::new(address, 0);
            if !is_trusted(address) {
                return client;
            }
        }
    }
    client
}

/// Who shares a limit with `address`: an IPv6 customer owns a /64, so that counts as one.
pub(crate) fn limit_key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(masked(address.to_bits(), 128, 64))),
        v4 => v4,
    }
}

fn masked(bits: u128, width: u8, prefix: u8) -> u128 {
    let host = u32::from(width - prefix);
    if host == 128 { 0 } else { bits >> host << host }
}

/// Proxies write `203.0.113.7`, `203.0.113.7:1234`, `2001:db8::1` or `[2001:db8::1]:1234`.
fn parse_forwarded(entry: &str) -> Option<IpAddr> {
    entry.parse().ok().or_else(|| entry.parse().ok().map(|address: SocketAddr| address.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn client(peer: &str, forwarded: &[&str], expect: &str) {
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append("x-forwarded-for", line.parse().unwrap());
        }
        let trusted = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let peer = SocketAddr::new(peer.parse().unwrap(), 9);
        let found = client_address(peer, &headers, &trusted).ip();
        assert_eq!(found, expect.parse::<IpAddr>().unwrap(), "{forwarded:?}");
    }

    #[test]
    fn the_client_is_the_last_address_that_is_not_a_trusted_proxy() {
        client("203.0.113.7", &["1.1.1.1"], "203.0.113.7"); // nobody vouches for it
        client("10.0.0.1", &[], "10.0.0.1");
        client("10.0.0.1", &["203.0.113.7"], "203.0.113.7");
        client("10.0.0.1", &["1.1.1.1, 203.0.113.7, 10.9.9.9"], "203.0.113.7");
        client("10.0.0.1", &["1.1.1.1", "203.0.113.7:8080"], "203.0.113.7");
        client("10.0.0.1", &["nonsense"], "10.0.0.1");
        client("10.0.0.1", &["nonsense, 10.2.2.2"], "10.2.2.2");
        client("fd00::1", &["[2001:db8::7]:1"], "2001:db8::7");
        client("::ffff:10.0.0.1", &["203.0.113.7"], "203.0.113.7");
    }

    #[test]
    fn a_range_has_no_host_bits() {
        for good in ["10.0.0.0/8", "10.1.2.3", "::/0", "0.0.0.0/0", "fd00::/8"] {
            assert!(good.parse::<Network>().is_ok(), "{good}");
        }
        for bad in ["10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/", "10/8", "", "fd00::1/64"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_ipv6_customer_is_one_address() {
        let key = |text: &str| limit_key(text.parse().unwrap());
        assert_eq!(key("2001:db8:0:1::1"), key("2001:db8:0:1:ffff::2"));
        assert_ne!(key("2001:db8:0:1::1"), key("2001:db8:0:2::1"));
        assert_eq!(key("::ffff:1.2.3.4"), key("1.2.3.4"));
    }
}
