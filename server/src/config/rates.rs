//! The rates of commands: how much may be asked before the answer is `rate_limited`.

use chappe_gateway::config as gateway;
use serde::{Deserialize, Serialize};

/// Commands by cost (a publish costs 1, a history page 10), for each of the four who may ask too
/// much, and handshakes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Rates {
    /// Of one connection.
    pub(crate) connection: Rate,
    /// Of one user's connections together.
    pub(crate) user: Rate,
    /// On one channel, by everyone together.
    pub(crate) channel: Rate,
    /// From one address (IPv6: one /64). Behind a proxy set `http.trusted_proxies` as well, or all
    /// clients are one address.
    pub(crate) address: Rate,
    /// Handshakes from one address.
    pub(crate) handshakes: Rate,
}

/// A rate.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rate {
    /// So many a second; 0 for no limit.
    pub(crate) per_second: u32,
    /// So many at once; twice `per_second` when absent.
    pub(crate) burst: Option<u32>,
}

impl Default for Rates {
    fn default() -> Self {
        let gateway::Limits { handshakes, rates, .. } = gateway::Limits::default();
        Self {
            connection: Rate::of(rates.connection),
            user: Rate::of(rates.user),
            channel: Rate::of(rates.channel),
            address: Rate::of(rates.address),
            handshakes: Rate::of(handshakes),
        }
    }
}

impl Rates {
    /// Sets them in a gateway's limits.
    pub(crate) fn apply(&self, limits: &mut gateway::Limits) {
        limits.handshakes = self.handshakes.limit();
        limits.rates = gateway::Rates {
            connection: self.connection.limit(),
            user: self.user.limit(),
            channel: self.channel.limit(),
            address: self.address.limit(),
        };
    }
}

impl Rate {
    fn of(rate: Option<gateway::Rate>) -> Self {
        rate.map_or(Self { per_second: 0, burst: None }, |rate| Self {
            per_second: rate.per_second,
            burst: Some(rate.burst),
        })
    }

    fn limit(self) -> Option<gateway::Rate> {
        let Self { per_second, burst } = self;
        let burst = burst.unwrap_or(per_second.saturating_mul(2)).max(1);
        (per_second > 0).then_some(gateway::Rate { per_second, burst })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_twice_the_rate_and_no_rate_no_limit() {
        let rate = |per_second, burst| Rate { per_second, burst }.limit();
        let some = |per_second, burst| Some(gateway::Rate { per_second, burst });
        assert_eq!(rate(50, None), some(50, 100));
        assert_eq!(rate(50, Some(5)), some(50, 5));
        assert_eq!(rate(0, Some(5)), None);
    }
}
