// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Sends what is owed.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use leyden_outbox::{Callback, Claim, Outbox, OutboxError, Reply, Returned, Settled, Turn};
use leyden_store::{Clock, Timestamp};
use reqwest::header::{self, HeaderMap, HeaderValue};
use tokio::task::JoinSet;

use crate::address::Address;
use crate::guard::{Guarded, NotAllowed};
use crate::signature::Webhook;

/// Most of an answer that is read, in bytes.
pub const MAX_RESPONSE_BYTES: usize = 16 * 1024;

/// Most callbacks that are taken in one turn of the outbox.
const MAX_TURN: usize = 256;

/// How callbacks are sent.
#[derive(Clone, Copy)]
pub struct CourierOptions {
	/// How long a try may take, from the first byte to the last. 20 seconds unless set otherwise; less
	/// than the outbox's lease.
	pub timeout: Duration,
	/// Whether an answer says that the deadline has passed or is too near, from its status and the
	/// beginning of its body. Unless set otherwise, none does.
	pub too_late: fn(u16, &[u8]) -> bool,
}

impl Default for CourierOptions {
	fn default() -> Self {
		Self { timeout: Duration::from_secs(20), too_late: |_, _| false }
	}
}

/// Sends the callbacks of an outbox over HTTP. Cheap to clone.
#[derive(Clone)]
pub struct Courier(Arc<Inner>);

struct Inner {
	outbox: Outbox,
	clock: Arc<dyn Clock>,
	options: CourierOptions,
	/// By the endpoint's name: its address, and a client that calls nobody else.
	endpoints: HashMap<String, (Address, reqwest::Client)>,
}

/// What a task comes back with.
enum Back {
	Returned(Box<Returned>),
	Settled(Result<Settled, OutboxError>),
}

/// What was sent.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Drained {
	/// Callbacks that were taken.
	pub done: u64,
	/// Tries that failed, and will be repeated.
	pub again: u64,
	/// Callbacks that were put aside, or were too late.
	pub aside: u64,
	/// Tries after which an endpoint is not called any more.
	pub paused: u64,
}

impl Courier {
	/// A courier for these endpoints of an outbox, by name. Connections are kept and used again.
	///
	/// # Errors
	/// The HTTP client's, if there is no TLS here.
	pub fn new(
		outbox: Outbox, clock: Arc<dyn Clock>, options: CourierOptions,
		endpoints: impl IntoIterator<Item = (String, Address)>,
	) -> Result<Self, reqwest::Error> {
		let client = |address: &Address| {
			let builder = reqwest::Client::builder();
			let trusts = address.authorities.iter().cloned();
			trusts
				.fold(builder, reqwest::ClientBuilder::add_root_certificate)
				.timeout(options.timeout)
				.redirect(reqwest::redirect::Policy::none())
				.dns_resolver(Arc::new(Guarded(address.allow.clone())))
				// A proxy would look names up itself, past the guard.
				.no_proxy()
				.referer(false)
				.user_agent(concat!("leyden/", env!("CARGO_PKG_VERSION")))
				.build()
		};
		let endpoints = endpoints.into_iter().map(|(name, address)| {
			let client = client(&address)?;
			Ok((name, (address, client)))
		});
		let endpoints = endpoints.collect::<Result<_, reqwest::Error>>()?;
		Ok(Self(Arc::new(Inner { outbox, clock, options, endpoints })))
	}

	/// Sends everything that is to be sent now, as many at once as the endpoints allow, and returns when
	/// there is nothing more. Call it when something was enqueued, with every block, and every few
	/// seconds. `height` is that of the chain.
	///
	/// # Errors
	/// The outbox's. What was sent meanwhile is settled.
	///
	/// # Failure Behavior and Persistence
	/// A callback whose try was not settled before the process ended is sent again, under the same id.
	pub async fn drain(&self, height: u32) -> Result<Drained, OutboxError> {
		let mut drained = Drained::default();
		let mut under_way = JoinSet::new();
		let mut failed = None;
		let mut returned = Vec::new();
		loop {
			let (outbox, back) = (self.0.outbox.clone(), std::mem::take(&mut returned));
			// After a failure, what is on its way is only waited for.
			let limit = if failed.is_some() { 0 } else { MAX_TURN };
			let turn = blocking(move || Ok(outbox.turn(back, height, limit))).await?;
			let Turn { settling, claims } = turn;
			match claims {
				Ok(claims) => claims.into_iter().for_each(|claim| {
					let courier = self.clone();
					under_way.spawn(async move {
						let (reply, said) = courier.send(claim.callback()).await;
						Back::Returned(Box::new(Returned { claim, reply, said }))
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
					Ok(Back::Returned(back)) => returned.push(*back),
					Ok(Back::Settled(Ok(settled))) => drained.count(settled),
					// Somebody else has it.
					Ok(Back::Settled(Err(OutboxError::LeaseLost))) => {},
					Ok(Back::Settled(Err(error))) => failed = failed.or(Some(error)),
					// A task does not panic; if one did, its claim is free again.
					Err(_) => {},
				}
				next = under_way.try_join_next();
			}
		}
	}

	/// Sends one callback, and settles it by what comes back.
	///
	/// # Errors
	/// The outbox's.
	///
	/// # Failure Behavior and Persistence
	/// As [`drain`](Courier::drain).
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
			return (Reply::Forbidden, "the token is no header".to_owned());
		};
		let url = address.url(callback.kind());
		let request = client.post(url).headers(headers).body(callback.payload().to_vec());
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
		if let Some(token) = &address.token {
			let mut value = HeaderValue::try_from(token.header())?;
			value.set_sensitive(true);
			headers.insert(header::AUTHORIZATION, value);
		}
		Ok(headers)
	}

	async fn answer(&self, mut response: reqwest::Response) -> (Reply, String) {
		let code = response.status().as_u16();
		let retry_after = retry_after(response.headers(), self.0.clock.now());
		let mut body = Vec::new();
		while body.len() < MAX_RESPONSE_BYTES {
			match response.chunk().await {
				Ok(Some(chunk)) => {
					let room = MAX_RESPONSE_BYTES - body.len();
					body.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
				},
				Ok(None) => break,
				// The status is there, and the rest may have been anything.
				Err(error) => return failed(&error),
			}
		}
		let too_late = (self.0.options.too_late)(code, &body);
		(Reply::Status { code, retry_after, too_late }, format!("HTTP {code}"))
	}
}

impl Drained {
	fn count(&mut self, settled: Settled) {
		*match settled {
			Settled::Done => &mut self.done,
			Settled::Again(_) => &mut self.again,
			Settled::Dead | Settled::Expired => &mut self.aside,
			Settled::Paused => &mut self.paused,
		} += 1;
	}
}

/// What a failed request means. What is said has no URL in it: there may be a secret in that.
fn failed(error: &reqwest::Error) -> (Reply, String) {
	let mut cause: Option<&dyn Error> = Some(error);
	while let Some(error) = cause {
		if let Some(NotAllowed) = error.downcast_ref() {
			return (Reply::Forbidden, NotAllowed.to_string());
		}
		cause = error.source();
	}
	if error.is_timeout() {
		return (Reply::Timeout, "no answer in time".to_owned());
	}
	match error.is_connect() {
		true => (Reply::NoConnection, "no connection".to_owned()),
		false => {
			(Reply::Broken, "the connection ended, or the answer is none of HTTP's".to_owned())
		},
	}
}

/// Seconds, or a date.
pub(crate) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
	let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
	// Digits, without a sign.
	let is_number = value.bytes().all(|byte| byte.is_ascii_digit());
	if let Some(seconds) = value.parse::<u32>().ok().filter(|_| is_number) {
		return Some(Duration::from_secs(seconds.into()));
	}
	let at = httpdate::parse_http_date(value).ok()?;
	// The other side's clock and this machine's: a wish in wall time.
	let at = Timestamp::default().after(at.duration_since(UNIX_EPOCH).unwrap_or_default());
	Some(at.since(now))
}

/// The outbox waits for its store; that is not for a task to do.
async fn blocking<T: Send + 'static>(
	f: impl FnOnce() -> Result<T, OutboxError> + Send + 'static,
) -> Result<T, OutboxError> {
	match tokio::task::spawn_blocking(f).await {
		Ok(done) => done,
		Err(error) => match error.try_into_panic() {
			Ok(panic) => std::panic::resume_unwind(panic),
			// The runtime ends; whoever waits hears nothing any more.
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
