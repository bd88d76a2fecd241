//! The tasks of a node's runtime, polled when the net says so.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use lightning::util::native_async::FutureSpawner;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A queue of tasks, in the order in which they were spawned. Cheap to clone.
#[derive(Clone, Default)]
pub struct Tasks(Arc<Mutex<VecDeque<Task>>>);

/// The end of a task.
pub struct Spawned<O>(Arc<Mutex<End<O>>>);

struct End<O> {
	output: Option<O>,
	waker: Option<Waker>,
}

impl Tasks {
	/// Polls every task once, the oldest first, and those that were spawned meanwhile. Returns
	/// `true` if any has ended.
	pub fn run(&self) -> bool {
		let mut context = Context::from_waker(Waker::noop());
		let (mut left, mut has_ended) = (VecDeque::new(), false);
		while let Some(mut task) = self.pop() {
			match task.as_mut().poll(&mut context) {
				Poll::Ready(()) => has_ended = true,
				Poll::Pending => left.push_back(task),
			}
		}
		*self.0.lock().unwrap() = left;
		has_ended
	}

	/// Drops every task, as the end of the process does.
	pub fn clear(&self) {
		let tasks = std::mem::take(&mut *self.0.lock().unwrap_or_else(|e| e.into_inner()));
		drop(tasks);
	}

	// The lock is not held while a task runs.
	fn pop(&self) -> Option<Task> {
		self.0.lock().unwrap().pop_front()
	}
}

impl FutureSpawner for Tasks {
	type E = Infallible;
	type SpawnedFutureResult<O> = Spawned<O>;

	fn spawn<O: Send + 'static, T: Future<Output = O> + Send + 'static>(
		&self, future: T,
	) -> Spawned<O> {
		let end = Arc::new(Mutex::new(End { output: None, waker: None }));
		let ends = Arc::clone(&end);
		let task = async move {
			let output = future.await;
			let mut end = ends.lock().unwrap();
			end.output = Some(output);
			if let Some(waker) = end.waker.take() {
				waker.wake();
			}
		};
		self.0.lock().unwrap().push_back(Box::pin(task));
		Spawned(end)
	}
}

impl<O> Future for Spawned<O> {
	type Output = Result<O, Infallible>;

	fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
		let mut end = self.0.lock().unwrap();
		match end.output.take() {
			Some(output) => Poll::Ready(Ok(output)),
			None => {
				end.waker = Some(context.waker().clone());
				Poll::Pending
			},
		}
	}
}
