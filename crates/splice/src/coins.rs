// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.
//! Coins that are promised to a splice: written down, so that neither another splice nor the wallet
//! spends them, in this life or the next.

use std::collections::BTreeMap;
use std::ops::Deref;

use bitcoin::OutPoint;
use leyden_store::{Batch, Expectation, KeyRange, Plan, Store, StoreError};
use parking_lot::Mutex;

use crate::parts::SpliceId;
use crate::records::{self, CoinV1, COINS};
use crate::SpliceError;

/// Where coins are reserved, besides Leyden's own list: the wallet, which must leave them alone.
///
/// Called after the list was written, and again for every reserved coin at the start: reserving
/// what is reserved under the same id does nothing. A wallet that asks
/// [`Reservations::is_reserved`] before it spends needs none.
pub trait InputReserver: Send + Sync {
	/// These coins are for `id` only.
	fn reserve(&self, id: &SpliceId, inputs: &[OutPoint]);

	/// These coins are free again, or spent.
	fn release(&self, id: &SpliceId, inputs: &[OutPoint]);
}

impl<T: Deref + Send + Sync> InputReserver for T
where
	T::Target: InputReserver,
{
	fn reserve(&self, id: &SpliceId, inputs: &[OutPoint]) {
		self.deref().reserve(id, inputs);
	}

	fn release(&self, id: &SpliceId, inputs: &[OutPoint]) {
		self.deref().release(id, inputs);
	}
}

/// The reserved coins, in Leyden's store.
#[derive(Debug, Default)]
pub struct Reservations {
	/// A leaf lock: a wallet may ask while a splice is being built.
	coins: Mutex<BTreeMap<OutPoint, SpliceId>>,
}

impl Reservations {
	pub(crate) fn load(store: &dyn Store) -> Result<Self, StoreError> {
		let mut coins = BTreeMap::new();
		let mut rest = Some(KeyRange::all(COINS));
		while let Some(range) = rest.take() {
			let page = store.scan(range, 1024).wait()?;
			for (key, record) in &page.records {
				let coin: CoinV1 = leyden_store::codec::decode(key, record)?;
				let Some(input) = records::coin_of(key) else {
					return Err(StoreError::corrupt(key, "it is no key of a coin"));
				};
				coins.insert(input, SpliceId::from_bytes(coin.id));
			}
			rest = page.rest;
		}
		Ok(Self { coins: Mutex::new(coins) })
	}

	/// For which splice this coin is reserved.
	pub fn holder(&self, input: &OutPoint) -> Option<SpliceId> {
		self.coins.lock().get(input).copied()
	}

	/// Whether the wallet must leave this coin alone.
	pub fn is_reserved(&self, input: &OutPoint) -> bool {
		self.holder(input).is_some()
	}

	/// All reserved coins.
	pub fn all(&self) -> Vec<(OutPoint, SpliceId)> {
		self.coins.lock().iter().map(|(input, id)| (*input, *id)).collect()
	}

	/// Reserves coins for something else that the wallet does, under an id of the wallet's.
	///
	/// # Errors
	/// [`SpliceError::InputReserved`]; the store's.
	///
	/// # Failure Behavior and Persistence
	/// All or none, durably when it returns.
	pub fn reserve(
		&self, store: &dyn Store, id: &SpliceId, inputs: &[OutPoint],
	) -> Result<(), SpliceError> {
		let mut batch = Batch::new();
		self.put(&mut batch, id, inputs)?;
		Plan::of(batch).run(store)?;
		self.took(id, inputs);
		Ok(())
	}

	/// Ends a reservation of [`reserve`](Reservations::reserve). What is not reserved under `id`
	/// stays.
	///
	/// # Errors
	/// The store's.
	///
	/// # Failure Behavior and Persistence
	/// Durable when it returns.
	pub fn release(
		&self, store: &dyn Store, id: &SpliceId, inputs: &[OutPoint],
	) -> Result<(), SpliceError> {
		let mut batch = Batch::new();
		let held = self.delete(&mut batch, id, inputs);
		Plan::of(batch).run(store)?;
		self.gave(&held);
		Ok(())
	}

	/// Adds what reserves these to `batch`.
	pub(crate) fn put(
		&self, batch: &mut Batch, id: &SpliceId, inputs: &[OutPoint],
	) -> Result<(), SpliceError> {
		for input in inputs {
			match self.holder(input) {
				Some(holder) if holder == *id => {},
				Some(_) => return Err(SpliceError::InputReserved { input: *input }),
				None => {
					let key = records::coin_key(input);
					batch.expect(key.clone(), Expectation::Absent);
					batch.put(key, leyden_store::codec::encode(&CoinV1 { id: *id.as_bytes() })?);
				},
			}
		}
		Ok(())
	}

	/// Adds what frees those of these that `id` holds to `batch`, and tells which.
	pub(crate) fn delete(
		&self, batch: &mut Batch, id: &SpliceId, inputs: &[OutPoint],
	) -> Vec<OutPoint> {
		let held = |input: &&OutPoint| self.holder(input) == Some(*id);
		let held: Vec<OutPoint> = inputs.iter().filter(held).copied().collect();
		for input in &held {
			batch.delete(records::coin_key(input));
		}
		held
	}

	/// What was put is durable.
	pub(crate) fn took(&self, id: &SpliceId, inputs: &[OutPoint]) {
		self.coins.lock().extend(inputs.iter().map(|input| (*input, *id)));
	}

	/// What was deleted is durable.
	pub(crate) fn gave(&self, inputs: &[OutPoint]) {
		let mut coins = self.coins.lock();
		for input in inputs {
			coins.remove(input);
		}
	}
}
