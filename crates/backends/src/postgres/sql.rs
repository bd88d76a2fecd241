// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What is said to the server.

/// Every statement here goes by the primary key. A planner that has no statistics yet, or old ones,
/// takes a table that grew for small and reads all of it. For the same reason many keys are looked up
/// one by one, in a subquery, and not by a join.
pub(super) const BY_INDEX: [&str; 2] =
	["SET enable_seqscan = off", "SET plan_cache_mode = force_generic_plan"];
pub(super) const LOOK: &str = "SELECT to_regclass('leyden.format') IS NOT NULL,
	(SELECT count(*) FROM pg_class WHERE relnamespace = to_regnamespace('leyden'))";
pub(super) const GET_FORMAT: &str = "SELECT version FROM leyden.format";
pub(super) const CREATE: &str = "BEGIN;
	SELECT pg_advisory_xact_lock(5503148461417357668);
	CREATE SCHEMA IF NOT EXISTS leyden;
	CREATE TABLE leyden.format (version integer NOT NULL);
	INSERT INTO leyden.format VALUES (1);
	CREATE TABLE leyden.writers (
		ns text PRIMARY KEY, epoch bigint NOT NULL, last bigint NOT NULL
	);
	CREATE TABLE leyden.records (
		ns text NOT NULL, tbl text NOT NULL, key bytea NOT NULL, frame bytea NOT NULL,
		PRIMARY KEY (ns, tbl, key)
	);
	COMMIT";
pub(super) const TRY_LOCK: &str =
	"SELECT pg_try_advisory_lock(hashtextextended('leyden ' || $1::text, 0))";
pub(super) const SETTINGS: &str =
	"SELECT current_setting('fsync')::bool AND current_setting('full_page_writes')::bool";
pub(super) const NAMESPACES: &str = "SELECT ns FROM leyden.writers ORDER BY ns";
/// One step of the index per table, and not one per record.
pub(super) const TABLES: &str = "WITH RECURSIVE names AS (
		(SELECT tbl FROM leyden.records WHERE ns = $1 ORDER BY tbl LIMIT 1)
		UNION ALL
		SELECT (SELECT tbl FROM leyden.records WHERE ns = $1 AND tbl > names.tbl ORDER BY tbl LIMIT 1)
		FROM names WHERE names.tbl IS NOT NULL
	) SELECT tbl FROM names WHERE tbl IS NOT NULL";
pub(super) const ADD_WRITER: &str =
	"INSERT INTO leyden.writers (ns, epoch, last) VALUES ($1, 0, 0) ON CONFLICT DO NOTHING";
pub(super) const LOCK_WRITER: &str =
	"SELECT epoch, last FROM leyden.writers WHERE ns = $1 FOR UPDATE";
pub(super) const GET_WRITER: &str = "SELECT epoch, last FROM leyden.writers WHERE ns = $1";
pub(super) const SET_EPOCH: &str = "UPDATE leyden.writers SET epoch = $2 WHERE ns = $1";
pub(super) const MOVE: &str = "UPDATE leyden.writers SET last = $4
	WHERE ns = $1 AND epoch = $2 AND last = $3 RETURNING last";
/// Changes nothing. Whoever waits for it to be replicated waits for all that came before.
pub(super) const TOUCH: &str = "UPDATE leyden.writers SET last = last
	WHERE ns = $1 AND epoch = $2 AND last = $3 RETURNING last";
/// One statement is one transaction, and nothing of it happens unless the writer's row is ours.
pub(super) const WRITE: &str = "WITH ours AS (
		UPDATE leyden.writers SET last = $4 WHERE ns = $1 AND epoch = $2 AND last = $3 RETURNING ns
	), put AS (
		INSERT INTO leyden.records (ns, tbl, key, frame)
		SELECT ours.ns, put.tbl, put.key, put.frame
		FROM ours, unnest($5::text[], $6::bytea[], $7::bytea[]) AS put (tbl, key, frame)
		ON CONFLICT (ns, tbl, key) DO UPDATE SET frame = excluded.frame
	) SELECT ns FROM ours";
pub(super) const WRITE_AND_DELETE: &str = "WITH ours AS (
		UPDATE leyden.writers SET last = $4 WHERE ns = $1 AND epoch = $2 AND last = $3 RETURNING ns
	), put AS (
		INSERT INTO leyden.records (ns, tbl, key, frame)
		SELECT ours.ns, put.tbl, put.key, put.frame
		FROM ours, unnest($5::text[], $6::bytea[], $7::bytea[]) AS put (tbl, key, frame)
		ON CONFLICT (ns, tbl, key) DO UPDATE SET frame = excluded.frame
	), gone AS (
		DELETE FROM leyden.records WHERE EXISTS (SELECT FROM ours) AND ctid = ANY (ARRAY (
			SELECT (
				SELECT r.ctid FROM leyden.records AS r
				WHERE r.ns = $1 AND r.tbl = gone.tbl AND r.key = gone.key
			) FROM unnest($8::text[], $9::bytea[]) AS gone (tbl, key)
		))
	) SELECT ns FROM ours";
pub(super) const GET: &str =
	"SELECT frame FROM leyden.records WHERE ns = $1 AND tbl = $2 AND key = $3";
pub(super) const GET_MANY: &str = "SELECT asked.tbl, asked.key, (
		SELECT r.frame FROM leyden.records AS r
		WHERE r.ns = $1 AND r.tbl = asked.tbl AND r.key = asked.key
	) FROM unnest($2::text[], $3::bytea[]) AS asked (tbl, key)";
pub(super) const HIGHEST: &str = "SELECT key FROM leyden.records
	WHERE ns = $1 AND tbl = $2 AND key >= $3 AND key <= $4 AND octet_length(key) = $5
	ORDER BY key DESC LIMIT 1";
pub(super) const SCAN_UP: &str = "SELECT key, frame FROM leyden.records
	WHERE ns = $1 AND tbl = $2 AND key >= $3 ORDER BY key LIMIT $4";
pub(super) const SCAN_UP_TO: &str = "SELECT key, frame FROM leyden.records
	WHERE ns = $1 AND tbl = $2 AND key >= $3 AND key < $5 ORDER BY key LIMIT $4";
pub(super) const SCAN_DOWN: &str = "SELECT key, frame FROM leyden.records
	WHERE ns = $1 AND tbl = $2 AND key >= $3 ORDER BY key DESC LIMIT $4";
pub(super) const SCAN_DOWN_FROM: &str = "SELECT key, frame FROM leyden.records
	WHERE ns = $1 AND tbl = $2 AND key >= $3 AND key < $5 ORDER BY key DESC LIMIT $4";
