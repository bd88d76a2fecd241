//! What stands in front of the LSP's service and misbehaves when it is told to.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::{to_bytes, Body, Bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::StatusCode;
use axum::middleware::{from_fn_with_state, Next};
use axum::response::{IntoResponse, Response};
use axum::Router;

/// Far more than any callback has.
const MAX_BODY_BYTES: usize = 1 << 20;

/// How a request is treated.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
	/// As it should be.
	None,
	/// Answered with this status, and not looked at.
	Status(u16),
	/// Applied, and never answered.
	AppliedAndSilent,
	/// Sent somewhere else.
	Redirect,
	/// Applied; the head of the answer comes, and never its end.
	SlowLoris,
	/// Applied twice.
	Twice,
}

/// A request as it came.
#[derive(Clone)]
pub struct Recorded {
	/// Where to.
	pub path: String,
	parts: Parts,
	body: Bytes,
	/// How it was answered; 0 if it was not.
	status: Arc<AtomicU16>,
}

/// What is told to misbehave, and remembers what came. Cheap to clone; outlives the service.
#[derive(Clone, Default)]
pub struct Front {
	script: Arc<Mutex<VecDeque<Fault>>>,
	came: Arc<Mutex<Vec<Recorded>>>,
	/// What is always refused: bodies with this in them.
	refused: Arc<Mutex<Vec<(String, u16)>>>,
}

impl Front {
	/// The next requests are treated like this, one after the other.
	pub fn then(&self, faults: impl IntoIterator<Item = Fault>) {
		self.script.lock().unwrap().extend(faults);
	}

	/// What has this in its body is answered with this status, from now on.
	pub fn refuse(&self, part: impl Into<String>, status: u16) {
		self.refused.lock().unwrap().push((part.into(), status));
	}

	/// Nothing is refused any more.
	pub fn accept(&self) {
		self.refused.lock().unwrap().clear();
	}

	/// Takes back what has not happened yet.
	pub fn clear(&self) {
		self.script.lock().unwrap().clear();
	}

	/// Whether all of that has happened.
	pub fn is_done(&self) -> bool {
		self.script.lock().unwrap().is_empty()
	}

	/// What came, in order.
	pub fn came(&self) -> Vec<Recorded> {
		self.came.lock().unwrap().clone()
	}

	/// In front of this service.
	pub fn before(&self, service: Router) -> Router {
		service.layer(from_fn_with_state(self.clone(), treat))
	}
}

impl Recorded {
	/// How it was answered; 0 if it was not.
	pub fn status(&self) -> u16 {
		self.status.load(Ordering::SeqCst)
	}

	/// What it said.
	pub fn body(&self) -> String {
		String::from_utf8_lossy(&self.body).into_owned()
	}

	/// The same once more, as somebody who has recorded it would send it. Answers the status.
	///
	/// # Errors
	/// No answer.
	pub async fn again(&self, to: SocketAddr) -> Result<u16, reqwest::Error> {
		let url = format!("http://{to}{}", self.path);
		let mut request = reqwest::Client::new().post(url).body(self.body.to_vec());
		for (name, value) in &self.parts.headers {
			if name != "host" && name != "content-length" {
				request = request.header(name.as_str(), value.as_bytes());
			}
		}
		Ok(request.send().await?.status().as_u16())
	}
}

async fn treat(State(front): State<Front>, request: Request, next: Next) -> Response {
	let (parts, body) = request.into_parts();
	let Ok(body) = to_bytes(body, MAX_BODY_BYTES).await else {
		return StatusCode::PAYLOAD_TOO_LARGE.into_response();
	};
	let path = parts.uri.path().to_owned();
	let status = Arc::new(AtomicU16::new(0));
	let answered = Arc::clone(&status);
	let recorded = Recorded { path, parts: parts.clone(), body: body.clone(), status };
	let refused = front.refused.lock().unwrap().clone();
	let refused = refused.into_iter().find(|(part, _)| recorded.body().contains(part));
	front.came.lock().unwrap().push(recorded);
	let scripted = || front.script.lock().unwrap().pop_front();
	let fault = match refused {
		Some((_, status)) => Fault::Status(status),
		None => scripted().unwrap_or(Fault::None),
	};
	let again = next.clone();
	let served = next.run(Request::from_parts(parts.clone(), Body::from(body.clone())));
	let response = match fault {
		Fault::None => served.await,
		Fault::Status(code) => StatusCode::from_u16(code).expect("a status").into_response(),
		Fault::AppliedAndSilent => {
			let _ = served.await;
			std::future::pending().await
		},
		Fault::Redirect => {
			let to = [("location", "http://127.0.0.1:1/elsewhere")];
			(StatusCode::TEMPORARY_REDIRECT, to).into_response()
		},
		Fault::SlowLoris => {
			let _ = served.await;
			let never = Never;
			([("content-length", "100")], Body::new(never)).into_response()
		},
		Fault::Twice => {
			let _ = served.await;
			again.run(Request::from_parts(parts, Body::from(body))).await
		},
	};
	answered.store(response.status().as_u16(), Ordering::SeqCst);
	response
}

/// A body of which nothing ever comes.
struct Never;

impl http_body::Body for Never {
	type Data = Bytes;
	type Error = std::convert::Infallible;

	fn poll_frame(
		self: std::pin::Pin<&mut Self>, _: &mut std::task::Context<'_>,
	) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
		std::task::Poll::Pending
	}
}
