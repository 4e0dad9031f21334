//! How many connections may be inside HTTP, in all and from one address.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use metrics::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{config::Config, meter, network::limit_key};

/// Connections by address.
type Counts = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// Counts the connections.
pub(crate) struct Admission {
    total: Arc<Semaphore>,
    connections_max: u32,
    by_address: Counts,
    per_address_max: usize,
    gauge: Gauge,
}

/// A connection's place; dropped when it ends or leaves HTTP.
pub(crate) struct Place {
    _total: OwnedSemaphorePermit,
    address: Option<(IpAddr, Counts)>,
    gauge: Gauge,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// There are as many connections as there may be.
    Total,
    /// This address has as many as it may have.
    Address,
}

impl Admission {
    pub(crate) fn new(config: &Config) -> Self {
        let connections_max = u32::try_from(config.connections_max).unwrap_or(u32::MAX >> 4);
        Self {
            total: Arc::new(Semaphore::new(connections_max as usize)),
            connections_max,
            by_address: Arc::default(),
            per_address_max: config.connections_per_address_max,
            gauge: meter::connections(),
        }
    }

    /// Takes a place for a connection. `exempt` ones count in all, but not for their address.
    pub(crate) fn enter(&self, address: IpAddr, exempt: bool) -> Result<Place, Full> {
        let total = Arc::clone(&self.total).try_acquire_owned().map_err(|_| Full::Total)?;
        let address = if exempt { None } else { Some(self.count(address)?) };
        self.gauge.increment(1.0);
        Ok(Place { _total: total, address, gauge: self.gauge.clone() })
    }

    /// Waits until nobody is inside.
    pub(crate) async fn empty(&self) {
        drop(self.total.acquire_many(self.connections_max).await);
    }

    fn count(&self, address: IpAddr) -> Result<(IpAddr, Counts), Full> {
        let key = limit_key(address);
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_address.entry(key).or_default();
        if *count >= self.per_address_max {
            return Err(Full::Address);
        }
        *count += 1;
        Ok((key, Arc::clone(&self.by_address)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gauge.decrement(1.0);
        let Some((key, by_address)) = &self.address else { return };
        let mut by_address = by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = by_address.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_comes_back_when_its_connection_ends() {
        let config =
            Config { connections_max: 2, connections_per_address_max: 1, ..Config::default() };
        let admission = Admission::new(&config);
        let (a, b, c) = ([127, 0, 0, 1].into(), [127, 0, 0, 2].into(), [127, 0, 0, 3].into());
        let first = admission.enter(a, false).ok().unwrap();
        assert_eq!(admission.enter(a, false).err(), Some(Full::Address));
        let exempt = admission.enter(a, true).ok().unwrap();
        assert_eq!(admission.enter(b, false).err(), Some(Full::Total));
        drop(first);
        let second = admission.enter(a, false).ok().unwrap();
        drop((exempt, second));
        assert!(admission.enter(c, false).is_ok());
        assert!(admission.by_address.lock().unwrap().is_empty());
    }
}
