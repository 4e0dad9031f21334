//! The segment log's tests: on the real file system, and on a simulated disk that crashes, fails
//! and forgets.

mod content;
mod crash;
mod faults;
mod files;
mod flips;
mod model;
mod random;
mod sim;
mod splices;
