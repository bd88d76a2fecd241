// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Where a store is, in one string.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where a store is: `sqlite:PATH`, `redb:PATH`, `postgres://USER:PASSWORD@HOST/DATABASE`, or
/// `memory:`. What is printed has no password.
#[derive(Clone, Eq, PartialEq)]
#[non_exhaustive]
pub enum StoreUrl {
	/// A SQLite database in this file.
	Sqlite(PathBuf),
	/// A redb database in this file.
	Redb(PathBuf),
	/// A PostgreSQL database, as its connection string.
	Postgres(String),
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
			Some(("redb", path)) if !path.is_empty() => Ok(Self::Redb(path.into())),
			Some(("postgres" | "postgresql", rest)) if rest.starts_with("//") => {
				Ok(Self::Postgres(url.to_owned()))
			},
			Some(("memory", "")) => Ok(Self::Memory),
			// The rest of an unknown URL may hold a password.
			Some((scheme, _)) if scheme.bytes().all(|b| b.is_ascii_alphanumeric()) => {
				Err(UrlError(format!("no store at {scheme}:…")))
			},
			Some(_) => Err(UrlError("no store URL".to_owned())),
			None => Err(UrlError("no store URL".to_owned())),
		}
	}
}

impl fmt::Display for StoreUrl {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		match self {
			Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
			Self::Redb(path) => write!(f, "redb:{}", path.display()),
			Self::Postgres(url) => f.write_str(&without_password(url)),
			Self::Memory => f.write_str("memory:"),
		}
	}
}

impl fmt::Debug for StoreUrl {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		write!(f, "StoreUrl({self})")
	}
}

impl fmt::Display for UrlError {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		write!(
			f,
			"{}: use sqlite:PATH, redb:PATH, postgres://USER@HOST/DATABASE or memory:",
			self.0
		)
	}
}

impl std::error::Error for UrlError {}

/// Shows user, host and database. Parameters are left out, since one of them may be a password, and
/// so is everything of a URL in which a password may hold `/`, `?`, `#` or `@`: no one can tell where
/// it ends.
///
/// A mistyped URL may have its parameters where a host or a database belongs.
fn without_password(url: &str) -> String {
	let Some((scheme, rest)) = url.split_once("://") else { return "postgres://…".to_owned() };
	let shown = understood(scheme, rest).filter(|shown| !shown.contains(['=', '&', ';', ' ']));
	shown.unwrap_or_else(|| format!("{scheme}://…"))
}

/// Returns what can be shown of a URL that has its parts where they belong.
fn understood(scheme: &str, rest: &str) -> Option<String> {
	let (authority, behind) = match rest.find(['/', '?', '#']) {
		Some(end) => rest.split_at(end),
		None => (rest, ""),
	};
	let database = behind.split(['?', '#']).next().unwrap_or_default();
	let (user, host) = match authority.split_once('@') {
		Some((user, host)) => (user, host),
		// What looks like a port may be the beginning of a password, or all of it.
		None if behind.contains('@') || !has_ports(authority) => return None,
		None => return Some(format!("{scheme}://{authority}{database}")),
	};
	if host.contains('@') || behind.contains('@') || !has_ports(host) {
		return None;
	}
	let user = user.split(':').next().unwrap_or_default();
	Some(format!("{scheme}://{user}@{host}{database}"))
}

/// Returns `true` if nothing but numbers stands behind the hosts.
fn has_ports(hosts: &str) -> bool {
	hosts.split(',').all(|host| {
		let behind = host.rsplit_once(']').map_or(host, |(_, behind)| behind);
		let port = behind.split_once(':').map_or("", |(_, port)| port);
		port.bytes().all(|digit| digit.is_ascii_digit())
	})
}

#[cfg(test)]
mod tests {
	use super::*;

	#[test]
	fn urls_read_back() {
		for url in [
			"sqlite:node.leyden",
			"sqlite:/var/lib/node/leyden.db",
			"redb:node.redb",
			"postgres://ann@db.example:5433/node",
			"postgresql://%2Frun%2Fpg/node",
			"postgres://[::1]:5432/node",
			"postgres://one:5432,two:5433/node",
			"postgres://ann@one:5432,two/node",
			"memory:",
		] {
			assert_eq!(url.parse::<StoreUrl>().unwrap().to_string(), url);
		}
	}

	#[test]
	fn what_is_no_url_is_an_error_that_shows_no_password() {
		for url in [
			"",
			"node.leyden",
			"sqlite:",
			"redb:",
			"mysql://user:secret@host/db",
			"memory:x",
			"postgres:/ann:secret@h/n",
			"host=h password=secret:x",
		] {
			let error = url.parse::<StoreUrl>().unwrap_err().to_string();
			assert!(error.contains("sqlite:PATH"), "{error}");
			assert!(!error.contains("secret"), "{error}");
		}
	}

	#[test]
	fn a_password_is_kept_and_not_shown() {
		for url in [
			"postgres://ann:secret@h/n",
			"postgres://ann:se:secret@h/n?sslmode=require",
			"postgres://h/n?user=ann&password=secret",
			"postgres://ann:secret?pw@h/n",
			"postgres://ann:secret/pw@h/n",
			"postgres://ann:secret#pw@h/n",
			"postgres://ann:pw@secret@h/n",
			"postgres://ann:secret@h/n?password=secret@x",
			"postgres://h/n?user=ann&password=pw@secret",
			"postgres://ann:secret",
			"postgres://:secret@h",
			"postgresql://ann:secret@h#secret",
			"postgres://ann@h/n&password=secret",
			"postgres://ann@h&password=secret",
			"postgres://ann@h:5432,two:secret/n",
			"postgres://h/n;password=secret",
			"postgres://password=secret@h/n",
		] {
			let parsed = url.parse::<StoreUrl>().unwrap();
			assert_eq!(parsed, StoreUrl::Postgres(url.to_owned()));
			assert!(!format!("{parsed} {parsed:?}").contains("secret"));
		}
	}
}
