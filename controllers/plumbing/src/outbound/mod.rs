//! Requests to others than the API server: over HTTP to a URL that somebody has written into an object.
//!
//! The manager stands inside of the cluster's networks. So a request goes to an address that was judged, a redirect is not
//! followed, no proxy is used, and no credentials are sent. [`Connector`] makes the connection; what is sent over it
//! and what an answer means is for whoever asks.

pub mod address;
mod connect;
mod resolve;
mod target;
mod trust;

pub use address::{AddressPolicy, Cidr};
pub use connect::{Connection, Connector};
pub use target::Target;

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// Nobody answers there as it should be; in words for people.
    #[error("{0}")]
    Unavailable(String),
    /// The address may not be connected to; what it is, such as `private`.
    #[error("its address is {0}")]
    AddressRefused(&'static str),
}

fn unavailable(problem: String) -> Obstacle {
    Obstacle::Unavailable(problem)
}

/// An error with its causes, in which hyper says what happened.
pub fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
