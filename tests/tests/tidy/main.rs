//! Holds the repository's layout: who may depend on whom, how long files and functions are, what
//! words stay out, and that documents lead somewhere. It reads text and builds nothing.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod documents;
mod edges;
mod lengths;
mod tree;
mod words;
