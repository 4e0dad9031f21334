//! How many files a process may have open.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Makes room for this many open files, of this process and of those that it starts. Fails where
/// the system does not allow as many.
pub fn allow_open_files(count: u64) {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= count) {
        return;
    }
    let enough = limit.maximum.is_none_or(|maximum| maximum >= count);
    assert!(enough, "{count} open files are needed, and the hard limit is {:?}", limit.maximum);
    limit.current = Some(count);
    setrlimit(Resource::Nofile, limit).unwrap();
}
