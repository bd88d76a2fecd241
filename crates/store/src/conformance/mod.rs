// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The suite that every backend must pass.
//!
//! A backend's author implements [`Backend`] for a fresh medium and writes one line:
//!
//! ```text
//! leyden_store::conformance_tests!(MyBackend::new());
//! ```
//!
//! That makes one `#[test]` per promise of the [`Store`] trait. Each check is a function here as
//! well, and panics where the promise is broken.

// Test code: what goes wrong must stop the test, at once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod batches;
mod damage;
mod lifecycle;
mod order;
mod scans;
mod sequences;

use std::sync::Arc;

pub use batches::*;
pub use damage::*;
pub use lifecycle::*;
pub use order::*;
pub use scans::*;
pub use sequences::*;

use crate::{
	Batch, Committed, Key, Namespace, Record, RecordType, Store, StoreError, Table, Value,
};

/// A medium, fresh for each check, on which stores are opened.
pub trait Backend {
	/// Opens the namespace, or opens it again.
	///
	/// # Errors
	/// The backend's.
	fn open(&self, namespace: &Namespace) -> Result<Arc<dyn Store>, StoreError>;

	/// Changes the bytes of the frame at `key`, the way a failing disk does, while `store` is open.
	/// `false` if that cannot be done here; then the checks of damage are skipped.
	fn damage(
		&self, store: &Arc<dyn Store>, namespace: &Namespace, key: &Key,
		change: &mut dyn FnMut(&mut Vec<u8>),
	) -> bool;

	/// Makes the next flush of `store` fail. `false` if there is no flush.
	fn fail_next_flush(&self, store: &Arc<dyn Store>) -> bool;
}

/// Makes one test per promise, each on the backend that the expression makes.
#[macro_export]
macro_rules! conformance_tests {
	($make:expr) => {
		$crate::__conformance_checks!(conformance_tests, $make);
	};
	($make:expr; $($check:ident),* $(,)?) => {$(
		#[test]
		fn $check() {
			$crate::conformance::$check(&$make);
		}
	)*};
}

/// Hands the names of all checks to a macro, behind what is given.
#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_checks {
	($with:ident, $first:expr) => {
		$crate::$with! { $first;
			a_batch_is_all_or_nothing,
			expectations_are_checked_against_the_state_before_the_batch,
			a_refused_batch_gives_no_numbers,
			versions_are_never_used_twice,
			what_is_too_large_is_refused_and_what_just_fits_is_not,
			a_large_record_comes_back_whole,
			merged_plans_get_their_own_answers,
			numbers_begin_at_one_and_are_never_used_twice,
			deleted_numbers_are_not_given_again,
			an_append_of_what_is_known_does_nothing,
			an_append_can_be_taken_back,
			records_at_a_number_follow_it,
			scans_come_in_order_and_within_their_range,
			a_scan_goes_on_where_it_was_while_others_write,
			pages_are_bounded_in_bytes,
			every_damaged_byte_is_loud_and_nothing_is_skipped,
			a_newer_schema_is_refused,
			the_order_of_commits_is_the_order_of_the_calls,
			nobody_sees_a_number_before_the_one_below,
			many_writers_and_one_winner,
			hooks_run_in_order_even_if_nobody_waits,
			a_dropped_ticket_takes_nothing_back,
			a_ticket_is_a_future,
			a_read_sees_what_was_resolved,
			lazy_commits_keep_their_order,
			what_was_acknowledged_is_there_after_reopening,
			namespaces_do_not_see_each_other,
			an_older_writer_is_kept_out,
			a_failed_flush_ends_the_handle,
		}
	};
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_list {
	($unused:expr; $($check:ident),* $(,)?) => {
		&[$((stringify!($check), $check)),*]
	};
}

/// A promise, and what panics where it is broken.
pub type Check = (&'static str, fn(&dyn Backend));

/// Every promise of the trait, for who cannot use [`conformance_tests!`].
pub const CHECKS: &[Check] = __conformance_checks!(__conformance_list, ());

pub(crate) const T: Table = Table::new("conformance");

pub(crate) fn default() -> Namespace {
	Namespace::default()
}

pub(crate) fn open(backend: &dyn Backend) -> Arc<dyn Store> {
	backend.open(&default()).expect("the store opens")
}

pub(crate) fn key(name: &str) -> Key {
	Key::new(T, name.as_bytes())
}

pub(crate) fn value(body: &str) -> Value {
	Value::new(RecordType(0x8000), 1, body.as_bytes())
}

pub(crate) fn put(store: &Arc<dyn Store>, name: &str, body: &str) -> Committed {
	let mut batch = Batch::new();
	batch.put(key(name), value(body));
	store.commit(batch).wait().unwrap()
}

pub(crate) fn get(store: &Arc<dyn Store>, name: &str) -> Option<Record> {
	store.get(&key(name)).wait().unwrap()
}

pub(crate) fn body(store: &Arc<dyn Store>, name: &str) -> Option<String> {
	get(store, name).map(|record| String::from_utf8(record.value.body).unwrap())
}
