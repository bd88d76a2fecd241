// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The expiry of callbacks whose deadline has passed.

use leyden_store::{KeyRange, Times};

use crate::callback::Callback;
use crate::error::OutboxError;
use crate::events::OutboxEvent;
use crate::outbox::{sequence, Outbox, State};
use crate::records::{self, End, WhyV1};
use crate::settle::{is_refused, Letter};
use crate::state_machine;

/// Callbacks read in one go.
const PAGE: usize = 256;

impl Outbox {
	/// Lets every callback expire whose deadline has passed, with what is to be done about it, up to
	/// `limit` of them. It is called with every block. Returns those that have expired.
	///
	/// A callback that is on its way is left until it is back. One whose records are damaged, or whose hook
	/// gives a plan that is refused, is passed over, and told to the
	/// [observer](crate::OutboxOptions::observer).
	///
	/// # Errors
	/// [`OutboxError::Store`].
	///
	/// # Failure Behavior and Persistence
	/// Each is one commit, with what [`on_expired`](crate::OutboxOptions::on_expired) wants.
	pub fn expire(&self, height: u32, limit: usize) -> Result<Vec<Callback>, OutboxError> {
		let now = self.0.clock.look();
		// What others have dated is over when the clock and steady time say so.
		let past = now.wall.min(now.steady);
		let mut state = self.0.state.lock();
		state.expired_at = Some(now.running);
		state.neglected.remove("expire");
		let ends: Vec<End> = state.endpoints.iter().map(|(end, _)| *end).collect();
		let mut expired: Vec<Callback> = Vec::new();
		for end in ends {
			for (kind, number) in [(0, u64::from(height)), (1, past.0)] {
				let range = records::urgent_up_to(&end, kind, number);
				let done = self.expire_range(&mut state, (end, range), now, limit, &mut expired);
				if let Err(error) = done {
					self.unlock(state);
					return Err(error);
				}
			}
		}
		self.unlock(state);
		Ok(expired)
	}

	fn expire_range(
		&self, state: &mut State, (end, range): (End, KeyRange), now: Times, limit: usize,
		expired: &mut Vec<Callback>,
	) -> Result<(), OutboxError> {
		let mut rest = Some(range);
		while let Some(range) = rest.take().filter(|_| expired.len() < limit) {
			// The key says it all.
			let page = self.scan_around_damage(range, PAGE)?;
			for (key, _) in &page.records {
				let number = records::number_of(key)?;
				if expired.len() >= limit || state.leases.contains_key(&number) {
					continue;
				}
				// It has expired already, by its other deadline.
				let open = self.open_record(number);
				let Some(Some(open)) = self.unless_damaged(state, number, open)? else { continue };
				let item = self.item(number);
				let Some(item) = self.unless_damaged(state, number, item)? else { continue };
				let callback = item.callback(sequence(number));
				let letter = Letter { end, callback: &callback, open };
				let why = (WhyV1::Expired, state_machine::taken(open.doubt));
				let plan = self.to_dead_letter(state, letter, now, why, "its deadline passed")?;
				// One after the other: what comes next with this order key is looked up in the store.
				match plan.commit(&*self.0.store).wait() {
					Ok(()) => {
						let (sequence, taken) = (callback.sequence(), why.1);
						state.events.push(OutboxEvent::Expired { sequence, taken });
						expired.push(callback);
					},
					// The hook's plan expects what is not so, or cannot be.
					Err(error) if is_refused(&error) => {
						if state.told.insert(number) {
							let sequence = callback.sequence();
							state.events.push(OutboxEvent::HookRefused { sequence, error });
						}
					},
					Err(error) => return Err(error.into()),
				}
			}
			rest = page.rest;
		}
		Ok(())
	}
}
