//! The crash-everywhere scenarios over every engine: the log with its three consumers whole, and of
//! the cases with real nodes one; all ten with `LEYDEN_CRASH_CASES=all`:
//!
//! `LEYDEN_CRASH_CASES=all cargo test -p leyden --all-features --test crash_everywhere -- --nocapture`

// The number of deaths is printed, for those who run it with --nocapture.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout)]

use std::path::Path;
use std::sync::Arc;

use leyden::ldk::KvBackedStore;
use leyden::store::{Namespace, Store, StoreError};
use leyden::StoreUrl;
use leyden_testkit::cases::Case;
use leyden_testkit::scenarios::{case_scenario, log_scenario};
use leyden_testkit::{crash_everywhere, Media};
use lightning_persister::fs_store::v1::FilesystemStore;

/// A namespace of an engine that a URL names.
struct Url(StoreUrl, Namespace);

impl Media for Url {
	fn open(&self) -> Arc<dyn Store> {
		// Who died lets go of the files, or the connection, as soon as the last of its threads is gone.
		for _ in 0..2_000 {
			match self.0.open(self.1.clone()) {
				Ok(store) => return store,
				Err(StoreError::Locked { .. }) => std::thread::yield_now(),
				Err(error) => panic!("{error}"),
			}
		}
		panic!("{} stays locked", self.0);
	}
}

/// A store of its own on a VSS server.
#[cfg(feature = "storage-vss")]
struct Vss(Arc<leyden_testkit::vss::Server>, u64);

#[cfg(feature = "storage-vss")]
impl Media for Vss {
	fn open(&self) -> Arc<dyn Store> {
		use leyden::backends::vss::{VssConfig, VssOptions, VssStore};
		let config = VssConfig::new(self.0.url(), format!("node-{}", self.1), [1; 32]);
		Arc::new(VssStore::open(config, &Namespace::default(), &VssOptions::default()).unwrap())
	}
}

/// LDK's store in a directory.
struct Files(std::path::PathBuf);

impl Media for Files {
	fn open(&self) -> Arc<dyn Store> {
		let files = Arc::new(FilesystemStore::new(self.0.clone()));
		Arc::new(KvBackedStore::open(files, &Namespace::default()).unwrap())
	}
}

fn cases() -> Vec<Case> {
	match std::env::var("LEYDEN_CRASH_CASES").is_ok_and(|cases| cases == "all") {
		true => Case::ALL.to_vec(),
		false => vec![Case::G3],
	}
}

/// Every scenario, each time on fresh media.
fn everywhere(name: &str, fresh: &dyn Fn(&Path, u64) -> Arc<dyn Media>) {
	let dir = tempfile::tempdir().unwrap();
	let mut number = 0;
	let mut media = || {
		number += 1;
		fresh(dir.path(), number)
	};
	let deaths = crash_everywhere(|doom| log_scenario(doom, &media()));
	println!("{name}, three consumers: {deaths} deaths");
	for case in cases() {
		let deaths = crash_everywhere(|doom| case_scenario(case, doom, &media()));
		println!("{name}, case {case}: {deaths} deaths");
	}
}

#[test]
fn sqlite() {
	everywhere("sqlite", &|dir, n| {
		let url = StoreUrl::Sqlite(dir.join(format!("{n}.leyden")));
		Arc::new(Url(url, Namespace::default()))
	});
}

#[cfg(feature = "storage-redb")]
#[test]
fn redb() {
	everywhere("redb", &|dir, n| {
		let url = StoreUrl::Redb(dir.join(format!("{n}.redb")));
		Arc::new(Url(url, Namespace::default()))
	});
}

#[cfg(feature = "storage-postgres")]
#[test]
fn postgres() {
	let Some(server) = leyden_testkit::postgres::Server::start_with(&["fsync=off"]) else { return };
	everywhere("postgres", &|_, n| {
		let url = StoreUrl::Postgres(server.url());
		Arc::new(Url(url, Namespace::new(&format!("n{n}")).unwrap()))
	});
}

#[cfg(feature = "storage-vss")]
#[test]
fn vss() {
	let server = Arc::new(leyden_testkit::vss::Server::start());
	everywhere("vss", &|_, n| Arc::new(Vss(Arc::clone(&server), n)));
}

#[test]
fn a_kv_store() {
	everywhere("kvstore", &|dir, n| Arc::new(Files(dir.join(n.to_string()))));
}
