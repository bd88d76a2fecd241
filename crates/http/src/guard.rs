// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Guard of the machines that are called: none in private networks, unless they are allowed.

use std::error::Error;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::special_addresses::is_public;

/// Addresses that are called although they are private: single ones (`127.0.0.1`) and networks
/// (`10.0.0.0/8`).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AllowList(Vec<(IpAddr, u8)>);

/// A text that is no address or network.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AllowListError(String);

impl AllowList {
	/// Returns an empty list: no private address is called.
	pub fn none() -> Self {
		Self::default()
	}

	/// Returns whether this address is called.
	pub fn allows(&self, address: IpAddr) -> bool {
		is_public(address) || self.0.iter().any(|(network, bits)| is_in(address, *network, *bits))
	}
}

impl FromStr for AllowList {
	type Err = AllowListError;

	/// Reads addresses and networks, with commas between them.
	fn from_str(text: &str) -> Result<Self, AllowListError> {
		let entry = |text: &str| {
			let (address, bits) = match text.split_once('/') {
				Some((address, bits)) => (address, Some(bits)),
				None => (text, None),
			};
			let address: IpAddr = address.parse().ok()?;
			let most = if address.is_ipv4() { 32 } else { 128 };
			let bits = bits.map_or(Some(most), |bits| bits.parse().ok())?;
			(bits <= most).then_some((address, bits))
		};
		let entries = text.split(',').map(str::trim).filter(|text| !text.is_empty());
		let entries =
			entries.map(|text| entry(text).ok_or_else(|| AllowListError(text.to_owned())));
		Ok(Self(entries.collect::<Result<_, _>>()?))
	}
}

/// A name that leads only to machines that are not called.
#[derive(Debug)]
pub(crate) struct NotAllowed;

/// Returns whether a request failed because its name leads only to machines that are not called.
pub(crate) fn is_not_allowed(error: &(dyn Error + 'static)) -> bool {
	error.is::<NotAllowed>() || error.source().is_some_and(is_not_allowed)
}

/// Resolver of names that leaves out addresses that are not called, also when a name leads elsewhere than a
/// moment ago.
pub(crate) struct Guarded(pub(crate) AllowList);

impl Resolve for Guarded {
	fn resolve(&self, name: Name) -> Resolving {
		let allow = self.0.clone();
		Box::pin(async move {
			let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
			let allowed: Vec<SocketAddr> =
				found.filter(|address| allow.allows(address.ip())).collect();
			match allowed.is_empty() {
				true => Err(NotAllowed.into()),
				false => Ok(Box::new(allowed.into_iter()) as Addrs),
			}
		})
	}
}

fn is_in(address: IpAddr, network: IpAddr, bits: u8) -> bool {
	let shifted = |bits: u128, width: u32, keep: u8| {
		bits.checked_shr(width - u32::from(keep).min(width)).unwrap_or_default()
	};
	match (address, network) {
		(IpAddr::V4(a), IpAddr::V4(n)) => {
			shifted(u32::from(a).into(), 32, bits) == shifted(u32::from(n).into(), 32, bits)
		},
		(IpAddr::V6(a), IpAddr::V6(n)) => {
			shifted(u128::from(a), 128, bits) == shifted(u128::from(n), 128, bits)
		},
		_ => false,
	}
}

impl fmt::Display for NotAllowed {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.write_str("the name leads to private addresses, which are not allowed")
	}
}

impl Error for NotAllowed {}

impl fmt::Display for AllowListError {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		write!(f, "{} is no address (127.0.0.1) and no network (10.0.0.0/8)", self.0)
	}
}

impl Error for AllowListError {}

#[cfg(test)]
mod tests {
	use super::*;

	fn allows(list: &str, address: &str) -> bool {
		list.parse::<AllowList>().unwrap().allows(address.parse().unwrap())
	}

	#[test]
	fn private_addresses_are_not_called() {
		for private in [
			"127.0.0.1",
			"127.255.0.1",
			"0.0.0.0",
			"0.1.2.3",
			"10.0.0.1",
			"172.16.0.1",
			"172.31.255.255",
			"192.168.1.1",
			"169.254.169.254",
			"100.64.0.1",
			"100.127.255.255",
			"192.0.0.1",
			"192.0.2.1",
			"198.18.0.1",
			"198.19.255.255",
			"198.51.100.1",
			"203.0.113.1",
			"224.0.0.1",
			"240.0.0.1",
			"255.255.255.255",
			"::",
			"::1",
			"fe80::1",
			"fc00::1",
			"fd12::1",
			"ff02::1",
			"::ffff:127.0.0.1",
			"::ffff:10.0.0.1",
			"64:ff9b::7f00:1",
			"64:ff9b::a00:1",
			// Not translated: what its last bits say is nothing.
			"64:ff9b:1::808:808",
			"64:ff9b:0:1::808:808",
			"2002:808:808::",
			"2001:db8::1",
			"2001::1",
			"::7f00:1",
			"fec0::1",
			"3fff::1",
		] {
			assert!(!allows("", private), "{private}");
		}
		for public in [
			"1.1.1.1",
			"8.8.8.8",
			"100.63.255.255",
			"100.128.0.1",
			"172.15.0.1",
			"172.32.0.1",
			"198.20.0.1",
			"2606:4700:4700::1111",
			"64:ff9b::101:101",
			"::ffff:8.8.8.8",
		] {
			assert!(allows("", public), "{public}");
		}
	}

	#[test]
	fn what_is_allowed_is_called() {
		assert!(allows("127.0.0.1", "127.0.0.1") && !allows("127.0.0.1", "127.0.0.2"));
		assert!(allows("10.0.0.0/8, ::1", "10.9.8.7") && allows("10.0.0.0/8, ::1", "::1"));
		assert!(!allows("10.0.0.0/8", "192.168.0.1") && allows("0.0.0.0/0", "192.168.0.1"));
		assert!(!allows("0.0.0.0/0", "::1") && allows("::/0", "::1"));
		for bad in ["localhost", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/-1", "1.2.3"] {
			assert!(bad.parse::<AllowList>().is_err(), "{bad}");
		}
	}
}
