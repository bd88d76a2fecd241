//! The conformance suite on every engine.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod engines;

#[cfg(feature = "sqlite")]
mod sqlite {
	leyden_store::conformance_tests!(crate::engines::Sqlite::new());
}

#[cfg(feature = "redb")]
mod redb {
	leyden_store::conformance_tests!(crate::engines::Redb::new());
}

#[cfg(feature = "redb")]
mod redb_two_phase {
	leyden_store::conformance_tests!(crate::engines::Redb::two_phase());
}

#[cfg(feature = "postgres")]
mod postgres {
	leyden_store::conformance_tests!(crate::engines::Postgres::new());
}

#[cfg(feature = "vss")]
mod vss {
	leyden_store::conformance_tests!(crate::engines::Vss::new());
}
