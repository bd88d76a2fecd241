// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Where everything that the program says goes out.

use std::io::{self, IsTerminal, Write};

/// Why a command ended early.
pub enum Failure {
	/// Whoever reads us has gone: nothing to complain about.
	Closed,
	/// A promise was broken; what and how was printed.
	Broken,
	/// Something else, to be told.
	Error(String),
}

/// Any error, as what the user is told.
pub fn tell(error: impl std::fmt::Display) -> Failure {
	Failure::Error(error.to_string())
}

/// Standard output and standard error.
pub struct Output {
	progress: bool,
	shown: usize,
}

impl Output {
	pub fn new() -> Self {
		Self { progress: io::stderr().is_terminal() && io::stdout().is_terminal(), shown: 0 }
	}

	/// Prints a line.
	pub fn line(&mut self, line: &str) -> Result<(), Failure> {
		self.clear();
		self.bytes(format!("{}\n", clean(line)).as_bytes())
	}

	pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
		let mut out = io::stdout().lock();
		let written = out.write_all(bytes).and_then(|()| out.flush());
		written.map_err(|error| match error.kind() {
			io::ErrorKind::BrokenPipe => Failure::Closed,
			_ => tell(error),
		})
	}

	pub fn json(&mut self, document: &serde_json::Value) -> Result<(), Failure> {
		self.clear();
		let text = serde_json::to_string_pretty(document).map_err(tell)?;
		self.bytes(format!("{text}\n").as_bytes())
	}

	/// Shows what is being done, on a terminal; the next thing is shown in its place.
	pub fn progress(&mut self, what: &str) {
		if !self.progress {
			return;
		}
		let what: String = clean(what).chars().take(100).collect();
		let length = what.chars().count();
		let blank = " ".repeat(self.shown.saturating_sub(length));
		let _ = write!(io::stderr(), "\r{what}{blank}");
		let _ = io::stderr().flush();
		self.shown = length;
	}

	pub fn error(&mut self, error: &str) {
		self.clear();
		let _ = writeln!(io::stderr(), "leyden: {}", clean(error));
	}

	/// Prints what the parser of arguments says, as it is.
	pub fn complaint(&mut self, text: &str) {
		let _ = write!(io::stderr(), "{text}");
	}

	fn clear(&mut self) {
		if self.shown > 0 {
			let _ = write!(io::stderr(), "\r{}\r", " ".repeat(self.shown));
			self.shown = 0;
		}
	}
}

/// Without control characters: some of the text comes from peers.
pub fn clean(text: &str) -> String {
	text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

/// Lines up columns, none wider than its width; longer cells go on in further lines.
pub fn wrapped(rows: &[Vec<String>], widths: &[usize]) -> Vec<String> {
	let mut lines = Vec::new();
	for row in rows {
		let cells = row.iter().zip(widths).map(|(cell, width)| wrap(cell, *width));
		let cells: Vec<Vec<String>> = cells.collect();
		let height = cells.iter().map(Vec::len).max().unwrap_or(0);
		for n in 0..height {
			lines.push(cells.iter().map(|cell| cell.get(n).cloned().unwrap_or_default()).collect());
		}
	}
	table(&lines)
}

fn wrap(cell: &str, width: usize) -> Vec<String> {
	let mut lines = vec![String::new()];
	for word in cell.split(' ') {
		let Some(line) = lines.last_mut() else { continue };
		if line.is_empty() {
			line.push_str(word);
		} else if line.chars().count() + 1 + word.chars().count() <= width {
			line.push(' ');
			line.push_str(word);
		} else {
			lines.push(word.to_owned());
		}
	}
	lines
}

/// Lines up columns; the last one is as long as it is.
pub fn table(rows: &[Vec<String>]) -> Vec<String> {
	let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
	let width = |column: usize| {
		rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
	};
	let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
	let line = |row: &Vec<String>| {
		let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
		cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
	};
	rows.iter().map(line).collect()
}
