// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What must stay in order.

use std::fmt;
use std::str::FromStr;

use bitcoin::hex::{DisplayHex, FromHex};
use serde::{Deserialize, Serialize};

use crate::{ChannelId, Domain, IdBuilder, ParseError};

/// What an event is about, and so which other events it must not overtake: events of one lane are
/// handled one after another, and those of other lanes never wait for them.
#[derive(Clone, Copy, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "AnyLane")]
pub struct Lane {
	scope: Scope,
	key: [u8; 32],
}

/// A lane as it is read, before anything is known about it.
#[derive(Deserialize)]
struct AnyLane {
	scope: Scope,
	key: [u8; 32],
}

impl TryFrom<AnyLane> for Lane {
	type Error = ParseError;

	/// Refuses a global lane whose key is not zero: there is one global lane.
	fn try_from(lane: AnyLane) -> Result<Self, ParseError> {
		let AnyLane { scope, key } = lane;
		match scope {
			Scope::Global if key != [0; 32] => Err(ParseError::Form("the global lane has no key")),
			_ => Ok(Self { scope, key }),
		}
	}
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
enum Scope {
	Global,
	Channel,
	Payment,
	Named,
}

const NAMED: Domain = Domain::new("leyden/lane", 1);

impl Lane {
	/// The lane of everything that is about nothing in particular.
	pub const GLOBAL: Self = Self { scope: Scope::Global, key: [0; 32] };

	/// The lane of a channel.
	pub const fn channel(channel_id: ChannelId) -> Self {
		Self { scope: Scope::Channel, key: channel_id.0 }
	}

	/// The lane of a payment, by LDK's `PaymentId` or by payment hash. A lane only orders: two
	/// payments in one lane wait for each other, and that is all.
	pub const fn payment(key: [u8; 32]) -> Self {
		Self { scope: Scope::Payment, key }
	}

	/// Returns the channel whose lane this is, if it is the lane of a channel.
	pub fn channel_id(&self) -> Option<ChannelId> {
		(self.scope == Scope::Channel).then_some(ChannelId(self.key))
	}

	/// A lane of one's own.
	pub fn named(name: &str) -> Self {
		let key = IdBuilder::new(NAMED, "named").bytes(name.as_bytes()).finish();
		Self { scope: Scope::Named, key: *key.as_bytes() }
	}

	/// Its 33 bytes: scope, then key.
	pub fn to_bytes(self) -> [u8; 33] {
		let mut bytes = [0; 33];
		let (scope, key) = bytes.split_at_mut(1);
		scope.copy_from_slice(&[self.scope as u8]);
		key.copy_from_slice(&self.key);
		bytes
	}
}

impl fmt::Display for Lane {
	/// `global`, or the scope and 64 hex digits: `channel:…`, `payment:…`, `named:…`.
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		match self.scope {
			Scope::Global => f.write_str("global"),
			Scope::Channel => write!(f, "channel:{}", self.key.as_hex()),
			Scope::Payment => write!(f, "payment:{}", self.key.as_hex()),
			Scope::Named => write!(f, "named:{}", self.key.as_hex()),
		}
	}
}

impl fmt::Debug for Lane {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		write!(f, "{self}")
	}
}

impl FromStr for Lane {
	type Err = ParseError;

	fn from_str(text: &str) -> Result<Self, ParseError> {
		let form = ParseError::Form("global, or channel:, payment: or named: and 64 hex digits");
		if text == "global" {
			return Ok(Self::GLOBAL);
		}
		let (scope, key) = text.split_once(':').ok_or(form.clone())?;
		let scope = match scope {
			"channel" => Scope::Channel,
			"payment" => Scope::Payment,
			"named" => Scope::Named,
			_ => return Err(form),
		};
		Ok(Self { scope, key: <[u8; 32]>::from_hex(key).map_err(|_| form)? })
	}
}

#[cfg(test)]
mod tests {
	use super::*;

	/// A global lane with a key would print as the global lane and be another.
	#[test]
	fn there_is_one_global_lane() {
		let read = |key: [u8; 32]| Lane::try_from(AnyLane { scope: Scope::Global, key });
		assert_eq!(read([0; 32]), Ok(Lane::GLOBAL));
		assert!(read([1; 32]).is_err());
	}

	#[test]
	fn text_reads_back_and_scopes_differ() {
		let lanes = [
			Lane::GLOBAL,
			Lane::channel(ChannelId([1; 32])),
			Lane::payment([1; 32]),
			Lane::named("cashier"),
		];
		for (i, lane) in lanes.iter().enumerate() {
			assert_eq!(lane.to_string().parse(), Ok(*lane));
			assert_eq!(lanes.iter().position(|other| other == lane), Some(i));
			assert_eq!(lanes.iter().position(|l| l.to_bytes() == lane.to_bytes()), Some(i));
			assert_eq!(lane.channel_id(), (i == 1).then_some(ChannelId([1; 32])));
		}
		assert!("channel:12".parse::<Lane>().is_err());
		assert!("elsewhere".parse::<Lane>().is_err());
	}
}
