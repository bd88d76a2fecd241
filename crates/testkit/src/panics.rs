//! Catching LDK's panics without their noise.
//!
//! Some of the cases end in a panic inside LDK, which is the thing to show. The panic hook is
//! replaced once per process by one that is quiet on threads which are inside [`catch`] and passes
//! everything else on.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

/// A panic that was caught.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caught {
	/// What it said.
	pub message: String,
	/// File name and line, without the folder.
	pub at: String,
}

thread_local! {
	static QUIET: Cell<bool> = const { Cell::new(false) };
	static LAST: RefCell<Option<Caught>> = const { RefCell::new(None) };
}

/// Remembers, on each thread, its last panic; quiet on threads that ask for that.
pub(crate) fn install() {
	static INSTALL: Once = Once::new();
	INSTALL.call_once(|| {
		let loud = panic::take_hook();
		panic::set_hook(Box::new(move |info| {
			let at = info.location().map_or_else(String::new, |at| {
				let file = at.file().rsplit(['/', '\\']).next().unwrap_or_default();
				format!("{file}:{}", at.line())
			});
			let message = message(info.payload());
			LAST.with(|last| *last.borrow_mut() = Some(Caught { message, at }));
			if !QUIET.with(Cell::get) {
				loud(info);
			}
		}));
	});
}

/// Returns the last panic of this thread; for what is dropped while the thread unwinds.
pub(crate) fn last() -> Option<Caught> {
	LAST.with(|last| last.borrow().clone())
}

/// Runs `f`; a panic in it is returned, with nothing printed.
pub fn catch<T>(f: impl FnOnce() -> T) -> Result<T, Caught> {
	install();
	let before = QUIET.with(|q| q.replace(true));
	let result = panic::catch_unwind(AssertUnwindSafe(f));
	QUIET.with(|q| q.set(before));
	result.map_err(|payload| {
		let at = LAST.with(RefCell::take).map_or_else(String::new, |last| last.at);
		Caught { message: message(&*payload), at }
	})
}

fn message(payload: &(dyn Any + Send)) -> String {
	let text = payload.downcast_ref::<String>().cloned();
	text.or_else(|| payload.downcast_ref::<&str>().map(|s| (*s).to_owned()))
		.unwrap_or_else(|| "a panic without a message".to_owned())
}

#[cfg(test)]
mod tests {
	use super::*;

	#[test]
	fn the_message_comes_back() {
		assert_eq!(catch(|| 1), Ok(1));
		let caught = catch(|| panic!("a {}", 1)).unwrap_err();
		assert_eq!(caught.message, "a 1");
		assert!(caught.at.starts_with("panics.rs:"), "{}", caught.at);
		assert_eq!(catch(|| panic!("b")).unwrap_err().message, "b");
	}
}
