//! What becomes of an order when a callback, or the answer to a request, is lost: without Leyden and
//! with it.

use std::time::Duration;

use leyden_store::Clock;

use super::order::State;
use super::{rpc, Fault, Notify, Replay, Setup, World, AMOUNT_MSAT, REQUEST_INVOICE};

/// How long a story may take.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// How a story ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ending {
	/// How far the order is.
	pub state: State,
	/// What the LSP has less than before, in millisatoshi.
	pub lsp_lost_msat: u64,
	/// What the recipient has more.
	pub recipient_got_msat: u64,
	/// What the payer has less.
	pub payer_paid_msat: u64,
	/// How many invoices of the same hash the recipient has made.
	pub invoices: u64,
	/// How long it took from the loss on, in seconds of simulated time.
	pub took_secs: u64,
}

impl Ending {
	/// Whether everybody has what is theirs, and nothing was done twice.
	pub fn is_well(&self) -> bool {
		self.state == State::InboundClaimed
			&& self.lsp_lost_msat == 0
			&& self.recipient_got_msat == AMOUNT_MSAT
			&& self.payer_paid_msat == AMOUNT_MSAT
			&& self.invoices == 1
	}
}

/// The recipient was paid, and the LSP restarts just when its node tells it so: 503.
pub fn callback(notify: Notify, step: &mut dyn FnMut(&str)) -> Ending {
	let mut world = World::new(Setup { notify, ..Setup::default() });
	let before = world.balances();
	let (hash, invoice) = world.order(1).remove(0);
	step("somebody pays; the node holds it, and the LSP has it pay the recipient");
	world.front.then([Fault::None, Fault::Status(503)]);
	world.pay(&invoice);
	let begun = world.clock.now();
	let done = |world: &mut World| world.state(&hash).is_final() || world.front.is_done();
	world.run_until(DAY, done);
	step("the recipient is paid; the LSP restarts just when it is told so");
	let settled = world.run_until(DAY, |world| world.state(&hash).is_final());
	let took_secs = world.clock.now().since(begun).as_secs();
	if !settled {
		step("nobody says it again; the node must give back what it held");
		let payer = world.payer;
		while world.net.told(payer, "PaymentFailed") + world.net.told(payer, "PaymentSent") == 0 {
			world.mine(1);
		}
	}
	world.finish(&hash);
	ending(&world, before, world.state(&hash), took_secs)
}

/// The recipient has made an invoice, its answer is lost, and it restarts.
pub fn request(replay: Replay, step: &mut dyn FnMut(&str)) -> Ending {
	let mut world = World::new(Setup { replay, ..Setup::default() });
	let before = world.balances();
	let (hash, invoice) = world.order(1).remove(0);
	step("somebody pays; the recipient is asked for an invoice, and its answer is lost");
	world.pay(&invoice);
	let params = world.lsp().invoice_request(&world.look(&hash).expect("an order"));
	let frame = rpc::request("lost", REQUEST_INVOICE, &params);
	let lost = world.recipient().receive(&world.net.id(world.host), &frame);
	assert!(lost.is_some(), "the recipient has answered");
	step("the recipient restarts; the LSP asks again");
	world.restart(world.recipient);
	let begun = world.clock.now();
	world.run_until(DAY, |world| world.state(&hash).is_final());
	let took_secs = world.clock.now().since(begun).as_secs();
	world.finish(&hash);
	ending(&world, before, world.state(&hash), took_secs)
}

fn ending(world: &World, before: [u64; 3], state: State, took_secs: u64) -> Ending {
	let after = world.balances();
	Ending {
		state,
		lsp_lost_msat: before[1].saturating_sub(after[1]),
		recipient_got_msat: after[2].saturating_sub(before[2]),
		payer_paid_msat: before[0].saturating_sub(after[0]),
		invoices: world.invoices_made(),
		took_secs,
	}
}
