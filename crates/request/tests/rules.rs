//! The promises, one by one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod rig;

use std::sync::Arc;
use std::time::Duration;

use leyden_request::{
	Answer, AnswerKind, Begin, Expired, RequestError, RequestOptions, RequestState, Requests,
	MAX_ANSWER_BYTES,
};
use leyden_store::{Key, SystemClock, Table, Timestamp};
use rig::*;

fn node() -> Node {
	Node::new(RequestOptions::default())
}

/// A restart in between changes nothing: the same bytes, one invoice.
#[test]
fn the_same_request_gets_the_same_answer_after_a_restart() {
	let (mut node, world) = (node(), World::default());
	let ask = Ask::new("aa");
	let mut effect = Invoices::new(&world);
	let first = node.ask(&ask, &mut effect).unwrap();
	for _ in 0..3 {
		node.restart();
		assert_eq!(node.ask(&ask, &mut effect).unwrap(), first);
	}
	// In other words, too.
	let again = Ask { hash: "AA".to_owned(), hash_index: "0007".to_owned(), ..ask };
	assert_eq!(node.ask(&again, &mut effect).unwrap(), first);
	assert_eq!((effect.runs, effect.recoveries, node.ledger()), (1, 0, 1));
}

/// The answer and what the effect writes are one commit.
#[test]
fn the_answer_and_the_ledger_are_one_commit() {
	let (node, world) = (node(), World::default());
	node.ask(&Ask::new("aa"), &mut Invoices::new(&world)).unwrap();
	let version = |table: &'static str| {
		let page = node.store.scan(leyden_store::KeyRange::all(Table::new(table)), 1);
		page.wait().unwrap().records[0].1.version
	};
	assert_eq!(version("requests"), version("ledger"));
}

#[test]
fn other_parameters_are_refused_and_named() {
	let (mut node, world) = (node(), World::default());
	let ask = Ask::new("aa");
	let mut effect = Invoices::new(&world);
	node.ask(&ask, &mut effect).unwrap();
	for restart in [false, true] {
		if restart {
			node.restart();
		}
		let other = Ask { amount_msat: 424_242, hash_index: "9".to_owned(), ..ask.clone() };
		let error = node.ask(&other, &mut effect).unwrap_err();
		let RequestError::Conflict { fields } = &error else { panic!("{error}") };
		assert_eq!(fields, &["amount_msat", "hash_index"]);
		assert!(!error.to_string().contains("424242"), "{error}");
		assert!(!error.is_retriable());
	}
	// While it is being carried out as well, and when it is over.
	let second = Ask::new("bb");
	let run = second.with(|request| node.requests.begin(request)).unwrap();
	let other = Ask { amount_msat: 5, ..second.clone() };
	let error = other.with(|request| node.requests.begin(request)).unwrap_err();
	assert!(matches!(error, RequestError::Conflict { .. }), "{error}");
	drop(run);
	let error = other.with(|request| node.requests.begin(request)).unwrap_err();
	assert!(matches!(error, RequestError::Conflict { .. }), "{error}");
	node.pass(2 * HOUR);
	let other = Ask { amount_msat: 5, ..ask };
	let error = node.ask(&other, &mut effect).unwrap_err();
	assert!(matches!(error, RequestError::Conflict { .. }), "{error}");
}

/// Two peers with the same payment hash have nothing to do with each other.
#[test]
fn one_peer_never_sees_anothers() {
	let (node, world) = (node(), World::default());
	let mut effect = Invoices::new(&world);
	let mine = node.ask(&Ask::new("aa"), &mut effect).unwrap();
	let theirs =
		node.ask(&Ask { peer: "other", amount_msat: 9, ..Ask::new("aa") }, &mut effect).unwrap();
	assert_ne!(mine, theirs);
	let nobody = Ask { peer: "nobody", ..Ask::new("aa") };
	assert!(node.requests.info(&nobody.key()).unwrap().is_none());
}

/// The process ended after the invoice was made and before that was written down.
#[test]
fn what_was_begun_is_recovered_and_never_run_blindly() {
	let (mut node, world) = (node(), World::default());
	let ask = Ask::new("aa");
	let begun = ask.with(|request| node.requests.begin(request)).unwrap();
	let Begin::Run(run) = begun else { panic!("{begun:?}") };
	let mut effect = Invoices::new(&world);
	// It happened, and nobody wrote it down.
	world.made.lock().unwrap().insert(b"aa".to_vec(), 1);
	drop(run);
	node.restart();
	assert_eq!(node.ask(&ask, &mut effect).unwrap(), "lnbc-aa-1");
	assert_eq!((effect.runs, effect.recoveries), (0, 1));

	// It did not happen: then it does now.
	let ask = Ask::new("bb");
	drop(ask.with(|request| node.requests.begin(request)).unwrap());
	node.restart();
	assert_eq!(node.ask(&ask, &mut effect).unwrap(), "lnbc-bb-1");
	assert_eq!((effect.runs, effect.recoveries), (1, 2));

	// Nobody knows: nothing is done until somebody does, even when its time is long over.
	let ask = Ask::new("cc");
	drop(ask.with(|request| node.requests.begin(request)).unwrap());
	node.restart();
	effect.blind = true;
	for _ in 0..2 {
		let error = node.ask(&ask, &mut effect).unwrap_err();
		assert!(matches!(error, RequestError::Unknown) && error.is_retriable());
		node.pass(2 * HOUR);
		node.requests.sweep(100).unwrap();
	}
	assert_eq!(effect.runs, 1);
	effect.blind = false;
	node.ask(&ask, &mut effect).unwrap();
}

/// An effect that lost its way is recovered in the same process as well.
#[test]
fn an_unknown_outcome_stays_unknown_until_it_is_known() {
	let (node, world) = (node(), World::default());
	let ask = Ask::new("aa");
	let mut effect = Invoices { blind: true, ..Invoices::new(&world) };
	assert!(matches!(node.ask(&ask, &mut effect), Err(RequestError::Unknown)));
	effect.blind = false;
	assert_eq!(node.ask(&ask, &mut effect).unwrap(), "lnbc-aa-1");
	assert_eq!(effect.runs, 1);
}

#[test]
fn a_caller_that_panics_wedges_nothing() {
	let (node, world) = (node(), World::default());
	let ask = Ask::new("aa");
	let requests = node.requests.clone();
	let panicked = std::thread::spawn({
		let ask = ask.clone();
		move || {
			let _run = ask.with(|request| requests.begin(request)).unwrap();
			panic!("a provider that panics");
		}
	});
	assert!(panicked.join().is_err());
	assert_eq!(node.requests.running(), 0);
	let mut effect = Invoices::new(&world);
	node.ask(&ask, &mut effect).unwrap();
	assert_eq!((effect.runs, effect.recoveries), (1, 1));
}

/// A hundred at once make one invoice, and all hear of it.
#[test]
fn a_hundred_at_once_make_one() {
	let (node, world) = (node(), World::default());
	let ask = Ask::new("aa");
	let answers: Vec<String> = std::thread::scope(|scope| {
		let threads: Vec<_> = (0..100)
			.map(|_| {
				let (node, world, ask) = (&node, &world, &ask);
				scope.spawn(move || node.ask(ask, &mut Invoices::new(world)).unwrap())
			})
			.collect();
		threads.into_iter().map(|thread| thread.join().unwrap()).collect()
	});
	assert!(answers.iter().all(|answer| answer == "lnbc-aa-1"), "{answers:?}");
	assert_eq!(world.made.lock().unwrap()[&b"aa"[..].to_vec()], 1);
}

#[test]
fn who_waits_does_not_wait_for_ever() {
	let options = RequestOptions { wait: Duration::ZERO, ..RequestOptions::default() };
	let (node, world) = (Node::new(options), World::default());
	let ask = Ask::new("aa");
	let run = ask.with(|request| node.requests.begin(request)).unwrap();
	let error = node.ask(&ask, &mut Invoices::new(&world)).unwrap_err();
	assert!(matches!(error, RequestError::InProgress) && error.is_retriable(), "{error}");
	drop(run);
}

/// At the boundary, one before and one after.
#[test]
fn an_answer_is_given_until_its_time_is_over() {
	for (millis, is_live) in [(-1_i64, true), (0, false), (1, false)] {
		let (node, world) = (node(), World::default());
		let ask = Ask::new("aa");
		let mut effect = Invoices::new(&world);
		let first = node.ask(&ask, &mut effect).unwrap();
		node.pass(HOUR - MINUTE);
		let rest = i64::try_from(MINUTE.as_millis()).unwrap() + millis;
		node.clock.advance(Duration::from_millis(rest.unsigned_abs()));
		match is_live {
			true => assert_eq!(node.ask(&ask, &mut effect).unwrap(), first, "{millis}"),
			false => {
				assert!(matches!(node.ask(&ask, &mut effect), Err(RequestError::Stale)), "{millis}")
			},
		}
		assert_eq!(effect.runs, 1);
	}
}

/// Who comes by when its time is over takes the answer away; a sweep then finds nothing to do, and what is
/// remembered is forgotten in its time.
#[test]
fn an_answer_is_dropped_when_it_is_refused() {
	let options = RequestOptions { remember: 10 * HOUR, ..RequestOptions::default() };
	let (mut node, world) = (Node::new(options), World::default());
	let ask = Ask::new("aa");
	let mut effect = Invoices::new(&world);
	node.ask(&ask, &mut effect).unwrap();
	node.pass(HOUR - MINUTE);
	node.ask(&ask, &mut effect).unwrap();
	let state = |node: &Node| node.requests.info(&ask.key()).unwrap().unwrap().state;
	assert!(matches!(state(&node), RequestState::Answered { .. }));
	node.pass(MINUTE);
	assert!(matches!(node.ask(&ask, &mut effect), Err(RequestError::Stale)));
	assert_eq!(state(&node), RequestState::Remembered);
	// A clock that is set back over a restart does not bring it to life.
	node.restart();
	assert!(matches!(node.ask(&ask, &mut effect), Err(RequestError::Stale)));
	let swept = node.requests.sweep(100).unwrap();
	assert_eq!((swept.expired, swept.forgotten), (0, 0));
	node.pass(10 * HOUR);
	assert_eq!(node.requests.sweep(100).unwrap().forgotten, 1);
	assert!(node.requests.info(&ask.key()).unwrap().is_none());
	assert_eq!(effect.runs, 1);
}

/// Refused for as long as it is remembered; then it is a new request.
#[test]
fn a_tombstone_is_refused_until_it_is_forgotten() {
	let options = RequestOptions { remember: 10 * HOUR, ..RequestOptions::default() };
	let (mut node, world) = (Node::new(options), World::default());
	let ask = Ask::new("aa");
	let mut effect = Invoices::new(&world);
	node.ask(&ask, &mut effect).unwrap();
	node.pass(HOUR);
	let swept = node.requests.sweep(100).unwrap();
	assert_eq!((swept.expired, swept.forgotten), (1, 0));
	let info = node.requests.info(&ask.key()).unwrap().unwrap();
	assert_eq!(info.state, RequestState::Remembered);
	for _ in 0..2 {
		node.restart();
		assert!(matches!(node.ask(&ask, &mut effect), Err(RequestError::Stale)));
	}
	node.pass(10 * HOUR - MINUTE);
	assert_eq!(node.requests.sweep(100).unwrap().forgotten, 0);
	assert!(matches!(node.ask(&ask, &mut effect), Err(RequestError::Stale)));
	node.pass(MINUTE);
	assert_eq!(node.requests.sweep(100).unwrap().forgotten, 1);
	assert_eq!(node.count("requests") + node.count("request_times"), 0);
	assert_eq!(node.count("request_scopes"), 0);
	node.ask(&ask, &mut effect).unwrap();
	assert_eq!(effect.runs, 2);
}

/// Done again only if the first effect is known to be dead.
#[test]
fn a_reissue_asks_whether_the_first_is_dead() {
	let is_dead = Arc::new(std::sync::atomic::AtomicBool::new(false));
	let guard = Arc::clone(&is_dead);
	let expired =
		Expired::Reissue(Arc::new(move |_| guard.load(std::sync::atomic::Ordering::SeqCst)));
	let options = RequestOptions { expired, ..RequestOptions::default() };
	let (node, world) = (Node::new(options), World::default());
	let ask = Ask::new("aa");
	let mut effect = Invoices::new(&world);
	node.ask(&ask, &mut effect).unwrap();
	node.pass(HOUR);
	assert!(matches!(node.ask(&ask, &mut effect), Err(RequestError::Stale)));
	is_dead.store(true, std::sync::atomic::Ordering::SeqCst);
	// Not with other parameters, even so.
	let other = Ask { amount_msat: 1, ..ask.clone() };
	assert!(matches!(node.ask(&other, &mut effect), Err(RequestError::Conflict { .. })));
	assert_eq!(node.ask(&ask, &mut effect).unwrap(), "lnbc-aa-2");
	assert_eq!(node.ask(&ask, &mut effect).unwrap(), "lnbc-aa-2");
	// One request, one place in the queue.
	assert_eq!((node.count("requests"), node.count("request_times")), (1, 1));
}

/// A clock that is set back revives nothing; one that jumps ahead loses nothing.
#[test]
fn clocks_that_jump_change_nothing_for_good() {
	let options = RequestOptions { remember: HOUR, ..RequestOptions::default() };
	let (mut node, world) = (Node::new(options), World::default());
	let ask = Ask::new("aa");
	let mut effect = Invoices::new(&world);
	let first = node.ask(&ask, &mut effect).unwrap();
	// A year ahead, for a moment, with a restart: refused, since the clock may be right.
	let start = leyden_store::Clock::now(&*node.clock);
	node.clock.advance(365 * 24 * HOUR);
	node.restart();
	assert!(matches!(node.ask(&ask, &mut effect), Err(RequestError::Stale)));
	let swept = node.requests.sweep(100).unwrap();
	assert_eq!((swept.expired, swept.forgotten), (0, 0));
	// It was wrong.
	node.clock = Arc::new(leyden_store::ManualClock::new(start));
	node.restart();
	assert_eq!(node.ask(&ask, &mut effect).unwrap(), first);
	// It is over, and the clock goes back by an hour.
	node.pass(HOUR);
	assert!(matches!(node.ask(&ask, &mut effect), Err(RequestError::Stale)));
	node.clock = Arc::new(leyden_store::ManualClock::new(Timestamp(start.0)));
	node.restart();
	assert!(matches!(node.ask(&ask, &mut effect), Err(RequestError::Stale)));
	assert_eq!(effect.runs, 1);
}

#[test]
fn what_is_stored_is_a_policy() {
	let (node, world) = (node(), World::default());
	// Transient: not stored, run again, also with other parameters.
	let ask = Ask::new("aa");
	let mut effect = Invoices { answer: AnswerKind::Transient, ..Invoices::new(&world) };
	assert_eq!(node.ask(&ask, &mut effect).unwrap(), "not now");
	let info = node.requests.info(&ask.key()).unwrap().unwrap();
	assert_eq!(info.state, RequestState::Released);
	effect.answer = AnswerKind::Ok;
	let other = Ask { amount_msat: 2, ..ask };
	assert_eq!(node.ask(&other, &mut effect).unwrap(), "lnbc-aa-1");
	assert_eq!((effect.runs, effect.recoveries), (2, 0));
	// An error that will be the same the next time is an answer.
	let ask = Ask::new("bb");
	effect.answer = AnswerKind::Error;
	let error = node.ask(&ask, &mut effect).unwrap();
	effect.answer = AnswerKind::Ok;
	assert_eq!(node.ask(&ask, &mut effect).unwrap(), error);
	let answer = ask.with(|request| node.requests.begin(request)).unwrap();
	let Begin::Replay(answer) = answer else { panic!("{answer:?}") };
	assert_eq!(answer.kind(), AnswerKind::Error);
	// Unless it is said otherwise.
	let keep = |answer: &Answer| answer.kind() == AnswerKind::Ok;
	let node = Node::new(RequestOptions { keep, ..RequestOptions::default() });
	effect.answer = AnswerKind::Error;
	node.ask(&ask, &mut effect).unwrap();
	effect.answer = AnswerKind::Ok;
	assert_ne!(node.ask(&ask, &mut effect).unwrap(), error);
}

/// A request that is refused by validation burns no key (A12): corrected, it is carried out, in this run and
/// in the next, and whatever the answers are that are kept.
#[test]
fn a_request_that_does_not_fit_burns_no_key() {
	for keep in [RequestOptions::default().keep, |_: &Answer| true] {
		let mut node = Node::new(RequestOptions { keep, ..RequestOptions::default() });
		let world = World::default();
		let wrong = Ask::new("aa");
		let mut effect = Invoices { answer: AnswerKind::Invalid, ..Invoices::new(&world) };
		node.ask(&wrong, &mut effect).unwrap();
		node.restart();
		node.ask(&wrong, &mut effect).unwrap();
		assert_eq!(effect.runs, 2, "it is looked at again");
		effect.answer = AnswerKind::Ok;
		let corrected = Ask { amount_msat: 2, ..Ask::new("aa") };
		let invoice = node.ask(&corrected, &mut effect).unwrap();
		assert_eq!(node.ask(&corrected, &mut effect).unwrap(), invoice);
		assert_eq!((effect.runs, effect.recoveries), (3, 0));
		// From now on the key stands for that.
		let again = node.ask(&wrong, &mut effect);
		assert!(matches!(again, Err(RequestError::Conflict { .. })), "{again:?}");
	}
}

/// One peer cannot fill the store, not by going on after a restart, and another is not in its way.
#[test]
fn a_peer_that_floods_has_a_limit() {
	let options = RequestOptions { max_per_scope: 3, remember: HOUR, ..RequestOptions::default() };
	let (mut node, world) = (Node::new(options), World::default());
	let mut effect = Invoices::new(&world);
	for (n, hash) in ["a1", "a2", "a3"].iter().enumerate() {
		node.ask(&Ask::new(hash), &mut effect).unwrap();
		if n == 1 {
			node.restart();
		}
	}
	let full = |node: &Node, effect: &mut Invoices<'_>| {
		let error = node.ask(&Ask::new("a4"), effect).unwrap_err();
		assert!(matches!(error, RequestError::Quota { limit: 3 }), "{error}");
	};
	full(&node, &mut effect);
	node.restart();
	full(&node, &mut effect);
	// What is there goes on being answered, and so does another peer.
	node.ask(&Ask::new("a1"), &mut effect).unwrap();
	node.ask(&Ask { peer: "other", ..Ask::new("a4") }, &mut effect).unwrap();
	assert_eq!(effect.runs, 4);
	// Forgetting makes room.
	node.pass(HOUR);
	node.requests.sweep(100).unwrap();
	full(&node, &mut effect);
	node.pass(HOUR);
	assert_eq!(node.requests.sweep(2).unwrap().forgotten, 2);
	node.ask(&Ask::new("a4"), &mut effect).unwrap();
}

/// In steps, whatever there is to do.
#[test]
fn a_sweep_is_bounded() {
	let options = RequestOptions { remember: HOUR, ..RequestOptions::default() };
	let (node, world) = (Node::new(options), World::default());
	let mut effect = Invoices::new(&world);
	for n in 0..50 {
		node.ask(&Ask::new(&format!("{n:02}")), &mut effect).unwrap();
	}
	node.pass(2 * HOUR);
	let mut forgotten = 0;
	let mut sweeps = 0;
	loop {
		let swept = node.requests.sweep(7).unwrap();
		assert!(swept.expired + swept.forgotten <= 7);
		forgotten += swept.forgotten;
		sweeps += 1;
		if !swept.more && swept.forgotten + swept.expired == 0 {
			break;
		}
	}
	assert_eq!(forgotten, 50);
	assert!(sweeps >= 8);
	assert_eq!(node.count("requests") + node.count("request_times"), 0);
}

/// A sweep leaves alone what is being carried out, however long it takes.
#[test]
fn what_runs_long_is_not_swept_away() {
	let options = RequestOptions { remember: HOUR, ..RequestOptions::default() };
	let node = Node::new(options);
	let ask = Ask::new("aa");
	let begun = ask.with(|request| node.requests.begin(request)).unwrap();
	let Begin::Run(run) = begun else { panic!("{begun:?}") };
	node.pass(3 * HOUR);
	assert_eq!(node.requests.sweep(100).unwrap().forgotten, 0);
	run.finish(leyden_request::Outcome::new(Answer::new(AnswerKind::Ok, "late"))).unwrap();
	// Its time begins when it is answered: an invoice lives from when it was made.
	node.pass(HOUR - MINUTE);
	node.requests.sweep(100).unwrap();
	let replayed = ask.with(|request| node.requests.begin(request)).unwrap();
	assert!(matches!(replayed, Begin::Replay(_)), "{replayed:?}");
	node.pass(HOUR);
	assert_eq!(node.requests.sweep(100).unwrap().forgotten, 0);
}

#[test]
fn an_answer_has_a_limit() {
	let node = node();
	for (length, fits) in [(MAX_ANSWER_BYTES, true), (MAX_ANSWER_BYTES + 1, false)] {
		let ask = Ask::new(&length.to_string());
		let begun = ask.with(|request| node.requests.begin(request)).unwrap();
		let Begin::Run(run) = begun else { panic!("{begun:?}") };
		let answer = Answer::new(AnswerKind::Ok, vec![1; length]);
		let done = run.finish(leyden_request::Outcome::new(answer));
		assert_eq!(done.is_ok(), fits);
	}
}

/// Stored by an older version of the program, compared in its form.
#[test]
fn an_older_form_of_the_parameters_still_matches() {
	let (node, world) = (node(), World::default());
	let ask = Ask::new("aa");
	let key = ask.key();
	let old = |_| ask.params(Some(1)).unwrap();
	let request = leyden_request::Request { key: &key, params: &old, replay_for: HOUR };
	let mut effect = Invoices::new(&world);
	let first = node.requests.handle(&request, &mut effect).unwrap();
	assert_eq!(node.ask(&ask, &mut effect).unwrap().as_bytes(), first.bytes());
	let other = Ask { amount_msat: 3, ..ask.clone() };
	assert!(matches!(node.ask(&other, &mut effect), Err(RequestError::Conflict { .. })));
	// And one that nobody knows any more is not guessed at.
	let unknown =
		|version: Option<u16>| version.is_none().then(|| ask.params(None).unwrap().unwrap());
	let request = leyden_request::Request { key: &key, params: &unknown, replay_for: HOUR };
	let error = node.requests.handle(&request, &mut effect).unwrap_err();
	assert!(matches!(error, RequestError::UnknownVersion { version: 1 }), "{error}");
}

/// A damaged record is loud, and the request is not run again.
#[test]
fn damage_is_loud_and_nothing_runs() {
	let (node, world) = (node(), World::default());
	let ask = Ask::new("aa");
	let mut effect = Invoices::new(&world);
	node.ask(&ask, &mut effect).unwrap();
	let requests = leyden_store::KeyRange::all(Table::new("requests"));
	let key: Key = node.store.scan(requests, 1).wait().unwrap().records[0].0.clone();
	node.medium.damage(&leyden_store::Namespace::default(), &key, |frame| {
		let last = frame.len() - 1;
		frame[last] ^= 1;
	});
	let error = node.ask(&ask, &mut effect).unwrap_err();
	assert!(matches!(error, RequestError::Store(leyden_store::StoreError::Corrupt { .. })));
	assert_eq!(effect.runs, 1);
}

/// Secrets of an answer are for who asked.
#[test]
fn debug_shows_no_answers() {
	let answer = Answer::new(AnswerKind::Ok, "preimage");
	assert!(!format!("{answer:?}").contains("preimage"));
}

/// With the machine's clock, as a program has it.
#[test]
fn a_program_needs_little() {
	let node = node();
	let requests =
		Requests::open(Arc::clone(&node.store), Arc::new(SystemClock), RequestOptions::default());
	let world = World::default();
	let ask = Ask::new("aa");
	let mut effect = Invoices::new(&world);
	ask.with(|request| requests.unwrap().handle(request, &mut effect)).unwrap();
	assert_eq!(effect.runs, 1);
}
