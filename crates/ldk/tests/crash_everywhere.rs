//! Real nodes that die before and after every single write, of Leyden's store and of LDK's disk,
//! from the moment the channel goes on chain until everything has come to rest.
//!
//! However it dies, the case must end as well as without a death, and after every restart the log
//! must hold what it promised (P1, P2, P3). The same harness over a medium that acknowledges before
//! it keeps must report losses.

// The number of deaths is printed, for those who run it with --nocapture.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout)]

use std::sync::Arc;

use leyden_testkit::cases::Case;
use leyden_testkit::panics::catch;
use leyden_testkit::scenarios::case_scenario;
use leyden_testkit::{crash_everywhere, Doom, LossyMedium, Media};

fn keeping_every(commits: u64) -> Arc<dyn Media> {
	Arc::new(LossyMedium::keeping_every(commits))
}

fn everywhere(case: Case) {
	let deaths = crash_everywhere(|doom| case_scenario(case, doom, &keeping_every(1)));
	println!("case {case}: {deaths} deaths");
}

macro_rules! everywhere {
	($($name:ident: $case:ident),* $(,)?) => {$(
		#[test]
		fn $name() {
			everywhere(Case::$case);
		}
	)*};
}

everywhere! {
	case_a: A,
	case_b: B,
	case_g1: G1,
	case_g3: G3,
	case_h: H,
	case_k: K,
	case_k0: K0,
	case_l: L,
	case_n: N,
	case_p: P,
}

/// The negative control: a medium that acknowledges before it keeps.
#[test]
fn a_medium_that_lies_is_caught() {
	let mut caught = 0;
	let mut tried = 0;
	for write in 0..20 {
		let doom = Doom::at(write, leyden_testkit::Side::After);
		let media = keeping_every(4);
		tried += 1;
		let ended = catch(|| case_scenario(Case::G3, &doom, &media));
		caught += u32::from(ended.is_err());
	}
	println!("a lying medium: {caught} of {tried} deaths showed a loss");
	assert!(caught > 0);
}
