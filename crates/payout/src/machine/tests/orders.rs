// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Every answer of a node, and none, to an order and to a look at what became of it.

use super::*;
use crate::payer::AttemptStatus as Is;
use FailureReason::{Expired, NoFunds, NoRoute, Other, Rejected};
use NodeMemory::{AtLeast, Forever, Unknown, WithStore};

/// Answers to the order to pay.
#[test]
fn the_table_of_answers_to_an_order() {
	let (dead, theirs) = (DEAD, theirs());
	check_answers(vec![
		(
			"accepted",
			live(),
			VerdictV1::Planned,
			Answer::Pay(1, Some(PayReply::Accepted)),
			facts(),
			"in 15 s, attempt 1 accepted",
		),
		(
			"perhaps",
			live(),
			VerdictV1::Planned,
			Answer::Pay(1, Some(PayReply::Unknown)),
			facts(),
			"in 15 s, attempt 1 unknown",
		),
		(
			"no answer to pay",
			live(),
			VerdictV1::Planned,
			Answer::Pay(1, None),
			facts(),
			"in 15 s, attempt 1 unknown",
		),
		(
			"no route",
			live(),
			VerdictV1::Planned,
			Answer::Pay(1, Some(PayReply::NotSent(NoRoute))),
			facts(),
			"in 60 s, attempt 1 dead",
		),
		(
			"no funds",
			live(),
			VerdictV1::Planned,
			Answer::Pay(1, Some(PayReply::NotSent(NoFunds))),
			facts(),
			"in 60 s, attempt 1 dead, tell NoFunds",
		),
		(
			"no funds again",
			DebtV1 { told_no_funds: true, setbacks: 3, ..live() },
			VerdictV1::Planned,
			Answer::Pay(1, Some(PayReply::NotSent(NoFunds))),
			facts(),
			"in 480 s, attempt 1 dead",
		),
		(
			"no route for long",
			DebtV1 { setbacks: 99, ..live() },
			VerdictV1::Planned,
			Answer::Pay(1, Some(PayReply::NotSent(NoRoute))),
			facts(),
			"in 3600 s, attempt 1 dead, tell NoRoute",
		),
		(
			"expired",
			live(),
			VerdictV1::Planned,
			Answer::Pay(1, Some(PayReply::NotSent(Expired))),
			facts(),
			"drop invoice, attempt 1 dead",
		),
		(
			"rejected",
			live(),
			VerdictV1::Planned,
			Answer::Pay(1, Some(PayReply::NotSent(Rejected))),
			facts(),
			"drop invoice, count, attempt 1 dead",
		),
		(
			"rejected for the last time",
			DebtV1 { failed_attempts: 2, attempts: 3, ..live() },
			VerdictV1::Planned,
			Answer::Pay(1, Some(PayReply::NotSent(Rejected))),
			facts(),
			"count, in 60 s, attempt 1 dead",
		),
		(
			"other",
			live(),
			VerdictV1::Planned,
			Answer::Pay(1, Some(PayReply::NotSent(Other))),
			facts(),
			"count, in 60 s, attempt 1 dead",
		),
		(
			"of another worker's attempt",
			DebtV1 { live: Some(theirs), ..live() },
			VerdictV1::Planned,
			Answer::Pay(1, Some(PayReply::NotSent(Other))),
			facts(),
			"",
		),
		(
			"of an attempt that is over",
			DebtV1 { live: None, ..live() },
			dead,
			Answer::Pay(1, Some(PayReply::Accepted)),
			facts(),
			"",
		),
		(
			"of another attempt",
			live(),
			VerdictV1::Planned,
			Answer::Pay(2, Some(PayReply::Accepted)),
			facts(),
			"",
		),
		(
			"no route for the fifth time",
			DebtV1 { setbacks: 4, ..live() },
			VerdictV1::Planned,
			Answer::Pay(1, Some(PayReply::NotSent(NoRoute))),
			facts(),
			"in 960 s, attempt 1 dead, tell NoRoute",
		),
	]);
}

/// Answers to a look at the attempt.
#[test]
fn the_table_of_answers_to_a_look() {
	let (unknown, frozen, newest, ahead, theirs) =
		(VerdictV1::Unknown, frozen(), newest(), ahead(), theirs());
	let doubtful = || DebtV1 { is_unproven: true, ..live() };
	let look = |status| Answer::Look(1, Some(status));
	let none = || look(Is::NoRecord(Forever));
	let wrong = Is::Settled { preimage: [8; 32], fee_msat: None };
	check_answers(vec![
		(
			"has settled",
			live(),
			unknown,
			look(settled(Some(3))),
			facts(),
			"Paid, attempt 1 settled, tell Paid",
		),
		(
			"has settled, cost unknown",
			live(),
			unknown,
			look(settled(None)),
			facts(),
			"Paid, attempt 1 settled, tell Paid",
		),
		(
			"cost more than it may",
			live(),
			unknown,
			look(settled(Some(10_001))),
			facts(),
			"Paid, attempt 1 settled, freeze, tell Paid",
		),
		("a wrong preimage", live(), unknown, look(wrong), facts(), "in 15 s, freeze"),
		("in flight", live(), unknown, look(Is::InFlight), facts(), "in 15 s"),
		("no answer to a look", live(), unknown, Answer::Look(1, None), facts(), "in 15 s"),
		(
			"has failed",
			live(),
			unknown,
			look(Is::Failed(Other)),
			facts(),
			"count, in 60 s, attempt 1 dead",
		),
		(
			"has failed without a route",
			live(),
			unknown,
			look(Is::Failed(NoRoute)),
			facts(),
			"in 60 s, attempt 1 dead",
		),
		(
			"no record, for ever",
			live(),
			unknown,
			none(),
			facts(),
			"in 15 s, attempt 1 unknown, pay 1",
		),
		("no record, frozen", live(), unknown, none(), frozen, "in 15 s"),
		(
			"no record, and had accepted",
			live(),
			VerdictV1::Accepted,
			none(),
			facts(),
			"in 15 s, attempt 1 accepted, freeze",
		),
		(
			"no record, expired",
			live(),
			unknown,
			none(),
			at(50),
			"drop invoice, in 144000 s, attempt 1 dead",
		),
		("no record, expired by the wall clock alone", live(), unknown, none(), ahead, "in 15 s"),
		(
			"no record, as the store, frozen",
			live(),
			unknown,
			look(Is::NoRecord(WithStore)),
			Facts { is_newest: true, ..frozen },
			"in 15 s",
		),
		(
			"no record, as the store, had accepted, frozen",
			live(),
			VerdictV1::Accepted,
			look(Is::NoRecord(WithStore)),
			Facts { is_newest: true, ..frozen },
			"in 15 s",
		),
		(
			"no record, would have forgotten, frozen",
			live(),
			unknown,
			look(Is::NoRecord(AtLeast(HOUR))),
			frozen,
			"in 15 s",
		),
		(
			"no record, expired, and had accepted",
			live(),
			VerdictV1::Accepted,
			none(),
			at(50),
			"in 144015 s, attempt 1 accepted, freeze",
		),
		(
			"no record, might have forgotten",
			live(),
			unknown,
			look(Is::NoRecord(Unknown)),
			facts(),
			"in 15 s",
		),
		(
			"no record, expired, might have forgotten",
			live(),
			unknown,
			look(Is::NoRecord(Unknown)),
			at(50),
			"in 144015 s",
		),
		(
			"no record, remembers long enough",
			live(),
			unknown,
			look(Is::NoRecord(AtLeast(2 * HOUR))),
			facts(),
			"in 15 s, attempt 1 unknown, pay 1",
		),
		(
			"in doubt, has settled",
			doubtful(),
			unknown,
			look(settled(None)),
			facts(),
			"Paid, proven, attempt 1 settled, tell Paid",
		),
		(
			"in doubt, has failed",
			doubtful(),
			unknown,
			look(Is::Failed(NoRoute)),
			facts(),
			"proven, in 60 s, attempt 1 dead",
		),
		(
			"in doubt, and known not to be",
			doubtful(),
			unknown,
			none(),
			facts(),
			"proven, in 15 s, attempt 1 unknown, pay 1",
		),
		(
			"no record, would have forgotten",
			live(),
			unknown,
			look(Is::NoRecord(AtLeast(HOUR))),
			facts(),
			"Unproven, in 15 s, tell Unproven",
		),
		(
			"no record, as the store",
			live(),
			unknown,
			look(Is::NoRecord(WithStore)),
			facts(),
			"Unproven, in 15 s, tell Unproven",
		),
		(
			"no record, newest store",
			live(),
			unknown,
			look(Is::NoRecord(WithStore)),
			newest,
			"in 15 s, attempt 1 unknown, pay 1",
		),
		(
			"of another worker's look",
			DebtV1 { live: Some(theirs), ..live() },
			unknown,
			none(),
			facts(),
			"",
		),
		(
			"closed meanwhile",
			DebtV1 { state: StateV1::Failed, live: None, due: None, ..live() },
			unknown,
			none(),
			facts(),
			"",
		),
	]);
}
