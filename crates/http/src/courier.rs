// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! [`Courier`] sends the callbacks of an outbox over HTTP.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use leyden_outbox::{
	Callback, Claim, CompletedDelivery, Outbox, OutboxError, Reply, SettleAndClaim, Settled,
};
use leyden_store::{Clock, Timestamp};
use reqwest::header::{self, HeaderMap, HeaderValue};
use tokio::task::JoinSet;

use crate::address::Address;
use crate::guard::{is_not_allowed, NotAllowed};
use crate::signature::Webhook;

/// Most bytes that are read of an answer.
pub const MAX_RESPONSE_BYTES: usize = 16 * 1024;

/// A difference of clocks that explains a refusal: most receivers tolerate five minutes.
const MAX_SKEW: Duration = Duration::from_secs(4 * 60);
/// The time between two compactions of an outbox in a run.
const COMPACTS_EVERY: Duration = Duration::from_secs(600);
/// Most callbacks that expire, or are looked at to be dropped, in one go.
const MAX_AT_ONCE: usize = 256;
/// Most compactions in a row.
const MAX_COMPACTIONS: usize = 1_000;

/// Most callbacks that are taken in one turn of the outbox.
const MAX_TURN: usize = 256;

/// Options of a [`Courier`].
#[derive(Clone, Copy)]
pub struct CourierOptions {
	/// Longest time of a try, from the first byte to the last. 20 seconds unless set otherwise; less than the
	/// outbox's lease.
	pub timeout: Duration,
	/// Test of an answer's status and of the beginning of its body: whether it says that the deadline has
	/// passed or is too near. Unless set otherwise, no answer says so.
	pub too_late: fn(u16, &[u8]) -> bool,
	/// The time between two looks at the outbox in [`Courier::run`]. A second unless set otherwise.
	pub poll_interval: Duration,
}

impl Default for CourierOptions {
	fn default() -> Self {
		Self {
			timeout: Duration::from_secs(20),
			too_late: |_, _| false,
			poll_interval: Duration::from_secs(1),
		}
	}
}

/// Sends the callbacks of an outbox over HTTP. Cheap to clone.
#[derive(Clone)]
pub struct Courier(Arc<Inner>);

struct Inner {
	outbox: Outbox,
	clock: Arc<dyn Clock>,
	options: CourierOptions,
	/// Addresses by the names of endpoints, each with a client that calls no other address.
	endpoints: HashMap<String, (Address, reqwest::Client)>,
}

/// The result of a task.
enum Back {
	Completed(Box<CompletedDelivery>),
	Settled(Result<Settled, OutboxError>),
}

/// Counts of what was sent.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Drained {
	/// Callbacks that were taken.
	pub done: u64,
	/// Tries that failed and will be repeated.
	pub again: u64,
	/// Callbacks that were put aside, or were too late.
	pub aside: u64,
	/// Tries after which an endpoint is not called any more.
	pub paused: u64,
}

impl Courier {
	/// Returns a courier for these endpoints of an outbox, by name. Connections are kept and used again.
	///
	/// # Errors
	/// The HTTP client's, if there is no TLS here.
	pub fn new(
		outbox: Outbox, clock: Arc<dyn Clock>, options: CourierOptions,
		endpoints: impl IntoIterator<Item = (String, Address)>,
	) -> Result<Self, reqwest::Error> {
		let endpoints = endpoints.into_iter().map(|(name, address)| {
			let client = address.client(options.timeout)?;
			Ok((name, (address, client)))
		});
		let endpoints = endpoints.collect::<Result<_, reqwest::Error>>()?;
		Ok(Self(Arc::new(Inner { outbox, clock, options, endpoints })))
	}

	/// Sends every callback that is to be sent now, as many at once as the endpoints allow, and returns when
	/// there are no more. Call it when a callback was enqueued, with every block, and every few seconds.
	/// `height` is that of the chain.
	///
	/// # Errors
	/// The outbox's. What was sent meanwhile is settled.
	///
	/// # Failure Behavior and Persistence
	/// A callback whose try was not settled before the process ended is sent again, under the same id.
	pub async fn drain(&self, height: u32) -> Result<Drained, OutboxError> {
		self.drain_until(&|| height, &AtomicBool::new(false)).await
	}

	/// Sends as [`drain`](Courier::drain) does, with the height of each turn. Callbacks expire meanwhile.
	/// Once `is_stopped` is set, no more are sent.
	async fn drain_until(
		&self, height: &(dyn Fn() -> u32 + Sync), is_stopped: &AtomicBool,
	) -> Result<Drained, OutboxError> {
		let mut drained = Drained::default();
		let mut under_way = JoinSet::new();
		let mut failed = None;
		let mut returned = Vec::new();
		loop {
			let (outbox, back) = (self.0.outbox.clone(), std::mem::take(&mut returned));
			// After a failure, what is on its way is only waited for.
			let is_over = failed.is_some() || is_stopped.load(Ordering::SeqCst);
			let (limit, height) = (if is_over { 0 } else { MAX_TURN }, height());
			let turn = blocking(move || {
				// Before anything is sent: what is too late is not.
				let expired = match limit {
					0 => Ok(Vec::new()),
					_ => outbox.expire(height, MAX_AT_ONCE),
				};
				let mut turn = outbox.settle_and_claim(back, height, limit);
				if let Err(error) = expired {
					turn.claims = Err(error);
				}
				Ok(turn)
			})
			.await?;
			let SettleAndClaim { settling, claims } = turn;
			match claims {
				Ok(claims) => claims.into_iter().for_each(|claim| {
					let courier = self.clone();
					under_way.spawn(async move {
						let (reply, detail) = courier.send(claim.callback()).await;
						Back::Completed(Box::new(CompletedDelivery { claim, reply, detail }))
					});
				}),
				Err(error) => failed = failed.or(Some(error)),
			}
			for settling in settling {
				// While that is written, others are sent.
				under_way.spawn(async move {
					Back::Settled(match settling {
						Ok(settling) => settling.durable().await,
						Err(error) => Err(error),
					})
				});
			}
			// One, and whatever else has come back meanwhile: what was settled makes room for what had to
			// wait for it.
			let Some(first) = under_way.join_next().await else {
				return failed.map_or(Ok(drained), Err);
			};
			let mut next = Some(first);
			while let Some(back) = next {
				match back {
					Ok(Back::Completed(back)) => returned.push(*back),
					Ok(Back::Settled(Ok(settled))) => drained.count(settled),
					// Another process has it.
					Ok(Back::Settled(Err(OutboxError::LeaseLost))) => {},
					Ok(Back::Settled(Err(error))) => failed = failed.or(Some(error)),
					// A task does not panic; if one did, its claim is free again.
					Err(_) => {},
				}
				next = under_way.try_join_next();
			}
		}
	}

	/// Sends callbacks until `stop` resolves: [drains](Courier::drain) the outbox, lets callbacks
	/// [expire](Outbox::expire), and [compacts](Outbox::compact) it, again and again. `height` is that of
	/// the chain. The future ends when the callbacks on their way are back.
	///
	/// # Errors
	/// The first error of the outbox that does not pass by itself; a store that is unavailable is waited for.
	///
	/// # Failure Behavior and Persistence
	/// The same as of [`drain`](Courier::drain), [`Outbox::expire`] and [`Outbox::compact`].
	pub async fn run(
		&self, height: impl Fn() -> u32 + Sync, stop: impl Future<Output = ()>,
	) -> Result<(), OutboxError> {
		let (mut stop, is_stopped) = (std::pin::pin!(stop), AtomicBool::new(false));
		let mut compacted_at: Option<Duration> = None;
		let mut is_told = false;
		loop {
			let elapsed = self.0.clock.elapsed();
			let compacts =
				compacted_at.is_none_or(|at| elapsed.saturating_sub(at) >= COMPACTS_EVERY);
			let mut round = std::pin::pin!(self.round(&height, compacts, &is_stopped));
			let done = loop {
				tokio::select! {
					done = &mut round => break done,
					() = &mut stop, if !is_stopped.load(Ordering::SeqCst) => {
						is_stopped.store(true, Ordering::SeqCst);
					},
				}
			};
			match done {
				Ok(()) => {
					is_told = false;
					compacted_at = if compacts { Some(elapsed) } else { compacted_at };
				},
				Err(error) if error.is_retriable() => {
					if !std::mem::replace(&mut is_told, true) {
						self.0.outbox.tell_unavailable(&error);
					}
				},
				Err(error) => return Err(error),
			}
			if is_stopped.load(Ordering::SeqCst) {
				return Ok(());
			}
			tokio::select! {
				biased;
				() = &mut stop => return Ok(()),
				() = tokio::time::sleep(self.0.options.poll_interval) => {},
			}
		}
	}

	async fn round(
		&self, height: &(dyn Fn() -> u32 + Sync), compacts: bool, is_stopped: &AtomicBool,
	) -> Result<(), OutboxError> {
		self.drain_until(height, is_stopped).await?;
		let outbox = self.0.outbox.clone();
		if !compacts {
			return Ok(());
		}
		blocking(move || {
			for _ in 0..MAX_COMPACTIONS {
				if outbox.compact(MAX_AT_ONCE)? == 0 {
					break;
				}
			}
			Ok(())
		})
		.await
	}

	/// Sends one callback, and settles it by the answer.
	///
	/// # Errors
	/// The outbox's.
	///
	/// # Failure Behavior and Persistence
	/// The same as of [`drain`](Courier::drain).
	pub async fn deliver(&self, claim: Claim, height: u32) -> Result<Settled, OutboxError> {
		let (reply, said) = self.send(claim.callback()).await;
		blocking(move || claim.reply(reply, height, &said)).await
	}

	async fn send(&self, callback: &Callback) -> (Reply, String) {
		let Some((address, client)) = self.0.endpoints.get(callback.endpoint()) else {
			return (Reply::Forbidden, "the courier knows no address of this endpoint".to_owned());
		};
		if address.is_forbidden() {
			return (Reply::Forbidden, "the address is private, and not allowed".to_owned());
		}
		let Ok(headers) = self.headers(callback, address) else {
			return (Reply::Forbidden, "a value of the callback is no header".to_owned());
		};
		let url = address.url(callback.kind());
		let request = client.post(url).headers(headers).body(callback.payload().to_vec());
		let request = address.authorized(request);
		match request.send().await {
			Ok(response) => self.answer(response).await,
			Err(error) => failed(&error),
		}
	}

	fn headers(
		&self, callback: &Callback, address: &Address,
	) -> Result<HeaderMap, header::InvalidHeaderValue> {
		let id = callback.id().to_string();
		let timestamp = self.0.clock.now().0 / 1000;
		let webhook = Webhook { id: &id, timestamp };
		let signature = webhook.sign(callback.payload(), &address.secrets);
		let mut headers = HeaderMap::new();
		headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
		headers.insert("webhook-id", HeaderValue::try_from(&id)?);
		headers.insert("webhook-timestamp", HeaderValue::from(timestamp));
		if !address.secrets.is_empty() {
			headers.insert("webhook-signature", HeaderValue::try_from(signature)?);
		}
		headers.insert("leyden-sequence", HeaderValue::from(callback.sequence().get()));
		headers.insert("leyden-epoch", HeaderValue::from(self.0.outbox.epoch()));
		headers.insert("leyden-schema", HeaderValue::from(callback.schema()));
		Ok(headers)
	}

	async fn answer(&self, mut response: reqwest::Response) -> (Reply, String) {
		let code = response.status().as_u16();
		let retry_after = retry_after(response.headers(), self.0.clock.now());
		let date = response.headers().get(header::DATE).and_then(date);
		let mut body = Vec::new();
		while body.len() < MAX_RESPONSE_BYTES {
			match response.chunk().await {
				Ok(Some(chunk)) => {
					let room = MAX_RESPONSE_BYTES - body.len();
					body.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
				},
				Ok(None) => break,
				// The status line is the answer, whatever becomes of the body; but what a refusal means may
				// be in there.
				Err(_) if is_explained_by_its_body(code) => {
					let detail = format!("HTTP {code}, and the body ended too soon");
					return (Reply::Unexplained, detail);
				},
				Err(_) => break,
			}
		}
		let too_late = (self.0.options.too_late)(code, &body);
		let skew = skew(code, date, &body, self.0.clock.now());
		let detail = match &skew {
			Some(skew) => format!("HTTP {code}: {skew}"),
			None => format!("HTTP {code}"),
		};
		let clock_skew = skew.is_some();
		(Reply::Status { code, retry_after, too_late, clock_skew }, detail)
	}
}

impl Drained {
	fn count(&mut self, settled: Settled) {
		*match settled {
			Settled::Done => &mut self.done,
			Settled::RetryAt(_) => &mut self.again,
			Settled::Dead | Settled::Expired => &mut self.aside,
			Settled::Paused => &mut self.paused,
		} += 1;
	}
}

/// Returns the meaning of a failed request, and a text about it. The text has no URL in it, since a URL may
/// have a secret in it.
fn failed(error: &reqwest::Error) -> (Reply, String) {
	if is_not_allowed(error) {
		return (Reply::Forbidden, NotAllowed.to_string());
	}
	// Nothing was sent, also if that took too long.
	if error.is_connect() {
		return (Reply::NoConnection, "no connection".to_owned());
	}
	match error.is_timeout() {
		true => (Reply::Timeout, "no answer in time".to_owned()),
		false => {
			(Reply::Broken, "the connection ended, or the answer is none of HTTP's".to_owned())
		},
	}
}

/// Returns how long `Retry-After` asks to wait. It is in seconds, or a date.
pub(crate) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
	let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
	// Digits, without a sign.
	let is_number = value.bytes().all(|byte| byte.is_ascii_digit());
	if let Some(seconds) = value.parse::<u32>().ok().filter(|_| is_number) {
		return Some(Duration::from_secs(seconds.into()));
	}
	// The other side's clock and this machine's: a wish in wall time.
	let at = parse_date(value)?;
	Some(at.since(now))
}

fn date(value: &HeaderValue) -> Option<Timestamp> {
	parse_date(value.to_str().ok()?.trim())
}

fn parse_date(text: &str) -> Option<Timestamp> {
	let at = httpdate::parse_http_date(text).ok()?;
	Some(Timestamp::default().after(at.duration_since(UNIX_EPOCH).unwrap_or_default()))
}

/// Returns the difference of clocks that a callback is refused for, if that is the reason: a
/// [`Receiver`](crate::Receiver) says so, and of other endpoints the date of the answer tells.
fn skew(code: u16, date: Option<Timestamp>, body: &[u8], now: Timestamp) -> Option<String> {
	let said: Option<Refusal> = serde_json::from_slice(body).ok();
	let said = said.filter(|said| code == 400 && said.error == "clock_skew");
	// A 400 of another receiver is about the callback.
	let date = date.filter(|_| matches!(code, 401 | 403));
	let differs = date.and_then(|date| match (date.since(now), now.since(date)) {
		(ahead, _) if ahead > MAX_SKEW => Some(format!("{} s ahead of", ahead.as_secs())),
		(_, behind) if behind > MAX_SKEW => Some(format!("{} s behind", behind.as_secs())),
		_ => None,
	});
	match (said, differs) {
		(_, Some(differs)) => Some(format!("its clock is {differs} this one")),
		(Some(_), None) => Some("it refuses the timestamp".to_owned()),
		(None, None) => None,
	}
}

/// Returns whether the body of an answer with this status may say that the deadline has passed, or that
/// clocks differ.
fn is_explained_by_its_body(code: u16) -> bool {
	matches!(code, 400..=499) && !matches!(code, 401 | 403 | 404 | 408..=410 | 425 | 429)
}

/// The beginning of a refusal in JSON.
#[derive(serde::Deserialize)]
struct Refusal {
	error: String,
}

/// Calls the outbox outside of the runtime's own threads, since it waits for its store.
async fn blocking<T: Send + 'static>(
	f: impl FnOnce() -> Result<T, OutboxError> + Send + 'static,
) -> Result<T, OutboxError> {
	match tokio::task::spawn_blocking(f).await {
		Ok(done) => done,
		Err(error) => match error.try_into_panic() {
			Ok(panic) => std::panic::resume_unwind(panic),
			// The runtime ends, and no caller is there to hear of it.
			Err(_) => Err(OutboxError::LeaseLost),
		},
	}
}

impl fmt::Debug for Courier {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		let names: Vec<&String> = self.0.endpoints.keys().collect();
		f.debug_struct("Courier").field("endpoints", &names).finish_non_exhaustive()
	}
}

impl fmt::Debug for CourierOptions {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.debug_struct("CourierOptions").field("timeout", &self.timeout).finish_non_exhaustive()
	}
}
