// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Requests to a server, each until a deadline, and what their failures mean.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use leyden_store::StoreError;
use tokio::task::JoinHandle;
use vss_client_ng::client::VssClient;
use vss_client_ng::error::VssError;
use vss_client_ng::types::{
	GetObjectRequest, KeyValue, ListKeyVersionsRequest, ListKeyVersionsResponse, PutObjectRequest,
};
use vss_client_ng::util::retry::{RetryContext, RetryPolicy};

use super::{VssConfig, VssOptions};
use crate::runtime::{block_on, Runtime};

/// How long to wait before a request is sent again: the first time, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));
/// The condition of an item that has none.
const ANY_VERSION: i64 = -1;

/// What became of a request.
#[derive(Debug)]
pub(super) enum Failure {
	/// The store is not at the version that was named, or an item to delete is not there. Nothing was
	/// done.
	Conflict,
	/// The server lets nobody in with these headers. Nothing was done.
	Auth(Said),
	/// The server will not do that, ever. Nothing was done.
	Refused(Said),
	/// The server takes no request of that size. Nothing was done.
	TooLarge(Said),
	/// No answer, or none that says what was done.
	Lost(Said),
	/// An answer without the protocol's version, or with another one: of an older or a newer server, or
	/// of a proxy that is in trouble.
	OtherVersion(Said),
}

/// The answers of another version in a row that are believed when a store is opened.
const OTHER_VERSIONS: u32 = 3;
/// The pause between them.
const OTHER_PAUSE: Duration = Duration::from_secs(1);

/// What the client said went wrong. It says nothing of values.
#[derive(Debug)]
pub(super) struct Said(String);

pub(super) struct Client {
	client: Arc<VssClient<Once>>,
	runtime: Runtime,
	store_id: String,
	place: String,
	pub(super) timeout: Duration,
}

impl Client {
	pub(super) fn new(
		config: &VssConfig, store_id: String, options: &VssOptions,
	) -> Result<Self, StoreError> {
		let base_url = config.base_url.trim_end_matches('/').to_owned();
		let place = format!("the store {store_id} at {base_url}");
		let headers = Arc::clone(&config.headers);
		let client = Arc::new(VssClient::new_with_headers(base_url, Once, headers));
		let runtime = Runtime::new("leyden-vss-io")?;
		Ok(Self { client, runtime, store_id, place, timeout: options.timeout })
	}

	pub(super) fn place(&self) -> &str {
		&self.place
	}

	pub(super) fn deadline(&self) -> Instant {
		Instant::now() + self.timeout
	}

	/// The values under these names, asked for all at once; `None` for one that is not there.
	pub(super) fn get(
		&self, names: Vec<String>, deadline: Instant,
	) -> Result<Vec<Option<Vec<u8>>>, Failure> {
		let ask = |key: String| {
			let request = GetObjectRequest { store_id: self.store_id.clone(), key };
			let client = Arc::clone(&self.client);
			self.runtime.spawn(async move {
				match client.get_object(&request).await {
					Ok(found) => Ok(found.value.map(|found| found.value)),
					Err(VssError::NoSuchKeyError(_)) => Ok(None),
					Err(error) => Err(error),
				}
			})
		};
		let asked: Vec<_> = names.into_iter().map(ask).collect();
		asked.into_iter().map(|asked| answer(asked, deadline)).collect()
	}

	/// A page of the names with this prefix.
	pub(super) fn list(
		&self, prefix: Option<String>, page_token: Option<String>, deadline: Instant,
	) -> Result<ListKeyVersionsResponse, Failure> {
		let request = ListKeyVersionsRequest {
			store_id: self.store_id.clone(),
			key_prefix: prefix,
			page_size: None,
			page_token,
		};
		self.call(deadline, |client| async move { client.list_key_versions(&request).await })
	}

	/// Writes and deletes, if the store is at this version.
	pub(super) fn put(
		&self, global_version: i64, puts: Vec<(String, Vec<u8>)>, deletes: Vec<String>,
		deadline: Instant,
	) -> Result<(), Failure> {
		let item = |(key, value)| KeyValue { key, value, version: ANY_VERSION };
		let request = PutObjectRequest {
			store_id: self.store_id.clone(),
			global_version: Some(global_version),
			transaction_items: puts.into_iter().map(item).collect(),
			delete_items: deletes.into_iter().map(|key| item((key, Vec::new()))).collect(),
		};
		let put = self.call(deadline, |client| async move { client.put_object(&request).await });
		match put {
			Ok(_) => Ok(()),
			// Whoever answered, it may have been done.
			Err(Failure::OtherVersion(said)) => Err(Failure::Lost(said)),
			Err(failure) => Err(failure),
		}
	}

	/// Reads until there is an answer, or the deadline. Answers of another version are those of a proxy in
	/// trouble, and pass.
	pub(super) fn until<T>(
		&self, doing: &'static str, deadline: Instant,
		mut read: impl FnMut(&Self) -> Result<T, Failure>,
	) -> Result<T, StoreError> {
		let read = |client: &Self| match read(client) {
			Err(Failure::OtherVersion(said)) => Err(Failure::Lost(said)),
			answer => answer,
		};
		self.first_until(doing, deadline, read)
	}

	/// Reads as [`until`](Client::until) does, when nothing is known of the server: answers of another
	/// version, again and again, are those of another server. A proxy that is restarted has two seconds.
	pub(super) fn first_until<T>(
		&self, doing: &'static str, deadline: Instant,
		mut read: impl FnMut(&Self) -> Result<T, Failure>,
	) -> Result<T, StoreError> {
		let mut pause = Pause::until(deadline);
		let mut others = 0;
		loop {
			match read(self) {
				Ok(answer) => return Ok(answer),
				Err(Failure::Lost(_)) if pause.wait() => others = 0,
				Err(Failure::OtherVersion(said)) if others + 1 < OTHER_VERSIONS => {
					if !pause.wait_for(OTHER_PAUSE) {
						return Err(self.failed(doing, Failure::Lost(said)));
					}
					others += 1;
				},
				Err(failure) => return Err(self.failed(doing, failure)),
			}
		}
	}

	/// What a failure means before which nothing was written.
	pub(super) fn failed(&self, doing: &'static str, failure: Failure) -> StoreError {
		let said = match failure {
			Failure::Refused(said) | Failure::TooLarge(said) => {
				let source = Arc::new(Said(format!("{}: {said}", self.place)));
				return StoreError::Engine { doing, source };
			},
			Failure::OtherVersion(said) => {
				return StoreError::invalid(format!(
					"{}: {said}; its server speaks another version of the protocol than this client, or \
					 what answers is no VSS server",
					self.place
				));
			},
			failure => failure.said(),
		};
		let source = Arc::new(Said(format!("{}: {said}", self.place)));
		StoreError::Unavailable { doing, source }
	}

	/// Returns the error of a group of so many bytes whose request is not taken.
	pub(super) fn too_large(&self, bytes: usize, said: &Said) -> StoreError {
		StoreError::invalid(format!(
			"{}: a request with {bytes} bytes of names and values is not taken ({said}), and nothing of it \
			 was written; raise the limit of the server (VSS_MAX_REQUEST_BODY_SIZE of the published one) \
			 and of any proxy before it (client_max_body_size of nginx), and see that so much can be sent \
			 in the client's ten seconds",
			self.place
		))
	}

	fn call<T, F>(
		&self, deadline: Instant, request: impl FnOnce(Arc<VssClient<Once>>) -> F,
	) -> Result<T, Failure>
	where
		T: Send + 'static,
		F: Future<Output = Result<T, VssError>> + Send + 'static,
	{
		answer(self.runtime.spawn(request(Arc::clone(&self.client))), deadline)
	}
}

impl fmt::Display for Said {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.write_str(&self.0)
	}
}

impl std::error::Error for Said {}

impl Failure {
	/// Returns what the client said of the failure.
	pub(super) fn said(self) -> Said {
		match self {
			Self::Conflict => Said("the store was changed meanwhile".to_owned()),
			Self::Auth(said)
			| Self::Refused(said)
			| Self::TooLarge(said)
			| Self::Lost(said)
			| Self::OtherVersion(said) => said,
		}
	}
}

impl From<VssError> for Failure {
	fn from(error: VssError) -> Self {
		let said = Said(error.to_string());
		match error {
			VssError::ConflictError(_) => Self::Conflict,
			VssError::AuthError(_) => Self::Auth(said),
			VssError::InvalidRequestError(_) => Self::Refused(said),
			VssError::VSSVersionMismatchError { .. } => Self::OtherVersion(said),
			VssError::InternalError(message) => match unreadable_status(&message) {
				// "Invalid request path." and "Error parsing request", in plain text.
				Some("400") => Self::Refused(said),
				Some("413") => Self::TooLarge(said),
				_ => Self::Lost(said),
			},
			// A server that failed when it committed does not know what became of the request.
			VssError::InternalServerError(_) | VssError::NoSuchKeyError(_) => Self::Lost(said),
		}
	}
}

/// Returns the status of an answer that names the protocol's version and whose body is not of the
/// protocol. The client names the status in the text of its error and nowhere else.
fn unreadable_status(message: &str) -> Option<&str> {
	const BEFORE: &str = "Unable to decode ErrorResponse from server, HttpStatusCode: ";
	message.strip_prefix(BEFORE)?.split(',').next()
}

/// An answer of a server is a conflict only if it says so, whatever its status is.
#[cfg(feature = "fuzz")]
pub(crate) fn vss_answer_law(bytes: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
	use prost::Message;
	use vss_client_ng::types::{
		ErrorCode, ErrorResponse, GetObjectResponse, ListKeyVersionsResponse, Storable,
	};
	let _ = (
		GetObjectResponse::decode(bytes),
		ListKeyVersionsResponse::decode(bytes),
		Storable::decode(bytes),
	);
	let says = |code: ErrorCode| {
		ErrorResponse::decode(bytes).is_ok_and(|response| response.error_code() == code)
	};
	let mut pairs = Vec::new();
	for status in [400, 401, 404, 409, 500, 503] {
		let failure = Failure::from(VssError::new(status, bytes.to_vec()));
		let is_conflict = matches!(failure, Failure::Conflict);
		if is_conflict {
			pairs.push((vec![1], vec![u8::from(says(ErrorCode::ConflictException))]));
		}
	}
	pairs
}

/// Waits longer and longer.
pub(super) struct Pause {
	next: Duration,
	deadline: Instant,
}

impl Pause {
	pub(super) fn until(deadline: Instant) -> Self {
		Self { next: PAUSES.0, deadline }
	}

	/// Waits for so long, unless it is too late for another try.
	fn wait_for(&mut self, pause: Duration) -> bool {
		self.next = pause;
		self.wait()
	}

	/// Waits, unless it is too late for another try.
	pub(super) fn wait(&mut self) -> bool {
		if Instant::now() + self.next >= self.deadline {
			return false;
		}
		std::thread::sleep(self.next);
		self.next = (self.next * 2).min(PAUSES.1);
		true
	}
}

/// Nothing is tried again below us: whether it may be is for us to say.
struct Once;

impl RetryPolicy for Once {
	type E = VssError;

	fn next_delay(&self, _: &RetryContext<VssError>) -> Option<Duration> {
		None
	}
}

fn answer<T>(
	asked: Option<JoinHandle<Result<T, VssError>>>, deadline: Instant,
) -> Result<T, Failure> {
	let lost = |why: &str| Failure::Lost(Said(why.to_owned()));
	let asked = asked.ok_or_else(|| lost("the store is closed"))?;
	let answer = block_on(asked, deadline).ok_or_else(|| lost("no answer in time"))?;
	Ok(answer.map_err(|error| lost(&error.to_string()))??)
}
