//! A service that takes callbacks.

use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::sync::Arc;
use std::time::Duration;

use leyden_http::{Handled, Receiver};
use leyden_request::Requests;
use leyden_store::{
	Batch, Clock, KeyRange, ManualClock, MemoryMedium, MemoryStore, Namespace, Plan, RecordType,
	Store, Table, Value,
};

use super::{key, serve};

pub const ORDERS: Table = Table::new("orders");
pub const DAY: Duration = Duration::from_secs(24 * 3600);

/// The other side: takes callbacks into a table of its own.
pub struct Lsp {
	pub medium: MemoryMedium,
	pub store: Arc<dyn Store>,
	pub receiver: Receiver,
	/// Status that is answered; 0 to take the callback.
	pub refuses: Arc<AtomicU16>,
	pub handled: Arc<AtomicU32>,
}

pub fn order(body: &[u8]) -> Plan<()> {
	let mut batch = Batch::new();
	let name = String::from_utf8_lossy(body).replace(|c: char| !c.is_ascii_alphanumeric(), "");
	let _ = batch.append(ORDERS, b"", Value::new(RecordType(0x8000), 1, name));
	Plan::of(batch)
}

impl Lsp {
	pub fn new(clock: &Arc<ManualClock>) -> Self {
		Self::on(MemoryMedium::new(), clock)
	}

	pub fn on(medium: MemoryMedium, clock: &Arc<ManualClock>) -> Self {
		let store: Arc<dyn Store> =
			Arc::new(MemoryStore::open(&medium, Namespace::default()).unwrap());
		let (refuses, handled) = (Arc::new(AtomicU16::new(0)), Arc::new(AtomicU32::new(0)));
		let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(clock);
		let requests =
			Requests::open(Arc::clone(&store), Arc::clone(&clock), Receiver::request_options());
		let (answer, count) = (Arc::clone(&refuses), Arc::clone(&handled));
		let handler = move |incoming: &leyden_http::Incoming| {
			count.fetch_add(1, Ordering::SeqCst);
			match answer.load(Ordering::SeqCst) {
				0 => Handled::taken(order(&incoming.body)),
				code => Handled::refused(code),
			}
		};
		let receiver =
			Receiver::new(requests.unwrap(), clock, "node", [key()], DAY, Arc::new(handler));
		Self { medium, store, receiver, refuses, handled }
	}

	pub async fn serve(&self) -> String {
		serve(self.receiver.router()).await
	}

	pub fn orders(&self) -> usize {
		self.store.scan(KeyRange::all(ORDERS), 1_000).wait().unwrap().records.len()
	}
}
