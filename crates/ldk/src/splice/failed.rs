// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.
//! A splice that failed, in the event log among LDK's events.
//!
//! ```text
//! offset  size  what
//!      0     1  layout, 0x80: not an event of LDK
//!      1        `SpliceFailed`, Leyden's encoding
//! ```

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

use leyden_id::{Domain, EventKind, IdBuilder, Lane};
use leyden_log::{EventLog, NewEvent};
use leyden_splice::{SpliceFailed, Tell};
use lightning::events::Event;

use crate::journal::{decode_event, UnreadableEvent};

/// The kind of the entry.
pub const SPLICE_FAILED: EventKind = EventKind::from_static("SpliceFailed");

pub(crate) const LAYOUT: u8 = 0x80;
const DOMAIN: Domain = Domain::new("leyden/splice-failed", 1);

/// What a delivery of the stream of user events holds.
#[derive(Clone, Debug)]
pub enum UserEvent {
	/// An event of LDK.
	Ldk(Box<Event>),
	/// A splice, or its higher fee, came to nothing.
	SpliceFailed(Box<SpliceFailed>),
}

/// What is in the payload of a delivery of the stream of user events, if splices are kept there
/// too.
///
/// # Errors
/// As [`decode_event`].
pub fn decode_user_event(payload: &[u8]) -> Result<UserEvent, UnreadableEvent> {
	match payload.split_first() {
		Some((&LAYOUT, bytes)) => SpliceFailed::from_bytes(bytes)
			.map(|failed| UserEvent::SpliceFailed(Box::new(failed)))
			.ok_or(UnreadableEvent::Malformed),
		_ => decode_event(payload).map(|event| UserEvent::Ldk(Box::new(event))),
	}
}

/// Tells of a failure by an entry of `log`, in whatever commit its plan is part of.
pub(super) fn teller(log: EventLog) -> Tell {
	// The commit that ends the record tells, so each call is another event; the ids must differ,
	// and need not be the same ever again.
	let life = RandomState::new().build_hasher().finish();
	let told = AtomicU64::new(0);
	Box::new(move |failed| {
		let id = IdBuilder::new(DOMAIN, SPLICE_FAILED.name())
			.bytes(failed.id.as_bytes())
			.number(life)
			.number(told.fetch_add(1, Ordering::Relaxed))
			.finish();
		let mut payload = vec![LAYOUT];
		// It is small: a message is cut, and a splice has few coins.
		payload.extend(failed.to_bytes().unwrap_or_default());
		let lane = Lane::channel(failed.channel.channel_id);
		log.append_plan(NewEvent { id, kind: SPLICE_FAILED, lane, payload }).map(|_| ())
	})
}
