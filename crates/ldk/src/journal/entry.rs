// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! A user event in the log.
//!
//! ```text
//! offset  size  what
//!      0     1  layout, 1
//!      1     1  1 if the id is strong, 0 if it is weak
//!      2    32  the identity: for a strong event its id; for a weak one what its repeats share
//!     34        the `Event`, LDK's encoding
//! ```

use std::fmt;

use leyden_id::{EventId, IdStrength};
use lightning::events::Event;
use lightning::util::ser::{MaybeReadable, Writeable};

use super::identity::EventIdentity;

const LAYOUT: u8 = 1;
const HEADER_BYTES: usize = 34;

/// Why the payload of a delivery is not an event. The bytes stay in the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum UnreadableEvent {
	/// This version of LDK does not know the variant, or does not read its fields: it was written
	/// by a newer one. Keep the entry un-acked and upgrade.
	Unknown,
	/// A newer version of Leyden wrote it.
	NewerLayout,
	/// It is no event of LDK, but of Leyden: a splice that failed. Read it with
	/// [`decode_user_event`](crate::decode_user_event).
	NotFromLdk,
	/// It is no event of the journal.
	Malformed,
}

impl UnreadableEvent {
	/// Always `false`: the same software will not read it better the next time.
	pub fn is_retriable(&self) -> bool {
		false
	}
}

impl fmt::Display for UnreadableEvent {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.write_str(match self {
			Self::Unknown => "this version of LDK does not know the event; use a newer one",
			Self::NewerLayout => "a newer version of Leyden wrote the event; use that",
			Self::NotFromLdk => "the entry is an event of Leyden; use decode_user_event",
			Self::Malformed => "the entry is not an event of the journal",
		})
	}
}

impl std::error::Error for UnreadableEvent {}

pub(crate) fn encode(identity: &EventIdentity, event: &[u8]) -> Vec<u8> {
	let mut out = Vec::with_capacity(HEADER_BYTES + event.len());
	out.push(LAYOUT);
	out.push(u8::from(identity.strength == IdStrength::Strong));
	out.extend_from_slice(identity.id.as_bytes());
	out.extend_from_slice(event);
	out
}

/// The event in the payload of a [`Delivery`](leyden_log::Delivery) of the journal's stream.
///
/// # Errors
/// Why it cannot be read. The entry is still there.
pub fn decode_event(payload: &[u8]) -> Result<Event, UnreadableEvent> {
	let (_, bytes) = split(payload)?;
	decode_ldk(bytes).ok_or(UnreadableEvent::Unknown)
}

/// What LDK makes of its own encoding; `None` for what it would skip or refuse.
pub(crate) fn decode_ldk(bytes: &[u8]) -> Option<Event> {
	let mut rest = bytes;
	<Event as MaybeReadable>::read(&mut rest).ok().flatten().filter(|_| rest.is_empty())
}

/// The encoding that an event can be read back from, if there is one: LDK writes some variants as a
/// mere type, since it makes them anew.
pub(crate) fn encode_ldk(event: &Event) -> Option<Vec<u8>> {
	let bytes = event.encode();
	decode_ldk(&bytes).is_some().then_some(bytes)
}

/// The identity of a payload whose id is weak.
pub(crate) fn weak_identity(payload: &[u8]) -> Option<EventId> {
	match split(payload) {
		Ok(((IdStrength::Weak, id), _)) => Some(id),
		_ => None,
	}
}

/// LDK's encoding of the event in a payload of the journal.
pub(crate) fn event_bytes(payload: &[u8]) -> Option<&[u8]> {
	split(payload).ok().map(|(_, event)| event)
}

type Header = (IdStrength, EventId);

fn split(payload: &[u8]) -> Result<(Header, &[u8]), UnreadableEvent> {
	match payload.first() {
		Some(&LAYOUT) => {},
		Some(&crate::splice::FAILED_LAYOUT) => return Err(UnreadableEvent::NotFromLdk),
		Some(layout) if *layout > LAYOUT => return Err(UnreadableEvent::NewerLayout),
		_ => return Err(UnreadableEvent::Malformed),
	}
	let Some((header, event)) = payload.split_first_chunk::<HEADER_BYTES>() else {
		return Err(UnreadableEvent::Malformed);
	};
	let [_, strength, id @ ..] = header;
	let strength = match strength {
		0 => IdStrength::Weak,
		1 => IdStrength::Strong,
		_ => return Err(UnreadableEvent::Malformed),
	};
	Ok(((strength, EventId::from_bytes(*id)), event))
}

/// An event of LDK's that can be kept is read as an event of the same identity, and written as it was.
#[cfg(feature = "fuzz")]
pub(crate) fn event_law(bytes: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
	let mut pairs = Vec::new();
	let event = decode_event(bytes).ok().or_else(|| decode_ldk(bytes));
	if let Some(event) = event {
		if let Some(written) = encode_ldk(&event) {
			let again = decode_ldk(&written);
			let identity = |event: &Event| EventIdentity::of(event).id.as_bytes().to_vec();
			let of_again = again.as_ref().map_or_else(Vec::new, identity);
			pairs.push((identity(&event), of_again));
			pairs.push((written, again.map_or_else(Vec::new, |event| event.encode())));
		}
	}
	pairs
}
