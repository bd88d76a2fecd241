//! What peers say to each other: JSON-RPC 2.0 in a custom message, with string ids.
//!
//! The names of methods, the parameters of `request_invoice`, its result and the codes are those of
//! rgb-lightning-node's async orders; the parameters of `new` are this module's own.

use leyden_request::{ParamError, Params};
use lightning::types::payment::PaymentHash;
use serde::{Deserialize, Serialize};
use serde_json::{json, Value};

/// The type of the peer message.
pub const MESSAGE_TYPE: u16 = 37915;
/// Most hashes of one batch.
pub const MAX_BATCH: usize = 200;
/// Largest frame, in bytes: what one peer message can be.
pub const MAX_FRAME_BYTES: usize = 65_533;

/// The parameters are of a version that is not known.
pub const UNSUPPORTED_PROTOCOL_VERSION: i32 = 1000;
/// The batch is empty, too large, or has one hash twice.
pub const INVALID_HASH_BATCH: i32 = 1003;
/// The index has another hash.
pub const DUPLICATE_INDEX_CONFLICT: i32 = 1004;
/// The hash has another index, or another owner.
pub const DUPLICATE_HASH_CONFLICT: i32 = 1005;
/// The hash is not that of the index.
pub const INVOICE_HASH_MISMATCH: i32 = 1104;
/// The request was made with other parameters, or its time is over.
pub const STALE_FLOW: i32 = 1105;
/// What came is no JSON.
pub const PARSE_ERROR: i32 = -32700;
/// What came is no request.
pub const INVALID_REQUEST: i32 = -32600;
/// There is no such method.
pub const METHOD_NOT_FOUND: i32 = -32601;
/// The parameters are not what they should be.
pub const INVALID_PARAMS: i32 = -32602;
/// Something failed. Try again.
pub const INTERNAL_ERROR: i32 = -32603;

/// Why a request was refused.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct RpcError {
	/// One of the codes above.
	pub code: i32,
	/// What it is, in words.
	pub message: String,
}

impl RpcError {
	/// With this code.
	pub fn new(code: i32, message: impl Into<String>) -> Self {
		Self { code, message: message.into() }
	}
}

impl From<ParamError> for RpcError {
	fn from(error: ParamError) -> Self {
		Self::new(INVALID_PARAMS, error.to_string())
	}
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct RpcRequest {
	/// What the answer must name.
	pub id: String,
	/// What is asked for.
	pub method: String,
	/// With what.
	pub params: Value,
}

/// What a frame is.
#[derive(Clone, Debug)]
pub enum Frame {
	/// To be answered.
	Request(RpcRequest),
	/// An answer, or what looks like one: never answered.
	Response {
		/// To which request.
		id: String,
		/// What it says.
		result: Result<Value, RpcError>,
	},
	/// Not to be answered.
	Silent,
	/// To be answered with this.
	Wrong(RpcError),
}

/// Reads a frame.
pub fn read(frame: &[u8]) -> Frame {
	let wrong = |code, message: &str| Frame::Wrong(RpcError::new(code, message));
	if frame.len() > MAX_FRAME_BYTES || frame.contains(&0) {
		return wrong(PARSE_ERROR, "no text, or too much of it");
	}
	let Ok(value) = serde_json::from_slice::<Value>(frame) else {
		return wrong(PARSE_ERROR, "no JSON");
	};
	let Value::Object(mut fields) = value else {
		return wrong(INVALID_REQUEST, "no object");
	};
	let id = match fields.remove("id") {
		Some(Value::String(id)) => Some(id),
		None => None,
		Some(_) => return wrong(INVALID_REQUEST, "the id is no text"),
	};
	let looks_like_answer = fields.contains_key("result") || fields.contains_key("error");
	if looks_like_answer && !fields.contains_key("method") {
		let Some(id) = id else { return Frame::Silent };
		let error = fields.remove("error").filter(|error| !error.is_null());
		let result =
			match error {
				None => Ok(fields.remove("result").unwrap_or(Value::Null)),
				Some(error) => Err(serde_json::from_value(error)
					.unwrap_or(RpcError::new(INTERNAL_ERROR, "no error"))),
			};
		return Frame::Response { id, result };
	}
	if fields.get("jsonrpc") != Some(&json!("2.0")) {
		return wrong(INVALID_REQUEST, "not JSON-RPC 2.0");
	}
	let Some(Value::String(method)) = fields.remove("method") else {
		return wrong(INVALID_REQUEST, "no method");
	};
	match id {
		None => Frame::Silent,
		Some(id) => {
			let params = fields.remove("params").unwrap_or(Value::Null);
			Frame::Request(RpcRequest { id, method, params })
		},
	}
}

/// A request, to be sent.
pub fn request(id: &str, method: &str, params: &impl Serialize) -> Vec<u8> {
	json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
		.to_string()
		.into_bytes()
}

/// An answer, to be sent. Without an id for what had none that could be read.
pub fn answer(id: Option<&str>, result: Result<Value, RpcError>) -> Vec<u8> {
	let answer = match result {
		Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
		Err(error) => json!({ "jsonrpc": "2.0", "id": id, "error": error }),
	};
	answer.to_string().into_bytes()
}

/// The parameters of `async_order.request_invoice`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RequestInvoice {
	/// A number, as text.
	pub hash_index: String,
	/// 32 bytes in hex.
	pub payment_hash: String,
	/// How much.
	pub amount_msat: u64,
	/// Both or neither.
	#[serde(default, skip_serializing_if = "Option::is_none")]
	pub asset_id: Option<String>,
	/// Both or neither.
	#[serde(default, skip_serializing_if = "Option::is_none")]
	pub asset_amount: Option<u64>,
	/// 32 bytes in hex.
	pub description_hash: String,
	/// Seconds.
	pub invoice_expiry_sec: u32,
	/// Blocks.
	pub min_final_cltv_expiry_delta: u16,
}

impl RequestInvoice {
	/// From what came.
	///
	/// # Errors
	/// [`INVALID_PARAMS`].
	pub fn read(params: &Value) -> Result<Self, RpcError> {
		let read = Self::deserialize(params);
		let this = read.map_err(|error| RpcError::new(INVALID_PARAMS, error.to_string()))?;
		if this.asset_id.is_some() != this.asset_amount.is_some() {
			return Err(RpcError::new(
				INVALID_PARAMS,
				"asset_id and asset_amount: both or neither",
			));
		}
		this.canonical()?;
		this.hash()?;
		Ok(this)
	}

	/// What makes it the same request.
	///
	/// # Errors
	/// A field that is not what it should be.
	pub fn canonical(&self) -> Result<Params, ParamError> {
		Params::new(1)
			.decimal("hash_index", &self.hash_index)?
			.hex("payment_hash", &self.payment_hash, 64)?
			.number("amount_msat", self.amount_msat)?
			.optional(self.asset_id.as_deref(), |params, id| params.text("asset_id", id))?
			.optional(self.asset_amount, |params, amount| params.number("asset_amount", amount))?
			.hex("description_hash", self.description_hash.trim(), 64)?
			.number("invoice_expiry_sec", self.invoice_expiry_sec.into())?
			.number("min_final_cltv_expiry_delta", self.min_final_cltv_expiry_delta.into())
	}

	/// The index.
	///
	/// # Errors
	/// [`INVALID_PARAMS`].
	pub fn index(&self) -> Result<u64, RpcError> {
		index(&self.hash_index)
	}

	/// The hash.
	///
	/// # Errors
	/// [`INVALID_PARAMS`].
	pub fn hash(&self) -> Result<PaymentHash, RpcError> {
		parse_hash(&self.payment_hash)
	}
}

/// The parameters of `async_order.new`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NewOrders {
	/// 1.
	pub protocol_version: u16,
	/// Hashes that may be paid.
	pub hashes: Vec<IndexedHash>,
}

/// A hash, and from which index it was derived.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct IndexedHash {
	/// A number, as text.
	pub hash_index: String,
	/// 32 bytes in hex.
	pub payment_hash: String,
}

impl NewOrders {
	/// From what came.
	///
	/// # Errors
	/// [`INVALID_PARAMS`], [`UNSUPPORTED_PROTOCOL_VERSION`], [`INVALID_HASH_BATCH`].
	pub fn read(params: &Value) -> Result<Vec<(u64, PaymentHash)>, RpcError> {
		let read = Self::deserialize(params);
		let this = read.map_err(|error| RpcError::new(INVALID_PARAMS, error.to_string()))?;
		if this.protocol_version != 1 {
			return Err(RpcError::new(UNSUPPORTED_PROTOCOL_VERSION, "only version 1"));
		}
		let hashes = this.hashes.iter();
		let hashes = hashes.map(|h| Ok((index(&h.hash_index)?, parse_hash(&h.payment_hash)?)));
		let hashes: Vec<_> = hashes.collect::<Result<_, RpcError>>()?;
		let mut all: Vec<_> = hashes.iter().map(|(_, hash)| hash.0).collect();
		all.sort_unstable();
		all.dedup();
		if hashes.is_empty() || hashes.len() > MAX_BATCH || all.len() != hashes.len() {
			return Err(RpcError::new(INVALID_HASH_BATCH, "1 to 200 hashes, each once"));
		}
		Ok(hashes)
	}
}

/// What `async_order.request_invoice` is answered with.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct InvoiceReply {
	/// As it was asked for.
	pub payment_hash: String,
	/// The invoice.
	pub bolt11: String,
}

fn index(text: &str) -> Result<u64, RpcError> {
	let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
	let index = text.parse().ok().filter(|_| digits);
	index.ok_or_else(|| RpcError::new(INVALID_PARAMS, "hash_index: a decimal number"))
}

/// 32 bytes in hex.
///
/// # Errors
/// [`INVALID_PARAMS`].
pub fn parse_hash(text: &str) -> Result<PaymentHash, RpcError> {
	parse_32(text)
		.map(PaymentHash)
		.ok_or_else(|| RpcError::new(INVALID_PARAMS, "payment_hash: 64 hex digits"))
}

/// 32 bytes, from hex of either case.
pub fn parse_32(text: &str) -> Option<[u8; 32]> {
	let digits = text.as_bytes();
	if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
		return None;
	}
	let mut bytes = [0; 32];
	for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
		*byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
	}
	Some(bytes)
}

/// In hex.
pub fn hex(bytes: &[u8]) -> String {
	bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
