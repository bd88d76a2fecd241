// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.
//! Splices that finish, on LDK.

mod driver;
mod failed;
mod fate;
mod funding;
mod own_coins;
mod reason;

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;

use leyden_log::EventLog;
use leyden_splice::{
	ChannelRef, InputReserver, Material, SpliceDriver, SpliceError, SpliceOptions, Splices,
};
use leyden_store::{block_on, Clock, Store};
use lightning::events::{Event, FundingInfo, ReplayEvent};
use lightning::io;
use lightning::ln::channel_state::ChannelDetails;
use lightning::ln::types::ChannelId;

pub use driver::{LdkDriver, SpliceWallet};
pub use failed::{decode_user_event, UserEvent, SPLICE_FAILED};
pub use fate::FundingMonitors;
pub use funding::splice_candidates;

pub(crate) use failed::LAYOUT as FAILED_LAYOUT;
pub(crate) use reason::failure_reason;

use crate::compat;
use crate::journal::Persist;

/// The id that Leyden has for LDK's.
fn channel_id(id: &ChannelId) -> leyden_id::ChannelId {
	leyden_id::ChannelId(id.0)
}

/// Which channel these details are of, for [`Splices::splice_in`] and the like.
pub fn channel_ref(details: &ChannelDetails) -> ChannelRef {
	ChannelRef {
		channel_id: channel_id(&details.channel_id),
		user_channel_id: details.user_channel_id,
		counterparty: details.counterparty.node_id,
	}
}

/// Whether the rest of the node is to handle an event.
#[must_use]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Handling {
	/// Yes.
	GoOn,
	/// No: LDK asks for signatures of a splice that the user was told never runs.
	Stop,
}

/// Keeps the splices of a node: [`Splices`] with LDK below and the event log above.
///
/// A node gives it every event before anything else handles it, and asks it for splices instead of
/// asking LDK. `docs/splices.md` has the few lines that this takes, what is tried again and what
/// not.
pub struct SpliceKeeper {
	splices: Splices,
	store: Arc<dyn Store>,
	before_signing: Option<Persist>,
}

impl SpliceKeeper {
	/// Reads the splices that are going on, from the store that `events` is in, and reserves their
	/// coins. A splice that fails becomes an entry of `events`.
	///
	/// Open it once the manager is read, and before the wallet spends anything; then
	/// [`start`](SpliceKeeper::start) it.
	///
	/// # Errors
	/// [`SpliceError::AlreadyOpen`] while another keeper over the same store is in use; the store's.
	pub fn open(
		events: &EventLog, clock: Arc<dyn Clock>, driver: impl SpliceDriver + 'static,
		options: SpliceOptions,
	) -> Result<Self, SpliceError> {
		let tell = failed::teller(events.clone());
		let store = Arc::clone(events.store());
		let splices = Splices::open(Arc::clone(&store), clock, Box::new(driver), tell, options)?;
		Ok(Self { splices, store, before_signing: None })
	}

	/// Tells the wallet of every coin that is reserved, now and from now on.
	#[must_use]
	pub fn with_reserver(self, reserver: impl InputReserver + 'static) -> Self {
		Self { splices: self.splices.with_reserver(reserver), ..self }
	}

	/// Persists the manager before a splice is signed. `persist` must encode and write it.
	///
	/// Without this, a node that dies after it has signed, and before its manager was written,
	/// knows nothing of the round when it is back, and says so; and a peer that is an LDK node
	/// closes the channel, by force (see `docs/ldk-findings.md`).
	///
	/// This is enough with a chain monitor whose writes are deferred. Without, LDK writes the
	/// monitor when the peer's signature arrives, and a process that dies before the manager is
	/// written again finds its channel closed: `docs/splices.md` has the table.
	#[must_use]
	pub fn persist_before_signing(
		mut self, persist: impl Fn() -> Result<(), io::Error> + Send + Sync + 'static,
	) -> Self {
		self.before_signing = Some(Box::new(move || Box::pin(std::future::ready(persist()))));
		self
	}

	/// Persists the manager before a splice is signed, as
	/// [`persist_before_signing`](SpliceKeeper::persist_before_signing) does, for a node whose store
	/// has futures: [`handle_event_async`](SpliceKeeper::handle_event_async) awaits it.
	#[must_use]
	pub fn persist_before_signing_async<F>(
		mut self, persist: impl Fn() -> F + Send + Sync + 'static,
	) -> Self
	where
		F: Future<Output = Result<(), io::Error>> + Send + 'static,
	{
		self.before_signing = Some(Box::new(move || Box::pin(persist())));
		self
	}

	/// Starts the keeper, in the one order in which no event of an old life is taken for news:
	/// `drain` handles the events that LDK brings again (call `process_pending_events` in it), the
	/// manager is persisted, as it is [before signing](SpliceKeeper::persist_before_signing), and
	/// what LDK has forgotten is handed to it. Connect to peers after that.
	///
	/// LDK's background processor persists the manager after it has handled events, too. Without,
	/// monitors could become durable first, from which the events are gone: after a crash LDK then
	/// says `PaymentFailed` of a payment that was said to be sent (finding 31 of
	/// `docs/ldk-findings.md`).
	///
	/// A node whose store has futures calls [`start_async`](SpliceKeeper::start_async).
	///
	/// # Errors
	/// [`SpliceError::ManagerNotPersisted`], and the store's.
	///
	/// # Failure Behavior and Persistence
	/// A crash in it leaves some splices handed over and some not; the next start goes on.
	pub fn start(&self, drain: impl FnOnce()) -> Result<(), SpliceError> {
		block_on(&*self.store, self.start_async(async { drain() }))
	}

	/// Starts the keeper as [`start`](SpliceKeeper::start) does. `drain` may call
	/// `process_pending_events_async`.
	///
	/// # Errors
	/// The same as [`start`](SpliceKeeper::start).
	///
	/// # Failure Behavior and Persistence
	/// The same as [`start`](SpliceKeeper::start).
	pub async fn start_async(&self, drain: impl Future<Output = ()>) -> Result<(), SpliceError> {
		drain.await;
		if let Some(persist) = &self.before_signing {
			let persisted = persist().await;
			persisted
				.map_err(|error| SpliceError::ManagerNotPersisted { message: error.to_string() })?;
		}
		self.splices.start()
	}

	/// Hears an event. Call it first thing in the event handler, for every event: it looks at the
	/// few that are about splices, and only looks.
	///
	/// # Errors
	/// `ReplayEvent` if the store failed, or the manager could not be persisted
	/// [before signing](SpliceKeeper::persist_before_signing): give that to LDK, which brings the
	/// event again.
	///
	/// # Failure Behavior and Persistence
	/// What it learned is durable when it returns, or is learned again.
	pub fn handle_event(&self, event: &Event) -> Result<Handling, ReplayEvent> {
		block_on(&*self.store, self.handle_event_async(event))
	}

	/// Hears an event as [`handle_event`](SpliceKeeper::handle_event) does, and awaits the manager
	/// that is persisted before a splice is signed. The few events that are about splices read and
	/// write records of the store in the call.
	///
	/// # Errors
	/// The same as [`handle_event`](SpliceKeeper::handle_event).
	///
	/// # Failure Behavior and Persistence
	/// The same as [`handle_event`](SpliceKeeper::handle_event).
	pub async fn handle_event_async(&self, event: &Event) -> Result<Handling, ReplayEvent> {
		let handling = self.hear(event).map_err(|_| ReplayEvent())?;
		let signs = matches!(event, Event::FundingTransactionReadyForSigning { .. });
		if let (Some(persist), true, Handling::GoOn) = (&self.before_signing, signs, handling) {
			persist().await.map_err(|_| ReplayEvent())?;
		}
		Ok(handling)
	}

	/// A peer is connected again. LDK goes on with what it has; what it has forgotten is handed to
	/// it.
	///
	/// # Errors
	/// The store's.
	pub fn peer_connected(&self) -> Result<(), SpliceError> {
		self.splices.look_at_all()
	}

	fn hear(&self, event: &Event) -> Result<Handling, SpliceError> {
		match event {
			Event::SpliceNegotiated { channel_id: id, .. }
			| Event::ChannelReady { channel_id: id, .. }
			| Event::ChannelClosed { channel_id: id, .. } => self.splices.look(&channel_id(id))?,
			Event::SpliceNegotiationFailed { channel_id: id, reason, .. } => {
				let contribution = compat::failed_contribution(event);
				let material: Option<Material> = contribution.map(driver::material);
				let reason = failure_reason(reason);
				self.splices.round_failed(&channel_id(id), &reason, material.as_ref())?;
			},
			Event::FundingTransactionReadyForSigning {
				channel_id: id,
				unsigned_transaction,
				..
			} => {
				let may = self.splices.before_signing(&channel_id(id), unsigned_transaction)?;
				return Ok(if may { Handling::GoOn } else { Handling::Stop });
			},
			Event::DiscardFunding { funding_info, .. } => {
				self.splices.discarded(&inputs_of(funding_info))?;
			},
			_ => {},
		}
		Ok(Handling::GoOn)
	}
}

/// The coins that a `DiscardFunding` is about. Ask [`Splices::discarded`] which of them are free.
pub fn inputs_of(funding: &FundingInfo) -> Vec<bitcoin::OutPoint> {
	match funding {
		FundingInfo::Contribution { inputs, .. } => inputs.clone(),
		FundingInfo::Tx { transaction } => {
			transaction.input.iter().map(|input| input.previous_output).collect()
		},
		FundingInfo::OutPoint { .. } => Vec::new(),
	}
}

impl Deref for SpliceKeeper {
	type Target = Splices;

	fn deref(&self) -> &Splices {
		&self.splices
	}
}

impl fmt::Debug for SpliceKeeper {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		self.splices.fmt(f)
	}
}
