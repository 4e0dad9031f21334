//! Where the brokers are: names that are looked up again and again, as a headless service's change.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use tokio::sync::watch;

/// Each broker's address, and the host that it was found under.
pub(super) type Addresses = BTreeMap<SocketAddr, String>;

/// Looks the brokers up until nobody wants to know any more.
///
/// A name that cannot be looked up for a while keeps the addresses it had.
pub(super) async fn keep_resolved(brokers: Vec<String>, found: watch::Sender<Addresses>) {
    let mut known: BTreeMap<String, Vec<SocketAddr>> = BTreeMap::new();
    loop {
        for broker in &brokers {
            match tokio::net::lookup_host(broker).await {
                Ok(addresses) => drop(known.insert(broker.clone(), addresses.collect())),
                Err(error) => tracing::warn!(%broker, %error, "a broker's name is not found"),
            }
        }
        let all = known.iter().flat_map(|(broker, addresses)| {
            addresses.iter().map(|address| (*address, host_of(broker)))
        });
        let all: Addresses = all.collect();
        found.send_if_modified(|now| {
            let changed = *now != all;
            *now = all;
            changed
        });
        tokio::select! {
            () = tokio::time::sleep(LOOK_UP_EVERY) => {}
            () = found.closed() => return,
        }
    }
}

/// The host of `host:port`; an IPv6 address without its brackets, as a certificate names it.
pub(super) fn host_of(broker: &str) -> String {
    let host = broker.rsplit_once(':').map_or(broker, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']').to_owned()
}

const LOOK_UP_EVERY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::host_of;

    #[test]
    fn a_host_is_what_a_certificate_names() {
        for (broker, host) in [
            ("broker-0.brokers:7402", "broker-0.brokers"),
            ("10.0.0.7:7402", "10.0.0.7"),
            ("[2001:db8::7]:7402", "2001:db8::7"),
        ] {
            assert_eq!(host_of(broker), host);
        }
    }
}
