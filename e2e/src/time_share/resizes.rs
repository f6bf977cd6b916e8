//! What the manager has written in a switch, and in which order, from the audit log.

use anyhow::{Result, ensure};

use crate::manager::USER_AGENT;
use crate::write_count::WriteCount;

/// The manager's writes on pods that were stored, in the order of their ends: `pods` or a subresource such as
/// `pods/resize`, and the name of the pod. A status of a group may be written at any time.
#[must_use]
pub fn stored(requests: &WriteCount) -> Vec<(String, String)> {
    let own = requests.by_agent(USER_AGENT).writes().successful().of_resource("pods");
    own.requests().iter().map(|request| (request.resource.clone(), request.name.clone())).collect()
}

/// Of them those on one pod: resources with their subresource.
#[must_use]
pub fn of_pod(writes: &[(String, String)], pod: &str) -> Vec<String> {
    writes.iter().filter(|(_, name)| name == pod).map(|(resource, _)| resource.clone()).collect()
}

/// Of them those on these pods: chains of different units go out at the same time.
#[must_use]
pub fn of_unit(writes: &[(String, String)], pods: [&str; 2]) -> Vec<(String, String)> {
    writes.iter().filter(|(_, name)| pods.contains(&name.as_str())).cloned().collect()
}

/// Holds of `writes` that each resize of `first` is followed by one of `then`, with nothing between them, and gives how
/// many there were.
///
/// # Errors
/// One is not, or one of `then` is for itself.
pub fn ensure_chained(writes: &[(String, String)], first: &str, then: &str) -> Result<usize> {
    let is_resize = |write: &(String, String), pod: &str| write.0 == "pods/resize" && write.1 == pod;
    let mut chains = 0;
    for (place, write) in writes.iter().enumerate() {
        if is_resize(write, first) {
            let next = writes.get(place + 1);
            ensure!(
                next.is_some_and(|next| is_resize(next, then)),
                "after the resize of {first} comes {next:?}: {writes:?}"
            );
            chains += 1;
        } else if is_resize(write, then) {
            let before = place.checked_sub(1).and_then(|place| writes.get(place));
            ensure!(
                before.is_some_and(|before| is_resize(before, first)),
                "before the resize of {then} comes {before:?}: {writes:?}"
            );
        }
    }
    Ok(chains)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writes(all: &[(&str, &str)]) -> Vec<(String, String)> {
        all.iter().map(|(resource, name)| ((*resource).to_owned(), (*name).to_owned())).collect()
    }

    #[test]
    fn a_chain_has_nothing_in_it() {
        let good = writes(&[("pods", "a"), ("pods/resize", "a"), ("pods/resize", "b"), ("pods", "b")]);
        assert_eq!(ensure_chained(&good, "a", "b").unwrap(), 1);
        assert_eq!(of_pod(&good, "a"), ["pods", "pods/resize"]);
        let beside = writes(&[("pods/resize", "a"), ("pods/resize", "c"), ("pods/resize", "b")]);
        assert_eq!(ensure_chained(&of_unit(&beside, ["a", "b"]), "a", "b").unwrap(), 1);
        for bad in [
            writes(&[("pods/resize", "a"), ("pods", "c"), ("pods/resize", "b")]),
            writes(&[("pods/resize", "b"), ("pods/resize", "a")]),
            writes(&[("pods/resize", "a")]),
        ] {
            ensure_chained(&bad, "a", "b").unwrap_err();
        }
        assert_eq!(ensure_chained(&writes(&[("pods", "a")]), "a", "b").unwrap(), 0);
    }
}
