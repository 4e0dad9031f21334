//! The numbers that this frontend keeps of itself.

use metrics::{Gauge, counter, gauge};

/// A handshake was completed.
pub(crate) fn accepted() {
    counter!("chappe_gateway_quic_accepted_total").increment(1);
}

/// A handshake was turned away or failed, and why.
pub(crate) fn dropped(reason: &'static str) {
    counter!("chappe_gateway_quic_dropped_total", "reason" => reason).increment(1);
}

/// A client was asked to prove its address first.
pub(crate) fn retried() {
    counter!("chappe_gateway_quic_retries_total").increment(1);
}

/// A connection ended because its client broke the transport's rules.
pub(crate) fn broken(reason: &'static str) {
    counter!("chappe_gateway_quic_broken_total", "reason" => reason).increment(1);
}

/// A signal was handed to the transport as a datagram.
pub(crate) fn datagram_sent() {
    counter!("chappe_gateway_quic_datagrams_sent_total").increment(1);
}

/// A datagram came from a client.
pub(crate) fn datagram_received() {
    counter!("chappe_gateway_quic_datagrams_received_total").increment(1);
}

/// A signal did not fit a datagram, or its client takes none.
pub(crate) fn datagram_dropped() {
    counter!("chappe_gateway_quic_datagrams_dropped_total").increment(1);
}

/// A one-way stream was opened.
pub(crate) fn lane_opened() {
    counter!("chappe_gateway_quic_lanes_opened_total").increment(1);
}

/// The open connections.
pub(crate) fn connections() -> Gauge {
    gauge!("chappe_gateway_quic_connections_count")
}

/// The handshakes under way.
pub(crate) fn handshakes() -> Gauge {
    gauge!("chappe_gateway_quic_handshakes_count")
}
