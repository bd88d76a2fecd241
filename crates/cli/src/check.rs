// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! `leyden backup` and `leyden verify`. The store may be in use meanwhile, unless it is a redb file.

use leyden::backup::{Backup, ToldAgain};
use leyden::verify::{Problem, Verified};
use serde_json::{json, Value};

use crate::output::{table, tell, Failure, Output};
use crate::view::store_url;
use crate::{BackupArguments, VerifyArguments};

pub fn backup(arguments: &BackupArguments, output: &mut Output) -> Result<(), Failure> {
	let url = store_url(&arguments.store).map_err(Failure::Error)?;
	output.progress(&format!("copying {url}, and checking the copy"));
	let Backup { place, bytes, verified, told_again } = url.backup(&arguments.to).map_err(tell)?;
	if arguments.json {
		let told_again: Vec<Value> = told_again
			.iter()
			.map(|told| {
				json!({
					"namespace": told.namespace.name(), "stream": told.stream,
					"consumer": told.consumer, "unacked": told.unacked, "newest": told.newest,
				})
			})
			.collect();
		return output.json(&json!({
			"v": 1, "place": place.to_string(), "bytes": bytes, "records": verified.records,
			"told_again": told_again,
		}));
	}
	output.line(&format!("{place}: {} records, {bytes} bytes, checked", verified.records))?;
	print_told_again(&told_again, output)
}

/// Prints what a node on a copy, or on an older database, is told again.
pub fn print_told_again(told_again: &[ToldAgain], output: &mut Output) -> Result<(), Failure> {
	if told_again.is_empty() {
		return Ok(());
	}
	output.line("")?;
	output
		.line("A node that is started on it is told again what was not acked by then, and knows")?;
	output.line("nothing of what came later:")?;
	let header = ["NAMESPACE", "STREAM", "CONSUMER", "NOT ACKED", "NEWEST ENTRY"];
	let mut rows = vec![header.map(str::to_owned).to_vec()];
	for told in told_again {
		rows.push(vec![
			told.namespace.to_string(),
			told.stream.clone(),
			told.consumer.clone(),
			told.unacked.to_string(),
			told.newest.to_string(),
		]);
	}
	for line in table(&rows) {
		output.line(&format!("  {line}"))?;
	}
	Ok(())
}

pub fn verify(arguments: &VerifyArguments, output: &mut Output) -> Result<(), Failure> {
	let url = store_url(&arguments.store).map_err(Failure::Error)?;
	output.progress(&format!("checking {url}"));
	let verified = url.verify().map_err(tell)?;
	if arguments.json {
		output.json(&to_json(&verified))?;
	} else if verified.is_clean() {
		let namespaces = verified.namespaces.len();
		let plural = if namespaces == 1 { "namespace" } else { "namespaces" };
		let records = verified.records;
		output.line(&format!(
			"{url}: {records} records in {namespaces} {plural}, nothing is wrong"
		))?;
	}
	if verified.is_clean() {
		return Ok(());
	}
	let mut lines = Vec::new();
	for Problem { namespace, error } in &verified.problems {
		match namespace {
			Some(namespace) => lines.push(format!("namespace {namespace}: {error}")),
			None => lines.push(error.to_string()),
		}
	}
	if verified.left_out > 0 {
		lines.push(format!("and {} more", verified.left_out));
	}
	let count = verified.problems.len() as u64 + verified.left_out;
	let plural = if count == 1 { "problem" } else { "problems" };
	Err(Failure::Error(format!("{url} has {count} {plural}:\n  {}", lines.join("\n  "))))
}

fn to_json(verified: &Verified) -> Value {
	let problems: Vec<Value> = verified
		.problems
		.iter()
		.map(|problem| {
			let namespace = problem.namespace.as_ref().map(|namespace| namespace.name());
			json!({ "namespace": namespace, "what": problem.error.to_string() })
		})
		.collect();
	json!({
		"v": 1,
		"namespaces": verified.namespaces.iter().map(|n| n.name()).collect::<Vec<_>>(),
		"records": verified.records,
		"problems": problems,
		"left_out": verified.left_out,
	})
}
