// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Every engine: what group commit is worth, and what a backlog costs.
//!
//! `cargo bench -p leyden-bench --features engines --bench engines -- --write docs` writes
//! `performance.md` and its charts.

#![allow(missing_docs, clippy::expect_used, clippy::unwrap_used, clippy::print_stdout)]
#![allow(clippy::indexing_slicing)]

use std::fmt::Write;
use std::path::{Path, PathBuf};

use leyden_bench::chart::{chart, Line};
use leyden_bench::engines::{Engine, OwnPostgres, OwnRedb};
use leyden_bench::peers::HandWritten;
use leyden_bench::{is_test, rate, ratios, Ratio};
use leyden_testkit::postgres::Server;

const THREADS: [usize; 3] = [1, 8, 64];

struct Row {
	engine: &'static str,
	threads: usize,
	ratio: Ratio,
	per_group: f64,
	flushes_per_group: Option<f64>,
}

fn main() {
	let dir = tempfile::tempdir().expect("a directory");
	// Synchronous and durable, as a server is set up by default.
	let server = Server::start_with(&["max_connections=100", "shared_buffers=64MB"]);
	let (mut rows, mut threads_lines): (Vec<Row>, Vec<Line>) = (Vec::new(), Vec::new());
	println!("Append and ack, {} bytes, both durable; pairs per second", 256);
	let mut compare = |engine: &dyn Fn(&str) -> Engine,
	                   own_name: &str,
	                   own: &dyn Fn(usize, usize) -> f64| {
		let (mut with, mut without) = (Vec::new(), Vec::new());
		let mut name = "";
		for threads in THREADS {
			let (rounds, each) = if is_test() { (1, 2) } else { (5, 1_500 / threads.min(8)) };
			let each = if threads == 64 && !is_test() { each / 2 } else { each };
			let engine = engine(&format!("{threads}"));
			name = engine.name;
			let before = engine.counts();
			let ratio = ratios(
				rounds,
				&mut || rate(threads, each, &|_| engine.append_and_ack()),
				&mut || own(threads, each),
			);
			let after = engine.counts();
			let groups = (after.groups - before.groups) as f64;
			let flushes = after.flushes.zip(before.flushes).map(|(a, b)| (a - b) as f64 / groups);
			let target = if threads == 64 && name == "PostgreSQL" {
				"2x"
			} else if threads == 64 {
				"2.5x"
			} else {
				""
			};
			ratio.print(&format!("{name}, {threads} threads, against {own_name}"), target);
			let per_group = (2 * rounds * threads * each) as f64 / groups;
			match flushes {
				Some(flushes) => {
					println!(
						"    {per_group:.1} operations per group, {flushes:.2} flushes per group"
					);
				},
				None => println!("    {per_group:.1} operations per group"),
			}
			with.push((threads as f64, ratio.a));
			without.push((threads as f64, ratio.b));
			rows.push(Row { engine: name, threads, ratio, per_group, flushes_per_group: flushes });
		}
		threads_lines.push((name.to_owned(), with));
		if name != "redb, two phases" {
			threads_lines.push((format!("{name} alone"), without));
		}
	};
	let at = |name: String| dir.path().join(name);
	let hand = HandWritten::open(&at("own.sqlite".to_owned()));
	compare(
		&|n| Engine::sqlite(&at(format!("sqlite{n}"))),
		"itself, a transaction each",
		&|t, each| rate(t, each, &|_| hand.append_and_ack()),
	);
	let own = OwnRedb::open(&at("own.redb".to_owned()));
	for two in [false, true] {
		compare(
			&|n| Engine::redb(&at(format!("redb{two}{n}")), two),
			"itself, a transaction each",
			&|t, each| rate(t, each, &|_| own.append_and_ack()),
		);
	}
	if let Some(server) = &server {
		let own = OwnPostgres::open(server);
		compare(&|_| Engine::postgres(server), "itself, a statement each", &|t, each| {
			own.connect(t);
			rate(t, each, &|thread| own.append_and_ack(thread))
		});
	}

	let backlogs: &[u64] =
		if is_test() { &[1, 1_000] } else { &[1, 1_000, 10_000, 100_000, 300_000] };
	println!("\nMicroseconds for an append and an ack, one thread, by backlog {backlogs:?}");
	let mut lines: Vec<Line> = Vec::new();
	let mut engines = vec![
		Engine::sqlite(&at("b.sqlite".to_owned())),
		Engine::redb(&at("b.redb".to_owned()), false),
	];
	engines.extend(server.as_ref().map(|server| {
		server.psql("DROP SCHEMA leyden CASCADE");
		Engine::postgres(server)
	}));
	for engine in &engines {
		let (mut points, mut there) = (Vec::new(), 0);
		for backlog in backlogs {
			while there < *backlog {
				let more = (*backlog - there).min(1_000);
				engine.append(more);
				there += more;
			}
			let each = if is_test() { 2 } else { 400 };
			let mut rates: Vec<f64> =
				(0..5).map(|_| rate(1, each, &|_| engine.append_and_ack())).collect();
			rates.sort_by(f64::total_cmp);
			points.push((*backlog as f64, 1e6 / rates[2]));
		}
		let cost: Vec<String> = points.iter().map(|(_, cost)| format!("{cost:.0}")).collect();
		println!("{:<12} {}", engine.name, cost.join(" "));
		lines.push((engine.name.to_owned(), points));
	}
	if let Some(dir) = output() {
		write(&dir, &rows, &threads_lines, &lines);
	}
}

/// The directory behind `--write`, as seen from the workspace.
fn output() -> Option<PathBuf> {
	let mut arguments = std::env::args().skip_while(|argument| argument != "--write");
	let dir = arguments.nth(1)?;
	Some(Path::new(env!("CARGO_MANIFEST_DIR")).parent()?.join(dir))
}

fn write(dir: &Path, rows: &[Row], threads: &[Line], backlog: &[Line]) {
	let mut text = String::from(
		"# Performance\n\nWritten by `cargo bench -p leyden-bench --features engines --bench engines -- \
		 --write docs`; do not edit. Every engine did the same durable work with Leyden in front and by \
		 itself, in turn, in one run: append 256 bytes, durably; delete them, durably. Ratios are medians \
		 of five rounds. The rates are of a virtual machine with two cores, whose disk acknowledges a flush \
		 in 50 µs: on a disk that takes a millisecond, the flushes per operation decide, and ratios at many \
		 threads are higher.\n\n| engine | threads | against itself | pairs/s with Leyden | pairs/s alone | \
		 operations per group | flushes per group |\n|---|---|---|---|---|---|---|\n",
	);
	for row in rows {
		let flushes =
			row.flushes_per_group.map_or("the server's".to_owned(), |f| format!("{f:.2}"));
		let _ = writeln!(
			text,
			"| {} | {} | {:.2}x ({:.2} to {:.2}) | {:.0} | {:.0} | {:.1} | {flushes} |",
			row.engine,
			row.threads,
			row.ratio.median,
			row.ratio.lowest,
			row.ratio.highest,
			row.ratio.a,
			row.ratio.b,
			row.per_group
		);
	}
	text.push_str(
		"\n![pairs per second by threads](performance-threads.svg)\n\n## What a backlog costs\n\n\
		 Microseconds for an append and an ack, one thread, with so many records that nobody has acked.\n\n|",
	);
	let _ = write!(text, " engine |");
	for (backlog, _) in &backlog[0].1 {
		let _ = write!(text, " {backlog:.0} |");
	}
	text.push_str("\n|---|");
	text.push_str(&"---|".repeat(backlog[0].1.len()));
	for (name, points) in backlog {
		let _ = write!(text, "\n| {name} |");
		for (_, cost) in points {
			let _ = write!(text, " {cost:.0} |");
		}
	}
	text.push_str(
		"\n\n![cost by backlog](performance-backlog.svg)\n\nThe log on SQLite against a loop written by \
		 hand and against a queue under one key, what a million entries cost to open, callbacks over HTTP \
		 against the same requests without an outbox, and what a look at the debts costs: `cargo bench -p \
		 leyden-bench`.\n",
	);
	std::fs::write(dir.join("performance.md"), text).unwrap();
	let threads = chart("Durable append and ack: pairs per second", "threads", "pairs/s", threads);
	std::fs::write(dir.join("performance-threads.svg"), threads).unwrap();
	let backlog = chart("Cost of an append and ack by backlog", "un-acked records", "µs", backlog);
	std::fs::write(dir.join("performance-backlog.svg"), backlog).unwrap();
}
