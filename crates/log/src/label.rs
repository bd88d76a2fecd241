// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What is known of an entry that is damaged.
//!
//! The checksum of a record covers all of it, so a flipped bit in a payload makes the whole record
//! unreadable. An entry that cannot be read must still hold up its lane, and nothing else. Therefore
//! an entry begins with a label that has a checksum of its own, and ends with a copy of its lane.

use leyden_id::{EventId, Lane};
use leyden_store::{codec, frame};
use serde::{Deserialize, Serialize};

/// The length of a [`Label`] in a record: id, repeat, lane, age, checksum.
const LABEL_BYTES: usize = 32 + 4 + LANE_BYTES + 8 + 4;
/// The length of a [`LaneCopy`] in a record: lane, checksum.
const COPY_BYTES: usize = LANE_BYTES + 4;
/// The length of a lane in a record: scope and key.
const LANE_BYTES: usize = 4 + 32;

/// The first part of an entry's record.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Label {
	pub(crate) id: EventId,
	/// The number of times that the source of the event had brought it before; see
	/// [`append_repeat_plan`](crate::EventLog::append_repeat_plan).
	pub(crate) repeat: u32,
	pub(crate) lane: Lane,
	/// The time that the store had lived when the entry was appended, from which its age counts.
	pub(crate) lived_ms: u64,
	checksum: u32,
}

/// The last part of an entry's record.
#[derive(Clone, Copy, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct LaneCopy {
	lane: Lane,
	checksum: u32,
}

impl Label {
	pub(crate) fn new(id: EventId, repeat: u32, lane: Lane, lived_ms: u64) -> Self {
		let mut label = Self { id, repeat, lane, lived_ms, checksum: 0 };
		label.checksum = label.sum();
		label
	}

	/// Reads the label of a damaged record; `None` if the label is damaged, too.
	pub(crate) fn of_damaged(raw: &[u8]) -> Option<Self> {
		let bytes = raw.get(frame::HEADER_BYTES..)?.get(..LABEL_BYTES)?;
		let label: Self = codec::from_body(bytes).ok()?;
		(label.checksum == label.sum()).then_some(label)
	}

	fn sum(&self) -> u32 {
		let sum = crc32c::crc32c(self.id.as_bytes());
		let sum = crc32c::crc32c_append(sum, &self.repeat.to_be_bytes());
		let sum = crc32c::crc32c_append(sum, &self.lane.to_bytes());
		crc32c::crc32c_append(sum, &self.lived_ms.to_be_bytes())
	}
}

impl LaneCopy {
	pub(crate) fn new(lane: Lane) -> Self {
		Self { lane, checksum: Self::sum(lane) }
	}

	/// Reads the lane at the end of a damaged record; `None` if it is damaged, too.
	pub(crate) fn of_damaged(raw: &[u8]) -> Option<Lane> {
		let copy: Self = codec::from_body(raw.last_chunk::<COPY_BYTES>()?).ok()?;
		(copy.checksum == Self::sum(copy.lane)).then_some(copy.lane)
	}

	fn sum(lane: Lane) -> u32 {
		crc32c::crc32c(&lane.to_bytes())
	}
}

#[cfg(test)]
mod tests {
	use leyden_store::{codec, frame, Key, Table, Version};

	use super::*;
	use crate::records::EntryV1;

	/// The label or the copy tells the lane, whatever single byte is damaged, and neither tells another.
	#[test]
	fn the_lane_survives_the_damage_of_any_byte() {
		let (id, lane) = (EventId::from_bytes([7; 32]), Lane::payment([8; 32]));
		let label = Label::new(id, 3, lane, 99);
		let kind = leyden_id::EventKind::from_static("Kind");
		let entry = EntryV1::new(label, kind, leyden_store::Timestamp(5), vec![1; 40]);
		let key = Key::new(Table::new("t"), *b"k");
		let whole = frame::encode(&key, Version::new(9), &codec::encode(&entry).unwrap());
		assert!(Label::of_damaged(&whole) == Some(label));
		let (mut labels, mut copies) = (0, 0);
		for at in 0..whole.len() {
			for mask in [1, 0x41, 0xff] {
				let mut damaged = whole.clone();
				damaged[at] ^= mask;
				let (label, copy) = (Label::of_damaged(&damaged), LaneCopy::of_damaged(&damaged));
				labels += usize::from(label.is_none());
				copies += usize::from(copy.is_none());
				let found = label.map(|label| label.lane).into_iter().chain(copy);
				let found: Vec<Lane> = found.collect();
				assert!(!found.is_empty() && found.iter().all(|found| *found == lane), "byte {at}");
			}
		}
		assert_eq!((labels, copies), (3 * LABEL_BYTES, 3 * COPY_BYTES));
		for length in 0..whole.len() {
			assert!(LaneCopy::of_damaged(&whole[..length]).is_none());
		}
	}
}
