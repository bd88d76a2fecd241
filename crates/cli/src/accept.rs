// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Accepting a database that is older than its witness knows.

use leyden::store::witness::Witness;
use leyden::store::Namespace;

use crate::check::print_told_again;
use crate::output::{tell, Failure, Output};
use crate::view::store_url;
use crate::AcceptArguments;

pub fn accept(arguments: &AcceptArguments, output: &mut Output) -> Result<(), Failure> {
	let AcceptArguments { store, namespace, yes } = arguments;
	let url = store_url(store).map_err(Failure::Error)?;
	let namespace = Namespace::new(namespace).map_err(tell)?;
	let Some(witness) = url.witness(&namespace) else {
		let text = format!("{url} has no witness beside it: its program knows which one it has");
		return Err(Failure::Error(text));
	};
	let reason = url.refused(&namespace).map_err(tell)?;
	if !yes {
		return Err(Failure::Error(format!(
			"{url}: {reason}. What was committed since is unknown to it, so that payments may be sent and \
			 events handled a second time; say --yes if there is no newer database"
		)));
	}
	let told_again = url.accept(&namespace).map_err(tell)?;
	output.line(&format!("{url} is accepted; its witness is {}", witness.place()))?;
	output.line(
		"Readers of its logs and feeds begin anew, and nothing is paid before an operator has",
	)?;
	output.line("looked (`leyden payouts`).")?;
	print_told_again(&told_again, output)
}
