// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The check of a whole redb file, which is left as it is.
//!
//! redb verifies its checksums only in a database that is open to write, and may repair it. So the
//! file is read through [`Overlay`], which keeps what redb writes in memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use leyden_store::StoreError;
use redb::{Builder, DatabaseError, StorageBackend};

use super::engine::CACHE_BYTES;
use super::errors::{caught, opening};

/// The unit in which changes are kept.
const BLOCK: u64 = 4096;

/// Returns what is wrong below the records, in redb's words.
///
/// # Errors
/// Those of opening the file, but for damage.
pub(super) fn check(path: &Path) -> Result<Vec<String>, StoreError> {
	let file = File::open(path).map_err(|error| opening(path, error.into()))?;
	let length = file.metadata().map_err(|error| opening(path, error.into()))?.len();
	let state = State { file, length, changed: BTreeMap::new() };
	let place = path.display().to_string();
	let answer = caught(&place, || {
		let opened = Builder::new()
			.set_cache_size(CACHE_BYTES)
			.create_with_backend(Overlay(Mutex::new(state)));
		Ok(opened.and_then(|mut database| database.check_integrity()))
	});
	Ok(match answer {
		Ok(Ok(true)) => Vec::new(),
		Ok(Ok(false)) => vec!["redb finds pages whose checksums do not hold".to_owned()],
		Ok(Err(DatabaseError::Storage(redb::StorageError::Corrupted(what)))) => vec![what],
		Ok(Err(error)) => return Err(opening(path, error.into())),
		Err(panic) => vec![panic.to_string()],
	})
}

/// A file that is only read. What is written to it is in memory.
#[derive(Debug)]
struct Overlay(Mutex<State>);

#[derive(Debug)]
struct State {
	file: File,
	length: u64,
	changed: BTreeMap<u64, Vec<u8>>,
}

impl Overlay {
	fn state(&self) -> MutexGuard<'_, State> {
		self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
	}
}

impl State {
	/// Returns the bytes of block `number`, with zeros behind the end of the file.
	fn block(&mut self, number: u64) -> io::Result<Vec<u8>> {
		if let Some(block) = self.changed.get(&number) {
			return Ok(block.clone());
		}
		let mut block = Vec::with_capacity(BLOCK as usize);
		self.file.seek(SeekFrom::Start(number.saturating_mul(BLOCK)))?;
		(&self.file).take(BLOCK).read_to_end(&mut block)?;
		block.resize(BLOCK as usize, 0);
		Ok(block)
	}
}

/// Splits a range of bytes into blocks: the number of each, and where the part in it begins and ends.
fn blocks(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, usize)> {
	let end = offset.saturating_add(length as u64);
	let mut at = offset;
	std::iter::from_fn(move || {
		if at >= end {
			return None;
		}
		let (number, from) = (at / BLOCK, (at % BLOCK) as usize);
		let to = (end - number * BLOCK).min(BLOCK) as usize;
		at = (number + 1) * BLOCK;
		Some((number, from, to))
	})
}

impl StorageBackend for Overlay {
	fn len(&self) -> io::Result<u64> {
		Ok(self.state().length)
	}

	fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
		let mut state = self.state();
		if offset.saturating_add(out.len() as u64) > state.length {
			return Err(io::ErrorKind::UnexpectedEof.into());
		}
		let mut rest = out;
		for (number, from, to) in blocks(offset, rest.len()) {
			let block = state.block(number)?;
			let (part, behind) = std::mem::take(&mut rest).split_at_mut(to - from);
			part.copy_from_slice(block.get(from..to).unwrap_or_default());
			rest = behind;
		}
		Ok(())
	}

	fn set_len(&self, length: u64) -> io::Result<()> {
		let mut state = self.state();
		state.length = length;
		Ok(())
	}

	fn sync_data(&self) -> io::Result<()> {
		Ok(())
	}

	fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
		let mut state = self.state();
		let mut rest = data;
		for (number, from, to) in blocks(offset, data.len()) {
			let mut block = state.block(number)?;
			let (part, behind) = rest.split_at(to - from);
			if let Some(place) = block.get_mut(from..to) {
				place.copy_from_slice(part);
			}
			state.changed.insert(number, block);
			rest = behind;
		}
		Ok(())
	}
}

#[cfg(test)]
mod tests {
	use super::*;

	#[test]
	fn a_range_is_split_at_the_blocks() {
		let of = |offset, length| blocks(offset, length).collect::<Vec<_>>();
		assert_eq!(of(0, 0), []);
		assert_eq!(of(10, 5), [(0, 10, 15)]);
		assert_eq!(of(4090, 10), [(0, 4090, 4096), (1, 0, 4)]);
		assert_eq!(of(4096, 8192), [(1, 0, 4096), (2, 0, 4096)]);
	}
}
