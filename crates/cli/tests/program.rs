//! The program, as its users run it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::path::Path;
use std::process::{Command, Output};

use leyden::backends::sqlite::SqliteStore;
use leyden::store::Namespace;
use serde_json::Value;

fn leyden(arguments: &[&str]) -> Output {
	Command::new(env!("CARGO_BIN_EXE_leyden")).args(arguments).output().unwrap()
}

fn text(output: &Output) -> String {
	assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
	String::from_utf8(output.stdout.clone()).unwrap()
}

/// What a failing call says; it says nothing on standard output.
fn complaint(arguments: &[&str]) -> String {
	let output = leyden(arguments);
	assert_eq!(output.status.code(), Some(1), "{output:?}");
	assert!(output.stdout.is_empty());
	let text = String::from_utf8(output.stderr).unwrap();
	assert!(text.starts_with("leyden: ") && !text.contains("panicked"), "{text}");
	text
}

fn path(path: &Path) -> &str {
	path.to_str().unwrap()
}

#[test]
fn the_demo_shows_what_leyden_is_for() {
	let shown = text(&leyden(&["demo", "--case", "g1", "--case", "K"]));
	assert!(!shown.contains('\u{1b}') && !shown.contains('\r'), "piped, it is plain text");
	for part in ["crash loop", "PaymentFailed after", "recovers: PaymentSent", "channelmanager.rs"]
	{
		assert!(shown.contains(part), "{part} is missing in\n{shown}");
	}
}

#[test]
fn the_demo_as_json_is_one_document() {
	let shown = text(&leyden(&["demo", "--case", "P", "--json"]));
	let document: Value = serde_json::from_str(&shown).unwrap();
	assert_eq!(document["v"], 1);
	assert_eq!(document["broken"], 0);
	let case = &document["cases"][0];
	assert_eq!(case["case"], "P");
	assert_eq!(case["ldk_alone"]["verdict"], "stuck");
	assert_eq!(case["with_leyden"]["verdict"], "recovered");
	assert_eq!(case["with_leyden"]["told"], 1);
}

#[test]
fn the_demo_shows_what_is_lost_between_a_node_and_its_lsp() {
	let shown = text(&leyden(&["demo", "--case", "callback", "--case", "REQUEST"]));
	// Columns of a table: what belongs together is in several lines.
	let column = |at: usize, end: usize| {
		let cells = shown.lines().filter_map(|line| line.get(at..end.min(line.len())));
		cells.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ")
	};
	let shown = [column(0, 999), column(40, 65), column(67, 999)].join("\n");
	for part in ["LSP loses", "50,000 sat", "sent again, taken", "2 invoices", "the same invoice"] {
		assert!(shown.contains(part), "{part} is missing in\n{shown}");
	}
	let shown = text(&leyden(&["demo", "--case", "payout", "--json"]));
	let document: Value = serde_json::from_str(&shown).unwrap();
	let case = &document["cases"][0];
	assert_eq!(
		(&case["today"]["got_msat"], &case["with_leyden"]["got_msat"]),
		(&1_000_000.into(), &500_000.into())
	);
	let shown = text(&leyden(&["demo", "--case", "callback", "--json"]));
	let document: Value = serde_json::from_str(&shown).unwrap();
	let case = &document["cases"][0];
	assert_eq!(
		(&case["today"]["well"], &case["with_leyden"]["well"]),
		(&false.into(), &true.into())
	);
	assert_eq!(case["today"]["lsp_lost_msat"], 50_000_000);
	assert_eq!(case["with_leyden"]["lsp_lost_msat"], 0);
	let cannot = complaint(&["demo", "--case", "callback", "--kill"]);
	assert!(cannot.contains("--kill"), "{cannot}");
}

#[test]
fn a_node_that_is_really_killed_and_its_databases() {
	let dir = tempfile::tempdir().unwrap();
	let kept = dir.path().join("kept");
	let shown = text(&leyden(&["demo", "--case", "G3", "--kill", "--dir", path(&kept)]));
	assert!(shown.contains("SIGKILL") && shown.contains("leyden list --store"), "{shown}");
	assert!(shown.contains("recovers: PaymentSent"), "{shown}");

	let store = kept.join("G3.leyden");
	let listed = text(&leyden(&["list", "--store", path(&store)]));
	for part in ["stream monitor", "stream events", "HtlcClaim", "PaymentSent", "acked"] {
		assert!(listed.contains(part), "{part} is missing in\n{listed}");
	}
	let listed = text(&leyden(&["list", "--store", path(&store), "--json"]));
	let listed: Value = serde_json::from_str(&listed).unwrap();
	let entry = &listed["streams"][1]["entries"][1];
	assert_eq!(entry["kind"], "HtlcClaim");

	let id = entry["id"].as_str().unwrap();
	for id in [id, &id[..10]] {
		let inspected = text(&leyden(&["inspect", id, "--store", path(&store)]));
		assert!(inspected.contains("HtlcClaim") && inspected.contains("consumer manager"));
	}
	let by_index = ["inspect", "1", "--stream", "events", "--store", path(&store), "--json"];
	let inspected: Value = serde_json::from_str(&text(&leyden(&by_index))).unwrap();
	assert_eq!(inspected["kind"], "ChannelPending");
	assert!(complaint(&["inspect", "1", "--store", path(&store)]).contains("--stream"));
	assert!(complaint(&["inspect", "ffffffffff", "--store", path(&store)]).contains("leyden list"));

	// Nothing is overwritten.
	let again = complaint(&["demo", "--case", "G3", "--dir", path(&kept)]);
	assert!(again.contains("earlier demo"), "{again}");
}

#[test]
fn what_cannot_be_opened_is_told_with_what_where_and_why() {
	let dir = tempfile::tempdir().unwrap();
	let list = |store: &str| complaint(&["list", "--store", store]);
	assert!(list(path(&dir.path().join("missing"))).contains("no such file"));
	assert!(list(path(dir.path())).contains("directory"));
	let note = dir.path().join("note.txt");
	std::fs::write(&note, "this is a note and no database, and long enough to be one").unwrap();
	assert!(list(path(&note)).contains("not a SQLite database"));
	assert!(list("mysql://user:secret@host/db").contains("sqlite:PATH"));
	for url in ["mysql://user:secret@host/db", "postgres://user:secret@127.0.0.1:1/db"] {
		assert!(!list(url).contains("secret"), "{url}");
	}
	assert!(list("postgres://user:secret@127.0.0.1:1/db").contains("127.0.0.1:1"));

	let store = dir.path().join("node.leyden");
	let running = SqliteStore::open(&store, Namespace::default()).unwrap();
	// To look is no harm, and to move it is.
	let empty = text(&leyden(&["list", "--store", path(&store)]));
	assert!(empty.contains("no streams"), "{empty}");
	let to = format!("sqlite:{}", path(&dir.path().join("new.leyden")));
	let locked = complaint(&["migrate", "--from", path(&store), "--to", &to]);
	assert!(locked.contains("node.leyden") && locked.contains("another process"), "{locked}");
	drop(running);
	let other = complaint(&["list", "--store", path(&store), "--namespace", "other"]);
	assert!(other.contains("default"), "{other}");
}

/// The parser of arguments repeats what it does not understand.
#[test]
fn no_password_is_repeated_whatever_is_wrong_with_the_arguments() {
	let url = "postgres://user:secret@127.0.0.1:1/db";
	for arguments in [
		&["list", url][..],
		&["list", "--stor", url],
		&["list", "--stor=postgres://user:secret@127.0.0.1:1/db"],
		&[url],
		&["list", "--store", url, "--limit", url],
		&["inspect", "1", "2", url],
		&["backup", "--store", url, url],
		&["list", "mysql://user:secret@h/d"],
		&["list", "postgres://user:secret?pw@h/d"],
		&["list", "postgres:/user:secret@h/d"],
		&["list", "host=h password=secret"],
		&["list", "postgres://h/d?password=secret"],
	] {
		let output = leyden(arguments);
		assert_eq!(output.status.code(), Some(2), "{output:?}");
		let said = String::from_utf8_lossy(&output.stderr).into_owned();
		assert!(!said.contains("secret") && said.contains("error"), "{said}");
		assert!(output.stdout.is_empty());
	}
	assert!(text(&leyden(&["--help"])).contains("leyden backup"));
}

#[test]
fn a_store_moves_and_is_looked_at_where_it_is() {
	let dir = tempfile::tempdir().unwrap();
	let kept = dir.path().join("kept");
	let _ = text(&leyden(&["demo", "--case", "K", "--dir", path(&kept)]));
	let (old, new) = (kept.join("K.leyden"), format!("sqlite:{}", path(&kept.join("new.leyden"))));
	let before = text(&leyden(&["list", "--store", path(&old)]));
	let moved = text(&leyden(&["migrate", "--from", path(&old), "--to", &new]));
	assert!(moved.contains("records moved and compared, sha256"), "{moved}");
	assert!(moved.contains("can no longer be opened to write"), "{moved}");
	assert_eq!(text(&leyden(&["list", "--store", &new])), before);
	// The old one can still be looked at.
	assert_eq!(text(&leyden(&["list", "--store", path(&old)])), before);
	let again = complaint(&["migrate", "--from", path(&old), "--to", &new]);
	assert!(again.contains("have moved to") && again.contains("new.leyden"), "{again}");
}

/// What is owed, as an operator sees it.
#[test]
fn debts_are_shown() {
	use leyden::payout::{
		Currency, DebtId, InvoiceRules, NewDebt, PayoutOptions, Payouts, Source, Terms,
	};
	use leyden::store::SystemClock;
	let dir = tempfile::tempdir().unwrap();
	let path = dir.path().join("node.leyden");
	let leyden_store = leyden::Leyden::builder().sqlite(&path).open().unwrap();
	let store = std::sync::Arc::clone(leyden_store.store());
	let cash = leyden::payout::OutsideProof::Reference("paid in cash".to_owned());
	let options = PayoutOptions::new(InvoiceRules::on(Currency::Regtest));
	let payouts =
		Payouts::open(std::sync::Arc::clone(&store), std::sync::Arc::new(SystemClock), options);
	let payouts = payouts.unwrap();
	let hour = std::time::Duration::from_secs(3600);
	let id = DebtId::new("bond", b"order 7");
	let new = NewDebt {
		id,
		payee: b"alice".to_vec(),
		cause: "lost-dispute".to_owned(),
		amount_sat: 1000,
		node_share_sat: 400,
		source: Source::InHand,
		terms: Terms {
			invoice_window: 48 * hour,
			reminder_interval: hour,
			max_failed_attempts: 5,
			fee_cap_msat: 1000,
		},
	};
	payouts.add_debt(&new).unwrap().commit(&*store).wait().unwrap();
	let paid = NewDebt { id: DebtId::new("bond", b"order 8"), ..new };
	payouts.add_debt(&paid).unwrap().commit(&*store).wait().unwrap();
	payouts.resolve_with_proof(&paid.id, &cash).unwrap();
	payouts.freeze("the first reason").unwrap().run(&*store).unwrap();
	payouts.freeze("the second reason").unwrap().run(&*store).unwrap();
	drop((payouts, store, leyden_store));
	let path = path.to_str().unwrap();
	let shown = text(&leyden(&["payouts", "--store", path]));
	for part in [
		&id.to_string()[..12],
		"owed",
		"600 sat",
		"0 of 5 failed",
		"in 1 d 23 h",
		"2 debts; 600 sat owed",
		"FROZEN, nothing is paid: the first reason; the second reason",
	] {
		assert!(shown.contains(part), "{part} is missing in\n{shown}");
	}
	let shown = text(&leyden(&["payouts", "--store", path, "--json"]));
	let document: Value = serde_json::from_str(&shown).unwrap();
	assert_eq!((&document["open_sat"], &document["count"]), (&600.into(), &2.into()));
	assert_eq!(document["frozen"]["reasons"][1], "the second reason");
	let shown = text(&leyden(&["inspect", &paid.id.to_string(), "--store", path]));
	assert!(shown.contains("paid_by_other_means   what paid in cash"), "{shown}");
	let shown = text(&leyden(&["inspect", &id.to_string()[..10], "--store", path]));
	for part in ["lost-dispute", "node_share_sat        400", "what decided"] {
		assert!(shown.contains(part), "{part} is missing in\n{shown}");
	}
	let shown = text(&leyden(&["inspect", &id.to_string(), "--store", path, "--json"]));
	let document: Value = serde_json::from_str(&shown).unwrap();
	assert_eq!((&document["state"], &document["share_sat"]), (&"owed".into(), &600.into()));
	let unknown = complaint(&["inspect", "ffff", "--store", path]);
	assert!(unknown.contains("no debt ffff"), "{unknown}");
}

#[test]
fn usage() {
	let unknown = leyden(&["demo", "--case", "Z9"]);
	assert_eq!(unknown.status.code(), Some(2));
	assert!(String::from_utf8_lossy(&unknown.stderr).contains("G1"));
	assert!(text(&leyden(&["--version"])).starts_with("leyden 0."));
	assert!(text(&leyden(&["completions", "bash"])).contains("leyden"));
	assert!(text(&leyden(&["--help"])).contains("Examples:"));
}

/// Appends three events to the log of a node.
fn append_three(node: &leyden::Leyden) {
	for n in 0..3 {
		let kind = leyden::id::EventKind::new("Test").unwrap();
		let id = leyden::id::IdBuilder::new(leyden::id::Domain::new("test/cli", 1), "n");
		let (id, lane) = (id.number(n).finish(), leyden::id::Lane::named("lane"));
		let event = leyden::log::NewEvent { id, kind, lane, payload: vec![1] };
		node.events().append(event).unwrap();
	}
}

/// A running store is copied and checked, and damage is named.
#[test]
fn a_running_store_is_copied_and_checked() {
	let dir = tempfile::tempdir().unwrap();
	let store = dir.path().join("node.leyden");
	let node = leyden::Leyden::builder().sqlite(&store).open().unwrap();
	let consumer = node.consumer("app", leyden::log::Start::Beginning).unwrap();
	append_three(&node);
	consumer.next_event().unwrap().unwrap().ack().unwrap();
	let copy = dir.path().join("monday.leyden");
	let said = text(&leyden(&["backup", "--store", path(&store), "--to", path(&copy)]));
	assert!(said.contains("records") && said.contains("checked"), "{said}");
	assert!(said.contains("is told again what was not acked"), "{said}");
	let app = said.lines().find(|line| line.contains("app")).unwrap();
	let cells: Vec<_> = app.split_whitespace().collect();
	assert_eq!(cells, ["default", "events", "app", "2", "3"]);
	for place in [&store, &copy] {
		let clean = text(&leyden(&["verify", "--store", path(place)]));
		assert!(clean.contains("nothing is wrong"), "{clean}");
	}
	let nothing = complaint(&["verify", "--store", "memory:"]);
	assert!(nothing.contains("nothing was checked"), "{nothing}");
	let again = complaint(&["backup", "--store", path(&store), "--to", path(&copy)]);
	assert!(again.contains("is there already"), "{again}");

	let ids = leyden::store::KeyRange::all(leyden::store::Table::new("log_ids"));
	let page = node.store().scan(ids, 1).wait().unwrap();
	let mut batch = leyden::store::Batch::new();
	batch.delete(page.records[0].0.clone());
	node.store().commit(batch).wait().unwrap();
	let found = complaint(&["verify", "--store", path(&store)]);
	assert!(found.contains("has 1 problem") && found.contains("the id of entry"), "{found}");
	let document = leyden(&["verify", "--store", path(&store), "--json"]);
	assert_eq!(document.status.code(), Some(1));
	let document: serde_json::Value = serde_json::from_slice(&document.stdout).unwrap();
	assert_eq!(document["problems"][0]["namespace"], "default");
	let refused =
		complaint(&["backup", "--store", path(&store), "--to", path(&dir.path().join("b"))]);
	assert!(refused.contains("the id of entry"), "{refused}");
}

/// A mistyped consumer keeps every entry; an operator sees it and removes it.
#[test]
fn a_consumer_that_nobody_reads_is_removed() {
	let dir = tempfile::tempdir().unwrap();
	let store = dir.path().join("node.leyden");
	let node = leyden::Leyden::builder().sqlite(&store).open().unwrap();
	append_three(&node);
	drop(node.consumer("apq", leyden::log::Start::Beginning).unwrap());
	let remove =
		|name: &'static str| ["consumer", "remove", name, "--store", path(&store), "--yes"];
	let running = complaint(&remove("apq"));
	assert!(running.contains("another process"), "{running}");
	drop(node);
	let asked = complaint(&remove("apq")[..5]);
	assert!(asked.contains("has not acked 3 entries") && asked.contains("--yes"), "{asked}");
	for (name, said) in [("nobody", "has no consumer nobody"), ("ldk", "belongs to the node")] {
		let refused = complaint(&remove(name));
		assert!(refused.contains(said), "{refused}");
	}
	let done = text(&leyden(&remove("apq")));
	assert!(done.contains("apq of stream events is removed"), "{done}");
	let list = text(&leyden(&["list", "--store", path(&store), "--json"]));
	assert!(!list.contains("apq"), "{list}");
}

/// Flips a bit in the payload of an entry, in the file of a store that is not in use.
fn damage_entry(store: &Path, payload: &[u8]) {
	let mut bytes = std::fs::read(store).unwrap();
	let found: Vec<_> =
		bytes.windows(payload.len()).enumerate().filter(|(_, w)| *w == payload).collect();
	assert_eq!(found.len(), 1, "the payload is in the file once");
	let at = found[0].0;
	bytes[at] ^= 1;
	std::fs::write(store, bytes).unwrap();
}

/// An entry is damaged. An operator sees it, hears of it, and puts it aside; the node goes on.
#[test]
fn a_damaged_entry_is_seen_and_put_aside() {
	let dir = tempfile::tempdir().unwrap();
	let store = dir.path().join("node.leyden");
	let open = || leyden::Leyden::builder().sqlite(&store).open().unwrap();
	let consumer =
		|node: &leyden::Leyden| node.consumer("app", leyden::log::Start::Beginning).unwrap();
	let node = open();
	for n in 1..=3u8 {
		let kind = leyden::id::EventKind::new("Test").unwrap();
		let id = leyden::id::EventId::from_bytes([n; 32]);
		let lane = leyden::id::Lane::named(if n == 3 { "other" } else { "lane" });
		let payload = [b'p', n].repeat(40);
		node.events().append(leyden::log::NewEvent { id, kind, lane, payload }).unwrap();
	}
	node.store().checkpoint().unwrap();
	drop(node);
	damage_entry(&store, &[b'p', 1].repeat(40));
	let found = complaint(&["verify", "--store", path(&store)]);
	assert!(found.contains("has 1 problem") && found.contains("log_entries"), "{found}");
	let node = open();
	let app = consumer(&node);
	let next = || app.next_event().unwrap();
	let delivery = next().unwrap();
	assert_eq!(delivery.index().get(), 3);
	delivery.ack().unwrap();
	assert!(next().is_none());
	let listed = text(&leyden(&["list", "--store", path(&store)]));
	let line = listed.lines().find(|line| line.contains("(damaged)")).unwrap();
	assert!(line.contains("010101010101") && line.contains("app: dead letter"), "{listed}");
	assert!(listed.contains("app (2 un-acked, the oldest at 1)"), "{listed}");
	let inspected = text(&leyden(&["inspect", "1", "--stream", "events", "--store", path(&store)]));
	assert!(inspected.contains("checksum") && inspected.contains("unknown"), "{inspected}");
	drop((app, node));

	let discard = ["consumer", "discard", "app", "--index", "1", "--store", path(&store), "--yes"];
	let asks = complaint(&discard[..7]);
	assert!(asks.contains("never be told of entry 1") && asks.contains("--yes"), "{asks}");
	let none = complaint(&[
		"consumer",
		"discard",
		"app",
		"--index",
		"2",
		"--store",
		path(&store),
		"--yes",
	]);
	assert!(none.contains("entry 2 is no dead letter of consumer app"), "{none}");
	let done = text(&leyden(&discard));
	assert!(done.contains("done with entry 1"), "{done}");
	let node = open();
	let app = consumer(&node);
	assert_eq!(app.next_event().unwrap().unwrap().index().get(), 2);
}

/// An operator pauses, renames and resets a consumer, and requeues a dead letter.
#[test]
fn a_consumer_is_paused_renamed_and_reset() {
	let dir = tempfile::tempdir().unwrap();
	let store = dir.path().join("node.leyden");
	let open = || leyden::Leyden::builder().sqlite(&store).open().unwrap();
	let node = open();
	append_three(&node);
	let app = node.consumer("app", leyden::log::Start::Beginning).unwrap();
	app.next_event().unwrap().unwrap().ack().unwrap();
	app.next_event().unwrap().unwrap().dead_letter("no").unwrap();
	let consumer = |arguments: &[&str]| {
		let store = ["--store", path(&store)];
		leyden(&[&["consumer"], arguments, &store].concat())
	};
	let refused = |arguments: &[&str]| {
		let output = consumer(arguments);
		assert_eq!(output.status.code(), Some(1), "{output:?}");
		String::from_utf8(output.stderr).unwrap()
	};
	assert!(refused(&["pause", "app"]).contains("another process"));
	drop((app, node));

	assert!(text(&consumer(&["pause", "app"])).contains("is paused; 2 entries wait for it"));
	let listed = text(&leyden(&["list", "--store", path(&store)]));
	assert!(listed.contains("app (2 un-acked, the oldest at 2, paused)"), "{listed}");
	assert!(text(&consumer(&["rename", "app", "--to", "shop"])).contains("is named shop now"));
	assert!(refused(&["resume", "app"]).contains("has no consumer app"));
	assert!(text(&consumer(&["resume", "shop"])).contains("is not paused; 2 entries"));
	assert!(text(&consumer(&["requeue", "shop", "--index", "2"])).contains("delivered"));
	let node = open();
	let shop = node.consumer("shop", leyden::log::Start::Beginning).unwrap();
	let delivery = shop.next_event().unwrap().unwrap();
	assert_eq!((delivery.index().get(), delivery.attempt()), (2, 1));
	drop((delivery, shop, node));

	let asks = refused(&["reset", "shop", "--after", "beginning"]);
	assert!(asks.contains("whether it has acked it or not") && asks.contains("--yes"), "{asks}");
	for bad in ["0", "-1", "monday", ""] {
		let said = refused(&["reset", "shop", &format!("--after={bad}"), "--yes"]);
		assert!(said.contains("takes an index, \"beginning\" or \"end\""), "{said}");
	}
	for (after, left) in [("1", 2), ("end", 0), ("beginning", 3), ("99", 0)] {
		let said = text(&consumer(&["reset", "shop", "--after", after, "--yes"]));
		assert!(said.contains(&format!("told of {left} entries")), "{said}");
	}
	let ours = refused(&["reset", "ldk", "--after", "end", "--yes"]);
	assert!(ours.contains("belongs to the node"), "{ours}");
}

/// A copy is refused by a node until an operator accepts it.
#[test]
fn a_copy_is_accepted_by_hand() {
	let dir = tempfile::tempdir().unwrap();
	let store = dir.path().join("node.leyden");
	let node = leyden::Leyden::builder().sqlite(&store).open().unwrap();
	node.consumer("app", leyden::log::Start::Beginning).unwrap();
	append_three(&node);
	let copy = dir.path().join("monday.leyden");
	text(&leyden(&["backup", "--store", path(&store), "--to", path(&copy)]));
	let open = || leyden::Leyden::builder().sqlite(&copy).open();
	let refused = open().map(|_| ()).unwrap_err().to_string();
	assert!(refused.contains("leyden accept"), "{refused}");
	let asks = complaint(&["accept", "--store", path(&copy)]);
	assert!(asks.contains("--yes") && asks.contains("it is a copy"), "{asks}");
	assert!(open().is_err(), "nothing was done without --yes");
	let said = text(&leyden(&["accept", "--store", path(&copy), "--yes"]));
	assert!(said.contains("is accepted") && said.contains("monday.leyden-witness"), "{said}");
	let app = said.lines().find(|line| line.contains("app")).unwrap();
	assert_eq!(app.split_whitespace().nth(3), Some("3"), "{said}");
	assert_eq!(open().unwrap().events().head().unwrap().get(), 3);
	let again = complaint(&["accept", "--store", path(&copy), "--yes"]);
	assert!(again.contains("nothing is to be accepted"), "{again}");
	let other = ["accept", "--store", path(&copy), "--yes", "--namespace", "other"];
	assert!(complaint(&other).contains("no namespace other"));
	let nothing = complaint(&["accept", "--store", path(&dir.path().join("none")), "--yes"]);
	assert!(!dir.path().join("none").exists(), "{nothing}");
}
