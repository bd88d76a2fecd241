// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.
//! Two real nodes, one of which keeps splices.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, dead_code)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bitcoin::{Amount, OutPoint, ScriptBuf, TxOut};
use leyden_ldk::{channel_ref, SpliceKeeper};
use leyden_splice::{ChannelRef, FeeBand, SpliceError, SpliceFailed, SpliceId, SpliceState};
use leyden_store::{Batch, Key, ManualClock, MemoryMedium, MemoryStore, Namespace, Store};
use leyden_testkit::parts::FEE_SAT_PER_KW;
use leyden_testkit::{
	Bare, Guard, GuardFactory, Idx, LdkNet, LeydenGuard, MemKv, NodeConfig, NodeDisk, Wiring,
};
use lightning::ln::channel_state::ChannelDetails;
use lightning::ln::types::ChannelId;

pub const BAND: FeeBand = FeeBand { min_sat_per_kw: FEE_SAT_PER_KW as u64, max_sat_per_kw: 5_000 };
pub const CHANNEL_SAT: u64 = 1_000_000;

pub struct Rig {
	pub net: LdkNet,
	pub a: Idx,
	pub b: Idx,
	pub channel: ChannelId,
	pub medium: MemoryMedium,
	pub clock: Arc<ManualClock>,
	guard: Arc<Mutex<Option<Arc<LeydenGuard>>>>,
	told: Mutex<Vec<(u32, SpliceFailed)>>,
	scripts: u8,
}

/// How a rig is made.
#[derive(Clone)]
pub struct Setup {
	pub config: NodeConfig,
	/// Node b's, if it is another.
	pub peer: Option<NodeConfig>,
	/// Whether node a keeps splices.
	pub leyden: bool,
	/// Whether the manager is persisted before a splice is signed.
	pub barrier: bool,
}

impl Default for Setup {
	fn default() -> Self {
		Self { config: NodeConfig::anchors(), peer: None, leyden: true, barrier: true }
	}
}

impl Rig {
	/// A channel of [`CHANNEL_SAT`], funded by a, with a third of it at b, and a manager on disk
	/// that knows it.
	pub fn new() -> Self {
		Self::with(Setup::default())
	}

	pub fn with(setup: Setup) -> Self {
		let medium = MemoryMedium::new();
		let on = medium.clone();
		let disk = Arc::new(NodeDisk::new(Arc::new(MemKv::new())));
		Self::on(
			setup,
			medium,
			disk,
			Arc::new(move |_| {
				Arc::new(MemoryStore::open(&on, Namespace::default()).unwrap()) as Arc<dyn Store>
			}),
		)
	}

	pub fn on(
		setup: Setup, medium: MemoryMedium, disk: Arc<NodeDisk>,
		open: Arc<dyn Fn(u32) -> Arc<dyn Store> + Send + Sync>,
	) -> Self {
		let clock = Arc::new(ManualClock::default());
		let guard = Arc::new(Mutex::new(None));
		let (newest, time) = (Arc::clone(&guard), Arc::clone(&clock));
		let guards: GuardFactory = if setup.leyden {
			Arc::new(move |life| -> Arc<dyn Guard> {
				let splice_barrier = setup.barrier;
				let wiring = Wiring { splices: true, splice_barrier, ..Wiring::default() };
				let guard = Arc::new(LeydenGuard::at(open(life), wiring, Arc::clone(&time)));
				*newest.lock().unwrap() = Some(Arc::clone(&guard));
				guard
			})
		} else {
			Bare::factory()
		};
		let mut net = LdkNet::new(7);
		let a = net.add_node_on(setup.config.clone(), disk, guards);
		let b = net.add_node(setup.peer.unwrap_or(setup.config));
		net.connect(a, b);
		let channel = net.open_channel_pushing(a, b, CHANNEL_SAT, 300_000_000);
		net.persist_manager(a);
		net.persist_manager(b);
		Self { net, a, b, channel, medium, clock, guard, told: Mutex::default(), scripts: 0 }
	}

	pub fn guard(&self) -> Arc<LeydenGuard> {
		Arc::clone(self.guard.lock().unwrap().as_ref().expect("a guard"))
	}

	/// Runs with the keeper of node a.
	pub fn keeper<T>(&self, f: impl FnOnce(&SpliceKeeper) -> T) -> T {
		f(self.guard().splices())
	}

	pub fn details(&self) -> ChannelDetails {
		self.net.channel(self.a, self.channel).expect("the channel")
	}

	pub fn channel_ref(&self) -> ChannelRef {
		channel_ref(&self.details())
	}

	pub fn funding(&self) -> OutPoint {
		self.details().funding_txo.expect("funded").into_bitcoin_outpoint()
	}

	pub fn value_sat(&self, n: Idx) -> u64 {
		self.net.channel(n, self.channel).expect("the channel").channel_value_satoshis
	}

	/// A script that nobody has used.
	pub fn script(&mut self) -> ScriptBuf {
		self.scripts += 1;
		ScriptBuf::new_p2wsh(&bitcoin::WScriptHash::from_raw_hash(
			bitcoin::hashes::Hash::from_byte_array([self.scripts; 32]),
		))
	}

	pub fn output(&mut self, sat: u64) -> TxOut {
		TxOut { value: Amount::from_sat(sat), script_pubkey: self.script() }
	}

	pub fn splice_in(&self, sat: u64) -> Result<SpliceId, SpliceError> {
		let channel = self.channel_ref();
		self.keeper(|keeper| keeper.splice_in(channel, sat, BAND))
	}

	/// A splice-out to a new script, and that.
	pub fn splice_out(&mut self, sat: u64) -> Result<(SpliceId, TxOut), SpliceError> {
		let (channel, output) = (self.channel_ref(), self.output(sat));
		let id = self.keeper(|keeper| keeper.splice_out(channel, vec![output.clone()], BAND))?;
		Ok((id, output))
	}

	pub fn bump(&self, id: &SpliceId, sat_per_kw: u64) -> Result<(), SpliceError> {
		let band = FeeBand { min_sat_per_kw: sat_per_kw, max_sat_per_kw: sat_per_kw * 10 };
		self.keeper(|keeper| keeper.bump_fee(id, band))
	}

	/// How far it is; `None` if it is over.
	pub fn state(&self, id: &SpliceId) -> Option<SpliceState> {
		self.keeper(|keeper| keeper.splice(id)).map(|splice| splice.state().clone())
	}

	/// How it ended.
	pub fn ended(&self, id: &SpliceId) -> Option<SpliceState> {
		let past = self.keeper(|keeper| keeper.past(100)).unwrap();
		past.iter().find(|splice| splice.id() == *id).map(|splice| splice.state().clone())
	}

	/// What the user was told of splices that failed, in all lives, in order.
	pub fn failed(&self) -> Vec<SpliceFailed> {
		let mut told = self.told.lock().unwrap();
		self.remember(&mut told);
		told.iter().map(|(_, failed)| failed.clone()).collect()
	}

	fn remember(&self, told: &mut Vec<(u32, SpliceFailed)>) {
		let life = self.net.life(self.a);
		told.retain(|(of, _)| *of != life);
		told.extend(self.guard().failed_splices().into_iter().map(|failed| (life, failed)));
	}

	/// Node a dies without having written its manager, and starts again from what is on disk.
	pub fn restart(&mut self) {
		self.remember(&mut self.told.lock().unwrap());
		self.net.crash(self.a);
		self.net.restart(self.a);
		self.net.settle();
	}

	/// As [`restart`](Rig::restart), of a node that keeps no splices.
	pub fn restart_bare(&mut self) {
		self.net.crash(self.a);
		self.net.restart(self.a);
		self.net.settle();
	}

	pub fn disconnect(&mut self) {
		self.net.disconnect(self.a, self.b);
		self.net.settle();
	}

	/// Peers are connected again, and node a looks at its splices.
	pub fn connect(&mut self) {
		self.net.connect(self.a, self.b);
		if self.net.is_running(self.a) && self.guard.lock().unwrap().is_some() {
			self.keeper(|keeper| keeper.peer_connected()).unwrap();
		}
		self.net.settle();
	}

	/// Mines until a splice that is negotiated has locked.
	pub fn lock(&mut self) {
		self.net.mine(8);
	}

	/// The splice has locked on both sides.
	pub fn assert_locked(&self, id: &SpliceId, was: OutPoint) {
		assert_eq!(self.state(id), None, "it is over");
		assert_eq!(self.ended(id), Some(SpliceState::Settled));
		assert_ne!(self.funding(), was);
		assert_eq!(self.value_sat(self.a), self.value_sat(self.b));
		let peer = self.net.channel(self.b, self.channel).unwrap().funding_txo;
		assert_eq!(peer.map(|o| o.into_bitcoin_outpoint()), Some(self.funding()));
		assert!(self.keeper(|keeper| keeper.reservations().all()).is_empty(), "coins are free");
		assert!(self.failed().is_empty(), "{:?}", self.failed());
	}

	/// How often the output was paid, on chain or about to be.
	pub fn paid(&self, output: &TxOut) -> usize {
		let confirmed = self.net.chain.coins_of(&output.script_pubkey).len();
		let pending = self.net.chain.mempool();
		confirmed + pending.iter().flat_map(|tx| &tx.output).filter(|o| *o == output).count()
	}

	/// Changes the contribution in a record so that LDK cannot read it; the record itself is sound.
	pub fn spoil_contribution(&self, record: &Key) {
		let store = MemoryStore::open(&self.medium, Namespace::default()).unwrap();
		let mut value = store.get(record).wait().unwrap().unwrap().value;
		let encoded =
			self.keeper(|keeper| keeper.splices())[0].contribution_bytes().unwrap().to_vec();
		let at = value.body.windows(encoded.len()).position(|w| w == encoded).unwrap();
		value.body[at] ^= 0xff;
		let mut batch = Batch::new();
		batch.put(record.clone(), value);
		store.commit(batch).wait().unwrap();
	}

	pub fn pass(&self, time: Duration) {
		self.clock.advance(time);
	}
}
