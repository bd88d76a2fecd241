// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Where a store is, in one string.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where a store is: `sqlite:PATH`, or `memory:`.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum StoreUrl {
	/// A SQLite database in this file.
	Sqlite(PathBuf),
	/// In memory, forgotten with the process.
	Memory,
}

/// A string that says no place.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UrlError(String);

impl FromStr for StoreUrl {
	type Err = UrlError;

	fn from_str(url: &str) -> Result<Self, UrlError> {
		match url.split_once(':') {
			Some(("sqlite", path)) if !path.is_empty() => Ok(Self::Sqlite(path.into())),
			Some(("memory", "")) => Ok(Self::Memory),
			// The rest of an unknown URL may hold a password.
			Some((scheme, _)) => Err(UrlError(format!("no store at {scheme}:…"))),
			None => Err(UrlError("no store URL".to_owned())),
		}
	}
}

impl fmt::Display for StoreUrl {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		match self {
			Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
			Self::Memory => f.write_str("memory:"),
		}
	}
}

impl fmt::Display for UrlError {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		write!(f, "{}: use sqlite:PATH or memory:", self.0)
	}
}

impl std::error::Error for UrlError {}

#[cfg(test)]
mod tests {
	use super::*;

	#[test]
	fn urls_read_back() {
		for url in ["sqlite:node.leyden", "sqlite:/var/lib/node/leyden.db", "memory:"] {
			assert_eq!(url.parse::<StoreUrl>().unwrap().to_string(), url);
		}
	}

	#[test]
	fn what_is_no_url_is_an_error_that_shows_no_password() {
		for url in ["", "node.leyden", "sqlite:", "postgres://user:secret@host/db", "memory:x"] {
			let error = url.parse::<StoreUrl>().unwrap_err().to_string();
			assert!(error.contains("sqlite:PATH"), "{error}");
			assert!(!error.contains("secret"), "{error}");
		}
	}
}
