// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Durable append and ack: Leyden, a loop written by hand, a queue under one key.

#![allow(missing_docs, clippy::expect_used, clippy::print_stdout)]

use criterion::Criterion;
use leyden_bench::peers::{HandWritten, WholeQueue};
use leyden_bench::{is_test, rate, ratios, Leyden};

fn main() {
	let mut criterion = Criterion::default().configure_from_args();
	let dir = tempfile::tempdir().expect("a directory");
	let leyden = Leyden::open(&dir.path().join("criterion.leyden"), 0);
	let hand = HandWritten::open(&dir.path().join("criterion.sqlite"));
	let mut group = criterion.benchmark_group("append_ack");
	group.bench_function("leyden", |bencher| bencher.iter(|| leyden.append_and_ack()));
	group.bench_function("hand_written", |bencher| bencher.iter(|| hand.append_and_ack()));
	group.finish();
	criterion.final_summary();

	let (rounds, each, backlog) = if is_test() { (1, 4, 100) } else { (9, 2000, 10_000) };
	println!("\nAppend and ack, 256 bytes, both durable; pairs per second");
	for (threads, target) in [(1, "0.9x"), (8, ""), (64, "4x")] {
		let at = |name: &str| dir.path().join(format!("{name}-{threads}"));
		let leyden = Leyden::open(&at("leyden"), 0);
		let hand = HandWritten::open(&at("hand"));
		let each = (each / threads).max(1) * if threads > 1 { 4 } else { 1 };
		let before = leyden.store.stats();
		let ratio =
			ratios(rounds, &mut || rate(threads, each, &|_| leyden.append_and_ack()), &mut || {
				rate(threads, each, &|_| hand.append_and_ack())
			});
		ratio.print(&format!("Leyden / hand-written loop, {threads} threads"), target);
		let stats = leyden.store.stats();
		let (flushes, pairs) = (stats.flushes - before.flushes, (rounds * threads * each) as f64);
		println!("    flushes per pair: {:.2} (hand-written: 2)", flushes as f64 / pairs);
	}

	let leyden = Leyden::open(&dir.path().join("full.leyden"), 0);
	leyden.fill(backlog);
	let mut queue = WholeQueue::open(&dir.path().join("full.queue"), backlog as usize);
	let each = if is_test() { 2 } else { 20 };
	let ratio = ratios(rounds, &mut || rate(1, each, &|_| leyden.append_and_ack()), &mut || {
		let begun = std::time::Instant::now();
		(0..each).for_each(|_| queue.append_and_ack());
		each as f64 / begun.elapsed().as_secs_f64()
	});
	ratio.print(&format!("Leyden / whole queue under one key, backlog {backlog}"), "30x");
}
