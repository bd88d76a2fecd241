//! The node, the LSP and the recipient of an async order die at every write, and everything ends as if
//! they had not.

#![cfg(feature = "async-order")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout)]

use std::sync::Arc;

use leyden_testkit::async_order::order::State;
use leyden_testkit::async_order::{Setup, World, AMOUNT_MSAT};
use leyden_testkit::{Doom, LossyMedium, Side};

/// Runs an order in which somebody dies; it must end well, with every effect once.
fn run(setup: Setup) -> Result<(), String> {
	let mut world = World::new(setup);
	let before = world.balances();
	let (hash, invoice) = world.order(1).remove(0);
	world.arm();
	world.pay(&invoice);
	let state = world.finish(&hash);
	let same = |what: &str, is: bool| if is { Ok(()) } else { Err(format!("{what}: {state:?}")) };
	same("the order does not end", state == State::InboundClaimed)?;
	let after = world.balances();
	same("the payer has not paid once", before[0] - after[0] == AMOUNT_MSAT)?;
	same("the recipient was not paid once", after[2] - before[2] == AMOUNT_MSAT)?;
	same("the node has lost or won", after[1] == before[1])?;
	same("somebody was told both", world.net.told(world.payer, "PaymentFailed") == 0)?;
	same("something was put aside", world.put_aside().is_empty())
}

/// Dies before and after each write of one of them.
fn everywhere(who: &str, setup: impl Fn(Arc<Doom>) -> Setup) -> (u64, Vec<String>) {
	let never = Doom::never();
	run(setup(Arc::clone(&never))).unwrap();
	let writes = never.writes();
	assert!(writes > 0);
	let mut wrong = Vec::new();
	for death in 0..2 * writes {
		let side = if death % 2 == 0 { Side::Before } else { Side::After };
		let doom = Doom::at(death / 2, side);
		if let Err(what) = run(setup(Arc::clone(&doom))) {
			wrong.push(format!("{who}, {side:?} write {} of {writes}: {what}", death / 2));
		}
		assert!(doom.has_struck(), "{who}: write {} did not come", death / 2);
	}
	println!("{who}: {} deaths", 2 * writes);
	(2 * writes, wrong)
}

fn none_wrong(wrong: &[String]) {
	assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_node_dies_everywhere() {
	let (_, wrong) = everywhere("the node", |host_dies| Setup { host_dies, ..Setup::default() });
	none_wrong(&wrong);
}

#[test]
fn the_recipient_dies_everywhere() {
	let (_, wrong) =
		everywhere("the recipient", |recipient_dies| Setup { recipient_dies, ..Setup::default() });
	none_wrong(&wrong);
}

#[test]
fn the_lsp_dies_everywhere() {
	let (_, wrong) = everywhere("the LSP", |lsp_dies| Setup { lsp_dies, ..Setup::default() });
	none_wrong(&wrong);
}

/// The control: a disk that has promised more than it keeps.
#[test]
fn an_lsp_whose_disk_lies_is_caught() {
	let (tried, wrong) = everywhere("the LSP on a lying disk", |lsp_dies| {
		// From here on; what was there before is kept.
		Setup { lsp_dies, lsp_medium: LossyMedium::keeping_every(5), ..Setup::default() }
	});
	assert!(!wrong.is_empty(), "none of {tried} was caught");
	println!("{} of {tried} caught", wrong.len());
}
