// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! `leyden demo`: real nodes that crash, without Leyden and with it.

use std::path::{Path, PathBuf};

use leyden_testkit::cases::Case;
use serde_json::{json, Value};

use crate::node::{in_process, killed, Place};
use crate::output::{tell, wrapped, Failure, Output};
use crate::report::Report;
use crate::story::Story;
use crate::DemoArguments;

/// What is shown if nothing is asked for: the crashes that matter, one that LDK heals itself, and
/// splices that are forgotten.
const CRASHES: [Case; 12] = [
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

/// Something that is shown.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shown {
	/// A crash of a node.
	Crash(Case),
	/// A loss between nodes and an LSP.
	Story(Story),
}

impl std::str::FromStr for Shown {
	type Err = String;

	fn from_str(name: &str) -> Result<Self, String> {
		let story = Story::ALL.into_iter().find(|story| story.name().eq_ignore_ascii_case(name));
		match story {
			Some(story) => Ok(Self::Story(story)),
			None => name.parse().map(Self::Crash),
		}
	}
}

/// How something ended, without Leyden and with it.
struct Row {
	name: &'static str,
	title: &'static str,
	without: String,
	with: String,
	is_well: bool,
	/// Where LDK panicked, without Leyden and with it.
	panics: [Option<String>; 2],
	json: Value,
}

/// As wide as the longest name.
const CASE_COLUMNS: usize = 19;

pub fn run(arguments: &DemoArguments, output: &mut Output) -> Result<(), Failure> {
	let stories = Story::ALL.into_iter().filter(|_| !arguments.kill).map(Shown::Story);
	let all: Vec<Shown> = CRASHES.into_iter().map(Shown::Crash).chain(stories).collect();
	let shown = if arguments.cases.is_empty() { &all } else { &arguments.cases };
	let story = shown.iter().find(|shown| matches!(shown, Shown::Story(_)));
	if let (true, Some(Shown::Story(story))) = (arguments.kill, story) {
		return Err(Failure::Error(format!("case {} has no --kill: leave it out", story.name())));
	}
	let (dir, _temporary) = directory(arguments)?;
	let mut rows = Vec::new();
	for shown in shown {
		rows.push(match shown {
			Shown::Crash(case) => crash(*case, arguments, &dir, output)?,
			Shown::Story(story) => told(*story, output),
		});
	}
	let broken = rows.iter().filter(|row| !row.is_well).count();
	if arguments.json {
		let cases: Vec<_> = rows.iter().map(|row| &row.json).collect();
		output
			.json(&json!({ "v": 1, "killed": arguments.kill, "broken": broken, "cases": cases }))?;
	} else {
		print(arguments, &dir, shown, &rows, output)?;
	}
	match broken {
		0 => Ok(()),
		_ => Err(Failure::Broken),
	}
}

fn crash(
	case: Case, arguments: &DemoArguments, dir: &Path, output: &mut Output,
) -> Result<Row, Failure> {
	let mut run = |with_leyden: bool| {
		let who = if with_leyden { "with Leyden" } else { "LDK alone" };
		let mut step = |what: &str| output.progress(&format!("{case}, {who}: {what}"));
		if arguments.kill {
			killed(case, dir, with_leyden, &mut step)
		} else {
			in_process(case, dir, with_leyden, &mut step)
		}
	};
	let (alone, with): (Report, Report) = (run(false)?, run(true)?);
	Ok(Row {
		name: case.name(),
		title: case.title(),
		without: alone.in_words(),
		with: with.in_words(),
		is_well: with.is_well(),
		json: json!({
			"case": case.name(),
			"title": case.title(),
			"ldk_alone": alone.to_json(),
			"with_leyden": with.to_json(),
		}),
		panics: [alone.panic, with.panic],
	})
}

fn told(story: Story, output: &mut Output) -> Row {
	let mut run = |with_leyden: bool| {
		let who = if with_leyden { "with Leyden" } else { "as it is done today" };
		story.run(with_leyden, &mut |what: &str| {
			output.progress(&format!("{}, {who}: {what}", story.name()));
		})
	};
	let (before, with) = (run(false), run(true));
	Row {
		name: story.name(),
		title: story.title(),
		without: before.in_words(),
		with: with.in_words(),
		is_well: with.is_well(),
		panics: [None, None],
		json: json!({
			"case": story.name(),
			"title": story.title(),
			"today": before.to_json(),
			"with_leyden": with.to_json(),
		}),
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
	arguments: &DemoArguments, dir: &Path, shown: &[Shown], rows: &[Row], output: &mut Output,
) -> Result<(), Failure> {
	let crashes: Vec<Case> = shown
		.iter()
		.filter_map(|shown| match shown {
			Shown::Crash(case) => Some(*case),
			Shown::Story(_) => None,
		})
		.collect();
	if !crashes.is_empty() {
		let how = if arguments.kill { "is killed (SIGKILL)" } else { "dies" };
		output.line(&format!(
			"Real LDK nodes on a simulated chain. Each time one node {how} after an event\n\
			 was handed out, or a splice was taken, and before its ChannelManager was persisted; and is\n\
			 started again from what is on disk.\n"
		))?;
	}
	if crashes.len() < shown.len() {
		output.line(
			"callback, request: a sender pays a recipient through an LSP, whose service is asked and\n\
			 told over HTTP. Without Leyden is what rgb-lightning-node does today. payout: a share of\n\
			 a bond is owed. Without Leyden is what the first version of Mostro's payouts did.\n",
		)?;
	}
	let header = ["CASE", "WHAT IS LOST", "WITHOUT LEYDEN", "WITH LEYDEN"];
	let mut lines = vec![header.map(str::to_owned).to_vec()];
	for row in rows {
		let (name, title) = (row.name.to_owned(), row.title.to_owned());
		lines.push(vec![name, title, row.without.clone(), row.with.clone()]);
	}
	// What fits into a terminal of 100 columns.
	for line in wrapped(&lines, &[CASE_COLUMNS, 29, 25, 21]) {
		output.line(&line)?;
	}
	let panic = rows.iter().rev().find_map(|row| row.panics.first()?.as_ref());
	if let Some(panic) = panic {
		output.line(&format!("\nThe panic of LDK alone: {panic}"))?;
	}
	for row in rows.iter().filter(|row| !row.is_well) {
		output.line(&format!("\nBROKEN with Leyden: case {}: {}", row.name, row.with))?;
		if let Some(Some(panic)) = row.panics.last() {
			output.line(&format!("  it panicked at {panic}"))?;
		}
	}
	if let (Some(_), Some(case)) = (&arguments.dir, crashes.first()) {
		let place = Place::new(dir, *case, true);
		output.line(&format!(
			"\nThe databases are in {}. Look at one:\n  leyden list --store {}",
			dir.display(),
			place.leyden.display()
		))?;
	}
	Ok(())
}
