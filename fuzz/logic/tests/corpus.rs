//! Every target over its corpus, and over some bytes that nobody chose.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
	Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn every_target_holds_over_its_corpus() {
	for target in leyden_fuzz_logic::targets() {
		let corpus = root().join("fuzz/corpus").join(target.name);
		let mut files = 0;
		for file in fs::read_dir(&corpus).unwrap_or_else(|e| panic!("{}: {e}", corpus.display())) {
			let file = file.unwrap().path();
			(target.run)(&fs::read(&file).unwrap());
			files += 1;
		}
		assert!(files >= 8, "{} has {files} files", corpus.display());
		// A generator as simple as can be: the same bytes every time.
		let mut state = 1u64;
		for length in 0..400 {
			let bytes: Vec<u8> = (0..length)
				.map(|_| {
					state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
					(state >> 33) as u8
				})
				.collect();
			(target.run)(&bytes);
		}
	}
}

#[test]
fn every_corpus_has_a_target() {
	let targets: BTreeSet<_> = leyden_fuzz_logic::targets().iter().map(|t| t.name).collect();
	for folder in fs::read_dir(root().join("fuzz/corpus")).unwrap() {
		let name = folder.unwrap().file_name().into_string().unwrap();
		assert!(targets.contains(name.as_str()), "nothing is named {name}");
	}
}

/// Every file with sources of what ships.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
	for entry in fs::read_dir(folder).unwrap() {
		let path = entry.unwrap().path();
		if path.is_dir() {
			sources(&path, found);
		} else if path.extension().is_some_and(|extension| extension == "rs") {
			found.push(path);
		}
	}
}

/// A record that is added is fuzzed, whoever adds it: each is named in a `stored!` list, and each list
/// is in the table.
#[test]
fn every_record_is_fuzzed_and_has_a_number_of_its_own() {
	let mut files = Vec::new();
	for krate in fs::read_dir(root().join("crates")).unwrap() {
		let krate = krate.unwrap().path();
		// What a test stores does not ship.
		if !krate.ends_with("testkit") {
			sources(&krate.join("src"), &mut files);
		}
	}
	let mut written = BTreeMap::new();
	for file in files {
		let text = fs::read_to_string(&file).unwrap();
		let name = file.strip_prefix(root()).unwrap().display().to_string();
		let code: Vec<_> = text.lines().filter(|line| !line.trim().starts_with("//")).collect();
		if !["codec.rs", "damage.rs"].iter().any(|of_the_macro| name.ends_with(of_the_macro)) {
			let by_hand = code.iter().find(|line| line.contains("Stored for "));
			assert_eq!(by_hand, None, "{name}: name it in the list of stored!");
		}
		let mut in_list = false;
		for line in code {
			in_list |= line.contains("stored! {");
			in_list &= line.trim() != "}";
			if let Some((record, number)) = line.split_once(" = 0x").filter(|_| in_list) {
				let number = u16::from_str_radix(number.trim_end_matches(','), 16).unwrap();
				let other = written.insert(number, format!("{} of {name}", record.trim()));
				assert_eq!(other, None, "{number:#06x} is given twice");
			}
		}
	}
	let fuzzed: BTreeSet<u16> =
		leyden_fuzz_logic::stored().iter().map(|kind| kind.record_type.0).collect();
	assert!(written.len() > 30, "{}", written.len());
	for (number, record) in &written {
		assert!(fuzzed.contains(number), "{number:#06x}, {record}, is in no table of fuzz.rs");
	}
	// And the format says what each is.
	let format = fs::read_to_string(root().join("docs/format.md")).unwrap();
	for (number, record) in &written {
		assert!(format.contains(&format!("{number:#06x}")), "{record} is not in docs/format.md");
	}
}
