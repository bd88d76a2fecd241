//! A database that is put back in its place from an older copy is not opened as if nothing had
//! happened.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use leyden::id::{Domain, EventKind, IdBuilder, Lane};
use leyden::log::{LogError, NewEvent, Start};
use leyden::outbox::{
	CallbackId, EndpointOptions, FeedCursor, NewCallback, Outbox, OutboxError, OutboxOptions,
};
use leyden::payout::{DebtId, InvoiceRules, NewDebt, PayoutOptions, Payouts, Source, Terms};
use leyden::store::witness::{FileWitness, HistoryMark, Witness};
use leyden::store::{Namespace, StoreError, SystemClock};
use leyden::{Leyden, StoreUrl};
use lightning_invoice::Currency;

fn event(n: u64) -> NewEvent {
	let id = IdBuilder::new(Domain::new("test/witness", 1), "n").number(n).finish();
	let kind = EventKind::new("kind").unwrap();
	NewEvent { id, kind, lane: Lane::named("lane"), payload: vec![n as u8; 100] }
}

fn append(leyden: &Leyden, n: u64) {
	leyden.events().append(event(n)).unwrap();
}

fn urls(dir: &Path) -> Vec<(StoreUrl, PathBuf)> {
	let (sqlite, redb) = (dir.join("node.leyden"), dir.join("node.redb"));
	let mut urls = vec![(StoreUrl::Sqlite(sqlite.clone()), sqlite)];
	if cfg!(feature = "storage-redb") {
		urls.push((StoreUrl::Redb(redb.clone()), redb));
	}
	urls
}

fn open(url: &StoreUrl) -> Result<Leyden, LogError> {
	Leyden::builder().url(url.clone()).open()
}

fn reason(opened: Result<Leyden, LogError>) -> &'static str {
	match opened {
		Err(LogError::Store(StoreError::Restored { reason, .. })) => reason,
		Err(error) => panic!("{error}"),
		Ok(_) => panic!("it was opened"),
	}
}

fn ack_all(leyden: &Leyden) -> usize {
	let consumer = leyden.consumer("app", Start::Beginning).unwrap();
	let mut acked = 0;
	while let Some(delivery) = consumer.next_event().unwrap() {
		delivery.ack().unwrap();
		acked += 1;
	}
	acked
}

fn outbox(leyden: &Leyden) -> Outbox {
	let store = Arc::clone(leyden.store());
	let outbox = Outbox::open(store, Arc::new(SystemClock), OutboxOptions::default()).unwrap();
	outbox.add_endpoint("lsp", EndpointOptions::default()).unwrap();
	outbox
}

fn payouts(leyden: &Leyden) -> Payouts {
	let options = PayoutOptions::new(InvoiceRules::on(Currency::Regtest));
	Payouts::open(Arc::clone(leyden.store()), Arc::new(SystemClock), options).unwrap()
}

fn owe(payouts: &Payouts, number: u8) {
	let debt = NewDebt {
		id: DebtId::new("bond", &[number]),
		payee: b"seller".to_vec(),
		cause: "lost-dispute".to_owned(),
		amount_sat: 1000,
		node_share_sat: 500,
		source: Source::InHand,
		terms: Terms {
			invoice_window: Duration::from_secs(15 * 24 * 3600),
			reminder_interval: Duration::from_secs(300),
			max_failed_attempts: 3,
			fee_cap_msat: 10_000,
		},
	};
	payouts.add_debt(&debt).unwrap().commit(&**payouts.store()).wait().unwrap();
}

/// Yesterday's database in the place of today's: refused, left as it is, and accepted by hand. Then
/// readers begin anew, nothing is paid before an operator has looked, and what was not acked in it is
/// delivered again.
#[test]
fn yesterdays_database_is_refused_until_it_is_accepted() {
	let dir = tempfile::tempdir().unwrap();
	for (url, path) in urls(dir.path()) {
		let leyden = open(&url).unwrap();
		(1..=5).for_each(|n| append(&leyden, n));
		owe(&payouts(&leyden), 1);
		let callback = |n: u8| {
			let id = CallbackId::new("kind", &[n], 0);
			NewCallback::new(id, "kind", "lsp", "key", vec![n]).unwrap()
		};
		let out = outbox(&leyden);
		out.enqueue(callback(1)).unwrap().commit(&**out.store()).wait().unwrap();
		let feed = out.feed(FeedCursor::default(), 10).unwrap().next;
		let (_, cursor) = leyden.events().read(leyden.events().start().unwrap(), 10).unwrap();
		drop((leyden, out));
		let yesterday = dir.path().join("yesterday");
		fs::copy(&path, &yesterday).unwrap();

		let leyden = open(&url).unwrap();
		assert_eq!(ack_all(&leyden), 5);
		assert_eq!(payouts(&leyden).frozen().unwrap(), None);
		drop(leyden);
		let today = fs::read(&path).unwrap();

		fs::copy(&yesterday, &path).unwrap();
		assert_eq!(reason(open(&url)), "it lacks what was committed last");
		let error = open(&url).map(|_| ()).unwrap_err().to_string();
		assert!(error.contains("-witness") && error.contains("leyden accept"), "{error}");
		// Today's database is still the one.
		fs::write(&path, &today).unwrap();
		assert_eq!(ack_all(&open(&url).unwrap()), 0);

		fs::copy(&yesterday, &path).unwrap();
		let told_again = url.accept(&Namespace::default()).unwrap();
		let app = told_again.iter().find(|told| told.consumer == "app");
		assert!(app.is_none_or(|told| told.unacked == 5), "{told_again:?}");
		let leyden = open(&url).unwrap();
		let refused = leyden.events().read(cursor, 10).unwrap_err();
		assert!(matches!(refused, LogError::WrongEpoch { .. }), "{refused}");
		let refused = outbox(&leyden).feed(feed, 10).unwrap_err();
		assert!(matches!(refused, OutboxError::WrongEpoch { .. }), "{refused}");
		let freeze = payouts(&leyden).frozen().unwrap().unwrap();
		assert!(freeze.to_string().contains("restored"), "{freeze}");
		payouts(&leyden).unfreeze(&freeze).unwrap();
		drop(leyden);
		// Once is enough.
		let leyden = open(&url).unwrap();
		assert_eq!(payouts(&leyden).frozen().unwrap(), None);
		assert_eq!(ack_all(&leyden), 5);
		drop(leyden);
		fs::remove_file(&yesterday).unwrap();
	}
}

/// A debt that was decided and paid after the copy is not in it, and comes again: payouts are frozen
/// also if the copy has no debt.
#[test]
fn payouts_are_frozen_over_a_copy_without_debts() {
	let dir = tempfile::tempdir().unwrap();
	let url = StoreUrl::Sqlite(dir.path().join("node.leyden"));
	let leyden = open(&url).unwrap();
	drop(payouts(&leyden));
	let url = leyden.backup(dir.path().join("copy")).unwrap().place;
	url.accept(&Namespace::default()).unwrap();
	let leyden = open(&url).unwrap();
	let freeze = payouts(&leyden).frozen().unwrap().unwrap();
	payouts(&leyden).unfreeze(&freeze).unwrap();
	assert_eq!(payouts(&leyden).frozen().unwrap(), None);
}

/// A database that is not refused is not accepted: it would lose its identity for nothing. A name that was mistyped
/// creates nothing.
#[test]
fn a_database_that_opens_is_not_accepted() {
	let dir = tempfile::tempdir().unwrap();
	for (url, _) in urls(dir.path()) {
		drop(open(&url).unwrap());
		let told = url.accept(&Namespace::default()).unwrap_err().to_string();
		assert!(told.contains("nothing is to be accepted"), "{told}");
		let told = url.accept(&Namespace::new("mistyped").unwrap()).unwrap_err().to_string();
		assert!(told.contains("has no namespace mistyped"), "{told}");
		assert_eq!(url.namespaces().unwrap(), [Namespace::default()]);
		assert!(open(&url).is_ok());
	}
}

/// A copy that was made while the node ran, and is opened elsewhere: by `leyden backup`, or of the
/// file without its log, which has all of today.
#[test]
fn a_copy_of_a_running_store_says_that_it_is_one() {
	let dir = tempfile::tempdir().unwrap();
	for (number, (url, path)) in urls(dir.path()).into_iter().enumerate() {
		let leyden = open(&url).unwrap();
		append(&leyden, 1);
		drop(leyden);
		let leyden = open(&url).unwrap();
		append(&leyden, 2);
		let backup = leyden.backup(dir.path().join(format!("backup-{number}"))).unwrap().place;
		assert!(reason(open(&backup)).starts_with("it is a copy"));
		assert_eq!(backup.accept(&Namespace::default()).unwrap().len(), 0);
		let accepted = open(&backup).unwrap();
		assert_eq!(accepted.events().head().unwrap().get(), 2);
		if let StoreUrl::Sqlite(_) = &url {
			let copy = dir.path().join("without-log");
			fs::copy(&path, &copy).unwrap();
			assert!(reason(open(&StoreUrl::Sqlite(copy))).starts_with("it is a copy"));
		}
		// A store that was closed in order may be moved, with or without its witness.
		drop((leyden, accepted));
		let moved = dir.path().join(format!("moved-{number}"));
		fs::copy(&path, &moved).unwrap();
		let moved = match url {
			StoreUrl::Redb(_) => StoreUrl::Redb(moved),
			_ => StoreUrl::Sqlite(moved),
		};
		assert_eq!(open(&moved).unwrap().events().head().unwrap().get(), 2);
	}
}

/// A link to a database is the same database, and a move to another engine takes its witness along;
/// a database that is older than its witness is not moved.
#[test]
#[cfg(all(unix, feature = "storage-redb"))]
fn links_and_moves_keep_the_witness() {
	let dir = tempfile::tempdir().unwrap();
	let (path, link) = (dir.path().join("node.leyden"), dir.path().join("link.leyden"));
	let (url, linked) = (StoreUrl::Sqlite(path.clone()), StoreUrl::Sqlite(link.clone()));
	drop(open(&url).unwrap());
	std::os::unix::fs::symlink(&path, &link).unwrap();
	// Also of a link whose end was not there yet.
	let early = dir.path().join("early.leyden");
	std::os::unix::fs::symlink("late.leyden", &early).unwrap();
	let place = || StoreUrl::Sqlite(early.clone()).witness(&Namespace::default()).unwrap().place();
	let before = place();
	drop(open(&StoreUrl::Sqlite(early.clone())).unwrap());
	assert_eq!(place(), before);
	let places = [&url, &linked].map(|url| url.witness(&Namespace::default()).unwrap().place());
	assert_eq!(places[0], places[1]);
	let yesterday = dir.path().join("yesterday");
	fs::copy(&path, &yesterday).unwrap();
	// As after a crash: the store was in use when it was copied, and its witness knows.
	let leyden = open(&linked).unwrap();
	append(&leyden, 1);
	let crashed = leyden.backup(dir.path().join("crashed")).unwrap().place;
	let StoreUrl::Sqlite(crashed) = crashed else { unreachable!() };
	fs::copy(&places[0], dir.path().join("crashed-witness")).unwrap();
	drop(leyden);
	let crashed = StoreUrl::Sqlite(crashed);
	let moved = StoreUrl::Redb(dir.path().join("moved.redb"));
	leyden::migrate::migrate(&crashed, &moved, &Namespace::default(), |_| ()).unwrap();
	assert_eq!(open(&moved).unwrap().events().head().unwrap().get(), 1);
	fs::copy(&yesterday, &path).unwrap();
	let other = StoreUrl::Redb(dir.path().join("other.redb"));
	let refused = leyden::migrate::migrate(&url, &other, &Namespace::default(), |_| ());
	assert!(matches!(refused, Err(StoreError::Restored { .. })), "{refused:?}");
}

/// A witness is of one namespace, and may be in a better place or in none.
#[test]
fn each_namespace_has_its_witness() {
	let dir = tempfile::tempdir().unwrap();
	let path = dir.path().join("node.leyden");
	let url = StoreUrl::Sqlite(path.clone());
	let other = Namespace::new("other").unwrap();
	drop(open(&url).unwrap());
	drop(Leyden::builder().url(url.clone()).namespace(other.clone()).open().unwrap());
	let names = |namespace| url.witness(namespace).unwrap().place();
	assert!(names(&other).ends_with("node.leyden-witness-other"), "{}", names(&other));
	assert!(names(&Namespace::default()).ends_with("node.leyden-witness"));
	let newest = url.witness(&Namespace::default()).unwrap().newest().unwrap().unwrap();
	assert!(url.witness(&other).unwrap().newest().unwrap().unwrap().history != newest.history);
	// One in a place of its own, which knows more.
	let own = dir.path().join("own");
	let ahead = HistoryMark { number: newest.number + 1, ..newest };
	FileWitness::new(&own).remember(&ahead).unwrap();
	let with_own = Leyden::builder().url(url.clone()).witness(FileWitness::new(&own)).open();
	assert_eq!(reason(with_own), "it lacks what was committed last");
	let without = Leyden::builder().url(url.clone()).without_witness().open();
	assert!(without.is_ok());
}
