// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Where Leyden keeps its records: one module and one feature per engine.
//!
//! Each backend is a [`Store`](leyden_store::Store) that passes the conformance suite of
//! `leyden-store`, and says in its [`Guarantees`](leyden_store::Guarantees) what it promises beyond
//! that.

#[cfg(feature = "sqlite")]
mod file_lock;
#[cfg(any(feature = "redb", feature = "sqlite"))]
mod files;
#[cfg(feature = "fuzz")]
pub mod fuzz;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "redb")]
pub mod redb;
#[cfg(any(feature = "postgres", feature = "vss"))]
mod runtime;
#[cfg(feature = "sqlite")]
pub mod sqlite;
#[cfg(feature = "vss")]
pub mod vss;
