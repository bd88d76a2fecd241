// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Sending of groups, each until it is known what became of the group.
//!
//! A group whose request or reply is lost is sent again: only one of the two can be done, since both
//! want the same version of the store, and the head tells which.
//!
//! A large request may be lost because of its size: a server or a proxy refuses the request and does
//! not say so, or the client's time is over before the request is sent. So a large group that is lost
//! twice is settled by a small group, which writes nothing but the head and wants the same version.
//! If the small group is written, the large one was not and never will be, whatever is still on its
//! way. The large group is then sent anew. When all that happens once more, the size is taken for the
//! reason, and the caller is told.

use std::sync::Arc;
use std::time::Instant;

use leyden_store::committer::RawWrite;
use leyden_store::group::Asked;
use leyden_store::{codec, frame, StoreError, Version};

use super::client::{Failure, Pause, Said};
use super::medium::{Head, VssMedium};
use super::names::head_key;

/// The bytes of a request up to which no server and no proxy refuses it for its size.
const SMALL_BYTES: usize = 16 << 10;
/// Losses of a large request before a small one settles what became of the group.
const LOSSES: u32 = 2;
/// Times that a large group is not written while a small one is, before the size is the reason.
const TRIES: u32 = 2;

/// A group as it is sent.
struct Group {
	head: Head,
	/// Names and values, the head among them.
	puts: Vec<(String, Vec<u8>)>,
	deletes: Vec<String>,
	/// The bytes of all names and values.
	bytes: usize,
}

/// The fate of a group.
enum Settled {
	Written,
	/// The group was not written and never will be: the server refused the request for its size.
	Refused(Said),
	/// The group was not written and never will be, and a small one was. The failure is the last one of
	/// the large group.
	Buried(Failure),
}

impl VssMedium {
	/// Sends a group until it is known what became of it.
	pub(super) fn send(&mut self, writes: &[RawWrite]) -> Result<(), StoreError> {
		let mut tries = 0;
		loop {
			let group = self.group(self.head.group, writes)?;
			let (is_sure, said) = match self.settle(&group)? {
				Settled::Written => return Ok(()),
				Settled::Refused(said) | Settled::Buried(Failure::TooLarge(said)) => (true, said),
				Settled::Buried(failure) => (false, failure.said()),
			};
			tries += 1;
			if is_sure || tries == TRIES {
				return Err(self.client.too_large(group.bytes, &said));
			}
		}
	}

	/// Sends a group until it is written or never will be.
	fn settle(&mut self, group: &Group) -> Result<Settled, StoreError> {
		let deadline = self.client.deadline();
		// Whether an earlier try may have been done, or may be done yet.
		let mut unsure = false;
		let mut losses = 0;
		// The small group that is sent instead, and why.
		let mut burial: Option<(Group, Failure)> = None;
		let mut pause = Pause::until(deadline);
		loop {
			let sent = burial.as_ref().map_or(group, |(small, _)| small);
			// What is sent near the end still gets a chance.
			let patience = deadline.max(Instant::now() + self.client.timeout / 2);
			let (puts, deletes) = (sent.puts.clone(), sent.deletes.clone());
			let failure = match self.client.put(self.global_version, puts, deletes, patience) {
				Ok(()) => {
					self.wrote(sent.head);
					return Ok(burial.map_or(Settled::Written, |(_, why)| Settled::Buried(why)));
				},
				Err(Failure::Conflict) => match self.read_head(patience) {
					Ok(Some(found)) if unsure && found == group.head => {
						self.wrote(found);
						return Ok(Settled::Written);
					},
					Ok(found) => match burial.take() {
						Some((small, why)) if found == Some(small.head) => {
							self.wrote(small.head);
							return Ok(Settled::Buried(why));
						},
						// One that was lost may have been done before another writer came.
						_ if unsure => Failure::Conflict,
						_ => return Err(self.fenced()),
					},
					Err(error) if unsure => {
						if self.waits_for(&error) {
							continue;
						}
						return Err(indeterminate(&error));
					},
					// Nothing of ours was done.
					Err(error) => return Err(error),
				},
				Err(Failure::TooLarge(said)) if !unsure => return Ok(Settled::Refused(said)),
				Err(failure @ Failure::TooLarge(_)) => {
					losses = LOSSES;
					failure
				},
				Err(failure @ Failure::Lost(_)) => {
					unsure = true;
					losses += 1;
					failure
				},
				Err(failure) if !unsure => return Err(self.client.failed("committing", failure)),
				Err(failure) => failure,
			};
			// After a conflict it is no use to ask again.
			let is_of_use = !matches!(failure, Failure::Conflict);
			let may_be_for_its_size = burial.is_none()
				&& group.bytes > SMALL_BYTES
				&& matches!(failure, Failure::Lost(_) | Failure::TooLarge(_));
			let is_to_bury = may_be_for_its_size && losses >= LOSSES;
			if is_of_use && !is_to_bury && pause.wait() {
				continue;
			}
			if may_be_for_its_size {
				let small = self.group(group.head.group, &[]);
				burial = Some((small.map_err(|error| indeterminate(&error))?, failure));
				pause = Pause::until(self.client.deadline());
				continue;
			}
			let error = self.client.failed("committing", failure);
			if !is_of_use || !self.waits_for(&error) {
				return Err(indeterminate(&error));
			}
			pause = Pause::until(self.client.deadline());
		}
	}

	/// Takes over the head and the version of what was written.
	fn wrote(&mut self, head: Head) {
		self.head = head;
		self.global_version = self.global_version.saturating_add(1);
	}

	/// Waits for a server that is away; `false` if that is not to be waited for.
	fn waits_for(&self, error: &StoreError) -> bool {
		matches!(error, StoreError::Unavailable { .. }) && self.outages.pause(Asked::Write, error)
	}

	/// Makes the group that follows the one with the number `last`.
	fn group(&mut self, last: u64, writes: &[RawWrite]) -> Result<Group, StoreError> {
		let head = Head { group: last.saturating_add(1), ..self.head };
		let name = self.names.head();
		let key = head_key();
		let bytes = frame::encode(&key, Version::new(head.group), &codec::encode(&head)?);
		let mut puts = vec![(name.clone(), self.names.hide(&name, bytes)?)];
		let mut deletes = Vec::new();
		for (key, frame) in writes {
			let name = self.names.name(key.table().name(), key.bytes());
			match frame {
				Some(frame) => puts.push((name.clone(), self.names.hide(&name, frame.clone())?)),
				// To delete what is not there is a conflict.
				None => {
					self.load_keys(key.table())?;
					if self.keys.knows(key) == Some(true) {
						deletes.push(name);
					}
				},
			}
		}
		let bytes = puts.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
			+ deletes.iter().map(String::len).sum::<usize>();
		Ok(Group { head, puts, deletes, bytes })
	}
}

fn indeterminate(error: &StoreError) -> StoreError {
	StoreError::Indeterminate { doing: "committing", source: Arc::new(error.clone()) }
}
