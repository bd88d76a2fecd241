// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! A witness in a file of its own.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::{HistoryMark, Witness};
use parking_lot::Mutex;

const MAGIC: &[u8; 8] = b"leydenW1";
/// The first slot has the mark of the opening, which is flushed. The second has those after it, which
/// are not: what a loss of power leaves of it does not matter.
const SLOT_BYTES: usize = 512;
const MARK_BYTES: usize = 36;

/// A file with two marks. The first one that is remembered is flushed, and none after it: a loss of
/// power may leave the file behind the database, and never ahead of it or without a mark.
#[derive(Debug)]
pub struct FileWitness {
	path: PathBuf,
	file: Mutex<Option<File>>,
}

impl FileWitness {
	/// Returns the witness in the file at `path`, created with the first mark.
	pub fn new(path: impl Into<PathBuf>) -> Self {
		Self { path: path.into(), file: Mutex::new(None) }
	}

	fn open(&self) -> io::Result<File> {
		let mut options = OpenOptions::new();
		options.read(true).write(true).create(true).truncate(false);
		#[cfg(unix)]
		std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
		let mut file = options.open(&self.path)?;
		if file.metadata()?.len() < 2 * SLOT_BYTES as u64 {
			file.write_all(&[0; 2 * SLOT_BYTES])?;
			file.sync_all()?;
			#[cfg(unix)]
			if let Some(folder) = self.path.parent().filter(|folder| folder != &Path::new("")) {
				File::open(folder)?.sync_all()?;
			}
		}
		Ok(file)
	}
}

impl Witness for FileWitness {
	fn newest(&self) -> io::Result<Option<HistoryMark>> {
		let mut slots = Vec::new();
		match File::open(&self.path) {
			Ok(file) => file.take(2 * SLOT_BYTES as u64).read_to_end(&mut slots)?,
			Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
			Err(error) => return Err(error),
		};
		Ok(slots.chunks(SLOT_BYTES).filter_map(read_mark).max_by_key(|mark| mark.number))
	}

	fn remember(&self, mark: &HistoryMark) -> io::Result<()> {
		let mut open = self.file.lock();
		if let Some(file) = &mut *open {
			let written = write_slot(file, 1, &mark_bytes(mark));
			if written.is_err() {
				*open = None;
			}
			return written;
		}
		let mut file = self.open()?;
		// What an earlier process has left in the second slot, before the first one is written over.
		file.sync_all()?;
		let known = self.newest()?;
		write_slot(&mut file, 0, &mark_bytes(mark))?;
		file.sync_all()?;
		if known.is_some_and(|known| known.history != mark.history) {
			write_slot(&mut file, 1, &[0; MARK_BYTES])?;
			file.sync_all()?;
		}
		*open = Some(file);
		Ok(())
	}

	fn place(&self) -> String {
		self.path.display().to_string()
	}
}

fn write_slot(file: &mut File, slot: usize, bytes: &[u8]) -> io::Result<()> {
	file.seek(SeekFrom::Start((slot * SLOT_BYTES) as u64))?;
	file.write_all(bytes)
}

pub(crate) fn mark_bytes(mark: &HistoryMark) -> Vec<u8> {
	let body = [&MAGIC[..], &mark.history, &mark.number.to_be_bytes()].concat();
	let sum = crc32c::crc32c(&body).to_be_bytes();
	[&body[..], &sum].concat()
}

pub(crate) fn read_mark(slot: &[u8]) -> Option<HistoryMark> {
	let (body, sum) = slot.get(..MARK_BYTES)?.split_at(MARK_BYTES - 4);
	if sum != crc32c::crc32c(body).to_be_bytes() {
		return None;
	}
	let body = body.strip_prefix(MAGIC)?;
	let (history, number) = body.split_first_chunk::<16>()?;
	Some(HistoryMark { history: *history, number: u64::from_be_bytes(number.try_into().ok()?) })
}

#[cfg(test)]
mod tests {
	use super::*;

	fn mark(number: u64) -> HistoryMark {
		HistoryMark { history: [7; 16], number }
	}

	fn folder(name: &str) -> PathBuf {
		let folder = std::env::temp_dir().join(format!("leyden-{name}-{}", std::process::id()));
		std::fs::create_dir_all(&folder).unwrap();
		folder
	}

	#[test]
	fn the_newest_mark_is_read_back() {
		let folder = folder("marks");
		let path = folder.join("w");
		let witness = FileWitness::new(&path);
		assert_eq!(witness.newest().unwrap(), None);
		assert!(!path.exists(), "a question creates nothing");
		for number in 1..=5 {
			witness.remember(&mark(number)).unwrap();
			assert_eq!(FileWitness::new(&path).newest().unwrap(), Some(mark(number)));
		}
		#[cfg(unix)]
		{
			use std::os::unix::fs::PermissionsExt;
			assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
		}
		// A history that is accepted begins with small numbers.
		let other = HistoryMark { history: [8; 16], number: 2 };
		FileWitness::new(&path).remember(&other).unwrap();
		assert_eq!(FileWitness::new(&path).newest().unwrap(), Some(other));
		std::fs::remove_dir_all(folder).unwrap();
	}

	/// A loss of power damages the second slot, and a disk both.
	#[test]
	fn one_damaged_mark_leaves_the_other_and_two_leave_none() {
		let folder = folder("damage");
		let path = folder.join("w");
		let witness = FileWitness::new(&path);
		(1..=4).for_each(|number| witness.remember(&mark(number)).unwrap());
		let whole = std::fs::read(&path).unwrap();
		for at in 0..MARK_BYTES {
			let mut damaged = whole.clone();
			damaged[SLOT_BYTES + at] ^= 0x10;
			std::fs::write(&path, &damaged).unwrap();
			assert_eq!(witness.newest().unwrap(), Some(mark(1)), "byte {at}");
			damaged[at] ^= 0x10;
			std::fs::write(&path, &damaged).unwrap();
			assert_eq!(witness.newest().unwrap(), None, "byte {at}");
		}
		for length in 0..2 * SLOT_BYTES {
			std::fs::write(&path, &whole[..length]).unwrap();
			let left = witness.newest().unwrap();
			let expected = match length {
				0..MARK_BYTES => None,
				length if length < SLOT_BYTES + MARK_BYTES => Some(mark(1)),
				_ => Some(mark(4)),
			};
			assert_eq!(left, expected, "{length} bytes");
		}
		std::fs::remove_dir_all(folder).unwrap();
	}
}
