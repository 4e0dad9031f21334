//! The numbers that this frontend keeps of itself.

use std::time::Duration;

use http::StatusCode;
use metrics::{Gauge, counter, gauge, histogram};

/// A request was answered.
pub(crate) fn answered(route: &'static str, status: StatusCode, took: Duration) {
    let status = status.as_u16().to_string();
    counter!("chappe_gateway_http_requests_total", "route" => route, "status" => status)
        .increment(1);
    histogram!("chappe_gateway_http_request_seconds", "route" => route).record(took);
}

/// A request was refused, with the number of its code.
pub(crate) fn refused(code: u16) {
    counter!("chappe_gateway_http_refusals_total", "code" => code.to_string()).increment(1);
}

/// A connection was accepted.
pub(crate) fn accepted() {
    counter!("chappe_gateway_http_accepted_total").increment(1);
}

/// A connection was turned away or given up, and why.
pub(crate) fn dropped(reason: &'static str) {
    counter!("chappe_gateway_http_dropped_total", "reason" => reason).increment(1);
}

/// A connection left HTTP for the WebSocket frontend.
pub(crate) fn upgraded() {
    counter!("chappe_gateway_http_upgrades_total").increment(1);
}

/// Bytes of server-sent events were handed to HTTP.
pub(crate) fn event_bytes(bytes: usize) {
    counter!("chappe_gateway_http_event_bytes_total").increment(bytes as u64);
}

/// A signal found no room in its stream.
pub(crate) fn signal_dropped() {
    counter!("chappe_gateway_http_signals_dropped_total").increment(1);
}

/// The connections that are inside HTTP.
pub(crate) fn connections() -> Gauge {
    gauge!("chappe_gateway_http_connections_count")
}

/// The open streams of events.
pub(crate) fn event_streams() -> Gauge {
    gauge!("chappe_gateway_http_event_streams_count")
}
