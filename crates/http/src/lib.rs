// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Callbacks over HTTP.
//!
//! # Sending
//! A [`Courier`] takes callbacks from an outbox and sends each to its endpoint, signed as [Standard
//! Webhooks] says: the id is the callback's, and the same in every try; the time is that of the try.
//! An answer is judged by the outbox's law. Redirects are not followed, private addresses are
//! not called unless they are allowed, answers are cut off after a few kilobytes, and no answer in
//! time is no answer.
//!
//! # Receiving
//! A [`Receiver`] checks signature and age, carries out each callback once, through
//! `leyden-request`, and answers by what was committed. A [`FeedServer`] serves an outbox to
//! receivers that missed callbacks, and a [`FeedClient`] pulls it, from an [`Address`] as a courier's.
//! [`serve`] is the server for both, with limits of headers, bodies, times and connections.
//!
//! # Secrets
//! Keys, tokens and payloads are in no `Debug`, error or log. Signatures and tokens are compared in
//! constant time.
//!
//! [Standard Webhooks]: https://www.standardwebhooks.com

#[cfg(feature = "client")]
mod address;
#[cfg(feature = "client")]
mod courier;
#[cfg(any(feature = "client", feature = "server"))]
mod feed;
#[cfg(feature = "client")]
mod feed_client;
#[cfg(feature = "server")]
mod feed_server;
#[cfg(feature = "fuzz")]
pub mod fuzz;
#[cfg(feature = "client")]
mod guard;
#[cfg(feature = "server")]
mod places;
#[cfg(feature = "server")]
mod receiver;
mod secret;
#[cfg(feature = "server")]
mod server;
mod signature;
#[cfg(feature = "client")]
mod special_addresses;
#[cfg(feature = "server")]
mod timed;
mod token;

#[cfg(feature = "client")]
pub use address::{Address, AddressError};
#[cfg(feature = "client")]
pub use courier::{Courier, CourierOptions, Drained, MAX_RESPONSE_BYTES};
#[cfg(feature = "client")]
pub use feed_client::{FeedClient, FeedError};
#[cfg(feature = "server")]
pub use feed_server::{FeedServer, MAX_FEED_PAGE_BYTES};
#[cfg(feature = "client")]
pub use guard::{AllowList, AllowListError};
#[cfg(feature = "server")]
pub use receiver::{Handled, Incoming, Receiver, MAX_BODY_BYTES, MAX_SAID_BYTES};
pub use secret::{SecretError, SigningSecret, VerifyingKey};
#[cfg(feature = "server")]
pub use server::{serve, ServerOptions};
pub use signature::{SignatureError, Webhook, MAX_SIGNATURES};
pub use token::Token;

#[cfg(doctest)]
#[doc = include_str!("../../../docs/guides/callbacks-for-a-node.md")]
struct ForANode;

#[cfg(doctest)]
#[doc = include_str!("../../../docs/guides/callbacks-for-an-lsp.md")]
struct ForAnLsp;
