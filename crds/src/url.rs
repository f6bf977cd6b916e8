//! The forms of addresses that the manager may talk to.

/// A name or an address, and a port if need be. User and password have no place in it: everybody with `view` reads our
/// objects.
macro_rules! host_and_port {
    () => {
        "([A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?|\\[[0-9a-fA-F:.]+\\])\
         (:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?"
    };
}

/// The form of a URL: https, a name or an address, and a port, a path and a query if need be.
pub const HTTPS_URL_PATTERN: &str =
    concat!("^https://", host_and_port!(), "([/?][-A-Za-z0-9._~/?%:@!$&()*+,;=]*)?$");

/// The form of the address of a service whose API has paths of its own: http or https, a name or an address, and a port
/// and the beginning of the path if need be.
pub const ADDRESS_PATTERN: &str = concat!("^https?://", host_and_port!(), "(/[-A-Za-z0-9._~/]*)?$");
