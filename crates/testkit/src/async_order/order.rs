//! An order as the LSP has it, and the law of its states.

use bitcoin::hashes::{sha256, Hash};
use leyden_store::codec::Stored;
use leyden_store::RecordType;
use serde::{Deserialize, Serialize};

/// How many blocks must be left when a payment can be claimed: less, and there is no time to pay it on.
pub const LEAST_BLOCKS: u32 = 12;

/// How far an order is. The order of the variants is that of the states.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub enum State {
	/// The recipient has given the hash.
	Reserved,
	/// Somebody has the invoice of the LSP's node.
	Active,
	/// The LSP's node holds the payment.
	Claimable,
	/// The recipient was asked for an invoice.
	OutboundRequested,
	/// There is an invoice of the recipient's.
	OutboundPending,
	/// It is being paid, or was.
	OutboundPaid,
	/// The preimage is known.
	OutboundClaimed,
	/// The LSP has its money.
	InboundClaimed,
	/// It was too late: who paid gets it back.
	InboundCancelled,
	/// It could not be paid on: who paid gets it back.
	OutboundCancelled,
}

/// An order.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Order {
	/// The recipient's index of the hash.
	pub index: u64,
	/// The hash.
	pub payment_hash: [u8; 32],
	/// The recipient's node.
	pub recipient: Vec<u8>,
	/// How much.
	pub amount_msat: u64,
	/// How far it is.
	pub state: State,
	/// With which block the node's payment is failed back.
	pub deadline_height: Option<u32>,
	/// The recipient's invoice.
	pub bolt11: Option<String>,
	/// The preimage.
	pub preimage: Option<[u8; 32]>,
}

impl Stored for Order {
	const TYPE: RecordType = RecordType(0x8003);
	const SCHEMA: u16 = 1;
}

/// What the LSP learns.
#[derive(Clone, Debug)]
pub enum Fact {
	/// Somebody is given the invoice.
	Given,
	/// The node holds the payment; the height is that of the chain now.
	Claimable {
		/// How much it holds.
		amount_msat: u64,
		/// With which block it is failed back.
		deadline_height: Option<u32>,
		/// Now.
		height: u32,
	},
	/// The recipient is asked.
	Requested,
	/// The recipient's invoice.
	Invoice(String),
	/// The node pays it, or has paid it.
	Dispatched,
	/// The recipient was paid.
	PaymentSent {
		/// Proof of it.
		preimage: [u8; 32],
	},
	/// The node has its money.
	Claimed,
	/// The node will not pay it and has not paid it.
	NotPaid,
	/// Nothing was paid, and it is too late to begin.
	TooLate,
}

/// What must be done next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
	/// Ask the recipient for an invoice.
	RequestInvoice,
	/// Pay it.
	Pay,
	/// Claim what the node holds.
	ClaimInbound,
	/// Give back what the node holds.
	CancelInbound,
}

impl Action {
	/// All of them.
	pub const ALL: [Self; 4] =
		[Self::RequestInvoice, Self::Pay, Self::ClaimInbound, Self::CancelInbound];

	/// Its name in the outbox.
	pub fn kind(self) -> &'static str {
		match self {
			Self::RequestInvoice => "request_outbound_invoice",
			Self::Pay => "send_outbound_payment",
			Self::ClaimInbound => "claim_inbound_invoice",
			Self::CancelInbound => "cancel_inbound",
		}
	}
}

/// What a fact changes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
	/// The order is this now, and this must be done.
	Moved(Box<Order>, Option<Action>),
	/// It was known.
	Already,
	/// It cannot be; with the status of HTTP that says so.
	Refused(u16, &'static str),
}

/// The law.
pub fn step(order: &Order, fact: &Fact) -> Step {
	let moved = |state: State, action: Option<Action>, change: &dyn Fn(&mut Order)| {
		let mut next = Order { state, ..order.clone() };
		change(&mut next);
		Step::Moved(Box::new(next), action)
	};
	let keep = |_: &mut Order| ();
	match (fact, order.state) {
		(Fact::Given, State::Reserved) => moved(State::Active, None, &keep),

		(Fact::Claimable { .. }, State::Reserved) => Step::Refused(404, "not given to anybody"),
		(Fact::Claimable { amount_msat, .. }, State::Active)
			if *amount_msat != order.amount_msat =>
		{
			Step::Refused(400, "another amount")
		},
		(Fact::Claimable { deadline_height, height, .. }, State::Active) => match deadline_height {
			None | Some(0) => Step::Refused(400, "no deadline"),
			Some(deadline) if *deadline <= height.saturating_add(LEAST_BLOCKS) => {
				Step::Refused(400, "late: the deadline is too near")
			},
			Some(deadline) => moved(State::Claimable, Some(Action::RequestInvoice), &|order| {
				order.deadline_height = Some(*deadline);
			}),
		},

		(Fact::Requested, State::Claimable) => moved(State::OutboundRequested, None, &keep),
		(Fact::Invoice(bolt11), State::Claimable | State::OutboundRequested) => {
			moved(State::OutboundPending, Some(Action::Pay), &|order| {
				order.bolt11 = Some(bolt11.clone());
			})
		},
		(Fact::Dispatched, State::OutboundPending) => moved(State::OutboundPaid, None, &keep),

		(Fact::PaymentSent { preimage }, _)
			if sha256::Hash::hash(preimage).to_byte_array() != order.payment_hash =>
		{
			Step::Refused(400, "a preimage of something else")
		},
		// Not lost, and not swallowed: the node keeps it until this has come so far.
		(Fact::PaymentSent { .. }, state) if state < State::OutboundPaid => {
			Step::Refused(503, "not paid yet")
		},
		(Fact::PaymentSent { preimage }, State::OutboundPaid) => {
			moved(State::OutboundClaimed, Some(Action::ClaimInbound), &|order| {
				order.preimage = Some(*preimage);
			})
		},
		// Paid, and given back: somebody must look.
		(Fact::PaymentSent { .. }, State::InboundCancelled | State::OutboundCancelled) => {
			Step::Refused(422, "the payment was given back")
		},

		(Fact::Claimed, State::OutboundClaimed) => moved(State::InboundClaimed, None, &keep),
		(
			Fact::NotPaid,
			State::OutboundRequested | State::OutboundPending | State::OutboundPaid,
		) => moved(State::OutboundCancelled, Some(Action::CancelInbound), &keep),
		// From the invoice on, it may have been paid: the node must say that it was not.
		(Fact::TooLate, State::Claimable | State::OutboundRequested) => {
			moved(State::InboundCancelled, Some(Action::CancelInbound), &keep)
		},
		(Fact::TooLate, State::InboundCancelled) | (Fact::NotPaid, State::OutboundCancelled) => {
			Step::Already
		},
		(Fact::TooLate | Fact::NotPaid, _) => Step::Refused(409, "this cannot be given back"),
		_ => Step::Already,
	}
}

impl State {
	/// Whether nothing more happens.
	pub fn is_final(self) -> bool {
		self >= State::InboundClaimed
	}
}
