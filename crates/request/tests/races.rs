//! Moments between two steps, made to happen.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod rig;

use std::sync::{Arc, Mutex};

use leyden_request::{Answer, AnswerKind, Begin, Outcome, RequestError, RequestOptions, Requests};
use leyden_store::{
	Batch, Committed, Guarantees, Key, KeyRange, Page, Record, Store, StoreError, Ticket,
};
use rig::*;

type Once = Mutex<Option<Box<dyn FnOnce() + Send>>>;

/// Does something once, right after a record was read.
struct AfterRead {
	inner: Arc<dyn Store>,
	then: Once,
}

impl Store for AfterRead {
	fn commit(&self, batch: Batch) -> Ticket<Committed> {
		self.inner.commit(batch)
	}

	fn get(&self, key: &Key) -> Ticket<Option<Record>> {
		let read = self.inner.get(key).wait();
		let then = match key.table().name() {
			"requests" => self.then.lock().unwrap().take(),
			_ => None,
		};
		if let Some(then) = then {
			then();
		}
		Ticket::ready(read)
	}

	fn get_raw(&self, key: &Key) -> Ticket<Option<Vec<u8>>> {
		self.inner.get_raw(key)
	}

	fn scan(&self, range: KeyRange, limit: usize) -> Ticket<Page> {
		self.inner.scan(range, limit)
	}

	fn guarantees(&self) -> Guarantees {
		self.inner.guarantees()
	}
}

fn open(store: Arc<dyn Store>, node: &Node) -> Requests {
	let clock = Arc::<leyden_store::ManualClock>::clone(&node.clock);
	Requests::open(store, clock, node.options.clone()).unwrap()
}

fn finish(begun: Begin, answer: &str) -> Result<Answer, RequestError> {
	let (Begin::Run(run) | Begin::Recover(run)) = begun else { panic!("{begun:?}") };
	run.finish(Outcome::new(Answer::new(AnswerKind::Ok, answer)))
}

/// Nothing was there when we looked, and somebody did it before we had the request to ourselves.
#[test]
fn what_was_done_after_our_look_is_not_done_again() {
	let node = Node::new(RequestOptions::default());
	let store = Arc::new(AfterRead { inner: Arc::clone(&node.store), then: Mutex::default() });
	let requests = open(Arc::<AfterRead>::clone(&store), &node);
	let ask = Ask::new("aa");
	let (other, other_ask) = (requests.clone(), ask.clone());
	*store.then.lock().unwrap() = Some(Box::new(move || {
		finish(other_ask.with(|request| other.begin(request)).unwrap(), "theirs").unwrap();
	}));
	let begun = ask.with(|request| requests.begin(request)).unwrap();
	let Begin::Replay(answer) = begun else { panic!("{begun:?}") };
	assert_eq!(answer.bytes(), b"theirs");
}

/// Two processes on a store that does not keep them apart: the first to write it down has it.
#[test]
fn two_processes_do_not_both_begin_or_answer() {
	let node = Node::new(RequestOptions { max_per_scope: 2, ..RequestOptions::default() });
	let store = Arc::new(AfterRead { inner: Arc::clone(&node.store), then: Mutex::default() });
	let ours = open(Arc::<AfterRead>::clone(&store), &node);
	let theirs = open(Arc::clone(&node.store), &node);
	let ask = Ask::new("aa");
	// They begin between our second look and our write.
	let (again, their_ask) = (Arc::downgrade(&store), ask.clone());
	*store.then.lock().unwrap() = Some(Box::new(move || {
		let begin = Box::new(move || {
			std::mem::forget(their_ask.with(|request| theirs.begin(request)).unwrap());
		});
		*again.upgrade().unwrap().then.lock().unwrap() = Some(begin);
	}));
	let begun = ask.with(|request| ours.begin(request)).unwrap();
	assert!(matches!(begun, Begin::Recover(_)), "{begun:?}");
	// What we did not begin does not count.
	drop(Ask::new("bb").with(|request| ours.begin(request)).unwrap());
	// And they answer before we do, as another process: ours comes too late.
	let theirs = open(Arc::new(Arc::clone(&node.store)), &node);
	finish(ask.with(|request| theirs.begin(request)).unwrap(), "theirs").unwrap();
	let error = finish(begun, "ours").unwrap_err();
	assert!(matches!(error, RequestError::Store(StoreError::Conflict { .. })), "{error}");
	let replayed = ask.with(|request| ours.begin(request)).unwrap();
	assert!(matches!(replayed, Begin::Replay(answer) if answer.bytes() == b"theirs"));
}

/// Until the answer is durable, nobody else may look what came of it.
#[test]
fn a_request_is_held_until_its_answer_is_durable() {
	let node = Node::new(RequestOptions::default());
	let ask = Ask::new("aa");
	let begun = ask.with(|request| node.requests.begin(request)).unwrap();
	let Begin::Run(run) = begun else { panic!("{begun:?}") };
	let plan = run.complete(Answer::new(AnswerKind::Ok, "x")).unwrap();
	let meanwhile = ask.with(|request| node.requests.begin(request)).unwrap();
	assert!(matches!(meanwhile, Begin::Wait(_)), "{meanwhile:?}");
	plan.commit(&*node.store).wait().unwrap();
	let replayed = ask.with(|request| node.requests.begin(request)).unwrap();
	assert!(matches!(replayed, Begin::Replay(_)), "{replayed:?}");
}

/// A second handle in the process, with quotas of its own, as a receiver for another source has.
#[test]
fn a_second_handle_knows_what_the_first_is_carrying_out() {
	let node = Node::new(RequestOptions::default());
	let second = open(Arc::clone(&node.store), &node);
	let ask = Ask::new("aa");
	let first = ask.with(|request| node.requests.begin(request)).unwrap();
	let begun = ask.with(|request| second.begin(request)).unwrap();
	assert!(matches!(begun, Begin::Wait(_)), "{begun:?}");
	finish(first, "ours").unwrap();
	let begun = ask.with(|request| second.begin(request)).unwrap();
	let Begin::Replay(answer) = begun else { panic!("{begun:?}") };
	assert_eq!(answer.bytes(), b"ours");
}
