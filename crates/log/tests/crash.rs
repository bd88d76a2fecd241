//! A log scenario with three consumers that dies before and after every commit (P1 to P6), and the
//! same over a medium that lies.

// The number of deaths is printed, for those who run it with --nocapture.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout)]

use std::sync::Arc;

use leyden_testkit::panics::catch;
use leyden_testkit::scenarios::log_scenario;
use leyden_testkit::{crash_everywhere, Doom, LossyMedium, Media, Side};

fn keeping_every(commits: u64) -> Arc<dyn Media> {
	Arc::new(LossyMedium::keeping_every(commits))
}

#[test]
fn three_consumers_keep_their_promises_wherever_the_process_dies() {
	let deaths = crash_everywhere(|doom| log_scenario(doom, &keeping_every(1)));
	println!("three consumers: {deaths} deaths");
}

/// The negative control.
#[test]
fn a_medium_that_acknowledges_before_it_keeps_is_caught() {
	let (mut caught, mut tried) = (0, 0);
	for write in 0..40 {
		let doom = Doom::at(write, Side::After);
		tried += 1;
		let ended = catch(|| log_scenario(&doom, &keeping_every(3)));
		caught += u32::from(ended.is_err());
	}
	println!("a lying medium: {caught} of {tried} deaths showed a loss");
	assert!(caught > tried / 4, "{caught} of {tried}");
}
