// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Addresses that belong to no machine of the public internet.
//!
//! The table of special addresses is the library `iprfc`'s. Its `RFC6890` is generated from the XML of
//! IANA's two registries and has every block of them. The tests here name every block once more, so that
//! they fail with a version of the library that has fewer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use iprfc::RFC6890;

/// Returns whether an address may be a web server of the public internet: it is in no block of IANA's
/// registries of special addresses, it is not multicast, and it is in a block that is given out at all.
///
/// The registries call a few of their blocks globally reachable. All but one of these are refused as
/// well, since there are anycast services, hashes and names of drones in them and no web servers. The
/// exception is 64:ff9b::/96, through which a machine without IPv4 reaches any IPv4 address.
pub(crate) fn is_public(address: IpAddr) -> bool {
	match address {
		IpAddr::V4(v4) => is_public_v4(v4),
		IpAddr::V6(v6) => is_public_v6(v6),
	}
}

fn is_public_v4(address: Ipv4Addr) -> bool {
	!RFC6890.contains(&address) && !address.is_multicast()
}

fn is_public_v6(address: Ipv6Addr) -> bool {
	// An address that stands for an IPv4 address is judged as that: mapped (::ffff:0:0/96, RFC 4291), or
	// translated by a NAT64 (64:ff9b::/96, RFC 6052). Tunnels (6to4, Teredo) are in the registry.
	match address.segments() {
		[0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
			let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
			is_public_v4(Ipv4Addr::new(a, b, c, d))
		},
		// 2000::/3 is the only block that is given out to machines (RFC 4291).
		[first, ..] => first >> 13 == 1 && !RFC6890.contains(&address),
	}
}

#[cfg(test)]
mod tests {
	use super::*;
	use proptest::prelude::*;

	/// Every block of IANA's registry of special IPv4 addresses (as of 2025-10-09) with the RFC that
	/// made it special, and multicast.
	const V4: [(&str, &str); 26] = [
		("0.0.0.0/8", "RFC 791: this network"),
		("0.0.0.0/32", "RFC 1122: this host"),
		("10.0.0.0/8", "RFC 1918: private use"),
		("100.64.0.0/10", "RFC 6598: shared by customers of a provider"),
		("127.0.0.0/8", "RFC 1122: loopback"),
		("169.254.0.0/16", "RFC 3927: link local"),
		("172.16.0.0/12", "RFC 1918: private use"),
		("192.0.0.0/24", "RFC 6890: assignments of the IETF"),
		("192.0.0.0/29", "RFC 7335: IPv4 service continuity"),
		("192.0.0.8/32", "RFC 7600: dummy address"),
		("192.0.0.9/32", "RFC 7723: port control anycast"),
		("192.0.0.10/32", "RFC 8155: TURN anycast"),
		("192.0.0.170/31", "RFC 8880 and 7050: discovery of NAT64"),
		("192.0.2.0/24", "RFC 5737: documentation"),
		("192.31.196.0/24", "RFC 7535: AS112"),
		("192.52.193.0/24", "RFC 7450: multicast tunnels"),
		("192.88.99.0/24", "RFC 7526: relays of 6to4, deprecated"),
		("192.88.99.2/32", "RFC 6751: relays of 6a44"),
		("192.168.0.0/16", "RFC 1918: private use"),
		("192.175.48.0/24", "RFC 7534: AS112"),
		("198.18.0.0/15", "RFC 2544: benchmarks"),
		("198.51.100.0/24", "RFC 5737: documentation"),
		("203.0.113.0/24", "RFC 5737: documentation"),
		("224.0.0.0/4", "RFC 5771: multicast"),
		("240.0.0.0/4", "RFC 1112: reserved"),
		("255.255.255.255/32", "RFC 919: broadcast"),
	];

	/// The same for IPv6, with what lies outside of the only block that is given out (2000::/3, RFC 4291).
	/// 64:ff9b::/96 is not among them: it is judged by the IPv4 address in it.
	const V6: [(&str, &str); 31] = [
		("::/128", "RFC 4291: unspecified"),
		("::1/128", "RFC 4291: loopback"),
		("::/96", "RFC 4291: compatible with IPv4, deprecated"),
		("64:ff9b:0:1::/64", "RFC 6052: the translation of IPv4 is only a /96"),
		("64:ff9b:1::/48", "RFC 8215: translation for local use"),
		("100::/64", "RFC 6666: discarded"),
		("100:0:0:1::/64", "RFC 9780: dummy prefix"),
		("2001::/23", "RFC 2928: assignments of the IETF"),
		("2001::/32", "RFC 4380: Teredo"),
		("2001:1::1/128", "RFC 7723: port control anycast"),
		("2001:1::2/128", "RFC 8155: TURN anycast"),
		("2001:1::3/128", "RFC 9665: service registration anycast"),
		("2001:2::/48", "RFC 5180: benchmarks"),
		("2001:3::/32", "RFC 7450: multicast tunnels"),
		("2001:4:112::/48", "RFC 7535: AS112"),
		("2001:10::/28", "RFC 4843: ORCHID, deprecated"),
		("2001:20::/28", "RFC 7343: ORCHIDv2, hashes and no machines"),
		("2001:30::/28", "RFC 9374: names of drones"),
		("2001:db8::/32", "RFC 3849: documentation"),
		("2002::/16", "RFC 3056: 6to4"),
		("2620:4f:8000::/48", "RFC 7534: AS112"),
		("3fff::/20", "RFC 9637: documentation"),
		("4000::/2", "RFC 4291: not given out"),
		("5f00::/16", "RFC 9602: segment routing"),
		("8000::/2", "RFC 4291: not given out"),
		("c000::/3", "RFC 4291: not given out"),
		("e000::/4", "RFC 4291: not given out"),
		("fc00::/7", "RFC 4193: unique local"),
		("fe80::/10", "RFC 4291: link local"),
		("fec0::/10", "RFC 3879: site local, deprecated"),
		("ff00::/8", "RFC 4291: multicast"),
	];

	/// The first and the last address of a block, as numbers.
	fn ends(block: &str) -> (u128, u128) {
		let (address, bits) = block.split_once('/').unwrap();
		let bits: u32 = bits.parse().unwrap();
		let (first, width) = match address.parse().unwrap() {
			IpAddr::V4(v4) => (u128::from(u32::from(v4)), 32),
			IpAddr::V6(v6) => (u128::from(v6), 128),
		};
		(first, first + ((1 << (width - bits)) - 1))
	}

	fn is_in(blocks: &[(&str, &str)], address: u128) -> bool {
		blocks.iter().map(|(block, _)| ends(block)).any(|(a, z)| (a..=z).contains(&address))
	}

	#[test]
	fn every_block_of_the_registry_of_ipv4_is_refused_and_its_neighbours_are_not() {
		for (block, why) in V4 {
			let (first, last) = ends(block);
			for address in [Some(first), Some(last), first.checked_sub(1), Some(last + 1)] {
				let Some(Ok(number)) = address.map(u32::try_from) else { continue };
				let address = IpAddr::V4(number.into());
				assert_eq!(is_public(address), !is_in(&V4, number.into()), "{address}: {why}");
			}
		}
	}

	#[test]
	fn every_block_of_the_registry_of_ipv6_is_refused_and_its_neighbours_are_not() {
		for (block, why) in V6 {
			let (first, last) = ends(block);
			let neighbours = [Some(first), Some(last), first.checked_sub(1), last.checked_add(1)];
			for number in neighbours.into_iter().flatten() {
				let is_given_out = number >> 125 == 1;
				let address = IpAddr::V6(number.into());
				let expected = is_given_out && !is_in(&V6, number);
				assert_eq!(is_public(address), expected, "{address}: {why}");
			}
		}
	}

	/// An IPv6 address that stands for an IPv4 address is judged as that, in the two forms that a
	/// network stack or a NAT64 resolves.
	#[test]
	fn an_embedded_ipv4_address_is_judged_as_itself() {
		for (block, why) in V4 {
			let (first, last) = ends(block);
			for number in [first, last] {
				for prefix in [0xffff_u128 << 32, 0x64_ff9b << 96] {
					let address = IpAddr::V6((prefix | number).into());
					assert!(!is_public(address), "{address}: {why}");
				}
				// 6to4 and Teredo, with the address where each has it.
				let sixtofour = IpAddr::V6((0x2002 << 112 | number << 80).into());
				let teredo = IpAddr::V6((0x2001_0000 << 96 | (number ^ 0xffff_ffff)).into());
				assert!(!is_public(sixtofour) && !is_public(teredo), "{block}: {why}");
			}
		}
		for public in ["::ffff:8.8.8.8", "64:ff9b::8.8.8.8"] {
			assert!(is_public(public.parse().unwrap()), "{public}");
		}
		// Tunnels are not called, wherever they lead.
		for tunnel in ["2002:808:808::", "2001:0:808:808::f7f7:f7f7"] {
			assert!(!is_public(tunnel.parse().unwrap()), "{tunnel}");
		}
	}

	#[test]
	fn machines_of_the_public_internet_are_called() {
		for public in
			["1.1.1.1", "8.8.8.8", "93.184.215.14", "2606:4700:4700::1111", "2a00:1450::1"]
		{
			assert!(is_public(public.parse().unwrap()), "{public}");
		}
	}

	fn std_says_special(address: IpAddr) -> bool {
		let common = address.is_loopback() || address.is_multicast() || address.is_unspecified();
		common
			|| match address {
				IpAddr::V4(v4) => {
					v4.is_private()
						|| v4.is_link_local()
						|| v4.is_documentation()
						|| v4.is_broadcast()
				},
				IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local(),
			}
	}

	/// Addresses near the special ones, and any.
	fn v4() -> impl Strategy<Value = Ipv4Addr> {
		let first = prop::sample::select(vec![10, 127, 169, 172, 192, 198, 203, 224, 239, 255]);
		let second = prop::sample::select(vec![0, 2, 16, 31, 51, 168, 254, 255]);
		let third = prop::sample::select(vec![0, 2, 100, 113, 255]);
		let near = (first, prop_oneof![second, any::<u8>()], prop_oneof![third, any::<u8>()])
			.prop_flat_map(|(a, b, c)| any::<u8>().prop_map(move |d| Ipv4Addr::new(a, b, c, d)));
		prop_oneof![near, any::<Ipv4Addr>()]
	}

	fn v6() -> impl Strategy<Value = Ipv6Addr> {
		let near = (0xfa00_u16..=0xffff, any::<u128>())
			.prop_map(|(top, rest)| Ipv6Addr::from(u128::from(top) << 112 | rest >> 16));
		let low = (0_u128..4).prop_map(Ipv6Addr::from);
		prop_oneof![near, low, any::<Ipv6Addr>()]
	}

	proptest! {
		/// An address that the standard library calls special by a stable name is refused, also embedded.
		#[test]
		fn what_the_standard_library_calls_special_is_refused(v4 in v4(), v6 in v6()) {
			prop_assert!(!std_says_special(v4.into()) || !is_public(v4.into()), "{}", v4);
			prop_assert!(!std_says_special(v6.into()) || !is_public(v6.into()), "{}", v6);
			prop_assert_eq!(is_public(v4.into()), is_public(v4.to_ipv6_mapped().into()));
		}
	}
}
