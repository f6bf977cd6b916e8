//! Who held the lease, and who wrote meanwhile, as the audit log has it.

use std::collections::BTreeSet;

use crate::manager::LEASE_NAME;
use crate::write_count::{Request, WriteCount};

/// What the managers of a cluster, told apart by their users, did under which lease.
#[derive(Debug, Default)]
pub struct Terms {
    /// The users that held the lease, in their order.
    pub leaders: Vec<String>,
    /// Stored writes of a manager while another one, or none yet, held the lease.
    pub without_lease: Vec<Request>,
}

impl Terms {
    /// Reads the terms of `managers` (user names) from the requests of all of them.
    ///
    /// A lease is held from the end of the write that takes it, until another user's
    /// write takes it. The log has requests in the order of their ends, so this needs
    /// writes that do not race with a change of the leader.
    #[must_use]
    pub fn of(managers: &[&str], requests: &WriteCount) -> Self {
        let managers: BTreeSet<&str> = managers.iter().copied().collect();
        let mut terms = Self::default();
        for request in requests.writes().successful().requests() {
            if !managers.contains(request.user.as_str()) {
                continue;
            }
            let holds = terms.leaders.last() == Some(&request.user);
            let lease = request.resource == "leases" && request.name == LEASE_NAME;
            match (lease, holds) {
                (true, false) => terms.leaders.push(request.user.clone()),
                (false, false) => terms.without_lease.push(request.clone()),
                (true | false, true) => {}
            }
        }
        terms
    }
}
