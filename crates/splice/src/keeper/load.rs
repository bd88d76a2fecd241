// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.
//! Opening: what is on disk, and the coins that belong to it.

use leyden_store::{sharing, Clock, Key, KeyRange, StoreError};

use super::*;
use crate::law::Trigger;
use crate::records::{LIVE, PAST};

/// Records read in one go.
const PAGE: usize = 256;

/// A record that could not be read.
#[derive(Clone, Debug)]
pub struct Damaged {
	/// The splice.
	pub id: Option<SpliceId>,
	/// What is wrong with it, and what to do.
	pub error: StoreError,
}

impl Splices {
	/// Reads the splices that are going on, and reserves their coins. Nothing is handed to LDK
	/// before [`start`](Splices::start).
	///
	/// `tell` makes the entry of the event log with which the user is told that a splice failed.
	///
	/// # Errors
	/// [`SpliceError::AlreadyOpen`] while another keeper over the same `store` is in use; the store's.
	/// A damaged record of one splice is none: see [`damaged`](Splices::damaged).
	pub fn open(
		store: Arc<dyn Store>, clock: Arc<dyn Clock>, driver: Box<dyn SpliceDriver>, tell: Tell,
		options: SpliceOptions,
	) -> Result<Self, SpliceError> {
		let place = Key::new(LIVE, *b"keeper");
		let claim = sharing::claim(&store, &place).ok_or(SpliceError::AlreadyOpen)?;
		let clock = StoreClock::open(&store, clock)?;
		let coins = Reservations::load(&*store)?;
		let (splices, damaged) = live(&*store)?;
		let mut live = Live::default();
		splices.into_iter().for_each(|splice| live.insert(splice));
		let (live, selecting) = (Mutex::new(live), Mutex::new(()));
		let reserver = None;
		Ok(Self {
			store,
			clock,
			driver,
			tell,
			options,
			reserver,
			coins,
			live,
			selecting,
			damaged,
			_claim: claim,
		})
	}

	/// Tells `reserver` of every coin that is reserved, now and from now on.
	#[must_use]
	pub fn with_reserver(mut self, reserver: impl InputReserver + 'static) -> Self {
		for (input, id) in self.coins.all() {
			reserver.reserve(&id, &[input]);
		}
		self.reserver = Some(Box::new(reserver));
		self
	}

	/// Looks at every splice, and hands to LDK what LDK has forgotten. Call it once, when the node
	/// is loaded and has handled the events that LDK brought again, before peers connect. Later or
	/// earlier does no harm: everything that is heard of LDK is checked against what LDK shows.
	///
	/// # Errors
	/// The store's; the other splices were looked at all the same.
	///
	/// # Failure Behavior and Persistence
	/// A crash in it leaves some splices handed over and some not; the next start goes on.
	pub fn start(&self) -> Result<(), SpliceError> {
		self.look_at_all()
	}

	/// Looks at every splice: their age limits pass, and peers come back, without LDK saying so.
	///
	/// # Errors
	/// As [`start`](Splices::start).
	///
	/// # Failure Behavior and Persistence
	/// As [`start`](Splices::start).
	pub fn look_at_all(&self) -> Result<(), SpliceError> {
		self.learn_fates();
		let ids: Vec<SpliceId> = {
			let live = self.live.lock();
			live.splices.values().map(|splice| splice.id).collect()
		};
		let mut first = Ok(());
		for id in ids {
			let done = self.reconcile(&id, Trigger::Look);
			first = first.and(done);
		}
		first
	}
}

/// What is over, the newest first.
pub(super) fn past(store: &dyn Store, limit: usize) -> Result<Vec<Splice>, StoreError> {
	let mut splices = Vec::new();
	let mut rest = Some(KeyRange::all(PAST).reversed());
	while let (Some(range), true) = (rest.take(), splices.len() < limit) {
		let page = store.scan(range, (limit - splices.len()).min(PAGE)).wait()?;
		for (key, record) in &page.records {
			splices.push(records::read(key, record)?);
		}
		rest = page.rest;
	}
	Ok(splices)
}

/// What is going on, and what cannot be read of it.
fn live(store: &dyn Store) -> Result<(Vec<Splice>, Vec<Damaged>), StoreError> {
	let (mut splices, mut damaged) = (Vec::new(), Vec::new());
	let mut rest = Some(KeyRange::all(LIVE));
	while let Some(range) = rest.take() {
		match store.scan(range.clone(), PAGE).wait() {
			Ok(page) => {
				for (key, record) in &page.records {
					read_one(key, records::read(key, record), &mut splices, &mut damaged)?;
				}
				rest = page.rest;
			},
			// A page with a damaged record is none: read up to it, note it, go on behind it.
			Err(error) => {
				let Some(key) = damaged_key(&error) else { return Err(error) };
				let before = range.clone().below(key.bytes());
				let page = store.scan(before, PAGE).wait()?;
				for (key, record) in &page.records {
					read_one(key, records::read(key, record), &mut splices, &mut damaged)?;
				}
				read_one(&key, Err(error), &mut splices, &mut damaged)?;
				rest = Some(range.after(key.bytes()));
			},
		}
	}
	Ok((splices, damaged))
}

fn read_one(
	key: &Key, read: Result<Splice, StoreError>, splices: &mut Vec<Splice>,
	damaged: &mut Vec<Damaged>,
) -> Result<(), StoreError> {
	match read {
		Ok(splice) => splices.push(splice),
		Err(error @ (StoreError::Corrupt { .. } | StoreError::Newer { .. })) => {
			let id = <[u8; 32]>::try_from(key.bytes()).ok().map(SpliceId::from_bytes);
			damaged.push(Damaged { id, error });
		},
		Err(error) => return Err(error),
	}
	Ok(())
}

/// The record of a splice that an error is about.
fn damaged_key(error: &StoreError) -> Option<Key> {
	let StoreError::Corrupt { table, key, .. } = error else { return None };
	let bytes: Vec<u8> = bitcoin::hex::FromHex::from_hex(key).ok()?;
	(*table == LIVE).then(|| Key::new(LIVE, bytes))
}
