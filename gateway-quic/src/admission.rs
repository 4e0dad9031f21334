//! How many handshakes may be under way, in all and from one address.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

use crate::{config::Config, meter};

/// Counts the handshakes under way.
#[derive(Clone, Default)]
pub(crate) struct Handshakes(Arc<Mutex<Counts>>);

#[derive(Default)]
struct Counts {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// A handshake's place; dropped when it is over.
pub(crate) struct Place {
    /// How many handshakes are under way, this one included.
    pub(crate) total: usize,
    address: IpAddr,
    handshakes: Handshakes,
}

impl Handshakes {
    /// Takes a place, or none if there are too many already.
    pub(crate) fn enter(&self, peer: IpAddr, config: &Config) -> Option<Place> {
        let address = limit_key(peer);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.total >= config.handshakes_max {
            return None;
        }
        let of_address = counts.by_address.entry(address).or_default();
        if *of_address >= config.handshakes_per_address_max {
            return None;
        }
        *of_address += 1;
        counts.total += 1;
        meter::handshakes().increment(1.0);
        Some(Place { total: counts.total, address, handshakes: self.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.handshakes.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.total -= 1;
        if let Some(of_address) = counts.by_address.get_mut(&self.address) {
            *of_address -= 1;
            if *of_address == 0 {
                counts.by_address.remove(&self.address);
            }
        }
        meter::handshakes().decrement(1.0);
    }
}

/// Who shares a limit with `address`: an IPv6 customer owns a /64, so that counts as one.
fn limit_key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_comes_back_when_its_handshake_is_over() {
        let config =
            Config { handshakes_max: 2, handshakes_per_address_max: 1, ..Config::default() };
        let handshakes = Handshakes::default();
        let [a, b, c]: [IpAddr; 3] =
            ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"].map(|text| text.parse().unwrap());
        let first = handshakes.enter(a, &config).unwrap();
        assert!(handshakes.enter(b, &config).is_none(), "the same /64");
        let second = handshakes.enter(c, &config).unwrap();
        assert_eq!((first.total, second.total), (1, 2));
        assert!(handshakes.enter([127, 0, 0, 1].into(), &config).is_none());
        drop(first);
        assert!(handshakes.enter(b, &config).is_some());
        drop(second);
        assert!(handshakes.0.lock().unwrap().by_address.is_empty());
    }
}
