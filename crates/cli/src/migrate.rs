// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! `leyden migrate`: everything in a store moves to another one.

use leyden::migrate::{migrate, Progress};
use leyden::store::Namespace;
use serde_json::json;

use crate::output::{tell, Failure, Output};
use crate::view::store_url;
use crate::MigrateArguments;

pub fn run(arguments: &MigrateArguments, output: &mut Output) -> Result<(), Failure> {
	let from = store_url(&arguments.from).map_err(Failure::Error)?;
	let to = store_url(&arguments.to).map_err(Failure::Error)?;
	let namespaces = match &arguments.namespace {
		Some(name) => vec![Namespace::new(name).map_err(tell)?],
		None => from.namespaces().map_err(tell)?,
	};
	if namespaces.is_empty() {
		return Err(Failure::Error(format!("there is nothing in {from}")));
	}
	let mut documents = Vec::new();
	for namespace in &namespaces {
		let moved = migrate(&from, &to, namespace, |progress| {
			output.progress(&match progress {
				Progress::Copied(records, table) => format!("{records} records copied ({table})"),
				Progress::Compared(records) => format!("{records} records compared"),
			});
		});
		let moved = moved.map_err(tell)?;
		let digest: String = moved.digest.iter().map(|byte| format!("{byte:02x}")).collect();
		if arguments.json {
			documents.push(json!({
				"namespace": namespace.name(),
				"records": moved.records,
				"found": moved.found,
				"sha256": digest,
			}));
			continue;
		}
		let found = match moved.found {
			0 => String::new(),
			found => format!(" ({found} were there from an earlier try)"),
		};
		output.line(&format!(
			"{namespace}: {} records moved and compared{found}, sha256 {digest}",
			moved.records
		))?;
	}
	if arguments.json {
		return output.json(&json!({
			"v": 1,
			"from": from.to_string(),
			"to": to.to_string(),
			"namespaces": documents,
		}));
	}
	output.line(&format!("{from} can no longer be opened to write; use {to}"))
}
