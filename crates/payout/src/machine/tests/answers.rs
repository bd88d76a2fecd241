// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Every answer of a node, and none, to the questions before an order.

use super::*;
use crate::payer::AttemptStatus as Is;
use FailureReason::Other;
use NodeMemory::{AtLeast, Forever, Unknown, WithStore};

/// Answers about the money that is held.
#[test]
fn the_table_of_answers_about_held_money() {
	let unknown = VerdictV1::Unknown;
	let held = SourceRefV1::Held([4; 32]);
	let decided = || DebtV1 { state: StateV1::Decided, source: held, window_start: None, ..debt() };
	check_answers(vec![
		(
			"settled",
			decided(),
			unknown,
			Answer::Settle(Some(SettleReply::Settled)),
			facts(),
			"Owed",
		),
		(
			"gone",
			decided(),
			unknown,
			Answer::Settle(Some(SettleReply::Gone)),
			facts(),
			"Void, tell Void",
		),
		(
			"not yet",
			decided(),
			unknown,
			Answer::Settle(Some(SettleReply::NotYet)),
			facts(),
			"in 15 s",
		),
		("no answer", decided(), unknown, Answer::Settle(None), facts(), "in 15 s"),
		(
			"a payer that settles nothing",
			decided(),
			unknown,
			Answer::Settle(Some(SettleReply::Unable)),
			facts(),
			"in 15 s, tell operator",
		),
		("settled late", debt(), unknown, Answer::Settle(Some(SettleReply::Gone)), facts(), ""),
	]);
}

/// Answers to the question what the node has paid before.
#[test]
fn the_table_of_answers_to_a_comparison() {
	let (unknown, dead, fresh, newest) = (VerdictV1::Unknown, DEAD, fresh(), newest());
	let vouched = Facts { is_vouched: true, ..fresh };
	let doubted = || DebtV1 { is_unproven: true, ..invoiced() };
	let dead_once = || DebtV1 { attempts: 1, failed_attempts: 1, ..invoiced() };
	let listed = |payments, memory| Some(KnownPayments::Listed { payments, memory });
	let known = |number, payment_hash, may_pay| KnownPayment { number, payment_hash, may_pay };
	check_answers(vec![
		(
			"nothing listed, for ever",
			invoiced(),
			unknown,
			Answer::Compare(listed(vec![], Forever)),
			fresh,
			"compared",
		),
		(
			"nothing listed, as the store",
			invoiced(),
			unknown,
			Answer::Compare(listed(vec![], WithStore)),
			fresh,
			"Unproven, in 60 s, tell Unproven, listed",
		),
		(
			"nothing listed, said before",
			doubted(),
			unknown,
			Answer::Compare(listed(vec![], WithStore)),
			fresh,
			"in 60 s, listed",
		),
		(
			"nothing listed, vouched",
			doubted(),
			unknown,
			Answer::Compare(listed(vec![], Unknown)),
			vouched,
			"proven, compared",
		),
		(
			"nothing listed, newest store",
			invoiced(),
			unknown,
			Answer::Compare(listed(vec![], WithStore)),
			newest,
			"compared",
		),
		(
			"nothing listed, remembers longer than the debt",
			invoiced(),
			unknown,
			Answer::Compare(listed(vec![], AtLeast(10 * HOUR))),
			fresh,
			"compared",
		),
		(
			"nothing listed, remembers less",
			invoiced(),
			unknown,
			Answer::Compare(listed(vec![], AtLeast(9 * HOUR))),
			fresh,
			"Unproven, in 60 s, tell Unproven, listed",
		),
		(
			"listed",
			invoiced(),
			unknown,
			Answer::Compare(listed(vec![known(4, [9; 32], true)], Forever)),
			fresh,
			"new attempt 4 unknown",
		),
		(
			"nothing listed, and no invoice",
			debt(),
			unknown,
			Answer::Compare(listed(vec![], WithStore)),
			fresh,
			"listed",
		),
		(
			"listed, and no invoice",
			debt(),
			unknown,
			Answer::Compare(listed(vec![known(1, [9; 32], true)], WithStore)),
			fresh,
			"new attempt 1 unknown",
		),
		(
			"a dead one is listed that may pay",
			dead_once(),
			dead,
			Answer::Compare(listed(vec![known(1, hash(), true)], Forever)),
			fresh,
			"in 60 s, attempt 1 dead, freeze",
		),
		(
			"a dead one is listed that has failed",
			dead_once(),
			dead,
			Answer::Compare(listed(vec![known(1, hash(), false)], Forever)),
			fresh,
			"compared",
		),
		(
			"a dead one is listed with another hash",
			dead_once(),
			dead,
			Answer::Compare(listed(vec![known(1, [9; 32], true)], Forever)),
			fresh,
			"in 60 s, attempt 1 dead, freeze",
		),
		(
			"the attempt that is listed has paid",
			dead_once(),
			VerdictV1::Settled { preimage: PREIMAGE, fee_msat: None },
			Answer::Compare(listed(vec![known(1, hash(), true)], Forever)),
			fresh,
			"Paid, tell Paid",
		),
		(
			"a number that cannot be",
			invoiced(),
			unknown,
			Answer::Compare(listed(vec![known(1_001, [9; 32], true)], Forever)),
			fresh,
			"in 60 s, freeze",
		),
		(
			"a number that is none",
			invoiced(),
			unknown,
			Answer::Compare(listed(vec![known(0, [9; 32], true)], Forever)),
			fresh,
			"in 60 s, freeze",
		),
		(
			"nothing listed, as the store, frozen",
			invoiced(),
			unknown,
			Answer::Compare(listed(vec![], WithStore)),
			Facts { is_frozen: true, ..fresh },
			"in 60 s, listed",
		),
		(
			"compare, no answer, and no invoice",
			DebtV1 { due: Some(hours(NOW + 1)), ..debt() },
			unknown,
			Answer::Compare(None),
			fresh,
			"",
		),
		(
			"by hash, and no invoice",
			debt(),
			unknown,
			Answer::Compare(Some(KnownPayments::ByHashOnly)),
			fresh,
			"listed",
		),
		(
			"by hash",
			invoiced(),
			unknown,
			Answer::Compare(Some(KnownPayments::ByHashOnly)),
			fresh,
			"compare hash",
		),
		("compare, no answer", invoiced(), unknown, Answer::Compare(None), fresh, "in 15 s"),
		(
			"hash in flight",
			invoiced(),
			unknown,
			Answer::CompareHash(Some(Is::InFlight)),
			fresh,
			"new attempt 1 unknown",
		),
		(
			"hash settled",
			invoiced(),
			unknown,
			Answer::CompareHash(Some(settled(None))),
			fresh,
			"new attempt 1 unknown",
		),
		(
			"hash without a record",
			invoiced(),
			unknown,
			Answer::CompareHash(Some(Is::NoRecord(Forever))),
			fresh,
			"Unproven, in 60 s, tell Unproven, listed",
		),
		(
			"hash without a record, newest store",
			invoiced(),
			unknown,
			Answer::CompareHash(Some(Is::NoRecord(Unknown))),
			newest,
			"compared",
		),
		(
			"hash has failed",
			invoiced(),
			unknown,
			Answer::CompareHash(Some(Is::Failed(Other))),
			newest,
			"compared",
		),
		("hash, no answer", invoiced(), unknown, Answer::CompareHash(None), fresh, "in 15 s"),
	]);
}

/// Answers to an old copy that is about to order an attempt again.
#[test]
fn the_table_of_answers_to_an_old_copy() {
	let (unknown, fresh, theirs) = (VerdictV1::Unknown, fresh(), theirs());
	let listed = |payments, memory| Some(KnownPayments::Listed { payments, memory });
	let known = |number, payment_hash, may_pay| KnownPayment { number, payment_hash, may_pay };
	let none = || Answer::Look(1, Some(Is::NoRecord(Forever)));
	check_answers(vec![
		("no record, not compared", live(), unknown, none(), fresh, "compare"),
		(
			"live, and nothing listed",
			live(),
			unknown,
			Answer::Compare(listed(vec![], Forever)),
			fresh,
			"compared",
		),
		(
			"live, and listed",
			live(),
			unknown,
			Answer::Compare(listed(vec![known(1, hash(), true)], Forever)),
			fresh,
			"in 15 s",
		),
		(
			"live, and another one listed",
			live(),
			unknown,
			Answer::Compare(listed(vec![known(2, [9; 32], true)], Forever)),
			fresh,
			"in 60 s, attempt 1 dead",
		),
		(
			"live, another one listed, and an order may be on its way",
			live(),
			unknown,
			Answer::Compare(listed(vec![known(2, [9; 32], true)], Forever)),
			Facts { pauses: Pauses { call_timeout: HOUR, ..facts().pauses }, ..fresh },
			"in 15 s",
		),
		(
			"live, had accepted, and another one listed",
			live(),
			VerdictV1::Accepted,
			Answer::Compare(listed(vec![known(2, [9; 32], true)], Forever)),
			fresh,
			"in 15 s",
		),
		(
			"live, another one listed, and might have forgotten it",
			live(),
			unknown,
			Answer::Compare(listed(vec![known(2, [9; 32], true)], Unknown)),
			fresh,
			"in 15 s",
		),
		(
			"another worker's, and another one listed",
			DebtV1 { live: Some(theirs), ..live() },
			unknown,
			Answer::Compare(listed(vec![known(2, [9; 32], true)], Forever)),
			fresh,
			"",
		),
	]);
}

/// Answers with the node's token.
#[test]
fn the_table_of_answers_with_a_token() {
	let (unknown, frozen) = (VerdictV1::Unknown, frozen());
	let prepared = || Answer::Prepare(1, hash(), Some(NodeToken::new([5]).unwrap()));
	let other_hash = || {
		let mut other = live();
		other.invoice.as_mut().unwrap().payment_hash = [1; 32];
		other
	};
	check_answers(vec![
		(
			"prepared",
			invoiced(),
			unknown,
			prepared(),
			facts(),
			"in 15 s, new attempt 1 planned, pay 1",
		),
		("prepared, frozen meanwhile", invoiced(), unknown, prepared(), frozen, ""),
		("prepared, and live meanwhile", live(), unknown, prepared(), facts(), ""),
		(
			"prepared, another invoice meanwhile",
			other_hash(),
			unknown,
			Answer::Prepare(2, hash(), Some(NodeToken::default())),
			facts(),
			"",
		),
		("not prepared", invoiced(), unknown, Answer::Prepare(1, hash(), None), facts(), "in 15 s"),
	]);
}
