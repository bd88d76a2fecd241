// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What can go wrong with a request.

use std::fmt;

use leyden_store::StoreError;

use crate::params::ParamError;

/// Why a request was not answered.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum RequestError {
	/// The store failed. Nothing was begun, or the answer may not be durable: ask again.
	Store(StoreError),
	/// This key was used with other parameters (in JSON-RPC of async orders: `stale_flow`).
	Conflict {
		/// The fields that differ, by name.
		fields: Vec<String>,
	},
	/// The time of this request is over, and it is not done again.
	Stale,
	/// Somebody is at it. Ask again.
	InProgress,
	/// What became of it is not known. Ask again.
	Unknown,
	/// This scope has too many requests.
	Quota {
		/// The limit.
		limit: u64,
	},
	/// Too many different requests run at once. Ask again.
	Busy {
		/// The limit.
		limit: usize,
	},
	/// A part of the key is empty or too long.
	TooLong {
		/// Which.
		what: &'static str,
		/// The limit, in bytes.
		limit: usize,
		/// How long it is.
		found: usize,
	},
	/// An answer is larger than what is stored.
	AnswerTooLarge {
		/// The limit, in bytes.
		limit: usize,
		/// How large it is.
		found: usize,
	},
	/// A parameter has no canonical form.
	Param(ParamError),
	/// The request was stored with a version of its parameters that the caller does not know.
	UnknownVersion {
		/// The version.
		version: u16,
	},
}

impl RequestError {
	/// Whether the same request may succeed later, with nothing repaired.
	pub fn is_retriable(&self) -> bool {
		match self {
			Self::Store(error) => error.is_retriable(),
			Self::InProgress | Self::Unknown | Self::Busy { .. } => true,
			_ => false,
		}
	}

	pub(crate) fn length(
		what: &'static str, found: usize, least: usize, limit: usize,
	) -> Result<(), Self> {
		match (least..=limit).contains(&found) {
			true => Ok(()),
			false => Err(Self::TooLong { what, limit, found }),
		}
	}
}

impl fmt::Display for RequestError {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		match self {
			Self::Store(error) => write!(f, "{error}"),
			Self::Conflict { fields } => {
				write!(f, "the same request was made with other parameters: {}", fields.join(", "))
			},
			Self::Stale => f.write_str("the time of this request is over; make a new one"),
			Self::InProgress => f.write_str("this request is being carried out; ask again"),
			Self::Unknown => {
				f.write_str("it is not known yet what became of this request; ask again")
			},
			Self::Quota { limit } => {
				write!(
					f,
					"there are {limit} requests of this scope already; wait until some are over"
				)
			},
			Self::Busy { limit } => write!(f, "{limit} requests are running; ask again"),
			Self::TooLong { what, limit, found } => {
				write!(f, "{what} has {found} bytes, and may have 1 to {limit}")
			},
			Self::AnswerTooLarge { limit, found } => {
				write!(f, "the answer has {found} bytes, and may have {limit}")
			},
			Self::Param(error) => write!(f, "{error}"),
			Self::UnknownVersion { version } => write!(
				f,
				"the request was stored with version {version} of its parameters, which this \
				 program does not know"
			),
		}
	}
}

impl std::error::Error for RequestError {
	fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
		match self {
			Self::Store(error) => Some(error),
			Self::Param(error) => Some(error),
			_ => None,
		}
	}
}

impl From<StoreError> for RequestError {
	fn from(error: StoreError) -> Self {
		Self::Store(error)
	}
}

impl From<ParamError> for RequestError {
	fn from(error: ParamError) -> Self {
		Self::Param(error)
	}
}
