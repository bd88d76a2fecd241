// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Addresses of endpoints and feeds: what they know this side by, and how they are called.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;

use crate::guard::{AllowList, Guarded};
use crate::secret::SigningSecret;
use crate::token::Token;

/// The address that callbacks of an endpoint go to, or that a feed is pulled from.
#[derive(Clone)]
pub struct Address {
	base: Url,
	paths: BTreeMap<String, String>,
	pub(crate) secrets: Vec<SigningSecret>,
	token: Option<Token>,
	pub(crate) allow: AllowList,
	pub(crate) authorities: Vec<reqwest::Certificate>,
}

/// A URL that nothing is sent to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AddressError(&'static str);

impl Address {
	/// Returns the address of an endpoint at `url`, which is `https`; see [`plain`](Address::plain).
	///
	/// # Errors
	/// [`AddressError`] for a text that is no such URL, or has a password in it.
	pub fn new(url: &str) -> Result<Self, AddressError> {
		let base = Self::parse(url)?;
		match base.scheme() {
			"https" => Ok(Self::at(base)),
			_ => Err(AddressError("https is wanted; use Address::plain for a network of your own")),
		}
	}

	/// Returns the address of an endpoint at a URL that may be `http`. Every machine on the way reads what is
	/// sent; it is for a network of your own.
	///
	/// # Errors
	/// The same as of [`new`](Address::new).
	pub fn plain(url: &str) -> Result<Self, AddressError> {
		Self::parse(url).map(Self::at)
	}

	/// Signs callbacks with these secrets, any one of which the other side may verify.
	#[must_use]
	pub fn signed(mut self, secrets: impl IntoIterator<Item = SigningSecret>) -> Self {
		self.secrets = secrets.into_iter().collect();
		self
	}

	/// Sends this token with every request.
	#[must_use]
	pub fn with_token(mut self, token: Token) -> Self {
		self.token = Some(token);
		self
	}

	/// Trusts this authority as well as the system's: a certificate in PEM, of a network of your own.
	///
	/// # Errors
	/// [`AddressError`] for a text that is no certificate.
	pub fn trusting(mut self, pem: &[u8]) -> Result<Self, AddressError> {
		let no_certificate = AddressError("the authority is no certificate in PEM");
		let bundle = reqwest::Certificate::from_pem_bundle(pem);
		let bundle = bundle.ok().filter(|bundle| !bundle.is_empty()).ok_or(no_certificate)?;
		self.authorities.extend(bundle);
		Ok(self)
	}

	/// Calls these addresses although they are private.
	#[must_use]
	pub fn allowing(mut self, allow: AllowList) -> Self {
		self.allow = allow;
		self
	}

	/// Sends callbacks of this kind to this path behind the URL.
	#[must_use]
	pub fn with_path(mut self, kind: &str, path: &str) -> Self {
		self.paths.insert(kind.to_owned(), path.trim_start_matches('/').to_owned());
		self
	}

	/// Returns the URL that a callback of this kind goes to.
	pub(crate) fn url(&self, kind: &str) -> Url {
		let mut url = self.base.clone();
		if let Some(path) = self.paths.get(kind) {
			let base = url.path().trim_end_matches('/').to_owned();
			url.set_path(&format!("{base}/{path}"));
		}
		url
	}

	/// Returns the URL itself, without a path of a kind of callback.
	pub(crate) fn base(&self) -> &Url {
		&self.base
	}

	/// Adds the token to a request. Its header is marked as sensitive, so that no client or layer shows it.
	pub(crate) fn authorized(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
		match &self.token {
			Some(token) => request.bearer_auth(token.text()),
			None => request,
		}
	}

	/// Builds a client that calls this address and nothing else: with these authorities, no machine that is
	/// not allowed, no proxy of the environment, no redirect, and no longer than `timeout` from the first
	/// byte to the last.
	///
	/// # Errors
	/// The HTTP client's, if there is no TLS here.
	pub(crate) fn client(&self, timeout: Duration) -> Result<reqwest::Client, reqwest::Error> {
		let builder = reqwest::Client::builder();
		let authorities = self.authorities.iter().cloned();
		authorities
			.fold(builder, reqwest::ClientBuilder::add_root_certificate)
			.timeout(timeout)
			// Less, so that a host that is away is told from one that does not answer.
			.connect_timeout(timeout / 2)
			.redirect(reqwest::redirect::Policy::none())
			.dns_resolver(Arc::new(Guarded(self.allow.clone())))
			// A proxy would look names up itself, past the guard.
			.no_proxy()
			.referer(false)
			.user_agent(concat!("leyden/", env!("CARGO_PKG_VERSION")))
			.build()
	}

	/// Returns whether the URL itself names an address that is not called. Names are looked up later.
	pub(crate) fn is_forbidden(&self) -> bool {
		let host = self.base.host_str().unwrap_or_default();
		let literal: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
		literal.is_some_and(|address| !self.allow.allows(address))
	}

	fn parse(url: &str) -> Result<Url, AddressError> {
		let url = Url::parse(url).map_err(|_| AddressError("this is no URL"))?;
		if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
			return Err(AddressError("this is no URL of a web server"));
		}
		if !url.username().is_empty() || url.password().is_some() {
			return Err(AddressError("no name or password in a URL: use a token"));
		}
		Ok(url)
	}

	fn at(base: Url) -> Self {
		let (paths, allow) = (BTreeMap::new(), AllowList::none());
		Self { base, paths, secrets: Vec::new(), token: None, allow, authorities: Vec::new() }
	}
}

/// Shows no part of the URL that may be secret.
impl fmt::Debug for Address {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		let origin = self.base.origin().ascii_serialization();
		write!(f, "Address({origin}, {} keys)", self.secrets.len())
	}
}

impl fmt::Display for AddressError {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.write_str(self.0)
	}
}

impl std::error::Error for AddressError {}

#[cfg(test)]
mod tests {
	use super::*;

	#[test]
	fn only_web_servers_and_nothing_secret() {
		for bad in ["", "lsp", "ftp://h/", "file:///etc/passwd", "https://u:p@h/", "https://u@h/"] {
			assert!(Address::new(bad).is_err() && Address::plain(bad).is_err(), "{bad}");
		}
		assert!(Address::new("http://h/").is_err());
		let address = Address::new("https://h/lsp/?key=secret").unwrap();
		assert!(!format!("{address:?}").contains("secret"));
	}

	#[test]
	fn kinds_have_paths() {
		let address = Address::new("https://h/lsp/").unwrap().with_path("claimable", "/internal/c");
		assert_eq!(address.url("claimable").as_str(), "https://h/lsp/internal/c");
		assert_eq!(address.url("other").as_str(), "https://h/lsp/");
	}

	#[test]
	fn addresses_in_urls_are_looked_at() {
		let is_forbidden = |url: &str| Address::plain(url).unwrap().is_forbidden();
		for private in
			["http://127.0.0.1:1/", "http://[::1]/", "http://2130706433/", "http://0x7f.1/"]
		{
			assert!(is_forbidden(private), "{private}");
		}
		assert!(!is_forbidden("http://1.1.1.1/") && !is_forbidden("http://example.com/"));
		let allow = "127.0.0.1".parse().unwrap();
		assert!(!Address::plain("http://127.0.0.1/").unwrap().allowing(allow).is_forbidden());
	}
}
