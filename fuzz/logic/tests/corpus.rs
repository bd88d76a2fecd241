//! Every target over its corpus, and over some bytes that nobody chose.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::Path;

fn over_the_corpus(target: &str, run: fn(&[u8])) {
	let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus").join(target);
	let mut files = 0;
	for file in fs::read_dir(&corpus).unwrap() {
		run(&fs::read(file.unwrap().path()).unwrap());
		files += 1;
	}
	assert!(files >= 8, "{} has {files} files", corpus.display());
	// A generator as simple as can be: the same bytes every time.
	let mut state = 1u64;
	for length in 0..400 {
		let bytes: Vec<u8> = (0..length)
			.map(|_| {
				state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
				(state >> 33) as u8
			})
			.collect();
		run(&bytes);
	}
}

#[test]
fn frame_decode() {
	over_the_corpus("frame_decode", leyden_fuzz_logic::frame_decode);
}

#[test]
fn event_decode() {
	over_the_corpus("event_decode", leyden_fuzz_logic::event_decode);
}

#[test]
fn log_ops() {
	over_the_corpus("log_ops", leyden_fuzz_logic::log_ops);
}

#[test]
fn request_params() {
	over_the_corpus("request_params", leyden_fuzz_logic::request_params);
}

#[test]
fn webhook_signature() {
	over_the_corpus("webhook_signature", leyden_fuzz_logic::webhook_signature);
}

#[test]
fn feed_cursor() {
	over_the_corpus("feed_cursor", leyden_fuzz_logic::feed_cursor);
}
