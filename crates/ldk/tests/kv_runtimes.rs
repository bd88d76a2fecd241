//! Asynchronous stores on real tokio runtimes: with one thread and with many, for stores that spawn
//! in the call and stores that do not, for callers that block a worker and callers that await.
//! What cannot work is refused when the store is opened.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{mpsc, Arc, Mutex};
use std::time::Duration;

use leyden_id::{EventId, EventKind, Lane};
use leyden_ldk::{Journal, KvBackedStore, KvOptions};
use leyden_log::{ConsumerOptions, EventLog, LogOptions, NewEvent};
use leyden_store::committer::RawRead;
use leyden_store::{
	Batch, Key, KeyRange, Namespace, RecordType, Store, StoreError, SystemClock, Table, Value,
};
use lightning::events::Event;
use lightning::io;
use lightning::ln::channelmanager::InterceptId;
use lightning::types::payment::PaymentHash;
use lightning::util::persist::KVStore;
use tokio::runtime::{Builder, Handle, Runtime};

const T: Table = Table::new("t");

/// The time after which a test counts as one that hangs.
const HANGS_AFTER: Duration = Duration::from_secs(60);

/// Runs `test` on a thread of its own; one that hangs fails, and does not keep the others.
fn must_end(name: &str, test: impl FnOnce() + Send + 'static) {
	let (done, ended) = mpsc::channel();
	let thread = std::thread::spawn(move || {
		test();
		let _ = done.send(());
	});
	match ended.recv_timeout(HANGS_AFTER) {
		Ok(()) => thread.join().unwrap(),
		Err(mpsc::RecvTimeoutError::Timeout) => panic!("{name} hangs"),
		Err(mpsc::RecvTimeoutError::Disconnected) => {
			std::panic::resume_unwind(thread.join().unwrap_err())
		},
	}
}

/// The kind of a store, by what it does in a call.
#[derive(Clone, Debug)]
enum Kind {
	/// It calls `tokio::task::spawn_blocking` in the call itself, as ldk-node's SQLite store does.
	BlockingInCall,
	/// It calls `tokio::spawn` in the call itself.
	TaskInCall,
	/// Everything happens in the future, which uses timers.
	InFuture,
	/// Its work is spawned on a runtime that it was made with.
	BoundTo(Handle),
	/// It panics in the call.
	Panics,
	/// It answers no write while this is set.
	Silent(Arc<AtomicBool>),
}

type Values = Arc<Mutex<BTreeMap<[String; 3], Vec<u8>>>>;

struct NodeStore {
	kind: Kind,
	values: Values,
}

impl NodeStore {
	fn of(kind: Kind) -> Arc<Self> {
		Arc::new(Self { kind, values: Values::default() })
	}

	fn ask<T: Send + 'static>(
		&self, ask: impl FnOnce(&Values) -> Result<T, io::Error> + Send + 'static,
	) -> impl Future<Output = Result<T, io::Error>> + 'static + Send {
		let values = Arc::clone(&self.values);
		let ask = move || ask(&values);
		let spawned = match &self.kind {
			Kind::BlockingInCall => Ok(tokio::task::spawn_blocking(ask)),
			Kind::TaskInCall => Ok(tokio::spawn(async move { ask() })),
			Kind::BoundTo(handle) => Ok(handle.spawn(async move { ask() })),
			Kind::InFuture | Kind::Silent(_) => Err(ask),
			Kind::Panics => panic!("as the test asked for"),
		};
		async move {
			match spawned {
				Ok(spawned) => spawned.await.unwrap(),
				Err(ask) => {
					tokio::task::yield_now().await;
					tokio::time::timeout(HANGS_AFTER, async { ask() }).await.unwrap()
				},
			}
		}
	}
}

fn name(primary: &str, secondary: &str, key: &str) -> [String; 3] {
	[primary, secondary, key].map(str::to_owned)
}

impl KVStore for NodeStore {
	fn read(
		&self, primary: &str, secondary: &str, key: &str,
	) -> impl Future<Output = Result<Vec<u8>, io::Error>> + 'static + Send {
		let name = name(primary, secondary, key);
		self.ask(move |values| {
			let found = values.lock().unwrap().get(&name).cloned();
			found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such key"))
		})
	}

	fn write(
		&self, primary: &str, secondary: &str, key: &str, value: Vec<u8>,
	) -> impl Future<Output = Result<(), io::Error>> + 'static + Send {
		let name = name(primary, secondary, key);
		let is_silent = match &self.kind {
			Kind::Silent(is_silent) => is_silent.load(Ordering::SeqCst),
			_ => false,
		};
		let written = self.ask(move |values| {
			values.lock().unwrap().insert(name, value);
			Ok(())
		});
		async move {
			match is_silent {
				true => std::future::pending().await,
				false => written.await,
			}
		}
	}

	fn remove(
		&self, primary: &str, secondary: &str, key: &str, _: bool,
	) -> impl Future<Output = Result<(), io::Error>> + 'static + Send {
		let name = name(primary, secondary, key);
		self.ask(move |values| {
			values.lock().unwrap().remove(&name);
			Ok(())
		})
	}

	fn list(
		&self, primary: &str, secondary: &str,
	) -> impl Future<Output = Result<Vec<String>, io::Error>> + 'static + Send {
		let at = name(primary, secondary, "");
		self.ask(move |values| {
			let values = values.lock().unwrap();
			let here = values.keys().filter(|name| name[..2] == at[..2]);
			Ok(here.map(|name| name[2].clone()).collect())
		})
	}
}

/// The runtimes of nodes: how they are called, how many workers they have, and what makes one.
#[allow(clippy::type_complexity)]
fn runtimes() -> Vec<(String, usize, fn() -> Runtime)> {
	fn many(workers: usize) -> Runtime {
		Builder::new_multi_thread().worker_threads(workers).enable_all().build().unwrap()
	}
	vec![
		("current-thread".to_owned(), 1, || {
			Builder::new_current_thread().enable_all().build().unwrap()
		}),
		("multi-thread with 1 worker".to_owned(), 1, || many(1)),
		("multi-thread with 2 workers".to_owned(), 2, || many(2)),
		("multi-thread with 4 workers".to_owned(), 4, || many(4)),
	]
}

fn append(text: &str) -> Batch {
	let mut batch = Batch::new();
	let _ = batch.append(T, b"", Value::new(RecordType(0x8000), 1, text.as_bytes()));
	batch
}

/// A batch of more than one record, which takes a redo.
fn append_two(text: &str) -> Batch {
	let mut batch = append(text);
	let _ = batch.append(T, b"", Value::new(RecordType(0x8000), 1, text.as_bytes()));
	batch
}

fn event(number: usize) -> NewEvent {
	NewEvent {
		id: EventId::from_bytes([u8::try_from(number).unwrap(); 32]),
		kind: EventKind::from_static("Test"),
		lane: Lane::named("lane"),
		payload: vec![1],
	}
}

fn request(number: usize) -> Event {
	Event::HTLCIntercepted {
		intercept_id: InterceptId([u8::try_from(number).unwrap(); 32]),
		requested_next_hop_scid: 1,
		payment_hash: PaymentHash([1; 32]),
		inbound_amount_msat: 2,
		expected_outbound_amount_msat: 1,
		outgoing_htlc_expiry_block_height: None,
	}
}

/// A node: opens the store on a worker, and has more tasks than workers that all use it at once.
async fn node(kind: Kind, workers: usize, waits: Waits, options: KvOptions) {
	let store = KvBackedStore::open_async_with(NodeStore::of(kind), &Namespace::default(), options);
	let store = Arc::new(store.unwrap());
	let log = waits.uses_log().then(|| {
		let (store, clock) = (Arc::clone(&store) as Arc<dyn Store>, Arc::new(SystemClock));
		EventLog::open(store, "events", clock, LogOptions::default()).unwrap()
	});
	let tasks: Vec<_> = (0..workers + 2)
		.map(|task| {
			let (store, log) = (Arc::clone(&store), log.clone());
			tokio::spawn(async move {
				for n in 0..3 {
					let text = format!("{task} {n}");
					match waits {
						Waits::Blocking => {
							store.commit(append(&text)).wait().unwrap();
							store.commit(append_two(&text)).wait().unwrap();
							store.scan(KeyRange::all(T), 1_000).wait().unwrap();
						},
						Waits::Awaiting => {
							store.commit(append(&text)).await.unwrap();
							store.commit(append_two(&text)).await.unwrap();
							store.scan(KeyRange::all(T), 1_000).await.unwrap();
						},
						Waits::Log => {
							log.as_ref().unwrap().append(event(task * 10 + n)).unwrap();
						},
						Waits::Request => {
							let journal = Journal::new(log.clone().unwrap());
							journal.handle(request(task * 10 + n), |_| Ok(())).unwrap();
						},
						Waits::Housekeeping => {
							let log = log.as_ref().unwrap();
							log.append(event(task * 10 + n)).unwrap();
							let name = format!("consumer-{task}-{n}");
							let consumer = log.consumer(&name, ConsumerOptions::default()).unwrap();
							consumer.next_event().unwrap().unwrap().ack().unwrap();
							consumer.tidy().unwrap();
						},
					}
				}
			})
		})
		.collect();
	for task in tasks {
		task.await.unwrap();
	}
	if !waits.uses_log() {
		let found = store.scan(KeyRange::all(T), 1_000).await.unwrap().records.len();
		assert_eq!(found, (workers + 2) * 9);
	}
	// The medium itself, in a task.
	let read = store.with_medium(|medium| medium.read(&Key::new(T, *b"no such key")));
	assert!(read.unwrap().unwrap().is_none());
	// Closing does what is waiting, and waits for that.
	(0..10).for_each(|n| drop(store.commit(append_two(&n.to_string()))));
	drop(store);
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Waits {
	/// `Store::commit(..).wait()` in a task: the worker is blocked.
	Blocking,
	/// `EventLog::append` in a task.
	Log,
	/// `Journal::handle` of a request in a task, which looks before it appends.
	Request,
	/// `Consumer::tidy` in a task.
	Housekeeping,
	/// `Store::commit(..).await`.
	Awaiting,
}

impl Waits {
	const ALL: [Self; 5] =
		[Self::Blocking, Self::Log, Self::Request, Self::Housekeeping, Self::Awaiting];

	fn uses_log(self) -> bool {
		matches!(self, Self::Log | Self::Request | Self::Housekeeping)
	}
}

#[test]
fn every_store_works_on_every_runtime_for_callers_that_block_and_callers_that_await() {
	for (runtime, workers, build) in runtimes() {
		for kind in [Kind::BlockingInCall, Kind::TaskInCall, Kind::InFuture] {
			for waits in Waits::ALL {
				let kind = kind.clone();
				must_end(&format!("{runtime}, {kind:?}, {waits:?}"), move || {
					build().block_on(async move {
						// On a worker, where the runtime has workers.
						let node = node(kind, workers, waits, KvOptions::default());
						tokio::spawn(node).await.unwrap();
					});
				});
			}
		}
	}
}

/// The node has no runtime at all.
#[test]
fn a_store_that_spawns_in_the_call_works_without_a_runtime_around_it() {
	must_end("no runtime", || {
		let store = NodeStore::of(Kind::BlockingInCall);
		let store = KvBackedStore::open_async(store, &Namespace::default()).unwrap();
		store.commit(append_two("x")).wait().unwrap();
		assert_eq!(store.scan(KeyRange::all(T), 10).wait().unwrap().records.len(), 2);
	});
}

/// The store needs the thread that waits for it. Without the bound the opening would hang.
#[test]
fn a_store_that_needs_the_blocked_thread_is_refused_at_opening() {
	must_end("refusal", || {
		let runtime = Builder::new_current_thread().enable_all().build().unwrap();
		runtime.block_on(async {
			let options =
				KvOptions { opening_timeout: Duration::from_millis(50), ..KvOptions::default() };
			let bound = NodeStore::of(Kind::BoundTo(Handle::current()));
			let refused = KvBackedStore::open_async_with(bound, &Namespace::default(), options);
			let error = refused.unwrap_err();
			assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
			assert!(error.to_string().contains("another runtime"), "{error}");
		});
	});
}

/// The node's runtime has workers that others can take the place of.
#[test]
fn a_store_that_needs_the_nodes_runtime_runs_there_while_its_workers_wait() {
	for (runtime, workers, build) in runtimes() {
		for waits in Waits::ALL {
			must_end(&format!("{runtime}, {waits:?}"), move || {
				build().block_on(async move {
					let here = Handle::current();
					let options = KvOptions { runtime: Some(here.clone()), ..KvOptions::default() };
					let bound = Kind::BoundTo(here);
					if options.runtime.as_ref().is_some_and(is_current_thread) {
						let store = NodeStore::of(bound);
						let namespace = Namespace::default();
						let refused = KvBackedStore::open_async_with(store, &namespace, options);
						let error = refused.unwrap_err();
						assert!(matches!(error, StoreError::Invalid { .. }), "{error}");
						assert!(error.to_string().contains("current-thread"), "{error}");
						return;
					}
					tokio::spawn(node(bound, workers, waits, options)).await.unwrap();
				});
			});
		}
	}
}

/// A task waits for the next event on the only worker; another thread appends one.
#[test]
fn a_consumer_that_waits_for_an_event_leaves_the_worker_to_the_store() {
	must_end("consumer", || {
		let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
		let here = runtime.handle().clone();
		let options = KvOptions { runtime: Some(here.clone()), ..KvOptions::default() };
		let bound = NodeStore::of(Kind::BoundTo(here));
		let store = KvBackedStore::open_async_with(bound, &Namespace::default(), options).unwrap();
		let clock = Arc::new(SystemClock);
		let log = EventLog::open(Arc::new(store), "events", clock, LogOptions::default()).unwrap();
		let consumer = log.consumer("waits", ConsumerOptions::default()).unwrap();
		let (begun, begins) = mpsc::channel();
		let waits = runtime.spawn(async move {
			begun.send(()).unwrap();
			consumer.wait_next_event().unwrap().ack().unwrap();
		});
		begins.recv().unwrap();
		log.append(event(1)).unwrap();
		runtime.block_on(waits).unwrap();
	});
}

fn is_current_thread(handle: &Handle) -> bool {
	handle.runtime_flavor() == tokio::runtime::RuntimeFlavor::CurrentThread
}

#[test]
fn a_store_that_panics_in_the_call_is_an_error_that_says_so() {
	must_end("panic", || {
		let store = NodeStore::of(Kind::Panics);
		let error = KvBackedStore::open_async(store, &Namespace::default()).unwrap_err();
		assert!(error.to_string().contains("as the test asked for"), "{error}");
	});
}

/// A store that does not answer a write ends the handle; nobody waits for ever.
#[test]
fn a_write_that_is_not_answered_ends_the_handle() {
	must_end("silence", || {
		let is_silent = Arc::new(AtomicBool::new(false));
		let options =
			KvOptions { answer_timeout: Duration::from_millis(200), ..KvOptions::default() };
		let store = NodeStore::of(Kind::Silent(Arc::clone(&is_silent)));
		let store = KvBackedStore::open_async_with(store, &Namespace::default(), options).unwrap();
		let told = Arc::new(Mutex::new(Vec::new()));
		let events = Arc::clone(&told);
		assert!(
			store.observe(Arc::new(move |event| events.lock().unwrap().push(event.to_string())))
		);
		store.commit(append("1")).wait().unwrap();
		is_silent.store(true, Ordering::SeqCst);
		let error = store.commit(append("2")).wait().unwrap_err();
		assert!(matches!(error, StoreError::Indeterminate { .. }), "{error}");
		assert!(error.to_string().contains("did not answer"), "{error}");
		assert!(told.lock().unwrap()[0].contains("did not answer"));
		is_silent.store(false, Ordering::SeqCst);
		let error = store.commit(append("3")).wait().unwrap_err();
		assert!(matches!(error, StoreError::Poisoned { .. }), "{error}");
	});
}
