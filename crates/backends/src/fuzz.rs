// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Decoders of this crate, for fuzzers.

use leyden_store::codec::{Law, StoredKind};

use crate::{postgres, vss};

/// Returns everything that must hold of any bytes, by name.
pub fn laws() -> Vec<(&'static str, Law)> {
	let mut laws: Vec<_> = stored().iter().map(|kind| (kind.name, kind.rewrite)).collect();
	laws.push(("names and values of a VSS server", vss::vss_law));
	laws.push(("answers of a VSS server", vss::vss_answer_law));
	laws.push(("connection string", postgres::connection_law));
	laws
}

/// Returns every kind of record of this crate.
pub fn stored() -> Vec<StoredKind> {
	vss::VSS_STORED.to_vec()
}
