//! The tasks of a node's runtime, polled when the net says so, or by tokio.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use lightning::util::native_async::FutureSpawner;
use tokio::runtime::Handle;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A queue of tasks, in the order in which they were spawned. Cheap to clone.
#[derive(Clone, Default)]
pub struct Tasks {
	queue: Arc<Mutex<VecDeque<Task>>>,
	runtime: Arc<OnceLock<Handle>>,
	/// Tasks that were spawned and have not ended.
	running: Arc<(Mutex<usize>, Condvar)>,
}

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
		*self.queue.lock().unwrap() = left;
		has_ended
	}

	/// Runs tasks on this runtime from now on, and no longer when the net says so.
	pub(crate) fn run_on(&self, runtime: Handle) {
		let runtime = self.runtime.get_or_init(|| runtime);
		while let Some(task) = self.pop() {
			drop(runtime.spawn(task));
		}
	}

	/// Gives tasks on the runtime a moment to end. One that waits for something of the node's goes
	/// on waiting.
	pub(crate) fn give_time(&self) {
		/// The end of a task is heard at once.
		const MOMENT: Duration = Duration::from_millis(10);
		let (running, ended) = &*self.running;
		let running = running.lock().unwrap();
		drop(ended.wait_timeout_while(running, MOMENT, |running| *running > 0));
	}

	/// Returns `true` if a task runs on the runtime.
	pub(crate) fn has_running(&self) -> bool {
		self.runtime.get().is_some() && *self.running.0.lock().unwrap() > 0
	}

	/// Drops every task, as the end of the process does.
	pub fn clear(&self) {
		let tasks = std::mem::take(&mut *self.queue.lock().unwrap_or_else(|e| e.into_inner()));
		drop(tasks);
	}

	// The lock is not held while a task runs.
	fn pop(&self) -> Option<Task> {
		self.queue.lock().unwrap().pop_front()
	}
}

impl FutureSpawner for Tasks {
	type E = Infallible;
	type SpawnedFutureResult<O> = Spawned<O>;

	fn spawn<O: Send + 'static, T: Future<Output = O> + Send + 'static>(
		&self, future: T,
	) -> Spawned<O> {
		let end = Arc::new(Mutex::new(End { output: None, waker: None }));
		let (ends, running) = (Arc::clone(&end), Arc::clone(&self.running));
		*running.0.lock().unwrap() += 1;
		let task = async move {
			let output = future.await;
			let mut end = ends.lock().unwrap();
			end.output = Some(output);
			let waker = end.waker.take();
			drop(end);
			if let Some(waker) = waker {
				waker.wake();
			}
			*running.0.lock().unwrap() -= 1;
			running.1.notify_all();
		};
		match self.runtime.get() {
			Some(runtime) => drop(runtime.spawn(task)),
			None => self.queue.lock().unwrap().push_back(Box::pin(task)),
		}
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
