// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What went wrong with a server, and what that means for a store.

use std::fmt;
use std::sync::Arc;

use leyden_store::StoreError;
use tokio_postgres::error::SqlState;

/// What became of a request.
#[derive(Debug)]
pub(super) enum Failure {
	/// There was no connection, and none could be made. Nothing was sent.
	NotSent(Said),
	/// It was sent, and the connection ended, or no answer came in time.
	Lost(Said),
	/// The server refused it, and did nothing.
	Refused(tokio_postgres::Error),
}

/// What somebody said went wrong, without a password.
#[derive(Debug)]
pub(super) struct Said(pub(super) String);

impl fmt::Display for Said {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.write_str(&self.0)
	}
}

impl std::error::Error for Said {}

impl Said {
	/// An error with what it is caused by: the driver's own text is only "db error".
	pub(super) fn all_of(error: &tokio_postgres::Error) -> Self {
		if let Some(db) = error.as_db_error() {
			return Self(format!("the server says: {} ({})", db.message(), db.code().code()));
		}
		let cause = std::error::Error::source(error).map(ToString::to_string);
		Self(match cause {
			Some(cause) => format!("{error}: {cause}"),
			None => error.to_string(),
		})
	}
}

impl From<tokio_postgres::Error> for Failure {
	fn from(error: tokio_postgres::Error) -> Self {
		match error.as_db_error() {
			// It goes away, and may have done what was asked.
			Some(db) if is_going(db.code()) => Self::Lost(Said::all_of(&error)),
			Some(_) => Self::Refused(error),
			None if error.is_closed() || is_io(&error) => Self::Lost(Said::all_of(&error)),
			// Of the driver's own: it never was a request.
			None => Self::Refused(error),
		}
	}
}

/// Whether the same statement may succeed if it is sent again at once.
pub(super) fn is_to_be_repeated(error: &tokio_postgres::Error) -> bool {
	error.code().is_some_and(|code| {
		[&SqlState::T_R_SERIALIZATION_FAILURE, &SqlState::T_R_DEADLOCK_DETECTED].contains(&code)
	})
}

/// What an error means that came before anything could have been written.
pub(super) fn not_written(doing: &'static str, place: &str, failure: Failure) -> StoreError {
	match failure {
		Failure::NotSent(said) | Failure::Lost(said) => unavailable(doing, place, &said),
		Failure::Refused(error) => refused(doing, place, &error),
	}
}

pub(super) fn refused(
	doing: &'static str, place: &str, error: &tokio_postgres::Error,
) -> StoreError {
	let said = Said::all_of(error);
	let place_of = || place.to_owned();
	let Some(code) = error.code() else {
		return StoreError::Engine { doing, source: Arc::new(said) };
	};
	if code == &SqlState::DISK_FULL || code == &SqlState::INSUFFICIENT_RESOURCES {
		return StoreError::NoSpace { place: place_of() };
	}
	if code == &SqlState::READ_ONLY_SQL_TRANSACTION {
		return StoreError::ReadOnly { place: place_of() };
	}
	if [&SqlState::INVALID_PASSWORD, &SqlState::INVALID_AUTHORIZATION_SPECIFICATION].contains(&code)
	{
		return StoreError::invalid(format!(
			"{place} lets nobody in under this name and password ({said}); check the connection \
			 string and the server's pg_hba.conf"
		));
	}
	if code == &SqlState::INVALID_CATALOG_NAME {
		return StoreError::invalid(format!("{place}: {said}; create it with createdb"));
	}
	if code == &SqlState::INSUFFICIENT_PRIVILEGE {
		return StoreError::invalid(format!(
			"{place}: {said}; grant the user CREATE on the database, or make the schema \
			 \"leyden\" for it"
		));
	}
	// What passes: too many connections, a lock that somebody else has, no answer in time.
	let passes = [
		&SqlState::TOO_MANY_CONNECTIONS,
		&SqlState::QUERY_CANCELED,
		&SqlState::LOCK_NOT_AVAILABLE,
		&SqlState::OUT_OF_MEMORY,
		&SqlState::T_R_SERIALIZATION_FAILURE,
		&SqlState::T_R_DEADLOCK_DETECTED,
		&SqlState::CANNOT_CONNECT_NOW,
	];
	match passes.contains(&code) {
		true => unavailable(doing, place, &said),
		false => StoreError::Engine { doing, source: Arc::new(said) },
	}
}

pub(super) fn unavailable(doing: &'static str, place: &str, said: &Said) -> StoreError {
	let source = Arc::new(Said(format!("{place}: {said}")));
	StoreError::Unavailable { doing, source }
}

fn is_going(code: &SqlState) -> bool {
	[&SqlState::ADMIN_SHUTDOWN, &SqlState::CRASH_SHUTDOWN, &SqlState::CANNOT_CONNECT_NOW]
		.contains(&code)
		// Connection exceptions.
		|| code.code().starts_with("08")
}

fn is_io(error: &tokio_postgres::Error) -> bool {
	std::error::Error::source(error).is_some_and(|source| source.is::<std::io::Error>())
}
