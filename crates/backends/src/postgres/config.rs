// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Where the server is, and how to get in.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use leyden_store::StoreError;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::Config;

use super::PostgresOptions;

/// A connection string that was understood. Shows no password.
#[derive(Clone)]
pub(super) struct Address {
	pub(super) config: Config,
	pub(super) roots: Option<PathBuf>,
	/// `leyden_take_over` and `leyden_timeout_secs`, if they are there.
	pub(super) take_over: Option<bool>,
	pub(super) timeout: Option<Duration>,
	pub(super) place: String,
}

impl Address {
	pub(super) fn parse(text: &str, roots: Option<&Path>) -> Result<Self, StoreError> {
		let (text, given) = take_ours(text)?;
		let mut config: Config = text.parse().map_err(|error: tokio_postgres::Error| {
			// What is wrong is in the source; neither has the value of a password.
			let source = std::error::Error::source(&error).map(ToString::to_string);
			StoreError::invalid(format!(
				"the connection string makes no sense: {}",
				source.unwrap_or_else(|| error.to_string())
			))
		})?;
		// Parameters of a mistyped URL, such as its password, would be told with the place.
		let is_mistyped = |host: &Host| match host {
			Host::Tcp(name) => name.contains(['=', '&', ';', '@']),
			#[cfg(unix)]
			Host::Unix(_) => false,
		};
		let mut named = config.get_user().into_iter().chain(config.get_dbname());
		if config.get_hosts().iter().any(is_mistyped)
			|| named.any(|name| name.contains(['=', '&', ';']))
		{
			return Err(StoreError::invalid(
				"the connection string makes no sense: a host, user or database has one of = & ; @ in it; \
				 parameters come behind a question mark, and an @ in a password is written %40",
			));
		}
		if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
			config.host("localhost");
		}
		if config.get_application_name().is_none() {
			config.application_name("leyden");
		}
		let place = place(&config);
		let Given { roots: in_text, take_over, timeout } = given;
		let roots = roots.map(Path::to_owned).or(in_text);
		Ok(Self { config, roots, take_over, timeout, place })
	}

	/// Returns the options with those that the string has.
	pub(super) fn options(&self, options: &PostgresOptions) -> PostgresOptions {
		PostgresOptions {
			take_over: self.take_over.unwrap_or(options.take_over),
			timeout: self.timeout.unwrap_or(options.timeout),
			..options.clone()
		}
	}

	pub(super) fn verifies(&self) -> bool {
		self.config.get_ssl_mode() == SslMode::Require
	}
}

impl fmt::Debug for Address {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.write_str(&self.place)
	}
}

/// The options of a connection string that are not for the driver.
#[derive(Default)]
struct Given {
	roots: Option<PathBuf>,
	take_over: Option<bool>,
	timeout: Option<Duration>,
}

/// Takes out what libpq knows and the driver does not (`sslrootcert`, and the modes that verify), and
/// what neither knows: the options of this backend.
fn take_ours(text: &str) -> Result<(String, Given), StoreError> {
	let mut given = Given::default();
	let mut wrong = None;
	let mut keep = |word: &str| match word.split_once('=') {
		Some(("leyden_take_over", value)) => {
			given.take_over = value.parse().ok();
			if given.take_over.is_none() {
				wrong = Some("leyden_take_over is true or false");
			}
			None
		},
		Some(("leyden_timeout_secs", value)) => {
			let seconds = value.parse().ok().filter(|seconds| (1..=3600).contains(seconds));
			given.timeout = seconds.map(Duration::from_secs);
			if given.timeout.is_none() {
				wrong = Some("leyden_timeout_secs is a number of seconds from 1 to 3600");
			}
			None
		},
		Some(("sslrootcert", path)) => {
			given.roots = Some(PathBuf::from(path.trim_matches('\'').replace("%2F", "/")));
			None
		},
		Some(("sslmode", "verify-full" | "verify-ca")) => Some("sslmode=require".to_owned()),
		_ => Some(word.to_owned()),
	};
	let text = match text.split_once('?') {
		Some((url, query)) if is_url(url) => {
			let query: Vec<String> = query.split('&').filter_map(&mut keep).collect();
			format!("{url}?{}", query.join("&"))
		},
		_ if is_url(text) => text.to_owned(),
		_ if !OURS.iter().any(|ours| text.contains(ours)) => text.to_owned(),
		_ => words(text).into_iter().filter_map(&mut keep).collect::<Vec<_>>().join(" "),
	};
	match wrong {
		Some(wrong) => {
			Err(StoreError::invalid(format!("the connection string makes no sense: {wrong}")))
		},
		None => Ok((text, given)),
	}
}

/// Returns the words of a connection string of keywords and values. A quoted value may have spaces in
/// it, and is left as it is.
fn words(text: &str) -> Vec<&str> {
	let (mut words, mut start) = (Vec::new(), None);
	let (mut quoted, mut escaped, mut before) = (false, false, None::<char>);
	for (at, character) in text.char_indices() {
		if escaped {
			escaped = false;
			continue;
		}
		match character {
			'\\' => escaped = true,
			// A value is quoted from its beginning on; elsewhere it is a character.
			'\'' if quoted => quoted = false,
			'\'' => quoted = before.is_none_or(|before| before == '=' || before.is_whitespace()),
			_ => {},
		}
		before = Some(character);
		match (start, character.is_whitespace() && !quoted) {
			(None, false) => start = Some(at),
			(Some(begin), true) => {
				words.extend(text.get(begin..at));
				start = None;
			},
			_ => {},
		}
	}
	words.extend(start.and_then(|begin| text.get(begin..)));
	words
}

/// The words that are not for the driver alone.
const OURS: [&str; 3] = ["sslrootcert", "verify-", "leyden_"];

fn is_url(text: &str) -> bool {
	text.starts_with("postgres://") || text.starts_with("postgresql://")
}

/// What is said of a server in errors: who, where, which database.
fn place(config: &Config) -> String {
	let hosts: Vec<String> = config
		.get_hosts()
		.iter()
		.enumerate()
		.map(|(n, host)| {
			let port = config.get_ports().get(n).or(config.get_ports().first());
			let port = port.copied().unwrap_or(5432);
			match host {
				Host::Tcp(name) => format!("{name}:{port}"),
				#[cfg(unix)]
				Host::Unix(path) => format!("{}:{port}", path.display()),
			}
		})
		.collect();
	let user = config.get_user().map(|user| format!("{user}@")).unwrap_or_default();
	let database = config.get_dbname().or(config.get_user()).unwrap_or_default();
	format!("postgres://{user}{}/{database}", hosts.join(","))
}

/// A connection string without options of ours is the driver's alone, and one with them means the same
/// but for them.
#[cfg(feature = "fuzz")]
pub(crate) fn connection_law(bytes: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
	let Ok(text) = std::str::from_utf8(bytes) else { return Vec::new() };
	let shown = |address: &Address| {
		let password = address.config.get_password().map(<[u8]>::to_vec);
		format!("{:?} {password:?} {:?}", address.config, address.roots).into_bytes()
	};
	let mut pairs = Vec::new();
	if !OURS.iter().any(|ours| text.contains(ours)) {
		if let Ok((same, _)) = take_ours(text) {
			pairs.push((bytes.to_vec(), same.into_bytes()));
		}
	}
	let Ok(address) = Address::parse(text, None) else { return pairs };
	let more = match (is_url(text), text.contains('?')) {
		(true, true) => format!("{text}&leyden_timeout_secs=5"),
		(true, false) => format!("{text}?leyden_timeout_secs=5"),
		(false, _) => format!("leyden_timeout_secs=5 {text}"),
	};
	let again = Address::parse(&more, None);
	pairs.push((shown(&address), again.as_ref().map_or_else(|_| Vec::new(), shown)));
	pairs
}

#[cfg(test)]
mod tests {
	use super::*;

	#[test]
	fn a_place_says_where_and_never_the_password() {
		for (text, place) in [
			("postgres://ann:s3cret@db.example:5433/node", "postgres://ann@db.example:5433/node"),
			("postgresql://ann@h/node?sslmode=verify-full", "postgres://ann@h:5432/node"),
			("host=/run/pg user=ann password=s3cret dbname=n", "postgres://ann@/run/pg:5432/n"),
			("postgres:///node?host=/run/pg&user=ann", "postgres://ann@/run/pg:5432/node"),
			("user=ann password=s3cret", "postgres://ann@localhost:5432/ann"),
		] {
			let address = Address::parse(text, None).unwrap();
			assert_eq!(address.place, place);
			assert!(!format!("{address:?}").contains("s3cret"));
		}
	}

	/// A value in quotes may have spaces in it, and words that look like options.
	#[test]
	fn a_quoted_value_stays_as_it_is() {
		for password in ["a  b", "x sslrootcert=/y z", "it's", "back\\slash ' q", " "] {
			let quoted = password.replace('\\', "\\\\").replace('\'', "\\'");
			let text =
				format!("host=h password='{quoted}' sslmode=verify-full leyden_timeout_secs=7");
			let address = Address::parse(&text, None).unwrap();
			assert_eq!(address.config.get_password(), Some(password.as_bytes()), "{text}");
			assert_eq!(address.timeout, Some(Duration::from_secs(7)));
			assert!(address.verifies() && address.roots.is_none());
		}
	}

	#[test]
	fn a_quote_in_the_middle_of_a_value_is_a_character() {
		let text = "host=h password=it's leyden_timeout_secs=7";
		let address = Address::parse(text, None).unwrap();
		assert_eq!(address.config.get_password(), Some(&b"it's"[..]));
		assert_eq!(address.timeout, Some(Duration::from_secs(7)));
	}

	#[test]
	fn nonsense_is_named_without_the_password() {
		for text in [
			"postgres://ann@h/n&password=s3cret",
			"postgres://ann@h&password=s3cret/n",
			"postgres://ann:pa@s3cret@h/n",
			"postgres://h;password=s3cret/n",
			"postgres://ann:s3cret@h:notaport/node",
			"host=h password=s3cret port=x",
			"password=s3cret nonsense=1",
			"postgres://ann:s3cret@h/node?colour=red",
			"postgres://ann:s3cret@h/node?leyden_take_over=perhaps",
			"host=h password=s3cret leyden_timeout_secs=0",
		] {
			let error = Address::parse(text, None).unwrap_err().to_string();
			assert!(error.starts_with("the connection string makes no sense: "), "{error}");
			assert!(!error.contains("s3cret"), "{error}");
		}
	}

	#[test]
	fn options_of_ours_are_taken_out() {
		let options = "leyden_take_over=true&leyden_timeout_secs=5";
		let url = format!("postgres://one,two/n?target_session_attrs=read-write&{options}");
		let words = "host=h dbname=n leyden_take_over=true leyden_timeout_secs=5";
		for text in [&url, words] {
			let options = Address::parse(text, None).unwrap().options(&PostgresOptions::default());
			assert!(options.take_over);
			assert_eq!(options.timeout, Duration::from_secs(5));
		}
		let none = Address::parse("postgres://h/n", None).unwrap();
		assert_eq!(none.options(&PostgresOptions::default()).timeout, Duration::from_secs(30));
	}

	#[test]
	fn what_libpq_knows_is_understood() {
		let url = "postgres://h/n?sslmode=verify-full&sslrootcert=%2Fetc%2Fca.pem";
		let words = "host=h dbname=n sslmode=verify-ca sslrootcert=/etc/ca.pem";
		for text in [url, words] {
			let address = Address::parse(text, None).unwrap();
			assert!(address.verifies());
			assert_eq!(address.roots.as_deref(), Some(Path::new("/etc/ca.pem")));
		}
	}
}
