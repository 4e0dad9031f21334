//! Who is connected to a broker, as they describe themselves. For people to read: nothing is
//! decided by it.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{About, GatewayStatus};

/// The connections of a broker's uplink. As many as the listener takes.
#[derive(Debug, Default)]
pub(super) struct Register {
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    next: u64,
    open: BTreeMap<u64, (SocketAddr, About)>,
}

/// One connection's place in the register, which it leaves when this is dropped.
#[derive(Debug)]
pub(super) struct Entry {
    register: Arc<Register>,
    number: u64,
}

impl Register {
    pub(super) fn enter(self: &Arc<Self>, from: SocketAddr, about: About) -> Entry {
        let mut entries = self.entries();
        let number = entries.next;
        entries.next += 1;
        entries.open.insert(number, (from, about));
        Entry { register: Arc::clone(self), number }
    }

    /// The processes behind the connections, by name.
    pub(super) fn gateways(&self) -> Vec<GatewayStatus> {
        let mut by_process: BTreeMap<u64, GatewayStatus> = BTreeMap::new();
        // In the order in which they came: the newest word of a process stands at the end.
        for (from, about) in self.entries().open.values() {
            let gateway = by_process.entry(about.process).or_insert_with(|| GatewayStatus {
                about: about.clone(),
                address: from.ip().to_string(),
                pipes: 0,
            });
            gateway.about.connections = about.connections;
            gateway.pipes += 1;
        }
        let mut gateways: Vec<_> = by_process.into_values().collect();
        gateways.sort_by(|a, b| a.about.name.cmp(&b.about.name));
        gateways
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        // A panic cannot leave a map half changed.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// The process says something new of itself.
    pub(super) fn update(&self, about: About) {
        if let Some((_, known)) = self.register.entries().open.get_mut(&self.number) {
            *known = about;
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.register.entries().open.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(process: u64, name: &str, connections: u64) -> About {
        About { process, name: name.to_owned(), roles: Vec::new(), connections }
    }

    #[test]
    fn the_pipes_of_a_process_are_counted_together_and_forgotten_with_their_connections() {
        let register = Arc::new(Register::default());
        let from = SocketAddr::from(([10, 0, 0, 7], 1_234));
        let first = register.enter(from, about(7, "ws-2", 3));
        let second = register.enter(from, about(7, "ws-2", 3));
        let _other = register.enter(from, about(8, "ws-1", 5));
        second.update(about(7, "ws-2", 4));
        let told = |register: &Register| -> Vec<_> {
            let gateways = register.gateways().into_iter();
            gateways.map(|of| (of.about.name, of.about.connections, of.pipes)).collect()
        };
        let (a, b) = (("ws-1".to_owned(), 5, 1), ("ws-2".to_owned(), 4, 2));
        assert_eq!(told(&register), [a.clone(), b]);
        assert_eq!(register.gateways()[0].address, "10.0.0.7");
        drop((first, second));
        assert_eq!(told(&register), [a]);
    }
}
