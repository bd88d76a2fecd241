//! Real LDK nodes in one process, on a simulated chain.
//!
//! What a crash does to a Lightning node cannot be learned from mocks. Here every node is a real
//! [`ChannelManager`] over a real [`ChainMonitor`] and [`KeysManager`], talking to its peers
//! through a message pump, to a chain whose blocks are checked by Bitcoin Core's own script
//! interpreter (feature `consensus`), and to a disk that can die before or after any write. Only
//! LDK's public API is used, so what is seen here is what any user of LDK can see.
//!
//! ```
//! use leyden_testkit::{LdkNet, NodeConfig};
//!
//! let mut net = LdkNet::new(1);
//! let a = net.add_node(NodeConfig::default());
//! let b = net.add_node(NodeConfig::default());
//! net.connect(a, b);
//! net.open_channel(a, b, 1_000_000);
//! let sent = net.pay(a, b, 50_000_000);
//! net.claim(sent.hash);
//! assert_eq!(net.told(a, "PaymentSent"), 1);
//!
//! // Only what was written to the disk survives this.
//! net.persist_manager(a);
//! net.crash(a);
//! net.restart(a);
//! ```
//!
//! Nothing sleeps, reads a clock or draws from the machine's entropy: a seed decides every key, and
//! the same calls give the same transaction ids.
//!
//! What stands between LDK and the node is a [`Guard`]: nothing ([`Bare`]), or the code under test.
//! [`cases`] holds the crashes from which LDK alone does not recover, written once and run with
//! either.
//!
//! [`ChannelManager`]: lightning::ln::channelmanager::ChannelManager
//! [`ChainMonitor`]: lightning::chain::chainmonitor::ChainMonitor
//! [`KeysManager`]: lightning::sign::KeysManager

// A development tool: whatever goes wrong in it must stop the test that uses it, at once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[cfg(feature = "async-order")]
pub mod async_order;
pub mod background;
pub mod bonds;
pub mod cases;
pub mod chain;
pub mod chain_monitor;
pub mod clock_history;
pub mod counting_store;
pub mod differential;
pub mod disk;
pub mod entries;
pub mod faulty_store;
mod forward_store;
pub mod guard;
pub mod interrupted_store;
pub mod leyden_guard;
pub mod lives;
pub mod net;
pub mod node;
pub mod onion_messages;
pub mod panics;
pub mod parts;
pub mod postgres;
pub mod scenarios;
pub mod tasks;
#[cfg(feature = "vss")]
pub mod vss;
#[cfg(feature = "vss")]
pub mod vss_relay;
pub mod wallet;

#[doc(hidden)]
pub use leyden_store;

pub use background::Processor;
pub use chain::SimChain;
pub use clock_history::{ClockHistory, ClockTurn};
pub use counting_store::{CountingStore, Counts};
pub use disk::{DiskSnapshot, DiskWrite, Fate, MemKv, NodeDisk, WriteKind};
pub use entries::intact;
pub use faulty_store::{
	count_records, crash_everywhere, live_through, Doom, FaultyStore, LossyMedium, Media, Side,
};
pub use guard::{Asked, Bare, Guard, GuardFactory, NodeHandle};
pub use interrupted_store::{interrupt_everywhere, InterruptedStore};
pub use leyden_guard::{LeydenGuard, Wiring};
pub use net::{Feed, Idx, Intent, LdkNet, Sent};
pub use node::{Node, NodeConfig, Told};
