//! A node's disk as LDK's stores: of the manager, and of the monitors of LDK's asynchronous
//! persister.

use std::future::Future;
use std::pin::Pin;

use leyden_ldk::GuardedStore;
use lightning::util::persist::{KVStore, CHANNEL_MONITOR_UPDATE_PERSISTENCE_PRIMARY_NAMESPACE};

use super::*;

/// The disk as the store that a node keeps its manager in. Monitors do not come this way.
pub struct ManagerDisk(pub Arc<NodeDisk>);

/// The disk as the store that LDK's asynchronous persister keeps monitors in. A write is done when
/// its future, or that of a later write, is polled first: a process that dies before that has not
/// written. Writes land in the order of the calls, whatever threads poll them.
pub struct MonitorDisk {
	disk: Arc<NodeDisk>,
	writes: Arc<Mutex<Writes>>,
}

/// The writes that were asked for and are not done, by number.
#[derive(Default)]
struct Writes {
	next: u64,
	waiting: BTreeMap<u64, Write>,
}

type Write = Box<dyn FnOnce() + Send>;

impl MonitorDisk {
	/// The monitors of this disk.
	pub fn new(disk: Arc<NodeDisk>) -> Self {
		Self { disk, writes: Arc::default() }
	}

	/// Asks for a write; the future does it, and all that were asked for before.
	fn ask(
		&self, write: impl FnOnce(&NodeDisk) -> bool + Send + 'static,
	) -> impl Future<Output = Result<(), io::Error>> + Send + 'static {
		let (disk, lived) = (Arc::clone(&self.disk), Arc::new(AtomicBool::new(false)));
		let writes = Arc::clone(&self.writes);
		let (of_write, lives) = (Arc::clone(&self.disk), Arc::clone(&lived));
		let number = {
			let mut writes = writes.lock().unwrap();
			let number = writes.next;
			writes.next += 1;
			let write = move || lives.store(write(&of_write), Ordering::SeqCst);
			writes.waiting.insert(number, Box::new(write));
			number
		};
		async move {
			{
				// One at a time, so that a death falls between two of them.
				let mut writes = writes.lock().unwrap();
				while let Some(first) = writes.waiting.first_entry().filter(|e| *e.key() <= number)
				{
					first.remove()();
				}
			}
			match lived.load(Ordering::SeqCst) && !disk.is_dead() {
				true => Ok(()),
				// A dead process hears nothing, and the persister panics at an error.
				false => std::future::pending().await,
			}
		}
	}
}

/// The store of the asynchronous persister: the disk, or what a guard made of it.
pub enum NetMonitorStore {
	/// The disk.
	Bare(Arc<MonitorDisk>),
	/// Leyden's store in front of it.
	Guarded(GuardedStore<Arc<MonitorDisk>>),
}

type Answer<T> = Pin<Box<dyn Future<Output = Result<T, io::Error>> + Send>>;

fn died() -> io::Error {
	io::Error::new(io::ErrorKind::Other, "the node died")
}

impl KVStoreSync for ManagerDisk {
	fn read(&self, primary: &str, secondary: &str, key: &str) -> Result<Vec<u8>, io::Error> {
		self.0.kv.read(primary, secondary, key)
	}

	fn write(&self, _: &str, _: &str, key: &str, bytes: Vec<u8>) -> Result<(), io::Error> {
		assert_eq!(key, CHANNEL_MANAGER_PERSISTENCE_KEY, "only the manager is written here");
		match self.0.write_manager(bytes) {
			true => Ok(()),
			false => Err(died()),
		}
	}

	fn remove(&self, _: &str, _: &str, key: &str, _: bool) -> Result<(), io::Error> {
		panic!("{key} is not removed");
	}

	fn list(&self, primary: &str, secondary: &str) -> Result<Vec<String>, io::Error> {
		self.0.kv.list(primary, secondary)
	}
}

/// The disk answers in the call.
impl KVStore for ManagerDisk {
	fn read(
		&self, primary: &str, secondary: &str, key: &str,
	) -> impl Future<Output = Result<Vec<u8>, io::Error>> + 'static + Send {
		std::future::ready(KVStoreSync::read(self, primary, secondary, key))
	}

	fn write(
		&self, primary: &str, secondary: &str, key: &str, bytes: Vec<u8>,
	) -> impl Future<Output = Result<(), io::Error>> + 'static + Send {
		std::future::ready(KVStoreSync::write(self, primary, secondary, key, bytes))
	}

	fn remove(
		&self, primary: &str, secondary: &str, key: &str, lazy: bool,
	) -> impl Future<Output = Result<(), io::Error>> + 'static + Send {
		std::future::ready(KVStoreSync::remove(self, primary, secondary, key, lazy))
	}

	fn list(
		&self, primary: &str, secondary: &str,
	) -> impl Future<Output = Result<Vec<String>, io::Error>> + 'static + Send {
		std::future::ready(KVStoreSync::list(self, primary, secondary))
	}
}

impl KVStore for MonitorDisk {
	fn read(
		&self, primary: &str, secondary: &str, key: &str,
	) -> impl Future<Output = Result<Vec<u8>, io::Error>> + 'static + Send {
		std::future::ready(self.disk.kv.read(primary, secondary, key))
	}

	fn write(
		&self, primary: &str, secondary: &str, key: &str, bytes: Vec<u8>,
	) -> impl Future<Output = Result<(), io::Error>> + 'static + Send {
		let [primary, secondary, key] = [primary, secondary, key].map(str::to_owned);
		self.ask(move |disk| {
			let is_update = primary == CHANNEL_MONITOR_UPDATE_PERSISTENCE_PRIMARY_NAMESPACE;
			let kind = match is_update {
				true => WriteKind::MonitorUpdate,
				false => WriteKind::MonitorBlock,
			};
			disk.apply(kind, &key, || {
				disk.kv.write(&primary, &secondary, &key, bytes)?;
				disk.monitor_writes.fetch_add(1, Ordering::SeqCst);
				Ok(())
			})
		})
	}

	fn remove(
		&self, primary: &str, secondary: &str, key: &str, lazy: bool,
	) -> impl Future<Output = Result<(), io::Error>> + 'static + Send {
		let [primary, secondary, key] = [primary, secondary, key].map(str::to_owned);
		self.ask(move |disk| {
			!disk.is_dead() && disk.kv.remove(&primary, &secondary, &key, lazy).is_ok()
		})
	}

	fn list(
		&self, primary: &str, secondary: &str,
	) -> impl Future<Output = Result<Vec<String>, io::Error>> + 'static + Send {
		std::future::ready(self.disk.kv.list(primary, secondary))
	}
}

impl KVStore for NetMonitorStore {
	fn read(
		&self, primary: &str, secondary: &str, key: &str,
	) -> impl Future<Output = Result<Vec<u8>, io::Error>> + 'static + Send {
		let read: Answer<_> = match self {
			Self::Bare(kv) => Box::pin(kv.read(primary, secondary, key)),
			Self::Guarded(kv) => Box::pin(kv.read(primary, secondary, key)),
		};
		read
	}

	fn write(
		&self, primary: &str, secondary: &str, key: &str, bytes: Vec<u8>,
	) -> impl Future<Output = Result<(), io::Error>> + 'static + Send {
		let written: Answer<_> = match self {
			Self::Bare(kv) => Box::pin(kv.write(primary, secondary, key, bytes)),
			Self::Guarded(kv) => Box::pin(kv.write(primary, secondary, key, bytes)),
		};
		written
	}

	fn remove(
		&self, primary: &str, secondary: &str, key: &str, lazy: bool,
	) -> impl Future<Output = Result<(), io::Error>> + 'static + Send {
		let removed: Answer<_> = match self {
			Self::Bare(kv) => Box::pin(kv.remove(primary, secondary, key, lazy)),
			Self::Guarded(kv) => Box::pin(kv.remove(primary, secondary, key, lazy)),
		};
		removed
	}

	fn list(
		&self, primary: &str, secondary: &str,
	) -> impl Future<Output = Result<Vec<String>, io::Error>> + 'static + Send {
		let listed: Answer<_> = match self {
			Self::Bare(kv) => Box::pin(kv.list(primary, secondary)),
			Self::Guarded(kv) => Box::pin(kv.list(primary, secondary)),
		};
		listed
	}
}
