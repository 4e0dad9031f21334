//! What the writer does when the disk is full or fails.
//!
//! After a failed write or sync nothing is written until the log is opened again, and no sync is
//! tried twice: the file system may have forgotten what it could not write. A full disk is asked
//! now and then whether there is space again.

use std::io;

use super::Writer;
use crate::log::AppendError;
use crate::log::segment::disk::is_no_space;
use crate::log::segment::queue::Mode;
use crate::log::segment::recover::write_zeros;

/// What there was no space for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wanted {
    Segment,
    /// A batch of so many bytes at the end, some of which may have been written.
    Batch {
        bytes: u32,
    },
}

/// Why the writer stops to take appends.
pub(super) enum Stop {
    NoSpace(Wanted, io::Error),
    Failed(&'static str, io::Error),
}

impl Writer {
    /// Tells everyone in flight that it is not known what became of their appends.
    pub(super) fn stop(&mut self, stop: Stop) {
        let (mode, text, error) = match stop {
            Stop::NoSpace(wanted, error) => {
                self.wanted = Some(wanted);
                (Mode::NoSpace, "the disk is full", error)
            }
            Stop::Failed(what, error) => {
                self.wanted = None;
                self.has_failed = true;
                (Mode::Failed, what, error)
            }
        };
        tracing::error!(%error, "the log takes no appends: {text}");
        self.shared.queue.set_mode(mode);
        self.take();
        self.batch_marks.clear();
        self.next.clone_from(&self.shared.map().next);
        for (pending, ..) in self.appends.drain(..) {
            self.outcomes.add(pending, Err(AppendError(text.to_owned())));
        }
        self.fail_backlog(text);
    }

    pub(super) fn fail_backlog(&mut self, text: &str) {
        for pending in self.backlog.drain(..) {
            self.outcomes.add(pending, Err(AppendError(text.to_owned())));
        }
        self.outcomes.send();
    }

    /// Tries what there was no space for; takes appends again once it works.
    pub(super) fn probe_space(&mut self) {
        let Some(wanted) = self.wanted else { return };
        let outcome = match wanted {
            Wanted::Segment => self.roll(),
            Wanted::Batch { bytes } => self.clear_tail(bytes),
        };
        match outcome {
            Ok(()) => {
                tracing::info!("the log has space again");
                self.wanted = None;
                self.shared.queue.set_mode(Mode::Open);
            }
            Err(Stop::NoSpace(..)) => {}
            Err(stop) => self.stop(stop),
        }
    }

    /// Overwrites what may have been written of a batch that did not fit on the disk: what was
    /// answered with doubt must not turn up behind later batches. This takes up its space, too.
    fn clear_tail(&self, bytes: u32) -> Result<(), Stop> {
        let range = self.position..self.position + bytes;
        write_zeros(&*self.file, range).map_err(|error| match is_no_space(&error) {
            true => Stop::NoSpace(Wanted::Batch { bytes }, error),
            false => Stop::Failed("a write failed", error),
        })?;
        self.file.sync_data().map_err(|error| Stop::Failed("a sync failed", error))
    }
}

/// A panic of the writer is a failure like any other: nobody may wait for an outcome in vain.
impl Drop for Writer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.stop(Stop::Failed("the writer panicked", io::Error::other("a panic")));
        }
    }
}
