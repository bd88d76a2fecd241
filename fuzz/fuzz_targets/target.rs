//! Fuzzes the target whose name is in the environment; without one, lists the names and ends.
#![no_main]

use std::sync::OnceLock;

use leyden_fuzz_logic::Target;

static TARGET: OnceLock<Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
	init: {
		let name = std::env::var("LEYDEN_FUZZ_TARGET").unwrap_or_default();
		let mut targets = leyden_fuzz_logic::targets();
		match targets.iter().position(|target| target.name == name) {
			Some(at) => drop(TARGET.set(targets.swap_remove(at))),
			None => {
				targets.iter().for_each(|target| println!("{}", target.name));
				std::process::exit(0);
			},
		}
	},
	|data: &[u8]| {
		if let Some(target) = TARGET.get() {
			(target.run)(data);
		}
	}
);
