//! What the CQL backend adds to the port's promises.
