//! LDK stores that behave as badly as LDK's contract allows.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, dead_code)]

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use leyden_ldk::{KvBackedStore, KvOptions};
use leyden_store::conformance::Backend;
use leyden_store::group::OutagePolicy;
use leyden_store::{frame, Key, Namespace, Store, StoreError, Ticket};
use lightning::io::{self, ErrorKind};
use lightning::util::persist::{KVStore, KVStoreSync};
use lightning_persister::fs_store::v1::FilesystemStore;

/// Primary namespace, secondary namespace, key.
pub type Name = (String, String, String);

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Trouble {
	#[default]
	None,
	/// The process dies when the n-th change is asked for, which does not happen.
	DieBefore(u64),
	/// It happens, and then the process dies.
	DieAfter(u64),
	/// As `DieBefore`, but changes that are asked for after it at the same time have happened.
	DieReordered(u64),
	FailEvery(u64),
	FailAll,
	Full,
	/// Changes are acknowledged and are in memory.
	Lies,
	/// The store answers nothing any more from the n-th change on, until there is other trouble.
	AwayBefore(u64),
	/// The n-th change happens, and nothing is answered from then on.
	AwayAfter(u64),
	/// The n-th change happens, and then the store is full.
	FullAfter(u64),
	/// The store answers nothing.
	Away,
	/// Has this number of changes of redos fail, and land when the test says so.
	LandLate(u64),
	/// Has one change of a redo fail and land late; then the store is full.
	LandLateThenFull,
}

#[derive(Default)]
struct State {
	values: BTreeMap<Name, Vec<u8>>,
	/// What survives a loss of power, if not all.
	durable: Option<BTreeMap<Name, Vec<u8>>>,
	trouble: Trouble,
	changes: u64,
	dead: bool,
	/// `true` while the store answers nothing.
	away: bool,
	/// Changes that failed and have not happened yet.
	late: Vec<(Name, Option<Vec<u8>>)>,
	/// What did not happen, while the rest of its group may still.
	reordering: Option<Name>,
}

/// Waits for no outage.
pub fn impatient() -> KvOptions {
	KvOptions { outages: OutagePolicy::none(), ..KvOptions::default() }
}

/// What is left when a process is gone.
#[derive(Clone, Default)]
pub struct Disk(Arc<Mutex<State>>);

impl Disk {
	pub fn new() -> Self {
		Self::default()
	}

	/// Changes that opening a new store takes.
	pub fn changes_of_an_opening() -> u64 {
		let disk = Self::new();
		drop(KvBackedStore::open(Arc::new(Unruly::on(&disk)), &Namespace::default()).unwrap());
		disk.changes()
	}

	/// From now on; whoever died is alive again.
	pub fn plan(&self, trouble: Trouble) {
		let mut state = self.state();
		(state.trouble, state.dead, state.reordering) = (trouble, false, None);
		state.away = trouble == Trouble::Away;
		if trouble == Trouble::Lies {
			state.durable = Some(state.values.clone());
		}
	}

	/// Makes the changes that failed before. Returns their count.
	pub fn land_late(&self) -> usize {
		let mut state = self.state();
		let late = std::mem::take(&mut state.late);
		for (name, value) in late.clone() {
			match value {
				Some(value) => drop(state.values.insert(name, value)),
				None => drop(state.values.remove(&name)),
			}
		}
		late.len()
	}

	pub fn changes(&self) -> u64 {
		self.state().changes
	}

	pub fn find(&self, secondary: &str) -> Name {
		self.state().values.keys().find(|name| name.1 == secondary).unwrap().clone()
	}

	pub fn get(&self, name: &Name) -> Vec<u8> {
		self.state().values[name].clone()
	}

	pub fn set(&self, name: &Name, value: Vec<u8>) {
		self.state().values.insert(name.clone(), value);
	}

	/// Everything, a value per line.
	pub fn dump(&self) -> String {
		let line = |((primary, secondary, key), value): (&Name, &Vec<u8>)| {
			let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
			format!("{primary} {secondary} {key} {hex}\n")
		};
		self.state().values.iter().map(line).collect()
	}

	pub fn load(dump: &str) -> Self {
		let disk = Self::new();
		for line in dump.lines() {
			let words: Vec<&str> = line.split(' ').collect();
			let byte = |n: usize| u8::from_str_radix(&words[3][n..n + 2], 16).unwrap();
			let value = (0..words[3].len()).step_by(2).map(byte).collect();
			disk.set(&name(words[0], words[1], words[2]), value);
		}
		disk
	}

	pub fn snapshot(&self) -> Self {
		let state = self.state();
		let (values, changes) = (state.values.clone(), state.changes);
		Self(Arc::new(Mutex::new(State { values, changes, ..State::default() })))
	}

	pub fn after_power_loss(&self) -> Self {
		let values = self.state().durable.clone().unwrap();
		Self(Arc::new(Mutex::new(State { values, ..State::default() })))
	}

	fn state(&self) -> MutexGuard<'_, State> {
		self.0.lock().unwrap_or_else(|e| e.into_inner())
	}

	fn change(&self, name: Name, value: Option<Vec<u8>>) -> Result<(), io::Error> {
		let mut state = self.state();
		let dead = || io::Error::new(ErrorKind::Other, "the process is dead");
		if state.dead && state.reordering.as_ref().is_none_or(|lost| *lost == name) {
			return Err(dead());
		}
		let number = state.changes;
		state.changes += 1;
		let away = || io::Error::new(ErrorKind::Other, "away");
		let full = || {
			let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
			io::Error::new(ErrorKind::Other, full)
		};
		if state.away {
			return Err(away());
		}
		let is_redo = name.1 == "_redo";
		let after = match state.trouble {
			Trouble::AwayBefore(at) if number >= at => {
				state.away = true;
				return Err(away());
			},
			Trouble::AwayAfter(at) if number >= at => {
				state.away = true;
				true
			},
			Trouble::LandLate(left) if is_redo && left > 0 => {
				state.trouble = Trouble::LandLate(left - 1);
				state.late.push((name, value));
				return Err(away());
			},
			Trouble::LandLateThenFull if is_redo => {
				if !state.late.is_empty() {
					return Err(full());
				}
				state.late.push((name, value));
				return Err(away());
			},
			Trouble::DieBefore(at) if number >= at => {
				state.dead = true;
				return Err(dead());
			},
			Trouble::DieReordered(at) if number == at => {
				(state.dead, state.reordering) = (true, Some(name));
				return Err(dead());
			},
			Trouble::DieAfter(at) if number >= at => true,
			Trouble::FailEvery(n) if number % n == 0 => {
				return Err(io::Error::new(ErrorKind::Other, "now and then"));
			},
			Trouble::FailAll => return Err(io::Error::new(ErrorKind::Other, "always")),
			Trouble::FullAfter(at) if number > at => return Err(full()),
			Trouble::Full => return Err(full()),
			_ => false,
		};
		match value {
			Some(value) => drop(state.values.insert(name, value)),
			None => drop(state.values.remove(&name)),
		}
		if state.away {
			return Err(away());
		}
		if after {
			state.dead = true;
			return Err(dead());
		}
		Ok(())
	}

	/// What was asked for at the same time has been asked for.
	fn look(&self) -> Result<MutexGuard<'_, State>, io::Error> {
		let mut state = self.state();
		state.reordering = None;
		if state.dead || state.away {
			return Err(io::Error::new(ErrorKind::Other, "the process is dead, or the store away"));
		}
		Ok(state)
	}
}

/// One process's view of a disk.
pub struct Unruly {
	disk: Disk,
}

impl Unruly {
	pub fn on(disk: &Disk) -> Self {
		Self { disk: disk.clone() }
	}
}

fn name(primary: &str, secondary: &str, key: &str) -> Name {
	(primary.to_owned(), secondary.to_owned(), key.to_owned())
}

impl KVStoreSync for Unruly {
	fn read(&self, primary: &str, secondary: &str, key: &str) -> Result<Vec<u8>, io::Error> {
		let state = self.disk.look()?;
		let found = state.values.get(&name(primary, secondary, key)).cloned();
		found.ok_or_else(|| io::Error::new(ErrorKind::NotFound, "no such key"))
	}

	fn write(
		&self, primary: &str, secondary: &str, key: &str, value: Vec<u8>,
	) -> Result<(), io::Error> {
		assert!(!key.is_empty() && [primary, secondary, key].iter().all(|part| part.len() <= 120));
		self.disk.change(name(primary, secondary, key), Some(value))
	}

	fn remove(&self, primary: &str, secondary: &str, key: &str, _: bool) -> Result<(), io::Error> {
		self.disk.change(name(primary, secondary, key), None)
	}

	/// In an order of its own.
	fn list(&self, primary: &str, secondary: &str) -> Result<Vec<String>, io::Error> {
		let state = self.disk.look()?;
		let here = |name: &&Name| name.0 == primary && name.1 == secondary;
		Ok(state.values.keys().rev().filter(here).map(|name| name.2.clone()).collect())
	}
}

/// The same with futures: what is written is fixed when it is asked for, and happens on a thread of
/// the store's own, later ones first.
pub struct Futures {
	kv: Arc<Unruly>,
	tasks: std::sync::mpsc::Sender<Task>,
}

type Task = Box<dyn FnOnce() + Send>;

impl Futures {
	pub fn new(kv: Arc<Unruly>) -> Self {
		let (tasks, asked) = std::sync::mpsc::channel::<Task>();
		std::thread::spawn(move || {
			while let Ok(first) = asked.recv() {
				let mut waiting = vec![first];
				waiting.extend(asked.try_iter());
				waiting.into_iter().rev().for_each(|task| task());
			}
		});
		Self { kv, tasks }
	}

	fn ask<T: Send + 'static>(
		&self, ask: impl FnOnce(&Unruly) -> Result<T, io::Error> + Send + 'static,
	) -> impl Future<Output = Result<T, io::Error>> + 'static + Send {
		let (kv, (completer, ticket)) = (Arc::clone(&self.kv), Ticket::pair());
		self.tasks.send(Box::new(move || completer.complete(Ok(ask(&kv))))).unwrap();
		async move { ticket.await.unwrap() }
	}
}

impl KVStore for Futures {
	fn read(
		&self, primary: &str, secondary: &str, key: &str,
	) -> impl Future<Output = Result<Vec<u8>, io::Error>> + 'static + Send {
		let name = name(primary, secondary, key);
		self.ask(move |kv| KVStoreSync::read(kv, &name.0, &name.1, &name.2))
	}

	fn write(
		&self, primary: &str, secondary: &str, key: &str, value: Vec<u8>,
	) -> impl Future<Output = Result<(), io::Error>> + 'static + Send {
		let name = name(primary, secondary, key);
		self.ask(move |kv| kv.disk.change(name, Some(value)))
	}

	fn remove(
		&self, primary: &str, secondary: &str, key: &str, _: bool,
	) -> impl Future<Output = Result<(), io::Error>> + 'static + Send {
		let name = name(primary, secondary, key);
		self.ask(move |kv| kv.disk.change(name, None))
	}

	fn list(
		&self, primary: &str, secondary: &str,
	) -> impl Future<Output = Result<Vec<String>, io::Error>> + 'static + Send {
		let name = name(primary, secondary, "");
		self.ask(move |kv| KVStoreSync::list(kv, &name.0, &name.1))
	}
}

/// LDK's store in a directory.
pub struct FileKv;

impl FileKv {
	pub fn in_dir(dir: &Path) -> Arc<FilesystemStore> {
		Arc::new(FilesystemStore::new(dir.to_owned()))
	}
}

/// What the conformance suite opens stores on.
pub struct Backing {
	kind: Kind,
	disk: Disk,
	dir: tempfile::TempDir,
	damaged: Mutex<Option<Name>>,
}

enum Kind {
	Sync,
	Async,
	Filesystem,
}

impl Backing {
	pub fn unruly_sync() -> Self {
		Self::new(Kind::Sync)
	}

	pub fn unruly_async() -> Self {
		Self::new(Kind::Async)
	}

	pub fn filesystem() -> Self {
		Self::new(Kind::Filesystem)
	}

	fn new(kind: Kind) -> Self {
		let dir = tempfile::tempdir().unwrap();
		Self { kind, disk: Disk::new(), dir, damaged: Mutex::default() }
	}
}

impl Backend for Backing {
	fn open(&self, namespace: &Namespace) -> Result<Arc<dyn Store>, StoreError> {
		self.disk.plan(Trouble::None);
		let unruly = Arc::new(Unruly::on(&self.disk));
		Ok(Arc::new(match self.kind {
			Kind::Sync => KvBackedStore::open_with(unruly, namespace, impatient())?,
			Kind::Async => {
				let futures = Arc::new(Futures::new(unruly));
				KvBackedStore::open_async_with(futures, namespace, impatient())?
			},
			Kind::Filesystem => {
				let files = FileKv::in_dir(self.dir.path());
				KvBackedStore::open_with(files, namespace, impatient())?
			},
		}))
	}

	fn damage(
		&self, _: &Arc<dyn Store>, _: &Namespace, key: &Key, change: &mut dyn FnMut(&mut Vec<u8>),
	) -> bool {
		if matches!(self.kind, Kind::Filesystem) {
			return false;
		}
		let mut state = self.disk.state();
		let mut damaged = self.damaged.lock().unwrap();
		// Its frame tells where it is, as long as that is whole.
		let is_it = |(_, value): &(&Name, &Vec<u8>)| frame::decode(key, value).is_ok();
		let found = state.values.iter().find(is_it).map(|(name, _)| name.clone());
		let Some(name) = found.or(damaged.clone()) else { return false };
		change(state.values.get_mut(&name).unwrap());
		*damaged = Some(name);
		true
	}

	fn fail_next_flush(&self, _: &Arc<dyn Store>) -> bool {
		match self.kind {
			Kind::Filesystem => false,
			_ => {
				self.disk.plan(Trouble::FailAll);
				true
			},
		}
	}
}
