// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Locks and threads of what waits for each other (tickets, the queue). Built with `--cfg shuttle`,
//! they are those of a scheduler that tries many orders; see `tests/interleavings.rs`.

#[cfg(not(shuttle))]
pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard};
#[cfg(not(shuttle))]
pub(crate) use std::thread;

#[cfg(shuttle)]
pub(crate) use scheduled::{Condvar, Mutex, MutexGuard};
#[cfg(shuttle)]
pub(crate) use shuttle::thread;

/// shuttle's locks, with parking_lot's methods.
#[cfg(shuttle)]
mod scheduled {
	use std::ops::{Deref, DerefMut};
	use std::sync::PoisonError;

	#[derive(Debug, Default)]
	pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

	/// `None` while it waits.
	pub(crate) struct MutexGuard<'a, T>(Option<shuttle::sync::MutexGuard<'a, T>>);

	#[derive(Debug, Default)]
	pub(crate) struct Condvar(shuttle::sync::Condvar);

	impl<T> Mutex<T> {
		pub(crate) fn new(value: T) -> Self {
			Self(shuttle::sync::Mutex::new(value))
		}

		pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
			MutexGuard(Some(self.0.lock().unwrap_or_else(PoisonError::into_inner)))
		}

		pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
			self.0.try_lock().ok().map(|guard| MutexGuard(Some(guard)))
		}
	}

	impl Condvar {
		pub(crate) fn new() -> Self {
			Self::default()
		}

		pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
			if let Some(held) = guard.0.take() {
				guard.0 = Some(self.0.wait(held).unwrap_or_else(PoisonError::into_inner));
			}
		}

		pub(crate) fn notify_one(&self) {
			self.0.notify_one();
		}

		pub(crate) fn notify_all(&self) {
			self.0.notify_all();
		}
	}

	impl<T> Deref for MutexGuard<'_, T> {
		type Target = T;

		#[allow(clippy::expect_used)]
		fn deref(&self) -> &T {
			self.0.as_deref().expect("it does not wait")
		}
	}

	impl<T> DerefMut for MutexGuard<'_, T> {
		#[allow(clippy::expect_used)]
		fn deref_mut(&mut self) -> &mut T {
			self.0.as_deref_mut().expect("it does not wait")
		}
	}
}
