//! Names to addresses that may be posted to.

use super::super::address::AddressPolicy;
use super::super::outbox::{Failure, FailureKind};
use super::super::sink::Target;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use tokio::sync::oneshot;

/// The addresses of a host that may be posted to, in the resolver's order.
///
/// # Errors
/// There are none; the failure says why.
pub(super) async fn resolve(target: &Target<'_>, policy: &AddressPolicy) -> Result<Vec<SocketAddr>, Failure> {
    let found = match target.name().parse::<IpAddr>() {
        Ok(address) => vec![SocketAddr::new(address, target.port())],
        Err(_) => look_up(target.name().to_owned(), target.port()).await?,
    };
    permitted(target.name(), found, policy)
}

/// By a thread that nobody waits for: the resolver holds it for as long as it likes, and a runtime does not end before
/// its own threads do.
async fn look_up(name: String, port: u16) -> Result<Vec<SocketAddr>, Failure> {
    let unavailable =
        |problem: String| Failure { problem, kind: FailureKind::Unavailable, retry_after: None };
    let (found, outcome) = oneshot::channel();
    let thread = std::thread::Builder::new().name("archive-resolve".to_owned());
    let spawned = thread.spawn(move || {
        let addresses = (name.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<_>>);
        // Who asked may have given up.
        let _ = found.send(addresses);
    });
    spawned.map_err(|error| unavailable(format!("no thread to resolve the name: {error}")))?;
    match outcome.await {
        Ok(Ok(addresses)) => Ok(addresses),
        Ok(Err(error)) => Err(unavailable(format!("its name does not resolve: {error}"))),
        Err(_) => Err(unavailable("its name does not resolve".to_owned())),
    }
}

/// Those that may be posted to.
pub(super) fn permitted(
    name: &str,
    found: Vec<SocketAddr>,
    policy: &AddressPolicy,
) -> Result<Vec<SocketAddr>, Failure> {
    let refused = found.iter().find_map(|address| Some((address.ip(), policy.refusal(address.ip())?)));
    let allowed: Vec<SocketAddr> =
        found.into_iter().filter(|address| policy.refusal(address.ip()).is_none()).collect();
    match refused {
        Some((address, what)) if allowed.is_empty() => Err(refusal(name, address, what)),
        None if allowed.is_empty() => Err(Failure {
            problem: "its name has no address".to_owned(),
            kind: FailureKind::Unavailable,
            retry_after: None,
        }),
        Some(_) | None => Ok(allowed),
    }
}

/// Why an address is not posted to, and what helps. Of the address itself only the operator of the manager is told: who
/// may write a queue need not be able to look up names of the cluster's networks.
pub(super) fn refusal(name: &str, address: IpAddr, what: &str) -> Failure {
    tracing::debug!(name, %address, what, "an archive is at an address that is not allowed");
    Failure {
        problem: format!("its address is {what}; the manager's archive.allowedCidrs must allow it"),
        kind: FailureKind::AddressRefused,
        retry_after: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(allowed: &[&str]) -> AddressPolicy {
        let allowed = allowed.iter().map(|text| text.parse().unwrap()).collect();
        AddressPolicy { allowed, refused: Vec::new() }
    }

    async fn outcome(url: &str, policy: &AddressPolicy) -> Result<Vec<SocketAddr>, FailureKind> {
        resolve(&Target::parse(url).unwrap(), policy).await.map_err(|failure| failure.kind)
    }

    #[tokio::test]
    async fn a_name_is_judged_by_the_addresses_that_it_has() {
        // The name is loopback everywhere.
        let refused = outcome("https://localhost:8443/", &policy(&[])).await;
        assert_eq!(refused, Err(FailureKind::AddressRefused));
        let found = outcome("https://localhost:8443/", &policy(&["127.0.0.0/8", "::1/128"])).await.unwrap();
        assert!(
            found.iter().all(|address| address.ip().is_loopback() && address.port() == 8443),
            "{found:?}"
        );
        for url in [
            "https://127.0.0.1/",
            "https://[::1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://169.254.169.254/",
        ] {
            assert_eq!(outcome(url, &policy(&[])).await, Err(FailureKind::AddressRefused), "{url}");
        }
        assert!(outcome("https://1.1.1.1/", &policy(&[])).await.is_ok());
        let unknown = outcome("https://no-such-name.invalid/", &policy(&[])).await;
        assert_eq!(unknown, Err(FailureKind::Unavailable));
    }

    #[test]
    fn of_several_addresses_the_public_ones_are_taken() {
        let found =
            |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<SocketAddr>>();
        let mixed = permitted("a", found(&["10.0.0.1:443", "1.1.1.1:443"]), &policy(&[])).unwrap();
        assert_eq!(mixed, found(&["1.1.1.1:443"]));
        assert_eq!(permitted("a", Vec::new(), &policy(&[])).unwrap_err().kind, FailureKind::Unavailable);
    }
}
