//! A disk on which only what a completed sync covered survives a crash.
//!
//! What was written and not synced survives in an arbitrary part, sector by sector, names too.
//! After a failed sync the disk believes that everything is on it: it goes on to show what was
//! written and never writes it again, as Linux does.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use super::content::Content;
use super::random::Random;
use crate::log::segment::disk::{Disk, File};

/// The disk. Clones are the same disk.
#[derive(Clone)]
pub(super) struct SimDisk(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Called after each operation that changes something.
    watch: Mutex<Option<Watch>>,
}

type Watch = Arc<dyn Fn(&SimDisk) + Send + Sync>;

#[derive(Clone, Default)]
struct State {
    files: HashMap<u64, Content>,
    /// The names as they are seen.
    names: BTreeMap<String, u64>,
    /// The names as they are on the disk.
    names_durable: BTreeMap<String, u64>,
    /// Changes of names since the last sync.
    names_changed: Vec<NameChange>,
    next_file: u64,
    random: Random,
    now_ms: u64,
    capacity_bytes: Option<u64>,
    fault: Option<Fault>,
    operations: u64,
}

#[derive(Clone)]
struct NameChange {
    link: Option<(String, u64)>,
    unlink: Option<String>,
}

/// What is to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault {
    /// How many operations go well before.
    pub(super) after: u64,
    pub(super) kind: FaultKind,
}

/// How it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FaultKind {
    /// EIO, once.
    Io,
    /// ENOSPC for everything that takes space, until it is lifted. A write may be done in part.
    NoSpace,
}

/// What a crash does with what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// All of it is gone.
    All,
    /// None of it is: the process died and the machine did not.
    None,
    /// Each sector and each name by chance.
    Some(u64),
}

impl SimDisk {
    pub(super) fn new(seed: u64) -> Self {
        Self::of(State { random: Random(seed), now_ms: 1_000_000, ..State::default() })
    }

    fn of(state: State) -> Self {
        Self(Arc::new(Shared { state: Mutex::new(state), watch: Mutex::new(None) }))
    }

    /// Calls `watch` after each operation that changes something.
    pub(super) fn watch(&self, watch: impl Fn(&Self) + Send + Sync + 'static) {
        *self.0.watch.lock().unwrap() = Some(Arc::new(watch));
    }

    pub(super) fn unwatch(&self) {
        *self.0.watch.lock().unwrap() = None;
    }

    /// The disk as it is found after a crash now.
    pub(super) fn crash(&self, loss: Loss) -> Self {
        let state = self.state();
        let Loss::Some(seed) = loss else { return Self::of(state.after(loss, |_| false)) };
        let mut random = Random(seed);
        Self::of(state.after(loss, move |()| random.below(2) == 0))
    }

    /// How many operations changed something.
    pub(super) fn operations(&self) -> u64 {
        self.state().operations
    }

    pub(super) fn advance_ms(&self, ms: u64) {
        self.state().now_ms += ms;
    }

    pub(super) fn set_fault(&self, fault: Option<Fault>) {
        self.state().fault = fault;
    }

    /// Limits the sum of the files' lengths.
    pub(super) fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity_bytes = bytes;
    }

    /// The names of the files and their lengths.
    pub(super) fn files(&self) -> Vec<(String, usize)> {
        let state = self.state();
        state.names.iter().map(|(name, id)| (name.clone(), state.files[id].seen.len())).collect()
    }

    /// The bytes of a file.
    pub(super) fn content(&self, name: &str) -> Vec<u8> {
        let state = self.state();
        state.files[&state.names[name]].seen.clone()
    }

    /// Changes a file behind everyone's back, or makes one.
    pub(super) fn set_content(&self, name: &str, bytes: Vec<u8>) {
        let mut state = self.state();
        let id = state.next_file;
        state.next_file += 1;
        let content = Content::durable(bytes);
        state.files.insert(id, content);
        state.names.insert(name.to_owned(), id);
        state.names_durable.insert(name.to_owned(), id);
    }

    /// Changes some bytes of a file behind everyone's back, also for those who have it open.
    pub(super) fn poke(&self, name: &str, at: usize, bytes: &[u8]) {
        let mut state = self.state();
        let id = state.names[name];
        let content = state.files.entry(id).or_default();
        let mut changed = content.seen.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        *content = Content::durable(changed);
    }

    /// Removes a file behind everyone's back.
    pub(super) fn remove_content(&self, name: &str) {
        let mut state = self.state();
        state.names.remove(name);
        state.names_durable.remove(name);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }

    /// Does one operation that changes something.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.state();
        state.operations += 1;
        let outcome = change(&mut state);
        drop(state);
        let watch = self.0.watch.lock().unwrap().clone();
        if let Some(watch) = watch {
            watch(self);
        }
        outcome
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        if let Some(name) = &self.unlink {
            names.remove(name);
        }
        if let Some((name, id)) = &self.link {
            names.insert(name.clone(), *id);
        }
    }
}

impl State {
    /// Whether the operation at hand fails, and how.
    fn failure(&mut self, takes_space: bool) -> Option<io::Error> {
        let fault = self.fault.as_mut()?;
        if fault.after > 0 {
            fault.after -= 1;
            return None;
        }
        match fault.kind {
            FaultKind::Io => {
                self.fault = None;
                Some(eio())
            }
            FaultKind::NoSpace if takes_space => Some(enospc()),
            FaultKind::NoSpace => None,
        }
    }

    /// What is left after a crash.
    fn after(&self, loss: Loss, mut survives: impl FnMut(()) -> bool) -> Self {
        if loss == Loss::None {
            return Self { capacity_bytes: None, fault: None, operations: 0, ..self.clone() };
        }
        let mut names = self.names_durable.clone();
        for change in &self.names_changed {
            if survives(()) {
                change.apply(&mut names);
            }
        }
        let found = |id: &u64| (*id, self.files[id].found(&mut survives));
        Self {
            files: names.values().map(found).collect(),
            names_durable: names.clone(),
            names,
            next_file: self.next_file,
            random: self.random.clone(),
            now_ms: self.now_ms,
            ..Self::default()
        }
    }

    fn rename(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.names_changed.push(change);
    }

    fn id(&self, name: &str) -> io::Result<u64> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(5)
}

fn enospc() -> io::Error {
    io::Error::from_raw_os_error(28)
}

impl Disk for SimDisk {
    fn lock(&self) -> io::Result<Option<Box<dyn Send + Sync>>> {
        Ok(Some(Box::new(())))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn File>> {
        let id = self.change(|state| {
            if let Some(error) = state.failure(true) {
                return Err(error);
            }
            let used: usize = state.names.values().map(|id| state.files[id].seen.len()).sum();
            if state.capacity_bytes.is_some_and(|capacity| used as u64 + bytes > capacity) {
                return Err(enospc());
            }
            let id = state.next_file;
            state.next_file += 1;
            let content = Content::zeros(bytes as usize);
            state.files.insert(id, content);
            state.rename(NameChange { link: Some((name.to_owned(), id)), unlink: None });
            Ok(id)
        })?;
        Ok(Arc::new(SimFile { disk: self.clone(), id }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let id = self.state().id(name)?;
        Ok(Arc::new(SimFile { disk: self.clone(), id }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change(|state| {
            if let Some(error) = state.failure(true) {
                return Err(error);
            }
            let link = Some((to.to_owned(), state.id(from)?));
            state.rename(NameChange { link, unlink: Some(from.to_owned()) });
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.change(|state| {
            if let Some(error) = state.failure(false) {
                return Err(error);
            }
            state.id(name)?;
            state.rename(NameChange { link: None, unlink: Some(name.to_owned()) });
            Ok(())
        })
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.change(|state| {
            if let Some(error) = state.failure(false) {
                return Err(error);
            }
            state.names_changed.clear();
            state.names_durable = state.names.clone();
            Ok(())
        })
    }

    fn now_ms(&self) -> u64 {
        self.state().now_ms
    }

    fn random(&self) -> io::Result<u64> {
        Ok(self.state().random.next())
    }
}

struct SimFile {
    disk: SimDisk,
    id: u64,
}

impl File for SimFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.disk.state().files[&self.id].seen.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<()> {
        let state = self.disk.state();
        let seen = &state.files[&self.id].seen;
        let from = position as usize;
        let bytes = seen.get(from..from + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.disk.change(|state| {
            let error = state.failure(true);
            let written = match &error {
                Some(_) => state.random.below(bytes.len() as u64 + 1) as usize,
                None => bytes.len(),
            };
            let content = state.files.entry(self.id).or_default();
            content.write(&bytes[..written], position as usize);
            error.map_or(Ok(()), Err)
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.change(|state| {
            let error = state.failure(false);
            let State { files, random, .. } = state;
            let content = files.entry(self.id).or_default();
            match error {
                None => {
                    content.sync();
                    Ok(())
                }
                Some(error) => {
                    content.sync_badly(random);
                    Err(error)
                }
            }
        })
    }
}
