//! Entries of a log, in a test.

use leyden_log::{DamagedEntry, Entry};

/// Returns the entries, none of which is damaged.
///
/// # Panics
/// If one is.
pub fn intact(places: impl IntoIterator<Item = Result<Entry, DamagedEntry>>) -> Vec<Entry> {
	places.into_iter().map(|place| place.expect("an entry that is not damaged")).collect()
}
