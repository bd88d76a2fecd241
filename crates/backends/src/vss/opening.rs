// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! How a namespace is opened: what is there, and the epoch.

use std::time::Instant;

use leyden_store::committer::Committer;
use leyden_store::group::{Outages, Writer};
use leyden_store::{Namespace, StoreError};

use super::client::{Client, Failure};
use super::medium::VssMedium;
use super::names::Names;
use super::{VssConfig, VssOptions};

/// The longest name of a store that the reference server's database takes, with its namespace.
const MAX_STORE_ID_CHARS: usize = 120;
/// How often it is tried again when somebody else opens at the same time.
const TRIES: usize = 20;

impl VssMedium {
	pub(super) fn open(
		config: VssConfig, namespace: &Namespace, options: &VssOptions,
	) -> Result<Writer<Self>, StoreError> {
		for _ in 0..TRIES {
			// Whoever is faster leaves us with a version that is not the store's.
			match Self::try_open(&config, namespace, options) {
				Err(StoreError::Fenced { .. }) => {},
				opened => return opened,
			}
		}
		Err(StoreError::invalid(format!(
			"{}: others open this namespace all the time; see that only one node uses it",
			place(&config, namespace)
		)))
	}

	pub(super) fn open_read_only(
		config: VssConfig, namespace: &Namespace, options: &VssOptions,
	) -> Result<Writer<Self>, StoreError> {
		let (medium, is_there) = Self::look(&config, namespace, options)?;
		let place = medium.client.place().to_owned();
		if !is_there {
			return Err(StoreError::NotAStore { place, reason: "it has no store".to_owned() });
		}
		let outages = Outages::new(options.outages.clone(), place.clone());
		Ok(Writer::read_only(medium, place).with_outages(outages))
	}

	fn try_open(
		config: &VssConfig, namespace: &Namespace, options: &VssOptions,
	) -> Result<Writer<Self>, StoreError> {
		let (mut medium, _) = Self::look(config, namespace, options)?;
		let (committer, writes) = Committer::open(&mut medium)?;
		medium.epoch = Some(committer.epoch());
		medium.send(&writes)?;
		let place = medium.client.place().to_owned();
		medium.outages = Outages::new(options.outages.clone(), place.clone());
		let outages = medium.outages.clone();
		Ok(Writer::new(medium, committer, place).with_outages(outages))
	}

	/// A medium that knows what the store is at, and whether there is one. What is neither ours nor
	/// nothing is an error.
	fn look(
		config: &VssConfig, namespace: &Namespace, options: &VssOptions,
	) -> Result<(Self, bool), StoreError> {
		let mut writer = [0; 16];
		getrandom::getrandom(&mut writer)
			.map_err(|error| StoreError::invalid(format!("no randomness: {error}")))?;
		let store_id = format!("{}/{namespace}", config.store_id);
		let chars = store_id.chars().count();
		let names = Names::new(&store_id, &config.secret);
		let client = Client::new(config, store_id, options)?;
		let deadline = client.deadline();
		// The version first: what is read after it was written at it, or later, and then we are told.
		let page = match client.list(None, None, deadline) {
			Ok(page) => page,
			Err(Failure::Auth(said)) => {
				return Err(StoreError::invalid(format!(
					"{} lets nobody in ({said}); check the headers, such as the token",
					client.place()
				)));
			},
			Err(Failure::Refused(said)) => {
				return Err(StoreError::invalid(format!(
					"{} does not take a request of the protocol ({said}); check the URL",
					client.place()
				)));
			},
			Err(Failure::Lost(said)) if Instant::now() >= deadline => {
				return Err(client.failed("connecting", Failure::Lost(said)));
			},
			Err(_) => {
				client.first_until("connecting", deadline, |c| c.list(None, None, deadline))?
			},
		};
		let mut medium = Self::new(client, names, writer);
		medium.global_version = page.global_version.unwrap_or_default();
		let head = medium.read_head(deadline)?;
		if head.is_none() && !page.key_versions.is_empty() {
			let reason = "it has items that are not ours, or were written with another secret";
			let (place, reason) = (medium.client.place().to_owned(), reason.to_owned());
			return Err(StoreError::NotAStore { place, reason });
		}
		// What is there has found room. Another server than the reference one may have more.
		if head.is_none() && chars > MAX_STORE_ID_CHARS {
			return Err(StoreError::invalid(format!(
				"{} has a name of {chars} characters, and a VSS server takes {MAX_STORE_ID_CHARS}: shorten \
				 the store_id or the namespace",
				medium.client.place()
			)));
		}
		Ok((medium, head.is_some()))
	}
}

fn place(config: &VssConfig, namespace: &Namespace) -> String {
	format!("{}/{namespace} at {}", config.store_id, config.base_url)
}

#[cfg(test)]
mod tests {
	use super::*;
	use crate::vss::medium::VSS_FORMAT;
	use leyden_testkit::vss::Server;

	/// A layout that this version does not know is left alone, also by who only reads.
	#[test]
	fn a_newer_layout_is_refused() {
		let server = Server::start();
		let config = VssConfig::new(server.url(), "node", [1; 32]);
		let (namespace, options) = (Namespace::default(), VssOptions::default());
		let (mut medium, _) = VssMedium::look(&config, &namespace, &options).unwrap();
		medium.head.format = VSS_FORMAT + 1;
		medium.send(&[]).unwrap();
		for opened in [
			VssMedium::open(config.clone(), &namespace, &options).map(|_| ()),
			VssMedium::open_read_only(config, &namespace, &options).map(|_| ()),
		] {
			let error = opened.unwrap_err();
			assert!(matches!(error, StoreError::Newer { found: 2, known: 1, .. }), "{error}");
		}
	}
}
