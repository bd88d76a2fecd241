// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! A request is carried out once, and gets the same answer ever after.
//!
//! # Written down first
//! Before an effect is begun, the request is durable ([`Requests::begin`]). When it is done its
//! answer is stored, together with whatever the effect writes ([`Run::complete`]). From then on the
//! same request gets that answer, byte for byte, through any number of restarts.
//!
//! # Never a blind second run
//! If the process dies in between, the next time is a [`Begin::Recover`]: whoever runs it looks
//! whether the effect happened, by what makes it that effect (a payment hash), before anything
//! else.
//!
//! # The same request
//! Same scope (a peer), operation and key. It must also have the same [parameters](Params), in
//! canonical form: else it is a [`Conflict`](RequestError::Conflict), which names the fields that
//! differ and not what is in them. One scope never sees another's entry.
//!
//! # One at a time
//! In a process, one caller runs a request and others wait for it; a caller that panics or goes away
//! lets the next one recover. Across processes the store's expectation sees to it.
//!
//! # Times
//! An answer is replayed for as long as the request says, and the request is remembered for longer
//! ([`RequestOptions::remember`]): it is refused then, unless [`Expired::Reissue`] says that what was
//! done is dead. A clock that is set back revives nothing, and one that jumps ahead makes nothing
//! forgotten (see [`StoreClock`](leyden_store::StoreClock)).
//!
//! # Bounded
//! Per scope there are at most so many requests, each of a limited size; sweeping is done in steps.
//! What is in memory depends on what is running, and on how many scopes were seen lately.
//!
//! # Not promised
//! That an effect happens exactly once: only who can look it up can promise that. Calls block the
//! thread while the store writes.

mod error;
mod flights;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod key;
mod law;
mod options;
mod params;
mod quota;
mod records;
mod requests;
mod run;
mod sweep;

pub use error::RequestError;
pub use flights::InFlight;
pub use key::{RequestKey, MAX_KEY_BYTES, MAX_OPERATION_CHARS, MAX_SCOPE_BYTES};
pub use law::{decide, Decision, Expiry, Found, Owner};
pub use options::{Expired, RequestOptions};
pub use params::{ParamError, Params, MAX_FIELDS, MAX_FIELD_BYTES, MAX_FIELD_NAME_CHARS};
pub use requests::{Begin, Request, RequestInfo, RequestState, Requests};
pub use run::{Answer, AnswerKind, Effect, Outcome, Run, Unknown, MAX_ANSWER_BYTES};
pub use sweep::Swept;
