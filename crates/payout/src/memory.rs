// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The knowledge of a process about debts that is not in the store.

use std::collections::{HashMap, HashSet};

use crate::awake::Awake;
use crate::call::Call;
use crate::ids::DebtId;
use crate::records::FreezeV1;
use crate::told::Told;

/// The memory of a process: what it has seen, asked and told of debts since it was started.
pub(crate) struct Memory {
	pub(crate) awake: Awake,
	/// The freeze of a restored database, in a store that did not take it.
	pub(crate) restored: Option<FreezeV1>,
	/// The calls of the node that are not answered.
	pub(crate) calls: HashMap<DebtId, Call>,
	/// The debts whose attempts were compared with those that the node knows of, and how many had been
	/// declared dead by then.
	pub(crate) compared: HashMap<DebtId, u32>,
	/// The debts of which the node has said which attempts it knows, in the same way.
	pub(crate) listed: HashMap<DebtId, u32>,
	/// The debts that an operator has vouched for in this process.
	pub(crate) vouched: HashSet<DebtId>,
	/// The news that the observer was told last, so that it is told once.
	pub(crate) told: Told,
}

impl Memory {
	/// Makes the memory of a process that has just been started.
	pub(crate) fn new(awake: Awake, restored: Option<FreezeV1>) -> Self {
		Self {
			awake,
			restored,
			calls: HashMap::new(),
			compared: HashMap::new(),
			listed: HashMap::new(),
			vouched: HashSet::new(),
			told: Told::default(),
		}
	}

	/// The number of debts of which something is known that is not in the store.
	pub(crate) fn remembered(&self) -> usize {
		let asked = self.compared.keys().chain(self.listed.keys()).chain(&self.vouched);
		asked.chain(self.told.debts()).collect::<HashSet<_>>().len()
	}

	/// Forgets a debt that is closed.
	pub(crate) fn forget(&mut self, id: &DebtId) {
		self.compared.remove(id);
		self.listed.remove(id);
		self.vouched.remove(id);
		self.told.forget(id);
	}
}
