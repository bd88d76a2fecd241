// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What ends a resolution and what does not, against a stand-in for LDK.

use leyden_store::{MemoryMedium, MemoryStore, Namespace};
use lightning::ln::types::ChannelId;
use lightning::types::payment::PaymentPreimage;

use super::*;

/// LDK as far as resolutions see it.
#[derive(Default)]
struct Ldk {
	/// Intercepted HTLCs.
	intercepted: Mutex<Vec<InterceptId>>,
	/// Payments with an HTLC that is not being removed.
	held: Mutex<Vec<PaymentHash>>,
	height: Mutex<u32>,
	given: Mutex<Vec<HtlcResolution>>,
}

impl HtlcResolver for Ldk {
	fn resolve(&self, resolution: &HtlcResolution) -> Result<(), APIError> {
		self.given.lock().push(*resolution);
		if matches!(resolution, HtlcResolution::Forward { .. }) {
			return Err(APIError::ChannelUnavailable { err: "not usable yet".into() });
		}
		let HtlcResolution::FailIntercepted { intercept_id } = resolution else { return Ok(()) };
		let mut intercepted = self.intercepted.lock();
		let index = intercepted.iter().position(|held| held == intercept_id);
		let index = index.ok_or_else(|| APIError::APIMisuseError { err: "unknown".into() })?;
		intercepted.remove(index);
		Ok(())
	}

	fn holds_payment(&self, payment_hash: &PaymentHash) -> bool {
		self.held.lock().contains(payment_hash)
	}

	fn best_height(&self) -> u32 {
		*self.height.lock()
	}
}

struct Rig {
	medium: MemoryMedium,
	ldk: Ldk,
	resolutions: HtlcResolutions,
}

impl Rig {
	fn new() -> Self {
		let medium = MemoryMedium::new();
		let resolutions = open(&medium);
		Self { medium, ldk: Ldk::default(), resolutions }
	}

	fn restart(self) -> Self {
		let Self { medium, ldk, resolutions } = self;
		drop(resolutions);
		let resolutions = open(&medium);
		Self { medium, ldk, resolutions }
	}

	fn resolve(&self, resolution: HtlcResolution) {
		self.resolutions.resolve(&self.ldk, resolution).unwrap();
	}

	/// The resolution is committed, and the process dies before LDK hears of it.
	fn commit(&self, resolution: HtlcResolution) {
		self.resolutions.plan(resolution).unwrap().run(&*self.resolutions.store).unwrap();
	}

	/// A manager is encoded and becomes durable.
	fn persist(&self) {
		let mark = self.resolutions.mark();
		if let Some(plan) = self.resolutions.settle_plan(&self.ldk, mark) {
			plan.run(&*self.resolutions.store).unwrap();
		}
	}
}

const PREIMAGE: PaymentPreimage = PaymentPreimage([7; 32]);
const INTERCEPT: InterceptId = InterceptId([9; 32]);
const CLAIM: HtlcResolution =
	HtlcResolution::Claim { preimage: PREIMAGE, claim_deadline: Some(500) };
const FAIL_INTERCEPTED: HtlcResolution =
	HtlcResolution::FailIntercepted { intercept_id: INTERCEPT };

fn open(medium: &MemoryMedium) -> HtlcResolutions {
	let store = MemoryStore::open(medium, Namespace::default()).unwrap();
	HtlcResolutions::open(Arc::new(store)).unwrap()
}

fn fail_backwards() -> HtlcResolution {
	HtlcResolution::FailBackwards { payment_hash: PREIMAGE.into() }
}

fn intercepted() -> Event {
	Event::HTLCIntercepted {
		intercept_id: INTERCEPT,
		requested_next_hop_scid: 1,
		payment_hash: PREIMAGE.into(),
		inbound_amount_msat: 2,
		expected_outbound_amount_msat: 1,
		outgoing_htlc_expiry_block_height: None,
	}
}

fn claimed() -> Event {
	Event::PaymentClaimed {
		receiver_node_id: None,
		payment_hash: PREIMAGE.into(),
		amount_msat: 1,
		purpose: lightning::events::PaymentPurpose::SpontaneousPayment(PREIMAGE),
		htlcs: Vec::new(),
		sender_intended_total_msat: None,
		onion_fields: None,
		payment_id: None,
	}
}

/// A payment is failed, and a manager is durable that has it. Before the deletion of the failure is
/// committed, a payment with the same hash comes and is claimed.
#[test]
fn the_end_of_a_resolution_leaves_a_later_one_of_the_same_payment_alone() {
	let rig = Rig::new();
	rig.resolve(fail_backwards());
	let mark = rig.resolutions.mark();
	let claim = rig.resolutions.plan(CLAIM).unwrap();
	let settled = rig.resolutions.settle_plan(&rig.ldk, mark).unwrap();
	claim.run(&*rig.resolutions.store).unwrap();
	let refused = settled.run(&*rig.resolutions.store);
	assert!(matches!(refused, Err(StoreError::Conflict { .. })), "{refused:?}");
	assert_eq!(rig.resolutions.pending(), [CLAIM]);
	assert_eq!(rig.resolutions.apply(&rig.ldk), 0);
	assert_eq!(*rig.ldk.given.lock(), [fail_backwards(), CLAIM]);
	assert_eq!(rig.restart().resolutions.pending(), [CLAIM]);
}

/// LDK takes the first resolution while a second one replaces it.
#[test]
fn a_resolution_that_replaces_another_one_is_given_as_well() {
	struct Replaced<'a>(&'a Rig);
	impl HtlcResolver for Replaced<'_> {
		fn resolve(&self, resolution: &HtlcResolution) -> Result<(), APIError> {
			if *resolution == fail_backwards() {
				self.0.commit(CLAIM);
			}
			self.0.ldk.resolve(resolution)
		}

		fn holds_payment(&self, payment_hash: &PaymentHash) -> bool {
			self.0.ldk.holds_payment(payment_hash)
		}

		fn best_height(&self) -> u32 {
			self.0.ldk.best_height()
		}
	}
	let rig = Rig::new();
	rig.commit(fail_backwards());
	assert_eq!(rig.resolutions.apply(&Replaced(&rig)), 1);
	assert_eq!(rig.resolutions.apply(&rig.ldk), 0);
	assert_eq!(*rig.ldk.given.lock(), [fail_backwards(), CLAIM]);
	rig.persist();
	assert_eq!(rig.resolutions.pending(), [CLAIM]);
}

/// LDK's durable state is from before the HTLC was intercepted: LDK knows nothing of it at start,
/// and brings it again later.
#[test]
fn an_htlc_that_ldk_does_not_hold_yet_keeps_its_resolution() {
	let rig = Rig::new();
	rig.commit(FAIL_INTERCEPTED);
	let rig = rig.restart();
	assert_eq!(rig.resolutions.apply(&rig.ldk), 1);
	for _ in 0..3 {
		rig.persist();
		rig.resolutions.apply(&rig.ldk);
	}
	assert_eq!(rig.ldk.given.lock().len(), 1, "offered once");
	rig.ldk.intercepted.lock().push(INTERCEPT);
	assert!(rig.resolutions.answer(&rig.ldk, &intercepted()));
	assert!(rig.ldk.intercepted.lock().is_empty());
	rig.persist();
	assert!(rig.resolutions.pending().is_empty());
}

/// LDK's durable state has the resolution: LDK does not bring the HTLC again.
#[test]
fn an_htlc_that_ldk_never_brings_again_keeps_its_resolution_as_long_as_an_htlc_lives() {
	let rig = Rig::new();
	*rig.ldk.height.lock() = 100;
	rig.commit(FAIL_INTERCEPTED);
	rig.resolutions.apply(&rig.ldk);
	*rig.ldk.height.lock() = 100 + HTLC_LIFE_BLOCKS - 1;
	rig.persist();
	assert_eq!(rig.resolutions.pending(), [FAIL_INTERCEPTED]);
	*rig.ldk.height.lock() = 100 + HTLC_LIFE_BLOCKS;
	rig.persist();
	assert!(rig.resolutions.pending().is_empty());
}

/// LDK has brought the HTLC and failed it back before it got the resolution.
#[test]
fn an_htlc_that_ldk_has_brought_and_failed_back_ends_with_the_manager() {
	let rig = Rig::new();
	rig.commit(FAIL_INTERCEPTED);
	assert!(rig.resolutions.answer(&rig.ldk, &intercepted()));
	rig.persist();
	assert!(rig.resolutions.pending().is_empty());
}

/// LDK holds an HTLC of the payment and has not brought `PaymentClaimable` for it yet.
#[test]
fn a_payment_that_ldk_may_bring_yet_keeps_its_failure() {
	let rig = Rig::new();
	rig.ldk.held.lock().push(PREIMAGE.into());
	rig.resolve(fail_backwards());
	rig.persist();
	assert_eq!(rig.resolutions.pending(), [fail_backwards()]);
	rig.ldk.held.lock().clear();
	rig.persist();
	assert!(rig.resolutions.pending().is_empty());
}

/// A manager that is being written does not have what LDK takes meanwhile.
#[test]
fn a_resolution_ends_with_a_manager_that_was_encoded_after_ldk_took_it() {
	let rig = Rig::new();
	rig.ldk.intercepted.lock().push(INTERCEPT);
	let mark = rig.resolutions.mark();
	rig.resolve(FAIL_INTERCEPTED);
	assert!(rig.resolutions.settle_plan(&rig.ldk, mark).is_none());
	rig.persist();
	assert!(rig.resolutions.pending().is_empty());
}

/// The commit that deletes a claim fails, and nothing waits for it.
#[test]
fn a_claim_whose_deletion_failed_is_deleted_with_a_later_manager() {
	let rig = Rig::new();
	rig.resolve(CLAIM);
	rig.persist();
	assert_eq!(rig.resolutions.pending(), [CLAIM]);
	let ended = rig.resolutions.payment_claimed(&claimed()).unwrap();
	drop(ended);
	rig.persist();
	assert!(rig.resolutions.pending().is_empty());
}

/// The future that resolves a request is dropped after its commit.
#[test]
fn a_resolution_that_was_committed_and_not_given_is_given_with_the_next_event() {
	let rig = Rig::new();
	let key = bitcoin::secp256k1::Secp256k1::new();
	let secret = bitcoin::secp256k1::SecretKey::from_slice(&[1; 32]).unwrap();
	let forward = HtlcResolution::Forward {
		intercept_id: INTERCEPT,
		next_hop_channel_id: ChannelId([2; 32]),
		next_node_id: secret.public_key(&key),
		amt_to_forward_msat: 1,
	};
	rig.commit(forward);
	rig.resolutions.apply_new(&rig.ldk);
	assert_eq!(*rig.ldk.given.lock(), [forward]);
	// Its channel is not usable: other events are no reason to ask LDK again.
	rig.resolutions.apply_new(&rig.ldk);
	assert_eq!(rig.ldk.given.lock().len(), 1);
}

#[test]
fn giving_up_what_is_not_kept_changes_nothing() {
	let rig = Rig::new();
	let plan = rig.resolutions.give_up_payment(&PREIMAGE.into());
	rig.commit(CLAIM);
	plan.run(&*rig.resolutions.store).unwrap();
	assert_eq!(rig.resolutions.pending(), [CLAIM]);
	rig.resolutions.give_up_payment(&PREIMAGE.into()).run(&*rig.resolutions.store).unwrap();
	assert!(rig.resolutions.pending().is_empty());
}
