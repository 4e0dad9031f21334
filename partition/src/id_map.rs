//! A map whose order depends on its seed alone: the same input gives the same output.

use std::{collections::HashMap, hash::Hash};

use foldhash::fast::FixedState;

pub(crate) type IdMap<K, V> = HashMap<K, V, FixedState>;

pub(crate) fn id_map<K: Eq + Hash, V>(seed: u64) -> IdMap<K, V> {
    HashMap::with_hasher(FixedState::with_seed(seed))
}
