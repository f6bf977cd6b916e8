//! Who held the lease, and who wrote meanwhile, as the audit log has it.

use std::collections::BTreeSet;

use crate::manager::LEASE_NAME;
use crate::write_count::{Request, Verb, WriteCount};

/// What the managers of a cluster, told apart by their users, did under which lease.
#[derive(Debug, Default)]
pub struct Terms {
    /// The users that held the lease, in their order.
    pub leaders: Vec<String>,
    /// Stored writes of a manager while another one, or none yet, held the lease.
    pub without_lease: Vec<Request>,
    /// Those of them that were not under way already: the server got them, as far as it says when, after the write by
    /// which the other one took the lease; and all that are no creates under a name of the manager's choice,
    /// which are harmless however often they are made.
    pub unforgiven: Vec<Request>,
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
        let mut taken = None;
        for request in requests.writes().successful().requests() {
            if !managers.contains(request.user.as_str()) {
                continue;
            }
            let holds = terms.leaders.last() == Some(&request.user);
            let lease = request.resource == "leases" && request.name == LEASE_NAME;
            match (lease, holds) {
                (true, false) => {
                    terms.leaders.push(request.user.clone());
                    taken = request.received;
                }
                (false, false) => {
                    let was_under_way =
                        request.received.is_some_and(|got| taken.is_some_and(|taken| got < taken));
                    let is_harmless = request.verb == Verb::Create && !request.name.is_empty();
                    if !(was_under_way && is_harmless) {
                        terms.unforgiven.push(request.clone());
                    }
                    terms.without_lease.push(request.clone());
                }
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
        let line = |(user, resource, name, code): &(&str, &str, &str, u16)| {
            serde_json::json!({
                "requestURI": "/", "verb": "update", "user": {"username": user},
                "objectRef": {"resource": resource, "name": name}, "responseStatus": {"code": code},
            })
        };
        read(&lines.iter().map(line).collect::<Vec<_>>())
    }

    fn read(lines: &[serde_json::Value]) -> Terms {
        let folder = tempfile::tempdir().unwrap();
        let mut text = String::new();
        for line in lines {
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
        assert_eq!((broken.without_lease.len(), broken.unforgiven.len()), (3, 3), "{broken:?}");
    }

    #[test]
    fn only_a_create_that_was_under_way_when_the_lease_was_taken_is_forgiven() {
        let request = |user: &str, verb: &str, resource: &str, name: &str, second: u32| {
            serde_json::json!({
                "requestURI": "/", "verb": verb, "user": {"username": user},
                "objectRef": {"resource": resource, "name": name}, "responseStatus": {"code": 200},
                "requestReceivedTimestamp": format!("2026-01-01T00:00:{second:02}.000000Z"),
            })
        };
        let unforgiven = |verb, name, second| {
            let lines = [
                request("a", "update", "leases", LEASE_NAME, 1),
                request("b", "update", "leases", LEASE_NAME, 10),
                request("a", verb, "pods", name, second),
            ];
            read(&lines).unforgiven.len()
        };
        assert_eq!(unforgiven("create", "p", 9), 0);
        assert_eq!(unforgiven("create", "p", 11), 1, "it was not under way");
        assert_eq!(unforgiven("create", "", 9), 1, "each time another object");
        assert_eq!(unforgiven("patch", "p", 9), 1, "no precondition has stopped it");
    }
}
