//! What a recipient answers when the LSP asks for an invoice: once, and the same ever after.

#![cfg(feature = "async-order")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::sync::Arc;
use std::time::Duration;

use leyden_store::Clock;
use leyden_testkit::async_order::order::State;
use leyden_testkit::async_order::rpc::{
	self, hex, DUPLICATE_HASH_CONFLICT, DUPLICATE_INDEX_CONFLICT, INVALID_HASH_BATCH,
	INVALID_PARAMS, INVALID_REQUEST, INVOICE_HASH_MISMATCH, METHOD_NOT_FOUND, PARSE_ERROR,
	STALE_FLOW, UNSUPPORTED_PROTOCOL_VERSION,
};
use leyden_testkit::async_order::{Replay, Setup, World, AMOUNT_MSAT, NEW, REQUEST_INVOICE};
use serde_json::{json, Value};

fn params(world: &World, index: u64) -> Value {
	json!({
		"hash_index": index.to_string(),
		"payment_hash": hex(&world.hash(index).0),
		"amount_msat": AMOUNT_MSAT,
		"description_hash": "ab".repeat(32),
		"invoice_expiry_sec": 900,
		"min_final_cltv_expiry_delta": 72,
	})
}

fn with(params: &Value, field: &str, value: Value) -> Value {
	let mut params = params.clone();
	params[field] = value;
	params
}

/// Asks as the node does, with an id of its own.
fn ask(world: &World, id: &str, params: &Value) -> Value {
	frame(world, &rpc::request(id, REQUEST_INVOICE, params)).unwrap()
}

fn frame(world: &World, frame: &[u8]) -> Option<Value> {
	let answer = world.recipient().receive(&world.net.id(world.host), frame)?;
	Some(serde_json::from_slice(&answer).unwrap())
}

fn code(answer: &Value) -> i64 {
	assert_eq!(answer["jsonrpc"], "2.0");
	assert!(answer.get("result").is_none(), "{answer}");
	answer["error"]["code"].as_i64().unwrap()
}

#[test]
fn the_same_request_gets_the_same_invoice_after_a_restart() {
	let mut world = World::new(Setup::default());
	let params = params(&world, 3);
	let first = ask(&world, "one", &params);
	let bolt11 = first["result"]["bolt11"].clone();
	assert!(bolt11.as_str().unwrap().starts_with("lnbcrt"), "{first}");
	for life in 0..3 {
		world.restart(world.recipient);
		// Its own id, the same result; however the parameters are written.
		let again = ask(&world, &format!("life {life}"), &params);
		assert_eq!(again["id"], format!("life {life}"));
		assert_eq!(again["result"], first["result"]);
		let written = with(&params, "hash_index", json!("0003"));
		let hash = hex(&world.hash(3).0).to_uppercase();
		let written = with(&written, "payment_hash", json!(hash));
		let written = with(&written, "description_hash", json!(format!(" {} ", "AB".repeat(32))));
		assert_eq!(ask(&world, "written", &written)["result"], first["result"]);
	}
	assert_eq!(world.invoices_made(), 1);
	// Anything else is another request: which field differs is said, and not what is in it.
	for (field, value) in [
		("amount_msat", json!(AMOUNT_MSAT + 1)),
		("description_hash", json!("cd".repeat(32))),
		("invoice_expiry_sec", json!(901)),
		("min_final_cltv_expiry_delta", json!(73)),
	] {
		let answer = ask(&world, "other", &with(&params, field, value.clone()));
		assert_eq!(code(&answer), i64::from(STALE_FLOW));
		let message = answer["error"]["message"].as_str().unwrap();
		assert!(message.contains(field) && !message.contains(&value.to_string()), "{message}");
	}
	assert_eq!(world.invoices_made(), 1);
}

/// A12: refused by validation, and then sent again, corrected: the hash is not burnt.
#[test]
fn a_request_that_is_corrected_is_answered() {
	let mut world = World::new(Setup::default());
	let params = params(&world, 3);
	for (field, value) in [
		("amount_msat", json!(1)),
		("min_final_cltv_expiry_delta", json!(1)),
		("hash_index", json!("0004")),
	] {
		let answer = ask(&world, "wrong", &with(&params, field, value));
		assert!(answer["error"]["code"].is_i64(), "{answer}");
		world.restart(world.recipient);
	}
	assert_eq!(world.invoices_made(), 0);
	assert!(ask(&world, "corrected", &params)["result"].is_object());
	assert_eq!(world.invoices_made(), 1);
}

/// What it is like today: the map is gone after a restart, and the ledger says no until the invoice has
/// expired; and then there is a second invoice of the same hash.
#[test]
fn a_map_in_memory_is_stale_after_a_restart() {
	let mut world = World::new(Setup { replay: Replay::Memory, ..Setup::default() });
	let params = params(&world, 3);
	let first = ask(&world, "one", &params);
	assert_eq!(ask(&world, "two", &params)["result"], first["result"]);
	world.restart(world.recipient);
	assert_eq!(code(&ask(&world, "three", &params)), i64::from(STALE_FLOW));
	world.clock.advance(Duration::from_secs(899));
	assert_eq!(code(&ask(&world, "four", &params)), i64::from(STALE_FLOW));
	world.clock.advance(Duration::from_secs(1));
	let second = ask(&world, "five", &params);
	assert_ne!(second["result"], first["result"]);
	assert_eq!(world.invoices_made(), 2);
}

/// The same in a whole order: the answer is lost, the recipient restarts, the LSP asks again.
#[test]
fn an_order_whose_answer_was_lost() {
	for (replay, invoices) in [(Replay::Leyden, 1), (Replay::Memory, 2)] {
		let mut world = World::new(Setup { replay, ..Setup::default() });
		let (hash, invoice) = world.order(1).remove(0);
		world.pay(&invoice);
		// The recipient has answered, to nobody.
		let asked = with(&params(&world, 0), "description_hash", json!("00".repeat(32)));
		assert!(ask(&world, "lost", &asked).get("result").is_some());
		world.restart(world.recipient);
		let begun = world.clock.now().0;
		assert_eq!(world.finish(&hash), State::InboundClaimed);
		assert_eq!(world.invoices_made(), invoices, "{replay:?}");
		let took = world.clock.now().0 - begun;
		match replay {
			Replay::Leyden => assert!(took < 300_000, "{took}"),
			// Not before the first invoice has expired; all that time the payer's money is held.
			Replay::Memory => assert!(took >= 900_000, "{took}"),
		}
	}
}

#[test]
fn a_hundred_duplicates_make_one_invoice() {
	let world = World::new(Setup::default());
	let (recipient, host) = (world.recipient(), world.net.id(world.host));
	let params = params(&world, 5);
	let barrier = Arc::new(std::sync::Barrier::new(100));
	let threads: Vec<_> = (0..100)
		.map(|n| {
			let (recipient, barrier) = (Arc::clone(&recipient), Arc::clone(&barrier));
			let frame = rpc::request(&n.to_string(), REQUEST_INVOICE, &params);
			std::thread::spawn(move || {
				barrier.wait();
				recipient.receive(&host, &frame).unwrap()
			})
		})
		.collect();
	let answers: Vec<Value> = threads
		.into_iter()
		.map(|thread| serde_json::from_slice(&thread.join().unwrap()).unwrap())
		.collect();
	for (n, answer) in answers.iter().enumerate() {
		assert_eq!(answer["id"], n.to_string());
		assert_eq!(answer["result"], answers[0]["result"], "{answer}");
	}
	assert_eq!(world.invoices_made(), 1);
}

/// The answer is given for as long as the invoice, and what pays it, can live: up to the last
/// millisecond, and never again, also after a restart and with a clock that is set back.
#[test]
fn the_end_of_an_answer_is_a_boundary() {
	// Invoice, 72 blocks and six more, of ten minutes each.
	let lives = Duration::from_secs(900 + 78 * 600);
	for (after, is_live) in [
		(lives - Duration::from_millis(1), true),
		(lives, false),
		(lives + Duration::from_millis(1), false),
	] {
		let mut world = World::new(Setup::default());
		let params = params(&world, 0);
		let first = ask(&world, "1", &params);
		// In steps, as time passes: a clock that jumps so far would be in doubt.
		let mut left = after;
		while !left.is_zero() {
			let step = left.min(Duration::from_secs(600));
			world.clock.advance(step);
			left -= step;
			if !left.is_zero() {
				assert_eq!(ask(&world, "live", &params)["result"], first["result"]);
			}
		}
		world.restart(world.recipient);
		let last = ask(&world, "last", &params);
		match is_live {
			true => assert_eq!(last["result"], first["result"]),
			false => assert_eq!(code(&last), i64::from(STALE_FLOW)),
		}
		assert_eq!(world.invoices_made(), 1);
	}
}

/// Whoever is not the LSP's node is not answered, and does not see what was answered.
#[test]
fn strangers_are_not_answered() {
	let world = World::new(Setup::default());
	let params = params(&world, 0);
	let request = rpc::request("1", REQUEST_INVOICE, &params);
	let stranger = world.net.id(world.payer);
	assert!(world.recipient().receive(&stranger, &request).is_none());
	assert!(world.recipient().receive(&stranger, b"{").is_none());
	assert_eq!(world.invoices_made(), 0);
}

#[test]
fn bad_frames_get_typed_answers_and_store_nothing() {
	let world = World::new(Setup::default());
	let good = params(&world, 0);
	let error =
		|bytes: &[u8]| frame(&world, bytes).map(|answer| (answer["id"].clone(), code(&answer)));
	let none = |code: i32| Some((Value::Null, i64::from(code)));
	for bytes in [&b""[..], b"{", b"\xff\xfe", b"{}\0", b"nonsense"] {
		assert_eq!(error(bytes), none(PARSE_ERROR), "{bytes:?}");
	}
	let long = rpc::request("1", REQUEST_INVOICE, &json!({ "x": "y".repeat(70_000) }));
	assert_eq!(error(&long), none(PARSE_ERROR));
	let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
	assert_eq!(error(deep.as_bytes()), none(PARSE_ERROR));
	for bytes in [
		&b"[]"[..],
		b"7",
		br#"{"id":"1","method":"m"}"#,
		br#"{"jsonrpc":"1.0","id":"1","method":"m"}"#,
		br#"{"jsonrpc":"2.0","id":1,"method":"m"}"#,
		br#"{"jsonrpc":"2.0","id":"1","method":7}"#,
	] {
		assert_eq!(error(bytes), none(INVALID_REQUEST), "{}", String::from_utf8_lossy(bytes));
	}
	let unknown = rpc::request("1", "async_order.nothing", &good);
	assert_eq!(error(&unknown), Some((json!("1"), i64::from(METHOD_NOT_FOUND))));
	// Answers and notifications are not answered.
	for bytes in [
		&br#"{"jsonrpc":"2.0","id":"1","result":7}"#[..],
		br#"{"jsonrpc":"2.0","id":"1","error":{"code":1,"message":""}}"#,
		br#"{"jsonrpc":"2.0","result":7}"#,
		br#"{"jsonrpc":"2.0","method":"async_order.request_invoice"}"#,
	] {
		assert!(frame(&world, bytes).is_none());
	}
	for (field, value) in [
		("hash_index", json!("+42")),
		("hash_index", json!(" 42")),
		("hash_index", json!("")),
		("hash_index", json!("-1")),
		("hash_index", json!("18446744073709551616")),
		("hash_index", json!(0)),
		("payment_hash", json!("ab")),
		("payment_hash", json!("zz".repeat(32))),
		("payment_hash", json!(format!("{} ", "ab".repeat(32)))),
		("amount_msat", json!(-1)),
		("amount_msat", json!("1000")),
		("amount_msat", json!(1.5)),
		("description_hash", json!("ab")),
		("invoice_expiry_sec", json!(4_294_967_296_u64)),
		("min_final_cltv_expiry_delta", json!(65_536)),
		("asset_id", json!("alone")),
		("asset_amount", json!(1)),
		("unknown", json!(1)),
	] {
		let answer = ask(&world, "1", &with(&good, field, value.clone()));
		assert_eq!(code(&answer), i64::from(INVALID_PARAMS), "{field}: {value}");
	}
	for params in [Value::Null, json!([]), json!({}), json!("x")] {
		assert_eq!(code(&ask(&world, "1", &params)), i64::from(INVALID_PARAMS), "{params}");
	}
	assert_eq!(world.invoices_made(), 0);
	let store = world.recipient().store().clone();
	assert_eq!(leyden_testkit::count_records(&*store, "requests"), 0, "nothing was stored");
	// What it refuses itself is an answer, and the same the next time.
	let other = with(&good, "hash_index", json!("1"));
	for _ in 0..2 {
		assert_eq!(code(&ask(&world, "1", &other)), i64::from(INVOICE_HASH_MISMATCH));
	}
	assert_eq!(world.invoices_made(), 0);
}

#[test]
fn orders_are_made_once() {
	let world = World::new(Setup::default());
	let peer = world.net.id(world.recipient);
	let new = |version: u16, hashes: &[(u64, u64)]| {
		let hashes: Vec<_> = hashes
			.iter()
			.map(|(index, hash)| {
				let payment_hash = hex(&world.hash(*hash).0);
				json!({ "hash_index": index.to_string(), "payment_hash": payment_hash })
			})
			.collect();
		let params = json!({ "protocol_version": version, "hashes": hashes });
		let frame = rpc::request("1", NEW, &params);
		let answer = world.lsp().receive(&peer, AMOUNT_MSAT, &frame).unwrap();
		let answer: Value = serde_json::from_slice(&answer).unwrap();
		match answer.get("result") {
			Some(_) => 0,
			None => code(&answer),
		}
	};
	let is = |found: i64, code: i32| assert_eq!(found, i64::from(code));
	assert_eq!(new(1, &[(0, 0), (1, 1)]), 0);
	assert_eq!(new(1, &[(0, 0), (1, 1)]), 0, "the same once more");
	assert_eq!(new(1, &[(1, 1), (2, 2)]), 0);
	is(new(2, &[(3, 3)]), UNSUPPORTED_PROTOCOL_VERSION);
	is(new(1, &[]), INVALID_HASH_BATCH);
	is(new(1, &[(3, 3), (4, 3)]), INVALID_HASH_BATCH);
	let many: Vec<_> = (10..211).map(|n| (n, n)).collect();
	is(new(1, &many), INVALID_HASH_BATCH);
	is(new(1, &[(0, 7)]), DUPLICATE_INDEX_CONFLICT);
	is(new(1, &[(7, 0)]), DUPLICATE_HASH_CONFLICT);
	assert_eq!(new(1, &many[..200]), 0);
}
