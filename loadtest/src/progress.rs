//! What a run shows while it goes: a bar on a terminal, a line now and then elsewhere.

use std::{
    cell::RefCell,
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// How often a line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// The progress of a run, on standard error.
pub(crate) struct Progress {
    terminal: bool,
    step: RefCell<Step>,
}

struct Step {
    bar: ProgressBar,
    name: &'static str,
    done: u64,
    total: u64,
    printed: Instant,
}

impl Progress {
    pub(crate) fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        let step = Step {
            bar: ProgressBar::hidden(),
            name: "",
            done: 0,
            total: 0,
            printed: Instant::now(),
        };
        Self { terminal, step: RefCell::new(step) }
    }

    /// Begins a part of so many steps.
    pub(crate) fn begin(&self, name: &'static str, total: u64) {
        self.end();
        let mut step = self.step.borrow_mut();
        (step.name, step.done, step.total) = (name, 0, total);
        step.printed = Instant::now();
        if self.terminal {
            step.bar = ProgressBar::new(total);
            // A template that cannot be read leaves the library's own, which is good enough.
            if let Ok(style) = ProgressStyle::with_template("{msg:12} {bar:32} {pos}/{len}") {
                step.bar.set_style(style);
            }
            step.bar.set_message(name);
        }
    }

    /// One step is done.
    pub(crate) fn step(&self) {
        let mut step = self.step.borrow_mut();
        step.done += 1;
        step.bar.inc(1);
        if !self.terminal && step.printed.elapsed() >= LINE_EVERY {
            step.printed = Instant::now();
            eprintln!("{}: {} of {}", step.name, step.done, step.total);
        }
    }

    /// Shows how the run stands.
    pub(crate) fn show(&self, line: impl FnOnce() -> String) {
        let mut step = self.step.borrow_mut();
        if self.terminal {
            if step.name != "running" {
                step.bar.finish_and_clear();
                step.name = "running";
                step.bar = ProgressBar::new_spinner();
                if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
                    step.bar.set_style(style);
                }
            }
            step.bar.set_message(line());
            step.bar.tick();
        } else if step.name != "running" || step.printed.elapsed() >= LINE_EVERY {
            step.name = "running";
            step.printed = Instant::now();
            eprintln!("{}", line());
        }
    }

    /// Clears what is shown.
    pub(crate) fn end(&self) {
        self.step.borrow().bar.finish_and_clear();
    }
}
