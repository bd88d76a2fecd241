// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The loop around ticks.

use leyden_store::Stop;

use crate::error::PayoutError;
use crate::events::PayoutEvent;
use crate::payer::Payer;
use crate::payouts::Payouts;
use crate::worker::MAX_TICK;

impl Payouts {
	/// Looks after debts until `stop` says so: [ticks](Payouts::tick) every
	/// [`tick_interval`](crate::PayoutOptions::tick_interval), and at once while more are due. The call
	/// blocks this thread, which should be one of its own.
	///
	/// # Errors
	/// The first error of a tick that does not pass by itself. A store that is unavailable is waited
	/// for, and told to the [observer](crate::PayoutOptions::observer).
	///
	/// # Failure Behavior and Persistence
	/// As [`tick`](Payouts::tick).
	pub fn run(&self, payer: &dyn Payer, stop: &Stop) -> Result<(), PayoutError> {
		let mut is_told = false;
		while !stop.is_stopped() {
			let more = match self.tick(payer, MAX_TICK) {
				Ok(summary) => {
					is_told = false;
					summary.more
				},
				Err(PayoutError::Store(error)) if error.is_retriable() => {
					if let (Some(observer), false) = (&self.0.options.observer, is_told) {
						observer(&PayoutEvent::StoreUnavailable { error });
					}
					is_told = true;
					false
				},
				Err(error) => return Err(error),
			};
			if !more {
				stop.wait(self.0.options.tick_interval);
			}
		}
		Ok(())
	}
}
