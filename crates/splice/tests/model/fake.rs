// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.
//! A node that keeps and forgets what LDK keeps and forgets (the table "what LDK persists, from
//! when"), with a peer, a chain and a wallet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};
use leyden_splice::{
	BuildError, ChannelRef, ChannelView, Contribution, FailureReason, Fate, FeeBand, InputReserver,
	Material, NotCanceled, OurPart, Round, Spender, SpliceDriver, SpliceId, Stage, SubmitError,
	Want,
};

/// What LDK tells the user.
#[derive(Clone, Debug)]
pub enum News {
	Failed(FailureReason, Material),
	Discard(Vec<OutPoint>),
	/// Anything after which the channel is looked at.
	Look,
}

#[derive(Clone, Debug)]
struct FakeRound {
	ours: Option<Contribution>,
	stage: Stage,
	/// Whether we gave our signatures.
	signed: bool,
}

/// What is in a `ChannelManager`.
#[derive(Clone, Debug, Default)]
struct Manager {
	funding: Option<OutPoint>,
	rounds: Vec<FakeRound>,
	news: Vec<News>,
	decided: bool,
}

#[derive(Default)]
pub struct World {
	live: Manager,
	disk: Manager,
	/// Of this channel, known to nobody but the chain.
	pub txs: BTreeMap<Txid, Transaction>,
	/// Those that funded the channel, in order.
	pub locked: Vec<Txid>,
	pub online: bool,
	pub dead: bool,
	pub closed: bool,
	/// Of a channel that is closed: what may still fund it.
	broadcast: Vec<Txid>,
	/// Whether a complete transaction is listed only once it is signed.
	pub lags: bool,
	/// `true` if LDK takes nothing back, as if it had been asked too late.
	pub keeps_what_is_canceled: bool,
	/// The number of contributions that LDK has taken, and the number when the process died last.
	pub submitted: u32,
	pub submitted_before_death: u32,
	/// Whether LDK has taken one back.
	pub canceled: bool,
	/// What the chain made of that: one of them, or none. Monitors know when it is deep.
	buried: Option<Option<Txid>>,
	pub refuse: Option<FailureReason>,
	/// `true` if an event tells of what is refused, too: so do LDK's `main` and 0.3.0-beta1.
	pub refusal_sends_event: bool,
	/// `true` if what is handed in next, and not refused, meets another negotiation.
	pub is_busy_once: bool,
	/// `true` if the wallet knows that a coin is spent, and not by which transaction.
	pub wallet_names_no_spender: bool,
	/// `true` if the wallet selects the change of a candidate for the next one.
	pub selects_own_change: bool,
	/// What the peer knows nothing of any more.
	forgotten: BTreeSet<Txid>,
	coins: BTreeSet<OutPoint>,
	held: BTreeSet<OutPoint>,
	numbers: u8,
}

#[derive(Clone)]
pub struct Fake(pub Arc<Mutex<World>>);

const COIN_SAT: u64 = 1_000_000;

fn txid(n: u8) -> Txid {
	Txid::from_byte_array([n; 32])
}

impl Fake {
	pub fn new() -> Self {
		let mut world = World { numbers: 1, online: true, ..World::default() };
		world.live.funding = Some(OutPoint { txid: txid(0), vout: 0 });
		world.coins = (200..230).map(|n| OutPoint { txid: txid(n), vout: 0 }).collect();
		world.disk = world.live.clone();
		Self(Arc::new(Mutex::new(world)))
	}

	pub fn world(&self) -> MutexGuard<'_, World> {
		self.0.lock().unwrap_or_else(|e| e.into_inner())
	}
}

impl World {
	/// The manager is written: of what is not signed only that it is lost.
	pub fn persist(&mut self) {
		if self.dead {
			return;
		}
		let mut disk = self.live.clone();
		let (kept, lost): (Vec<_>, Vec<_>) =
			disk.rounds.into_iter().partition(|round| round.stage.txid().is_some());
		disk.rounds = kept;
		for round in lost {
			if let Some(ours) = round.ours {
				disk.news.push(News::Discard(ours.material.inputs().to_vec()));
				disk.news.push(News::Failed(FailureReason::PeerDisconnected, ours.material));
			}
		}
		self.disk = disk;
	}

	/// The process is gone. A monitor that is newer than the manager closes the channel.
	pub fn crash(&mut self) {
		let negotiated = |m: &Manager| {
			let stages = m.rounds.iter().map(|round| round.stage);
			stages.filter(|s| matches!(s, Stage::Negotiated(_))).count()
		};
		let newer = self.live.funding != self.disk.funding
			|| negotiated(&self.live) > negotiated(&self.disk);
		self.submitted_before_death = std::mem::take(&mut self.submitted);
		let before = std::mem::replace(&mut self.live, self.disk.clone());
		if newer {
			self.watch(&before);
			self.close();
		}
		(self.dead, self.held) = (false, BTreeSet::new());
	}

	/// The monitors have what was signed, and the funding of now.
	fn watch(&mut self, manager: &Manager) {
		if !self.closed {
			let signed = manager.rounds.iter().filter(|round| round.signed);
			self.broadcast.extend(signed.filter_map(|round| round.stage.txid()));
		}
	}

	pub fn close(&mut self) {
		let live = self.live.clone();
		self.watch(&live);
		self.closed = true;
		self.live.rounds.clear();
		self.live.news.push(News::Look);
		self.disk = self.live.clone();
	}

	/// The user has no news to hear of.
	pub fn take_news(&mut self) -> Vec<News> {
		let news = std::mem::take(&mut self.live.news);
		self.disk.news.clear();
		news
	}

	pub fn disconnect(&mut self) {
		self.online = false;
		self.fail(|stage| stage == Stage::Negotiating, &FailureReason::PeerDisconnected);
	}

	pub fn peer_aborts(&mut self) {
		let message = String::new();
		let reason = FailureReason::CounterpartyAborted { message };
		self.fail(|stage| stage == Stage::Negotiating, &reason);
	}

	/// The peer has lost its half of a complete transaction.
	pub fn peer_forgets(&mut self) {
		let signing = self.live.rounds.iter().filter(|r| matches!(r.stage, Stage::Signing(_)));
		self.forgotten.extend(signing.filter_map(|round| round.stage.txid()));
		let message = "forgotten".to_owned();
		let reason = FailureReason::CounterpartyAborted { message };
		self.fail(|stage| matches!(stage, Stage::Signing(_)), &reason);
	}

	fn fail(&mut self, which: impl Fn(Stage) -> bool, reason: &FailureReason) {
		let rounds = std::mem::take(&mut self.live.rounds);
		let (lost, kept): (Vec<_>, Vec<_>) =
			rounds.into_iter().partition(|round| which(round.stage));
		self.live.rounds = kept;
		for ours in lost.into_iter().filter_map(|round| round.ours) {
			self.live.news.push(News::Discard(ours.material.inputs().to_vec()));
			self.live.news.push(News::Failed(reason.clone(), ours.material));
		}
	}

	/// The peer splices alone: its round is negotiated at once.
	pub fn peer_splices(&mut self) {
		if !self.online || self.closed || self.live.decided || !self.live.rounds.is_empty() {
			return;
		}
		let tx = self.transaction(&Material::default());
		let stage = Stage::Negotiated(tx);
		self.live.rounds.push(FakeRound { ours: None, stage, signed: true });
		self.persist();
	}

	/// A negotiated round is confirmed and locks.
	pub fn lock(&mut self, which: usize) {
		let stages = self.live.rounds.iter().map(|round| round.stage);
		let negotiated: Vec<Txid> = stages
			.filter(|stage| matches!(stage, Stage::Negotiated(_)))
			.filter_map(Stage::txid)
			.collect();
		if negotiated.is_empty() || self.dead || self.closed {
			return;
		}
		let txid = negotiated[which % negotiated.len()];
		self.locked.push(txid);
		let spent = self.txs[&txid].input.iter().map(|input| input.previous_output);
		let spent: Vec<OutPoint> = spent.collect();
		self.coins.retain(|coin| !spent.contains(coin));
		self.live.funding = Some(OutPoint { txid, vout: 0 });
		self.live.decided = false;
		// What waits in the queue goes on; a round on the old funding is void.
		self.fail(|stage| matches!(stage, Stage::Signing(_)), &FailureReason::Unknown);
		self.live.rounds.retain(|round| round.stage == Stage::Queued);
		self.live.news.push(News::Look);
		self.persist();
	}

	/// Of a closed channel: one of what was broadcast is confirmed, or a commitment of what funded
	/// it before.
	pub fn bury(&mut self, which: usize) {
		if !self.closed || self.buried.is_some() {
			return;
		}
		let funded = self.broadcast.get(which % (self.broadcast.len() + 1)).copied();
		self.locked.extend(funded);
		self.buried = Some(funded);
	}

	/// Leaves this many of the wallet's coins.
	pub fn keep_coins(&mut self, count: usize) {
		self.coins = std::mem::take(&mut self.coins).into_iter().take(count).collect();
	}

	/// A coin is spent behind everybody's back.
	pub fn spend_coin(&mut self, which: usize) {
		let coin = self.coins.iter().nth(which % self.coins.len().max(1)).copied();
		// Not one of a transaction that is broadcast: that one would be in conflict.
		let broadcast = self.live.rounds.iter().filter(|round| round.stage.txid().is_some());
		let broadcast: Vec<OutPoint> = broadcast
			.filter_map(|round| round.ours.as_ref())
			.flat_map(|ours| ours.material.inputs().to_vec())
			.collect();
		if let Some(coin) = coin.filter(|coin| !broadcast.contains(coin)) {
			self.coins.remove(&coin);
		}
	}

	/// The next thing happens in the negotiation. Answers the transaction that is to be signed.
	pub fn step(&mut self) -> Option<Transaction> {
		if !self.online || self.closed || self.dead {
			return None;
		}
		let at = self
			.live
			.rounds
			.iter()
			.position(|round| !matches!(round.stage, Stage::Negotiated(_)))?;
		let round = self.live.rounds[at].clone();
		let material = round.ours.as_ref().map(|ours| ours.material.clone()).unwrap_or_default();
		match round.stage {
			Stage::Signing(txid) if self.forgotten.contains(&txid) => {
				let message = "forgotten".to_owned();
				let reason = FailureReason::CounterpartyAborted { message };
				self.fail(|stage| stage == Stage::Signing(txid), &reason);
			},
			Stage::Queued | Stage::BehindLock => self.live.rounds[at].stage = Stage::Negotiating,
			Stage::Negotiating => {
				let tx = self.transaction(&material);
				self.live.rounds[at].stage = Stage::Signing(tx);
			},
			Stage::Signing(txid) if !round.signed => return Some(self.txs[&txid].clone()),
			Stage::Signing(txid) => {
				self.live.rounds[at].stage = Stage::Negotiated(txid);
				self.live.news.push(News::Look);
				// Deferred monitors: the manager is written with them.
				self.persist();
			},
			Stage::Negotiated(_) => {},
		}
		None
	}

	/// Returns the newest candidate that spends this coin.
	fn candidate_with(&self, coin: &OutPoint) -> Option<Txid> {
		let candidates = self.live.rounds.iter().rev();
		let candidates = candidates.filter(|round| matches!(round.stage, Stage::Negotiated(_)));
		let mut txids = candidates.filter_map(|round| round.stage.txid());
		txids.find(|txid| self.txs[txid].input.iter().any(|i| i.previous_output == *coin))
	}

	/// We sign. The manager was written before.
	pub fn sign(&mut self, tx: &Transaction) {
		let txid = tx.compute_txid();
		self.persist();
		for round in &mut self.live.rounds {
			round.signed |= round.stage == Stage::Signing(txid);
		}
	}

	/// A transaction with this in it; known by its own id.
	fn transaction(&mut self, material: &Material) -> Txid {
		self.numbers += 1;
		let funding = self.live.funding.expect("funded");
		let input = |previous_output| TxIn {
			previous_output,
			script_sig: ScriptBuf::new(),
			sequence: Sequence::MAX,
			witness: Witness::new(),
		};
		let mut tx = Transaction {
			version: Version::TWO,
			lock_time: LockTime::from_consensus(self.numbers.into()),
			input: vec![input(funding)],
			output: vec![TxOut { value: Amount::from_sat(1), script_pubkey: ScriptBuf::new() }],
		};
		tx.input.extend(material.inputs().iter().copied().map(input));
		tx.output.extend(material.outputs().iter().cloned());
		let txid = tx.compute_txid();
		self.txs.insert(txid, tx);
		txid
	}
}

impl SpliceDriver for Fake {
	fn view(&self, _: &ChannelRef) -> Option<ChannelView> {
		let world = self.world();
		if world.closed {
			return None;
		}
		let part = |ours: &Contribution| OurPart {
			material: ours.material.clone(),
			sat_per_kw: ours.sat_per_kw,
		};
		let stage = |round: &FakeRound| match round.stage {
			Stage::Signing(_) if world.lags && !round.signed => Stage::Negotiating,
			stage => stage,
		};
		let rounds = world.live.rounds.iter();
		Some(ChannelView {
			funding: world.live.funding?,
			closing: false,
			rounds: rounds
				.map(|round| Round { ours: round.ours.as_ref().map(part), stage: stage(round) })
				.collect(),
			decided: world.live.decided,
		})
	}

	fn build(
		&self, _: &ChannelRef, want: &Want<'_>, band: FeeBand,
	) -> Result<Contribution, BuildError> {
		let world = self.world();
		let waiting = |round: &FakeRound| !matches!(round.stage, Stage::Negotiated(_));
		if world.live.rounds.iter().any(waiting) {
			return Err(BuildError::NotNow { message: "busy".to_owned() });
		}
		let sat_per_kw = band.min_sat_per_kw;
		let material = match want {
			Want::In { reuse, .. } => {
				let free = |coin: &&OutPoint| {
					!world.held.contains(*coin) && world.candidate_with(coin).is_none()
				};
				let mut free = world.coins.iter().filter(free);
				let own = reuse.and_then(|bytes| bytes.first());
				let own = own.map(|n| OutPoint { txid: txid(*n), vout: 0 });
				let Some(coin) = free.next().copied().or(own) else {
					let message = "no coins".to_owned();
					let reason = FailureReason::NotEnoughFunds { message };
					return Err(BuildError::Impossible(reason));
				};
				Material::new([coin], [])
			},
			Want::Out { outputs } => Material::new([], outputs.to_vec()),
			Want::Bump => {
				let ours = world.live.rounds.iter().rev().find_map(|round| round.ours.as_ref());
				let Some(ours) = ours else {
					return Err(BuildError::Impossible(FailureReason::NothingToBump));
				};
				let change = OutPoint { txid: *world.txs.keys().next().expect("ours"), vout: 9 };
				let change = world.selects_own_change.then_some(change);
				let inputs = ours.material.inputs().iter().copied().chain(change);
				Material::new(inputs, ours.material.outputs().to_vec())
			},
		};
		assert!(material.inputs().len() as u64 * COIN_SAT < 10 * COIN_SAT);
		let bytes = material.inputs().iter().map(|coin| coin.txid.to_byte_array()[0]).collect();
		Ok(Contribution { bytes, material, sat_per_kw })
	}

	fn submit(&self, _: &ChannelRef, contribution: &Contribution) -> Result<(), SubmitError> {
		let mut world = self.world();
		if world.closed || world.dead {
			return Err(SubmitError::ChannelGone);
		}
		if let Some(reason) = world.refuse.take() {
			let inputs = contribution.material.inputs().to_vec();
			world.live.news.push(News::Discard(inputs));
			if world.refusal_sends_event {
				let material = contribution.material.clone();
				world.live.news.push(News::Failed(reason.clone(), material));
			}
			return Err(SubmitError::Refused(reason));
		}
		if std::mem::take(&mut world.is_busy_once) {
			return Err(SubmitError::AlreadyPending);
		}
		let volatile = |r: &FakeRound| r.ours.is_some() && !matches!(r.stage, Stage::Negotiated(_));
		if world.live.rounds.iter().any(volatile) {
			return Err(SubmitError::AlreadyPending);
		}
		if world.live.decided {
			return Err(SubmitError::Refused(FailureReason::CannotInitiateRbf));
		}
		world.submitted += 1;
		let (ours, stage) = (Some(contribution.clone()), Stage::Queued);
		world.live.rounds.push(FakeRound { ours, stage, signed: false });
		Ok(())
	}

	fn cancel(&self, _: &ChannelRef) -> Result<(), NotCanceled> {
		let mut world = self.world();
		let takeable = |round: &FakeRound| {
			round.ours.is_some() && !round.signed && !matches!(round.stage, Stage::Negotiated(_))
		};
		let takes_back = !world.dead && !world.keeps_what_is_canceled;
		if !takes_back || !world.live.rounds.iter().any(takeable) {
			return Err(NotCanceled);
		}
		let stages: Vec<Stage> =
			world.live.rounds.iter().filter(|r| takeable(r)).map(|r| r.stage).collect();
		if world.online {
			world.forgotten.extend(stages.iter().filter_map(|stage| stage.txid()));
		}
		world.canceled = true;
		world.fail(|stage| stages.contains(&stage), &FailureReason::LocallyCanceled);
		Ok(())
	}

	/// Returns the spender of a coin: a negotiated transaction is broadcast, and spends its coins.
	fn spender(&self, input: &OutPoint) -> Spender {
		let world = self.world();
		if world.txs.contains_key(&input.txid) {
			return Spender::Nothing;
		}
		if !world.coins.contains(input) {
			return Spender::Unknown;
		}
		match world.candidate_with(input) {
			None => Spender::Nothing,
			Some(_) if world.wallet_names_no_spender => Spender::Unknown,
			Some(txid) => Spender::Transaction(txid),
		}
	}

	fn transaction(&self, txid: &Txid) -> Option<Transaction> {
		self.world().txs.get(txid).cloned()
	}

	fn last_funding(&self, _: &ChannelRef) -> Option<Txid> {
		let world = self.world();
		world.buried.flatten().or(world.live.funding.map(|funding| funding.txid))
	}

	fn fate(&self, _: &ChannelRef, txids: &[Txid]) -> Fate {
		let world = self.world();
		// What locked while it lived funds it now.
		let funds = world.buried.flatten().or(world.live.funding.map(|funding| funding.txid));
		match funds.filter(|funds| txids.contains(funds)) {
			Some(funds) => Fate::Funded(funds),
			None if world.buried.is_some() => Fate::Lost,
			None if txids.iter().any(|txid| world.broadcast.contains(txid)) => Fate::Open,
			None => Fate::Lost,
		}
	}
}

impl InputReserver for Fake {
	fn reserve(&self, _: &SpliceId, inputs: &[OutPoint]) {
		self.world().held.extend(inputs);
	}

	fn release(&self, _: &SpliceId, inputs: &[OutPoint]) {
		let mut world = self.world();
		world.held.retain(|coin| !inputs.contains(coin));
	}
}
