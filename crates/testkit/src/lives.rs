//! A node's own software, made anew for each of its lives, on a store that dies with it.

use std::sync::{Arc, Mutex};

use leyden_store::{ManualClock, Store};

use crate::faulty_store::{Doom, FaultyStore, LossyMedium, Media};
use crate::guard::GuardFactory;
use crate::leyden_guard::{LeydenGuard, User};
use crate::{Guard, MemKv, NodeDisk, Wiring};

/// What lives in a node now.
pub type Slot<T> = Arc<Mutex<Option<Arc<T>>>>;

/// A disk that dies when its [`Doom`] says so.
pub fn mortal_disk(doom: &Arc<Doom>) -> Arc<NodeDisk> {
	let disk = Arc::new(NodeDisk::new(Arc::new(MemKv::new())));
	let hook = Arc::clone(doom);
	disk.on_write(move |write| hook.fate(write));
	disk
}

/// Guards with what `make` makes, which dies with the node and the other way around. What lives now is
/// in `slot`, and the store on `media`.
pub fn lives<T: User + 'static>(
	doom: &Arc<Doom>, disk: &Arc<NodeDisk>, clock: &Arc<ManualClock>, slot: &Slot<T>,
	media: &Arc<LossyMedium>,
	make: impl Fn(Arc<dyn Store>) -> Result<T, String> + Send + Sync + 'static,
) -> GuardFactory {
	let media = Arc::clone(media);
	let (doom, disk, clock) = (Arc::clone(doom), Arc::clone(disk), Arc::clone(clock));
	let slot = Arc::clone(slot);
	Arc::new(move |_| -> Arc<dyn Guard> {
		loop {
			let dies = Arc::clone(&disk);
			let store = FaultyStore::new(media.open(), Arc::clone(&doom));
			let store = Arc::new(store.on_death(move || dies.kill()));
			let shared: Arc<dyn Store> = Arc::<FaultyStore>::clone(&store);
			let made = Mutex::new(None);
			let opened = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
				// What others are told is held must be held.
				let wiring = Wiring { hold_barrier: true, ..Wiring::default() };
				let guard = LeydenGuard::at(shared, wiring, Arc::clone(&clock));
				guard.with_user(|store| {
					let user = Arc::new(make(store).expect("the store opens"));
					*made.lock().unwrap() = Some(Arc::clone(&user));
					user
				})
			}));
			match opened {
				Ok(guard) => {
					*slot.lock().unwrap() = made.into_inner().unwrap();
					return Arc::new(guard);
				},
				// It died while it was opened, and is started again.
				Err(_) if store.is_dead() => disk.revive(),
				Err(panic) => std::panic::resume_unwind(panic),
			}
		}
	})
}
