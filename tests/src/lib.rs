//! What black-box tests need: a real server on ports of its own, and clients written from the
//! protocol's document alone.
