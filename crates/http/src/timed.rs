// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! A connection whose peer must read what is written within a time.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::task::{ready, Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{sleep, Sleep};

/// Longest time that the rest of a peer's bytes is read for, after the last answer. TCP resets a connection
/// that is closed with bytes unread, and its peer may then lose the answer (RFC 9112, section 9.6).
const LINGER: Duration = Duration::from_secs(2);

/// A connection. hyper has a limit of time for what is read and none for what is written. A limit that
/// begins anew with every byte that is taken, or with every piece of an answer, would hold a connection for
/// as long as its peer likes, so this one goes from the first byte of an answer to the last.
pub(crate) struct Timed<T> {
	io: T,
	time: Duration,
	answering: Answering,
	/// End of the time of what is being written.
	until: Option<Pin<Box<Sleep>>>,
	/// End of the time that the rest is read for, after the last write.
	lingers: Option<Pin<Box<Sleep>>>,
}

impl<T> Timed<T> {
	pub(crate) fn new(io: T, time: Duration) -> Self {
		Self { io, time, answering: Answering::default(), until: None, lingers: None }
	}

	/// Returns the mark that an answer of this connection is under way.
	pub(crate) fn answering(&self) -> Answering {
		self.answering.clone()
	}

	/// Passes on the result of a write, or an error if the time is over.
	fn in_time<R>(
		&mut self, context: &mut Context<'_>, done: Poll<io::Result<R>>,
	) -> Poll<io::Result<R>> {
		let until = self.until.get_or_insert_with(|| Box::pin(sleep(self.time)));
		match until.as_mut().poll(context) {
			Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
			Poll::Pending => done,
		}
	}
}

impl<T: AsyncRead + Unpin> AsyncRead for Timed<T> {
	fn poll_read(
		mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>,
	) -> Poll<io::Result<()>> {
		Pin::new(&mut self.io).poll_read(context, buffer)
	}
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Timed<T> {
	fn poll_write(
		mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8],
	) -> Poll<io::Result<usize>> {
		let written = Pin::new(&mut self.io).poll_write(context, bytes);
		self.in_time(context, written)
	}

	fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
		match Pin::new(&mut self.io).poll_flush(context) {
			// All of an answer is on its way: hyper flushes after its last byte. It also flushes between
			// pieces.
			Poll::Ready(Ok(())) if !self.answering.is_set() => {
				self.until = None;
				Poll::Ready(Ok(()))
			},
			flushed => self.in_time(context, flushed),
		}
	}

	fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
		if self.lingers.is_none() {
			let shut = Pin::new(&mut self.io).poll_shutdown(context);
			ready!(self.in_time(context, shut))?;
		}
		let lingers = self.lingers.get_or_insert_with(|| Box::pin(sleep(LINGER)));
		if lingers.as_mut().poll(context).is_ready() {
			return Poll::Ready(Ok(()));
		}
		let mut rest = [0; 4096];
		loop {
			let mut rest = ReadBuf::new(&mut rest);
			match ready!(Pin::new(&mut self.io).poll_read(context, &mut rest)) {
				Ok(()) if !rest.filled().is_empty() => {},
				// The end, or a connection that is gone.
				_ => return Poll::Ready(Ok(())),
			}
		}
	}

	fn poll_write_vectored(
		mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[io::IoSlice<'_>],
	) -> Poll<io::Result<usize>> {
		let written = Pin::new(&mut self.io).poll_write_vectored(context, bytes);
		self.in_time(context, written)
	}

	fn is_write_vectored(&self) -> bool {
		self.io.is_write_vectored()
	}
}

/// Mark that an answer of a connection is under way: hyper has not taken all of its body yet.
#[derive(Clone, Default)]
pub(crate) struct Answering(Arc<AtomicBool>);

impl Answering {
	/// Returns the body of an answer, which is under way until hyper drops the body.
	pub(crate) fn until_dropped(&self, body: Body) -> Body {
		self.0.store(true, Ordering::Release);
		Body::new(Answer { body, answering: self.clone() })
	}

	fn is_set(&self) -> bool {
		self.0.load(Ordering::Acquire)
	}
}

/// The body of an answer that is under way.
struct Answer {
	body: Body,
	answering: Answering,
}

impl http_body::Body for Answer {
	type Data = Bytes;
	type Error = axum::Error;

	fn poll_frame(
		mut self: Pin<&mut Self>, context: &mut Context<'_>,
	) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
		Pin::new(&mut self.body).poll_frame(context)
	}

	fn is_end_stream(&self) -> bool {
		self.body.is_end_stream()
	}

	fn size_hint(&self) -> SizeHint {
		self.body.size_hint()
	}
}

impl Drop for Answer {
	fn drop(&mut self) {
		self.answering.0.store(false, Ordering::Release);
	}
}

#[cfg(test)]
mod tests {
	use super::*;
	use std::io::IoSlice;
	use tokio::io::{duplex, AsyncReadExt, AsyncWriteExt, DuplexStream};
	use tokio::time::{advance, interval, timeout};

	const TIME: Duration = Duration::from_secs(10);

	fn timed(bytes: usize) -> (Timed<DuplexStream>, DuplexStream) {
		let (ours, theirs) = duplex(bytes);
		(Timed::new(ours, TIME), theirs)
	}

	/// A peer that takes a byte per second.
	fn slow(mut peer: DuplexStream) {
		tokio::spawn(async move {
			let mut every_second = interval(Duration::from_secs(1));
			while peer.read_u8().await.is_ok() {
				every_second.tick().await;
			}
		});
	}

	#[tokio::test(start_paused = true)]
	async fn a_peer_that_takes_a_little_now_and_then_gets_no_longer_time() {
		for vectored in [false, true] {
			let (mut timed, peer) = timed(1);
			slow(peer);
			let ends = async {
				loop {
					let written = match vectored {
						false => timed.write(b"ab").await,
						true => timed.write_vectored(&[IoSlice::new(b"ab")]).await,
					};
					if let Err(error) = written {
						return error.kind();
					}
				}
			};
			assert_eq!(timeout(TIME * 2, ends).await, Ok(io::ErrorKind::TimedOut));
		}
	}

	#[tokio::test(start_paused = true)]
	async fn every_answer_has_its_own_time() {
		let (mut timed, mut peer) = timed(16);
		for _ in 0..5 {
			timed.write_all(b"answer").await.unwrap();
			timed.flush().await.unwrap();
			peer.read_exact(&mut [0; 6]).await.unwrap();
			advance(TIME).await;
		}
	}

	/// The peer reads the answer behind what it still sends.
	#[tokio::test(start_paused = true)]
	async fn what_a_peer_still_sends_is_read_before_the_end() {
		let (mut timed, mut peer) = timed(16);
		timed.write_all(b"answer").await.unwrap();
		let end = tokio::spawn(async move { timed.shutdown().await });
		peer.write_all(&[0; 100_000]).await.unwrap();
		let mut answer = String::new();
		peer.read_to_string(&mut answer).await.unwrap();
		assert_eq!(answer, "answer");
		drop(peer);
		end.await.unwrap().unwrap();
	}

	#[tokio::test(start_paused = true)]
	async fn a_peer_that_does_not_end_is_not_waited_for_long() {
		let (mut timed, peer) = timed(16);
		timeout(LINGER * 2, timed.shutdown()).await.unwrap().unwrap();
		drop(peer);
	}
}
