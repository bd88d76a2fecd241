// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! A page of a feed on the wire. The feed of an outbox over HTTP is `GET ?after=EPOCH-NUMBER&limit=N`,
//! with a token.

use base64::prelude::BASE64_STANDARD;
use base64::Engine;
use leyden_outbox::Callback;
use serde::{Deserialize, Serialize};

/// A page on the wire.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WirePage {
	/// The epoch as text: a JSON number has fewer digits.
	pub(crate) epoch: String,
	pub(crate) items: Vec<WireItem>,
	pub(crate) next: String,
	pub(crate) last: u64,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WireItem {
	sequence: u64,
	id: String,
	kind: String,
	endpoint: String,
	/// The order key in hex.
	order_key: String,
	schema: u16,
	/// The payload in base64.
	payload: String,
	#[serde(default, skip_serializing_if = "Option::is_none")]
	deadline_height: Option<u32>,
	#[serde(default, skip_serializing_if = "Option::is_none")]
	deadline_ms: Option<u64>,
	enqueued_ms: u64,
}

#[cfg(feature = "server")]
fn hex(bytes: &[u8]) -> String {
	bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl WireItem {
	#[cfg(feature = "server")]
	pub(crate) fn new(callback: &Callback) -> Self {
		Self {
			sequence: callback.sequence().get(),
			id: callback.id().to_string(),
			kind: callback.kind().to_owned(),
			endpoint: callback.endpoint().to_owned(),
			order_key: hex(callback.order_key()),
			schema: callback.schema(),
			payload: BASE64_STANDARD.encode(callback.payload()),
			deadline_height: callback.deadline().height,
			deadline_ms: callback.deadline().at.map(|at| at.0),
			enqueued_ms: callback.enqueued_at().0,
		}
	}

	/// Returns the most bytes that the item takes in a page: every character of a name may be escaped.
	#[cfg(feature = "server")]
	pub(crate) fn max_bytes(&self) -> usize {
		let names = self.kind.len() + self.endpoint.len();
		512 + self.id.len() + 6 * names + self.order_key.len() + self.payload.len()
	}

	/// Returns the callback; `None` for one that no outbox has.
	#[cfg(feature = "client")]
	pub(crate) fn read(self) -> Option<Callback> {
		use leyden_outbox::{CallbackId, Deadline, NewCallback, Sequence};
		use leyden_store::Timestamp;
		let id: CallbackId = self.id.parse().ok()?;
		let payload = BASE64_STANDARD.decode(self.payload).ok()?;
		let digits = self.order_key.as_bytes().chunks(2);
		let order_key: Option<Vec<u8>> = digits
			.map(|pair| {
				let pair = std::str::from_utf8(pair).ok().filter(|p| p.len() == 2)?;
				let is_hex = pair.bytes().all(|b| b.is_ascii_hexdigit());
				u8::from_str_radix(pair, 16).ok().filter(|_| is_hex)
			})
			.collect();
		let deadline =
			Deadline { height: self.deadline_height, at: self.deadline_ms.map(Timestamp) };
		let new = NewCallback::new(id, self.kind, self.endpoint, order_key?, payload).ok()?;
		let new = new.with_deadline(deadline).with_schema(self.schema);
		let sequence = Sequence::new(self.sequence)?;
		Some(Callback::received(sequence, new, Timestamp(self.enqueued_ms)))
	}
}
