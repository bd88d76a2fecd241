//! A store under load in a process that may end at any moment, and the journal of what it was told.
//!
//! The child says what it is about to do before it does it, and what it was told after. Whoever reads
//! that knows what must be there, what must not, and what may be either.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, dead_code)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use leyden_backends::sqlite::SqliteStore;
use leyden_store::witness::{FileWitness, WitnessedStore};
use leyden_store::{
	Batch, Durability, Key, KeyRange, Namespace, RecordType, Store, StoreError, Table, Value,
};

pub const CHILD: &str = "LEYDEN_CHILD";
pub const CHILD_DIR: &str = "LEYDEN_CHILD_DIR";
pub const CHILD_LIFE: &str = "LEYDEN_CHILD_LIFE";
pub const CHILD_THREADS: &str = "LEYDEN_CHILD_THREADS";
pub const CHILD_ENDLESS: &str = "LEYDEN_CHILD_ENDLESS";
pub const CHILD_URL: &str = "LEYDEN_CHILD_URL";

const ENTRIES: Table = Table::new("entries");
const IDS: Table = Table::new("ids");
const ACKS: Table = Table::new("acks");
/// Operations of each thread in a life, unless it goes on until it is killed.
const OPERATIONS: u64 = 25;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
	Sqlite,
	/// Negative controls: they do not flush.
	SqliteNormal,
	SqliteOff,
	Redb,
	RedbTwoPhase,
	RedbLazy,
	Postgres,
	/// SQLite with a witness in the same directory.
	SqliteWitnessed,
	RedbWitnessed,
	/// Negative control: the witness is ahead of a database that was not flushed.
	SqliteOffWitnessed,
}

impl Kind {
	const ALL: [Self; 10] = [
		Self::Sqlite,
		Self::SqliteNormal,
		Self::SqliteOff,
		Self::Redb,
		Self::RedbTwoPhase,
		Self::RedbLazy,
		Self::Postgres,
		Self::SqliteWitnessed,
		Self::RedbWitnessed,
		Self::SqliteOffWitnessed,
	];

	pub fn name(self) -> String {
		format!("{self:?}")
	}

	/// Whether this build has it.
	pub fn is_here(self) -> bool {
		match self {
			Self::Redb | Self::RedbTwoPhase | Self::RedbLazy | Self::RedbWitnessed => {
				cfg!(feature = "redb")
			},
			Self::Postgres => cfg!(feature = "postgres"),
			_ => true,
		}
	}

	fn open(self, dir: &Path, url: Option<&str>) -> Result<Arc<dyn Store>, StoreError> {
		let namespace = Namespace::default();
		match self {
			Self::Sqlite => Ok(Arc::new(SqliteStore::open(dir.join("store"), namespace)?)),
			Self::SqliteNormal | Self::SqliteOff => {
				let store = SqliteStore::open(dir.join("store"), namespace)?;
				let level = if self == Self::SqliteOff { "OFF" } else { "NORMAL" };
				store.tamper(&format!("PRAGMA synchronous = {level}"))?;
				Ok(Arc::new(store))
			},
			#[cfg(feature = "redb")]
			Self::Redb | Self::RedbTwoPhase | Self::RedbLazy => {
				use leyden_backends::redb::{RedbOptions, RedbStore};
				let options = RedbOptions { two_phase: self == Self::RedbTwoPhase };
				Ok(Arc::new(RedbStore::open(dir.join("store"), namespace, options)?))
			},
			#[cfg(feature = "postgres")]
			Self::Postgres => {
				use leyden_backends::postgres::{PostgresOptions, PostgresStore};
				// Its earlier life was killed, and the server may not have heard of that.
				let options = PostgresOptions { take_over: true, ..PostgresOptions::default() };
				Ok(Arc::new(PostgresStore::open(url.unwrap(), namespace, options)?))
			},
			Self::SqliteWitnessed => witnessed(Self::Sqlite.open(dir, url)?, dir),
			Self::RedbWitnessed => witnessed(Self::Redb.open(dir, url)?, dir),
			Self::SqliteOffWitnessed => witnessed(Self::SqliteOff.open(dir, url)?, dir),
			#[allow(unreachable_patterns)]
			_ => panic!("{self:?} is not built"),
		}
	}
}

fn witnessed(store: Arc<dyn Store>, dir: &Path) -> Result<Arc<dyn Store>, StoreError> {
	let witness = Box::new(FileWitness::new(dir.join("store-witness")));
	Ok(Arc::new(WitnessedStore::open(store, witness)?))
}

/// What a child must be told besides its directory.
pub struct ServerFor(#[cfg(feature = "postgres")] Option<leyden_testkit::postgres::Server>);

impl ServerFor {
	/// `None` if it needs a server and there is none.
	pub fn new(kind: Kind) -> Option<Self> {
		#[cfg(feature = "postgres")]
		return match kind {
			Kind::Postgres => Some(Self(Some(leyden_testkit::postgres::Server::start()?))),
			_ => Some(Self(None)),
		};
		#[cfg(not(feature = "postgres"))]
		(kind != Kind::Postgres).then_some(Self())
	}

	pub fn tell(&self, child: &mut Command) {
		if let Some(url) = self.url() {
			child.env(CHILD_URL, url);
		}
	}

	fn url(&self) -> Option<String> {
		#[cfg(feature = "postgres")]
		return self.0.as_ref().map(leyden_testkit::postgres::Server::url);
		#[cfg(not(feature = "postgres"))]
		None
	}
}

/// Opens it as a child does.
pub fn open(kind: Kind, dir: &Path, server: &ServerFor) -> Result<Arc<dyn Store>, StoreError> {
	kind.open(dir, server.url().as_deref())
}

/// Any number, from a seed.
pub fn scramble(seed: u64) -> u64 {
	let mixed = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
	(mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 20
}

pub fn child_kind() -> Option<Kind> {
	let name = std::env::var(CHILD).ok()?;
	Kind::ALL.into_iter().find(|kind| kind.name() == name)
}

fn value(text: &str) -> Value {
	Value::new(RecordType(0x8000), 1, text.as_bytes())
}

fn say(line: &str) {
	let mut out = std::io::stdout().lock();
	// One write, so that lines stay whole.
	let _ = out.write_all(format!("@{line}\n").as_bytes()).and_then(|()| out.flush());
}

/// The child: each thread appends entries of its own under an id, some with another record in the
/// same batch, acks some (a record for the ack, and the entry is gone), and appends some again.
pub fn run(kind: Kind) {
	let text = |name| std::env::var(name).ok();
	let number = |name| text(name).and_then(|n| n.parse::<u64>().ok());
	let dir = text(CHILD_DIR).unwrap();
	let life = number(CHILD_LIFE).unwrap_or(0);
	let operations = if number(CHILD_ENDLESS).is_some() { u64::MAX } else { OPERATIONS };
	let store = match kind.open(Path::new(&dir), text(CHILD_URL).as_deref()) {
		Ok(store) => store,
		// A flush that failed while it was opened; a disk that is full.
		Err(error) => return say(&format!("unopened {error}")),
	};
	say("opened");
	std::thread::scope(|scope| {
		for thread in 0..number(CHILD_THREADS).unwrap_or(4) {
			let store = &store;
			scope.spawn(move || {
				for n in 0..operations {
					if !work(kind, store, life, thread, n) {
						return;
					}
				}
			});
		}
	});
}

/// One entry is appended, and perhaps acked; `false` if the store is over.
fn work(kind: Kind, store: &Arc<dyn Store>, life: u64, thread: u64, n: u64) -> bool {
	let id = format!("{life}-{thread}-{n}");
	let body = format!("{id} {}", "x".repeat((n * 37 % 400) as usize));
	let commit = |batch: Batch, what: &str| {
		say(&format!("try {what} {id}"));
		match store.commit(batch).wait() {
			Ok(committed) => {
				let number = committed.appends().first().map_or(0, |a| a.number().get());
				say(&format!("ok {what} {id} {number}"));
				Some(number)
			},
			Err(error) => {
				let known = if error.ends_handle() { "unknown" } else { "refused" };
				say(&format!("{known} {what} {id} {error}"));
				None
			},
		}
	};
	let mut batch = Batch::new();
	if kind == Kind::RedbLazy {
		batch.durability(Durability::Lazy);
	}
	let key = Key::new(IDS, id.as_bytes());
	let slot = batch.append_once(ENTRIES, b"", value(&body), key);
	if n % 3 == 0 {
		batch.put_at(slot, ACKS, b"with", value(&id));
	}
	let Some(number) = commit(batch, "append") else {
		// A full disk is full for a while; anything else is over.
		return store.get(&Key::new(IDS, *b"none")).wait().is_ok();
	};
	if n % 2 == 0 {
		let mut batch = Batch::new();
		if kind == Kind::RedbLazy {
			batch.durability(Durability::Lazy);
		}
		batch.delete(Key::numbered(ENTRIES, b"", number));
		batch.put(Key::new(ACKS, id.as_bytes()), value("acked"));
		commit(batch, "ack");
	}
	store.get(&Key::new(IDS, *b"none")).wait().is_ok()
}

/// What became of something, as the child was told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Told {
	Tried,
	Ok(u64),
	Refused,
}

/// What children said, in all lives.
#[derive(Default)]
pub struct Journal {
	appends: BTreeMap<String, Told>,
	acks: BTreeMap<String, Told>,
	lives: u64,
	poisoned: bool,
	full: bool,
}

impl Journal {
	pub fn new() -> Self {
		Self::default()
	}

	pub fn lives(&self) -> u64 {
		self.lives
	}

	pub fn was_poisoned(&self) -> bool {
		self.poisoned
	}

	pub fn was_full(&self) -> bool {
		self.full
	}

	pub fn hear(&mut self, said: &str) {
		self.lives += 1;
		// The last line may be cut off.
		let whole = said.rfind('\n').map_or("", |end| &said[..end]);
		whole.lines().for_each(|line| self.hear_line(line));
	}

	/// Hears a child, and calls `kill` when it has said `lines`; then hears the rest.
	pub fn hear_until(&mut self, from: impl Read, lines: u64, kill: impl FnOnce()) {
		self.lives += 1;
		let mut kill = Some(kill);
		let (mut from, mut line, mut heard) = (BufReader::new(from), String::new(), 0);
		while from.read_line(&mut line).unwrap_or(0) > 0 {
			if line.ends_with('\n') {
				self.hear_line(line.trim_end());
			}
			heard += u64::from(line.starts_with('@'));
			line.clear();
			if heard > lines {
				if let Some(kill) = kill.take() {
					kill();
				}
			}
		}
		if let Some(kill) = kill {
			kill();
		}
	}

	fn hear_line(&mut self, line: &str) {
		// The test harness of the child says things too, some on the same line.
		let Some((_, line)) = line.split_once('@') else { return };
		let words: Vec<&str> = line.splitn(4, ' ').collect();
		self.full |= line.to_lowercase().contains("no space left");
		self.poisoned |= words[0] == "unknown";
		let [how, what, id, ..] = words.as_slice() else { return };
		let told = match *how {
			"try" | "unknown" => Told::Tried,
			"ok" => Told::Ok(words[3].parse().unwrap()),
			"refused" => Told::Refused,
			_ => return,
		};
		let list = if *what == "append" { &mut self.appends } else { &mut self.acks };
		list.insert((*id).to_owned(), told);
	}

	pub fn check(&self, kind: Kind, dir: &Path) -> Result<(), String> {
		self.check_at_url(kind, dir, None)
	}

	pub fn check_at(&self, kind: Kind, dir: &Path, server: &ServerFor) -> Result<(), String> {
		self.check_at_url(kind, dir, server.url().as_deref())
	}

	/// Opens the store and holds it to what was said.
	fn check_at_url(&self, kind: Kind, dir: &Path, url: Option<&str>) -> Result<(), String> {
		let store = kind.open(dir, url).map_err(|error| format!("it does not open: {error}"))?;
		let failed = |error: StoreError| format!("it cannot be read: {error}");
		let read = |table| -> Result<BTreeMap<Vec<u8>, String>, String> {
			let (mut found, mut range) = (BTreeMap::new(), Some(KeyRange::all(table)));
			while let Some(next) = range {
				let page = store.scan(next, 500).wait().map_err(failed)?;
				found.extend(page.records.into_iter().map(|(key, record)| {
					let text = String::from_utf8(record.value.body).unwrap();
					(key.bytes().to_vec(), text)
				}));
				range = page.rest;
			}
			Ok(found)
		};
		let (entries, acks) = (read(ENTRIES)?, read(ACKS)?);
		let ids = read_ids(&*store)?;
		let mut highest = 0;
		for (id, told) in &self.appends {
			let acked = self.acks.get(id).copied();
			let number = ids.get(id).copied();
			let entry = number.and_then(|n| entries.get(&n.to_be_bytes()[..]));
			match told {
				Told::Ok(given) => {
					highest = highest.max(*given);
					if number != Some(*given) {
						return Err(format!("the append {id} is lost"));
					}
				},
				Told::Refused if number.is_some() => {
					return Err(format!("the append {id} was refused and is there"));
				},
				_ => {},
			}
			// The records of one batch are there together.
			let gone = acks.contains_key(id.as_bytes());
			if number.is_some() && entry.is_some() == gone {
				return Err(format!("the entry {id} is there: {}, acked: {gone}", entry.is_some()));
			}
			if let Some(entry) = entry {
				if entry.split(' ').next() != Some(id.as_str()) {
					return Err(format!("the entry {id} is another: {entry}"));
				}
			}
			let n: u64 = id.rsplit('-').next().unwrap().parse().unwrap();
			if let (Some(number), true) = (number, n % 3 == 0) {
				let key = [b"with".as_slice(), &number.to_be_bytes()].concat();
				if acks.get(&key) != Some(id) {
					return Err(format!("half of the batch of {id} is missing"));
				}
			}
			match acked {
				Some(Told::Ok(_)) if !gone => return Err(format!("the ack of {id} is undone")),
				None | Some(Told::Refused) if gone => {
					return Err(format!("{id} is acked, and nobody was told"));
				},
				_ => {},
			}
		}
		// A number is not given again.
		let mut batch = Batch::new();
		let _ = batch.append(ENTRIES, b"", value("last"));
		let committed = store.commit(batch).wait().map_err(failed)?;
		let number = committed.appends()[0].number();
		let mut batch = Batch::new();
		batch.delete(Key::numbered(ENTRIES, b"", number.get()));
		store.commit(batch).wait().map_err(failed)?;
		match number.get() > highest {
			true => Ok(()),
			false => Err(format!("{number} is given again, {highest} was")),
		}
	}
}

fn read_ids(store: &dyn Store) -> Result<BTreeMap<String, u64>, String> {
	let (mut found, mut range) = (BTreeMap::new(), Some(KeyRange::all(IDS)));
	while let Some(next) = range {
		let page = store.scan(next, 500).wait().map_err(|error| format!("ids: {error}"))?;
		for (key, record) in page.records {
			let body: [u8; 8] = record.value.body.as_slice().try_into().unwrap();
			let id = String::from_utf8(key.bytes().to_vec()).unwrap();
			found.insert(id, u64::from_be_bytes(body));
		}
		range = page.rest;
	}
	Ok(found)
}
