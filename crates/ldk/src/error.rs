// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Errors at LDK's edges, where they have to be I/O errors.

use leyden_store::StoreError;
use lightning::io;

/// A store's error as LDK's `KVStore` wants it.
pub(crate) fn to_io(error: StoreError) -> io::Error {
	let kind = match &error {
		StoreError::Invalid { .. } | StoreError::TooLarge { .. } => io::ErrorKind::InvalidInput,
		StoreError::Corrupt { .. } | StoreError::Newer { .. } | StoreError::NotAStore { .. } => {
			io::ErrorKind::InvalidData
		},
		StoreError::ReadOnly { .. } => io::ErrorKind::PermissionDenied,
		_ => io::ErrorKind::Other,
	};
	io::Error::new(kind, error.to_string())
}
