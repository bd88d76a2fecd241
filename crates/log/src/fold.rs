// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Acks, folded: neighbours become one record, and what joins the watermark moves it.

/// First and last index of an ack.
type Span = (u64, u64);

/// Acks, folded. They come in order of their first index, and may overlap if something was acked
/// twice.
pub(crate) struct Fold {
	pub(crate) watermark: u64,
	/// Neighbours so far, and the records that they are.
	run: Option<(Span, Vec<Span>)>,
	/// What is to be written.
	pub(crate) merged: Vec<Span>,
	/// What is to be removed.
	pub(crate) folded: Vec<Span>,
}

impl Fold {
	/// Begins behind `watermark`.
	pub(crate) fn new(watermark: u64) -> Self {
		Self { watermark, run: None, merged: Vec::new(), folded: Vec::new() }
	}

	pub(crate) fn add(&mut self, first: u64, last: u64) {
		if first <= self.watermark.saturating_add(1) {
			self.watermark = self.watermark.max(last);
			self.folded.push((first, last));
			return;
		}
		match &mut self.run {
			Some(((_, end), records)) if first <= end.saturating_add(1) => {
				*end = last.max(*end);
				records.push((first, last));
			},
			_ => {
				self.end_run();
				self.run = Some(((first, last), vec![(first, last)]));
			},
		}
	}

	pub(crate) fn end_run(&mut self) {
		let Some((whole, records)) = self.run.take() else { return };
		if records.len() > 1 {
			// The merged record may be one of those it is made of.
			self.folded.extend(records.into_iter().filter(|record| *record != whole));
			self.merged.push(whole);
		}
	}
}

#[cfg(test)]
mod tests {
	use super::*;

	fn fold(watermark: u64, acks: &[(u64, u64)]) -> Fold {
		let mut fold = Fold::new(watermark);
		acks.iter().for_each(|(first, last)| fold.add(*first, *last));
		fold.end_run();
		fold
	}

	#[test]
	fn neighbours_become_one_and_the_watermark_moves_over_what_joins_it() {
		let done = fold(3, &[(4, 4), (5, 9), (11, 11), (12, 12), (14, 14)]);
		assert_eq!(done.watermark, 9);
		assert_eq!(done.merged, [(11, 12)]);
		assert_eq!(done.folded, [(4, 4), (5, 9), (11, 11), (12, 12)]);
	}

	#[test]
	fn what_was_acked_twice_folds_without_losing_anything() {
		let done = fold(0, &[(2, 2), (5, 9), (6, 6), (7, 12)]);
		assert_eq!(done.watermark, 0);
		assert_eq!(done.merged, [(5, 12)]);
		assert_eq!(done.folded, [(5, 9), (6, 6), (7, 12)]);
		// A record that already is the whole stays.
		let done = fold(0, &[(5, 9), (6, 6)]);
		assert_eq!(
			(done.merged.as_slice(), done.folded.as_slice()),
			(&[(5, 9)][..], &[(6, 6)][..])
		);
	}
}
