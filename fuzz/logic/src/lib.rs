// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What is fuzzed: every decoder that must not trust its bytes, and the log under any sequence of
//! operations.
//!
//! [`targets`] is the one table of it. Each target is a function of bytes that panics if something
//! does not hold. The fuzzer calls it with what it makes up, `cargo test` with what is in
//! `fuzz/corpus`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod ops;
mod texts;
mod wire;

use leyden_store::codec::{Law, StoredKind};

/// Something that is fuzzed, under a name that its corpus has, too.
pub struct Target {
	/// The name.
	pub name: &'static str,
	/// Panics if something does not hold.
	pub run: Check,
}

/// A function of bytes that panics if something does not hold.
pub type Check = Box<dyn Fn(&[u8]) + Sync + Send>;

/// Returns everything that is fuzzed.
pub fn targets() -> Vec<Target> {
	let laws = |name, laws: Vec<(&'static str, Law)>| Target {
		name,
		run: Box::new(move |data: &[u8]| laws.iter().for_each(|(of, law)| hold(of, *law, data))),
	};
	let plain = |name, run: fn(&[u8])| Target { name, run: Box::new(run) };
	vec![
		laws("store", leyden_store::fuzz::laws()),
		laws("log", leyden_log::fuzz::laws()),
		laws("ldk", leyden_ldk::fuzz::laws()),
		laws("splice", leyden_splice::fuzz::laws()),
		laws("outbox", leyden_outbox::fuzz::laws()),
		laws("request", leyden_request::fuzz::laws()),
		laws("payout", leyden_payout::fuzz::laws()),
		laws("http", leyden_http::fuzz::laws()),
		laws("servers", leyden_backends::fuzz::laws()),
		laws("texts", texts::laws()),
		plain("log_ops", ops::log_ops),
		plain("request_params", wire::request_params),
		plain("webhook_signature", wire::webhook_signature),
	]
}

/// Returns every kind of record of every crate.
pub fn stored() -> Vec<StoredKind> {
	[
		leyden_store::fuzz::stored(),
		leyden_log::fuzz::stored(),
		leyden_ldk::fuzz::stored(),
		leyden_splice::fuzz::stored(),
		leyden_outbox::fuzz::stored(),
		leyden_request::fuzz::stored(),
		leyden_payout::fuzz::stored(),
		leyden_backends::fuzz::stored(),
	]
	.concat()
}

fn hold(of: &str, law: Law, data: &[u8]) {
	for (expected, found) in law(data) {
		let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
		assert_eq!(expected, found, "{of}: {:?} and {:?}", shown(&expected), shown(&found));
	}
}
