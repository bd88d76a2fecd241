// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! `leyden demo`: real nodes that crash, with LDK alone and with Leyden.

use std::path::{Path, PathBuf};

use leyden_testkit::cases::Case;
use serde_json::json;

use crate::node::{in_process, killed, Place};
use crate::output::{tell, wrapped, Failure, Output};
use crate::report::Report;
use crate::DemoArguments;

/// What is shown if nothing is asked for: the crashes that matter, one that LDK heals itself, and
/// splices that are forgotten.
const SHOWN: [Case; 12] = [
	Case::A,
	Case::B,
	Case::G1,
	Case::G3,
	Case::H,
	Case::K,
	Case::N,
	Case::P,
	Case::SpliceOut,
	Case::SpliceIn,
	Case::FeeBump,
	Case::SplicePeerOffline,
];

/// As wide as the longest name.
const CASE_COLUMNS: usize = 19;

pub fn run(arguments: &DemoArguments, output: &mut Output) -> Result<(), Failure> {
	let cases = if arguments.cases.is_empty() { &SHOWN[..] } else { &arguments.cases };
	let (dir, _temporary) = directory(arguments)?;
	let mut reports = Vec::new();
	for case in cases {
		let mut run = |with_leyden: bool| {
			let who = if with_leyden { "with Leyden" } else { "LDK alone" };
			let mut step = |what: &str| output.progress(&format!("{case}, {who}: {what}"));
			if arguments.kill {
				killed(*case, &dir, with_leyden, &mut step)
			} else {
				in_process(*case, &dir, with_leyden, &mut step)
			}
		};
		reports.push((run(false)?, run(true)?));
	}
	let broken: Vec<&Report> =
		reports.iter().map(|(_, with)| with).filter(|report| !report.is_well()).collect();
	if arguments.json {
		let cases: Vec<_> = reports
			.iter()
			.map(|(alone, with)| {
				json!({
					"case": alone.case.name(),
					"title": alone.case.title(),
					"ldk_alone": alone.to_json(),
					"with_leyden": with.to_json(),
				})
			})
			.collect();
		output.json(
			&json!({ "v": 1, "killed": arguments.kill, "broken": broken.len(), "cases": cases }),
		)?;
	} else {
		print(arguments, &dir, &reports, output)?;
	}
	if broken.is_empty() {
		Ok(())
	} else {
		Err(Failure::Broken)
	}
}

/// Where the databases go; and what removes them at the end, if nobody wants them.
fn directory(arguments: &DemoArguments) -> Result<(PathBuf, Option<tempfile::TempDir>), Failure> {
	let Some(dir) = &arguments.dir else {
		let temporary = tempfile::tempdir().map_err(tell)?;
		return Ok((temporary.path().to_owned(), Some(temporary)));
	};
	std::fs::create_dir_all(dir)
		.map_err(|error| Failure::Error(format!("{}: {error}", dir.display())))?;
	let known = Case::ALL.iter().chain(&Case::SPLICES);
	let known = known.flat_map(|case| [true, false].map(|w| Place::new(dir, *case, w)));
	for place in known {
		for path in [place.leyden, place.ldk] {
			if path.exists() {
				return Err(Failure::Error(format!(
					"{} is there from an earlier demo; give another --dir, or remove it",
					path.display()
				)));
			}
		}
	}
	Ok((dir.clone(), None))
}

fn print(
	arguments: &DemoArguments, dir: &Path, reports: &[(Report, Report)], output: &mut Output,
) -> Result<(), Failure> {
	let how = if arguments.kill { "is killed (SIGKILL)" } else { "dies" };
	output.line(&format!(
		"Real LDK nodes on a simulated chain. Each time one node {how} after an event\n\
		 was handed out, or a splice was taken, and before its ChannelManager was persisted; and is\n\
		 started again from what is on disk.\n"
	))?;
	let header = ["CASE", "WHAT IS LOST", "LDK ALONE", "WITH LEYDEN"];
	let mut rows = vec![header.map(str::to_owned).to_vec()];
	for (alone, with) in reports {
		rows.push(vec![
			alone.case.name().to_owned(),
			alone.case.title().to_owned(),
			alone.in_words(),
			with.in_words(),
		]);
	}
	// What fits into a terminal of 100 columns.
	for line in wrapped(&rows, &[CASE_COLUMNS, 29, 25, 21]) {
		output.line(&line)?;
	}
	let mut panics = reports.iter().filter_map(|(alone, _)| alone.panic.as_ref());
	if let Some(panic) = panics.next_back() {
		output.line(&format!("\nThe panic of LDK alone: {panic}"))?;
	}
	for (_, with) in reports.iter().filter(|(_, with)| !with.is_well()) {
		output.line(&format!("\nBROKEN with Leyden: case {}: {}", with.case, with.in_words()))?;
		if let Some(panic) = &with.panic {
			output.line(&format!("  it panicked at {panic}"))?;
		}
	}
	if let (Some(_), Some((_, with))) = (&arguments.dir, reports.first()) {
		let place = Place::new(dir, with.case, true);
		output.line(&format!(
			"\nThe databases are in {}. Look at one:\n  leyden list --store {}",
			dir.display(),
			place.leyden.display()
		))?;
	}
	Ok(())
}
