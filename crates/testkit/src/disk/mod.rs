//! A node's disk: its monitors and its manager, in any [`KVStoreSync`], under LDK's own keys.
//!
//! Monitors are written whole, at every persist that LDK asks for. The manager is written when the
//! test says so and at no other time. A hook sees every write and may let the node die *before* it
//! (the write is lost) or *after* it (the write is there, but nobody learns).
//!
//! Death does not unwind: a panic inside LDK would poison its locks, which no crash does. Instead
//! the disk takes no more writes, and whatever the node still does in memory reaches neither the
//! chain nor a peer nor its user, because all of them ask [`NodeDisk::is_dead`]. Only a restart
//! revives it.

mod kv;
mod mem_kv;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use lightning::chain::chainmonitor::Persist;
use lightning::chain::channelmonitor::{ChannelMonitor, ChannelMonitorUpdate};
use lightning::chain::ChannelMonitorUpdateStatus;
use lightning::io;
use lightning::sign::InMemorySigner;
use lightning::util::persist::{
	KVStoreSync, MonitorName, ARCHIVED_CHANNEL_MONITOR_PERSISTENCE_PRIMARY_NAMESPACE,
	ARCHIVED_CHANNEL_MONITOR_PERSISTENCE_SECONDARY_NAMESPACE, CHANNEL_MANAGER_PERSISTENCE_KEY,
	CHANNEL_MANAGER_PERSISTENCE_PRIMARY_NAMESPACE, CHANNEL_MANAGER_PERSISTENCE_SECONDARY_NAMESPACE,
	CHANNEL_MONITOR_PERSISTENCE_PRIMARY_NAMESPACE, CHANNEL_MONITOR_PERSISTENCE_SECONDARY_NAMESPACE,
};
use lightning::util::ser::Writeable;

pub use kv::{ManagerDisk, MonitorDisk, NetMonitorStore};
pub use mem_kv::{KvContent, MemKv};

/// The store under a node's disk.
pub type Kv = Arc<dyn KVStoreSync + Send + Sync>;

/// What is being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteKind {
	/// The channel manager.
	Manager,
	/// A monitor, for the first time.
	NewMonitor,
	/// A monitor, because of an update from the manager.
	MonitorUpdate,
	/// A monitor, because of a block or because LDK wants it written.
	MonitorBlock,
	/// A monitor is moved to the archive.
	Archive,
}

/// One write, as shown to the hook before it happens.
#[derive(Clone, Debug)]
pub struct DiskWrite {
	/// What.
	pub kind: WriteKind,
	/// The monitor's name, or `manager`.
	pub key: String,
	/// How many writes this disk has taken before, over all lives.
	pub earlier: u64,
}

/// What a hook lets happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
	/// The write is done and the node goes on.
	Live,
	/// The node dies and the write is lost.
	DieBefore,
	/// The write is done and the node dies before it learns so.
	DieAfter,
}

type Hook = Box<dyn Fn(&DiskWrite) -> Fate + Send + Sync>;

/// What was on a disk at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskSnapshot {
	/// The manager's bytes; `None` when it was never written.
	pub manager: Option<Vec<u8>>,
	/// Monitors by name.
	pub monitors: BTreeMap<String, Vec<u8>>,
}

/// See the [module documentation](self).
pub struct NodeDisk {
	kv: Kv,
	hook: Mutex<Option<Hook>>,
	dead: AtomicBool,
	writes: AtomicU64,
	monitor_writes: AtomicU64,
	manager_writes: AtomicU64,
}

impl NodeDisk {
	/// A disk over `kv`, with whatever is in there already.
	pub fn new(kv: Kv) -> Self {
		NodeDisk {
			kv,
			hook: Mutex::new(None),
			dead: AtomicBool::new(false),
			writes: AtomicU64::new(0),
			monitor_writes: AtomicU64::new(0),
			manager_writes: AtomicU64::new(0),
		}
	}

	/// The store under it.
	pub fn kv(&self) -> Kv {
		Arc::clone(&self.kv)
	}

	/// Shows every write to `hook` from now on, in place of the hook before. It is called with
	/// LDK's locks held: it must not call into the node.
	pub fn on_write(&self, hook: impl Fn(&DiskWrite) -> Fate + Send + Sync + 'static) {
		*self.hook.lock().unwrap() = Some(Box::new(hook));
	}

	/// Takes the hook away.
	pub fn clear_hook(&self) {
		*self.hook.lock().unwrap() = None;
	}

	/// Whether the node on this disk has died.
	pub fn is_dead(&self) -> bool {
		self.dead.load(Ordering::SeqCst)
	}

	/// Dies now.
	pub fn kill(&self) {
		self.dead.store(true, Ordering::SeqCst);
	}

	/// A new life begins.
	pub fn revive(&self) {
		self.dead.store(false, Ordering::SeqCst);
	}

	/// Writes done, over all lives.
	pub fn writes(&self) -> u64 {
		self.writes.load(Ordering::SeqCst)
	}

	/// Writes of monitors done, over all lives.
	pub fn monitor_writes(&self) -> u64 {
		self.monitor_writes.load(Ordering::SeqCst)
	}

	/// Writes of the manager done, over all lives.
	pub fn manager_writes(&self) -> u64 {
		self.manager_writes.load(Ordering::SeqCst)
	}

	/// Writes the manager. Returns whether it is durable and the node lives to know it.
	///
	/// # Panics
	///
	/// When the store fails.
	pub fn write_manager(&self, bytes: Vec<u8>) -> bool {
		self.apply(WriteKind::Manager, CHANNEL_MANAGER_PERSISTENCE_KEY, || {
			self.put_manager(bytes)?;
			self.manager_writes.fetch_add(1, Ordering::SeqCst);
			Ok(())
		})
	}

	/// The manager's bytes; `None` when it was never written.
	pub fn manager(&self) -> Option<Vec<u8>> {
		let read = self.kv.read(
			CHANNEL_MANAGER_PERSISTENCE_PRIMARY_NAMESPACE,
			CHANNEL_MANAGER_PERSISTENCE_SECONDARY_NAMESPACE,
			CHANNEL_MANAGER_PERSISTENCE_KEY,
		);
		match read {
			Ok(bytes) => Some(bytes),
			Err(e) if e.kind() == io::ErrorKind::NotFound => None,
			Err(e) => panic!("reading the manager: {e}"),
		}
	}

	/// All monitors by name.
	pub fn monitors(&self) -> BTreeMap<String, Vec<u8>> {
		let (primary, secondary) = MONITORS;
		let names = self.kv.list(primary, secondary).expect("the list of monitors");
		let read =
			|name: &String| self.kv.read(primary, secondary, name).expect("a listed monitor");
		names.into_iter().map(|name| (name.clone(), read(&name))).collect()
	}

	/// Everything on it.
	pub fn snapshot(&self) -> DiskSnapshot {
		DiskSnapshot { manager: self.manager(), monitors: self.monitors() }
	}

	/// Puts everything back as it was. No hook sees it and nothing is counted.
	pub fn restore(&self, snapshot: DiskSnapshot) {
		let (primary, secondary) = MONITORS;
		for name in self.monitors().into_keys() {
			self.kv.remove(primary, secondary, &name, false).expect("removing a monitor");
		}
		for (name, bytes) in snapshot.monitors {
			self.kv.write(primary, secondary, &name, bytes).expect("writing a monitor");
		}
		match snapshot.manager {
			Some(bytes) => self.put_manager(bytes).expect("writing the manager"),
			None => self
				.kv
				.remove(
					CHANNEL_MANAGER_PERSISTENCE_PRIMARY_NAMESPACE,
					CHANNEL_MANAGER_PERSISTENCE_SECONDARY_NAMESPACE,
					CHANNEL_MANAGER_PERSISTENCE_KEY,
					false,
				)
				.expect("removing the manager"),
		}
	}

	/// Puts older manager bytes back and leaves the monitors as they are.
	pub fn restore_manager(&self, bytes: Vec<u8>) {
		self.put_manager(bytes).expect("writing the manager");
	}

	fn put_manager(&self, bytes: Vec<u8>) -> Result<(), io::Error> {
		self.kv.write(
			CHANNEL_MANAGER_PERSISTENCE_PRIMARY_NAMESPACE,
			CHANNEL_MANAGER_PERSISTENCE_SECONDARY_NAMESPACE,
			CHANNEL_MANAGER_PERSISTENCE_KEY,
			bytes,
		)
	}

	/// Whether the write is there and the node still lives.
	fn apply(
		&self, kind: WriteKind, key: &str, write: impl FnOnce() -> Result<(), io::Error>,
	) -> bool {
		if self.is_dead() {
			return false;
		}
		let shown = DiskWrite { kind, key: key.to_owned(), earlier: self.writes() };
		let fate = self.hook.lock().unwrap().as_ref().map_or(Fate::Live, |hook| hook(&shown));
		if fate != Fate::DieBefore {
			write().unwrap_or_else(|e| panic!("writing {kind:?} {key}: {e}"));
			self.writes.fetch_add(1, Ordering::SeqCst);
		}
		if fate != Fate::Live {
			self.kill();
		}
		!self.is_dead()
	}

	fn put_monitor(
		&self, kind: WriteKind, name: MonitorName, monitor: &ChannelMonitor<InMemorySigner>,
	) -> ChannelMonitorUpdateStatus {
		let name = name.to_string();
		let lives = self.apply(kind, &name, || {
			self.kv.write(MONITORS.0, MONITORS.1, &name, monitor.encode())?;
			self.monitor_writes.fetch_add(1, Ordering::SeqCst);
			Ok(())
		});
		// To a dead node it does not matter; this keeps it from going on as if the write were done.
		if lives {
			ChannelMonitorUpdateStatus::Completed
		} else {
			ChannelMonitorUpdateStatus::InProgress
		}
	}
}

const MONITORS: (&str, &str) = (
	CHANNEL_MONITOR_PERSISTENCE_PRIMARY_NAMESPACE,
	CHANNEL_MONITOR_PERSISTENCE_SECONDARY_NAMESPACE,
);

impl Persist<InMemorySigner> for NodeDisk {
	fn persist_new_channel(
		&self, name: MonitorName, monitor: &ChannelMonitor<InMemorySigner>,
	) -> ChannelMonitorUpdateStatus {
		self.put_monitor(WriteKind::NewMonitor, name, monitor)
	}

	fn update_persisted_channel(
		&self, name: MonitorName, update: Option<&ChannelMonitorUpdate>,
		monitor: &ChannelMonitor<InMemorySigner>,
	) -> ChannelMonitorUpdateStatus {
		let kind = match update {
			Some(_) => WriteKind::MonitorUpdate,
			None => WriteKind::MonitorBlock,
		};
		self.put_monitor(kind, name, monitor)
	}

	fn archive_persisted_channel(&self, name: MonitorName) {
		let name = name.to_string();
		self.apply(WriteKind::Archive, &name, || {
			let bytes = self.kv.read(MONITORS.0, MONITORS.1, &name)?;
			self.kv.write(
				ARCHIVED_CHANNEL_MONITOR_PERSISTENCE_PRIMARY_NAMESPACE,
				ARCHIVED_CHANNEL_MONITOR_PERSISTENCE_SECONDARY_NAMESPACE,
				&name,
				bytes,
			)?;
			self.kv.remove(MONITORS.0, MONITORS.1, &name, false)
		});
	}
}
