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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::write_count::AuditLog;
    use std::fmt::Write;

    /// `user resource name code` a line, all of them updates.
    fn terms(lines: &[(&str, &str, &str, u16)]) -> Terms {
        let folder = tempfile::tempdir().unwrap();
        let mut text = String::new();
        for (user, resource, name, code) in lines {
            let line = serde_json::json!({
                "requestURI": "/", "verb": "update", "user": {"username": user},
                "objectRef": {"resource": resource, "name": name}, "responseStatus": {"code": code},
            });
            writeln!(text, "{line}").unwrap();
        }
        let path = folder.path().join("audit.log");
        std::fs::write(&path, text).unwrap();
        let log = AuditLog::at(path);
        Terms::of(&["a", "b"], &log.all().unwrap())
    }

    #[test]
    fn writes_of_who_does_not_hold_the_lease_are_found() {
        let lease = |user, code| (user, "leases", LEASE_NAME, code);
        let pod = |user, code| (user, "pods", "p", code);
        let kept = terms(&[
            lease("a", 201),
            pod("a", 200),
            pod("kwok", 200),
            lease("b", 409),
            pod("a", 200),
            lease("b", 200),
            pod("b", 200),
            pod("a", 409),
        ]);
        assert_eq!(kept.leaders, ["a", "b"]);
        assert!(kept.without_lease.is_empty(), "{kept:?}");
        let broken = terms(&[pod("b", 200), lease("a", 201), pod("b", 200), ("b", "leases", "other", 200)]);
        assert_eq!(broken.without_lease.len(), 3, "{broken:?}");
    }
}
