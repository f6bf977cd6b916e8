//! Names to addresses that may be connected to.

use super::address::AddressPolicy;
use super::target::Target;
use super::{Obstacle, unavailable};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use tokio::sync::oneshot;

/// The addresses of a host that may be connected to, in the resolver's order.
///
/// # Errors
/// There are none; the obstacle says why.
pub(super) async fn resolve(
    target: &Target<'_>,
    policy: &AddressPolicy,
) -> Result<Vec<SocketAddr>, Obstacle> {
    let found = match target.name().parse::<IpAddr>() {
        Ok(address) => vec![SocketAddr::new(address, target.port())],
        Err(_) => look_up(target.name().to_owned(), target.port()).await?,
    };
    permitted(target.name(), found, policy)
}

/// By a thread that nobody waits for: the resolver holds it for as long as it likes, and a runtime does not end before
/// its own threads do.
async fn look_up(name: String, port: u16) -> Result<Vec<SocketAddr>, Obstacle> {
    let (found, outcome) = oneshot::channel();
    let thread = std::thread::Builder::new().name("outbound-resolve".to_owned());
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

/// Those that may be connected to.
fn permitted(
    name: &str,
    found: Vec<SocketAddr>,
    policy: &AddressPolicy,
) -> Result<Vec<SocketAddr>, Obstacle> {
    let refused = found.iter().find_map(|address| Some((address.ip(), policy.refusal(address.ip())?)));
    let allowed: Vec<SocketAddr> =
        found.into_iter().filter(|address| policy.refusal(address.ip()).is_none()).collect();
    match refused {
        Some((address, what)) if allowed.is_empty() => Err(refusal(name, address, what)),
        None if allowed.is_empty() => Err(unavailable("its name has no address".to_owned())),
        Some(_) | None => Ok(allowed),
    }
}

/// Why an address is not connected to. Of the address itself only the operator of the manager is told: who may write the
/// object need not be able to look up names of the cluster's networks.
pub(super) fn refusal(name: &str, address: IpAddr, what: &'static str) -> Obstacle {
    tracing::debug!(name, %address, what, "a host is at an address that is not allowed");
    Obstacle::AddressRefused(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(allowed: &[&str]) -> AddressPolicy {
        let allowed = allowed.iter().map(|text| text.parse().unwrap()).collect();
        AddressPolicy { allowed, refused: Vec::new() }
    }

    async fn outcome(url: &str, policy: &AddressPolicy) -> Result<Vec<SocketAddr>, Obstacle> {
        resolve(&Target::parse(url).unwrap(), policy).await
    }

    #[tokio::test]
    async fn a_name_is_judged_by_the_addresses_that_it_has() {
        // The name is loopback everywhere.
        let refused = outcome("https://localhost:8443/", &policy(&[])).await;
        assert_eq!(refused, Err(Obstacle::AddressRefused("loopback")));
        let found = outcome("https://localhost:8443/", &policy(&["127.0.0.0/8", "::1/128"])).await.unwrap();
        assert!(
            found.iter().all(|address| address.ip().is_loopback() && address.port() == 8443),
            "{found:?}"
        );
        for (url, what) in [
            ("https://127.0.0.1/", "loopback"),
            ("https://[::1]/", "loopback"),
            ("https://[::ffff:127.0.0.1]/", "loopback"),
            ("http://169.254.169.254/", "link-local"),
        ] {
            assert_eq!(outcome(url, &policy(&[])).await, Err(Obstacle::AddressRefused(what)), "{url}");
        }
        assert!(outcome("https://1.1.1.1/", &policy(&[])).await.is_ok());
        let unknown = outcome("https://no-such-name.invalid/", &policy(&[])).await;
        assert!(matches!(unknown, Err(Obstacle::Unavailable(_))), "{unknown:?}");
    }

    #[test]
    fn of_several_addresses_the_public_ones_are_taken() {
        let found =
            |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<SocketAddr>>();
        let mixed = permitted("a", found(&["10.0.0.1:443", "1.1.1.1:443"]), &policy(&[])).unwrap();
        assert_eq!(mixed, found(&["1.1.1.1:443"]));
        let none = permitted("a", Vec::new(), &policy(&[])).unwrap_err();
        assert!(matches!(none, Obstacle::Unavailable(_)), "{none:?}");
    }
}
