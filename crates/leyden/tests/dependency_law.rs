//! The law of who may import whom (docs/architecture.md), checked against what cargo says.
//!
//! It keeps the protocol crates free of each other, of LDK, of runtimes and of engines, so that one
//! of them can be used without the rest, and it keeps every dependency buildable on the oldest
//! compiler we promise.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

/// What each of our crates may import, besides the standard library. Dev-dependencies are free.
const LAW: &[(&str, &[&str])] = &[
	("leyden-id", &["bitcoin", "serde"]),
	// shuttle only with `--cfg shuttle`, which is for one test.
	("leyden-store", &["bincode", "crc32c", "parking_lot", "serde", "shuttle"]),
	// crc32c: what a damaged entry still says about itself has a checksum of its own.
	("leyden-log", &["crc32c", "getrandom", "leyden-id", "leyden-store", "parking_lot", "serde"]),
	(
		"leyden-backends",
		&[
			"bitcoin_hashes",
			"fs4",
			"getrandom",
			"leyden-store",
			"prost",
			"redb",
			"rusqlite",
			"rustix",
			"rustls",
			"rustls-native-certs",
			"serde",
			"tokio",
			"tokio-postgres",
			"tokio-postgres-rustls",
			"vss-client-ng",
		],
	),
	(
		"leyden-splice",
		&["bitcoin", "getrandom", "leyden-id", "leyden-store", "parking_lot", "serde"],
	),
	(
		"leyden-http",
		&[
			"axum",
			"base64",
			"bitcoin_hashes",
			"ed25519-dalek",
			"http-body",
			"httpdate",
			// What axum's server stands on: it has limits, and axum's has none.
			"hyper",
			"hyper-util",
			// The addresses that are not called.
			"iprfc",
			"leyden-outbox",
			"leyden-request",
			"leyden-store",
			"parking_lot",
			"reqwest",
			"serde",
			"serde_json",
			"subtle",
			"tokio",
		],
	),
	("leyden-outbox", &["getrandom", "leyden-id", "leyden-store", "parking_lot", "serde"]),
	// lightning-invoice is a parser of a text format, and brings nothing of LDK's node.
	(
		"leyden-payout",
		&[
			"bitcoin",
			"getrandom",
			"leyden-id",
			"leyden-store",
			"lightning-invoice",
			"parking_lot",
			"serde",
			"serde_json",
		],
	),
	("leyden-request", &["leyden-id", "leyden-store", "parking_lot", "serde"]),
	(
		"leyden-ldk",
		&[
			"bitcoin",
			"leyden-id",
			"leyden-log",
			"leyden-payout",
			"leyden-splice",
			"leyden-store",
			"lightning",
			"lightning-types",
			// Optional: loggers for nodes that log with one of them.
			"log",
			"memchr",
			"parking_lot",
			"serde",
			"tokio",
			"tracing",
		],
	),
	(
		"leyden",
		&[
			"bitcoin",
			"leyden-backends",
			"leyden-id",
			"leyden-ldk",
			"leyden-log",
			"leyden-outbox",
			"leyden-payout",
			"leyden-request",
			"leyden-splice",
			"leyden-store",
			"lightning",
		],
	),
];

/// The only crates that may import anything: they are not depended on by what ships.
const FREE: &[&str] = &["leyden-bench", "leyden-cli", "leyden-fuzz-logic", "leyden-testkit"];

fn metadata(arguments: &[&str]) -> Value {
	let mut command = Command::new(env!("CARGO"));
	command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
	command.args(["metadata", "--format-version", "1", "--offline", "--locked"]).args(arguments);
	let output = command.output().unwrap();
	assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
	serde_json::from_slice(&output.stdout).unwrap()
}

/// Name and normal dependencies of every member.
fn members() -> Vec<(String, BTreeSet<String>)> {
	let packages = metadata(&["--no-deps"]);
	let text = |value: &Value| value.as_str().unwrap().to_owned();
	let dependencies = |package: &Value| {
		let all = package["dependencies"].as_array().unwrap().iter();
		all.filter(|d| d["kind"] != "dev").map(|d| text(&d["name"])).collect()
	};
	let packages = packages["packages"].as_array().unwrap().iter();
	packages.map(|package| (text(&package["name"]), dependencies(package))).collect()
}

#[test]
fn every_crate_imports_only_what_it_may() {
	for (name, dependencies) in members() {
		if FREE.contains(&name.as_str()) {
			continue;
		}
		let (_, allowed) = LAW
			.iter()
			.find(|(crate_name, _)| *crate_name == name)
			.unwrap_or_else(|| panic!("{name} is not in the law: add it, with what it may import"));
		for dependency in dependencies {
			assert!(allowed.contains(&dependency.as_str()), "{name} may not import {dependency}");
		}
	}
}

#[test]
fn protocol_crates_do_not_know_each_other_nor_ldk() {
	const PROTOCOLS: &[&str] =
		&["leyden-log", "leyden-splice", "leyden-outbox", "leyden-request", "leyden-payout"];
	const NEVER: &[&str] = &["lightning", "tokio", "leyden-backends", "leyden-ldk", "leyden"];
	for (name, dependencies) in members() {
		if !PROTOCOLS.contains(&name.as_str()) {
			continue;
		}
		for dependency in dependencies {
			let forbidden = PROTOCOLS.contains(&dependency.as_str());
			let forbidden = forbidden || NEVER.contains(&dependency.as_str());
			assert!(!forbidden, "{name} imports {dependency}");
		}
	}
}

/// No other toolchain is needed to find out: every crate says itself what it needs.
#[test]
fn every_dependency_builds_on_our_rust_version() {
	let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
	let about = Command::new(rustc).arg("-vV").output().unwrap();
	let about = String::from_utf8(about.stdout).unwrap();
	let host = about.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
	// What other platforms need was not downloaded.
	let all = metadata(&["--filter-platform", host]);
	let number = |text: &str| -> Vec<u32> { text.split('.').map(|n| n.parse().unwrap()).collect() };
	let ours = number("1.85.0");
	for package in all["packages"].as_array().unwrap() {
		let Some(theirs) = package["rust_version"].as_str() else { continue };
		let mut theirs = number(theirs);
		theirs.resize(3, 0);
		assert!(theirs <= ours, "{} {} needs {theirs:?}", package["name"], package["version"]);
	}
}

/// Files that may look at the machine's clocks, with the reason. Everything else goes by a `Clock`
/// that is passed in, and what is kept in a store by its `StoreClock`.
const CLOCKS: &[(&str, &str, &str)] = &[
	("SystemTime", "store/src/clock.rs", "it is the clock"),
	("Instant", "store/src/clock.rs", "it is the clock"),
	("Instant", "store/src/group/outage.rs", "the pauses of an outage, as a trait"),
	("Instant", "backends/src/file_lock.rs", "how long a lock is waited for"),
	("Instant", "backends/src/runtime.rs", "how long an answer is waited for"),
	("Instant", "backends/src/postgres/engine.rs", "how long an answer is waited for"),
	("Instant", "backends/src/postgres/opening.rs", "how long an answer is waited for"),
	("Instant", "backends/src/postgres/session.rs", "how long an answer is waited for"),
	("Instant", "backends/src/vss/client.rs", "how long an answer is waited for"),
	("Instant", "backends/src/vss/sending.rs", "how long an answer is waited for"),
	("Instant", "backends/src/vss/opening.rs", "how long an answer is waited for"),
	("Instant", "ldk/src/kv_backend/runtime.rs", "how long an answer is waited for"),
	("Instant", "request/src/flights.rs", "how long another caller is waited for"),
];

#[test]
fn no_other_file_looks_at_a_clock() {
	let crates = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned();
	let mut found = BTreeSet::new();
	let mut folders: Vec<_> = std::fs::read_dir(&crates)
		.unwrap()
		.map(|entry| entry.unwrap().path())
		.filter(|path| !path.ends_with("testkit"))
		.map(|path| path.join("src"))
		.collect();
	while let Some(folder) = folders.pop() {
		for entry in std::fs::read_dir(folder).unwrap() {
			let path = entry.unwrap().path();
			if path.is_dir() {
				folders.push(path);
				continue;
			}
			let text = std::fs::read_to_string(&path).unwrap();
			let name = path.strip_prefix(&crates).unwrap().to_str().unwrap().to_owned();
			for clock in ["SystemTime", "Instant"] {
				if text.contains(&format!("{clock}::")) {
					found.insert((clock.to_owned(), name.clone()));
				}
			}
			let is_a_name = text.contains("SystemTime as") || text.contains("Instant as");
			assert!(!is_a_name, "{name} gives a clock another name");
		}
	}
	let allowed = |(clock, file, _): &(&str, &str, &str)| ((*clock).to_owned(), (*file).to_owned());
	assert_eq!(found, CLOCKS.iter().map(allowed).collect());
}
