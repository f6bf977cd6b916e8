//! A loopback port that leads into a private network namespace.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;

use anyhow::{Context, Result};

use crate::namespaces::Namespaces;

/// Carries the connections to a port of 127.0.0.1 to an address inside a network
/// namespace, so that clients of this process and a user's kubectl reach a server
/// there without a link between the two networks. The kernel moves the bytes
/// (splice); each direction of a connection has a thread.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    closing: Arc<AtomicBool>,
    clients: Clients,
}

/// The outer ends of open connections.
type Clients = Arc<Mutex<Vec<Weak<TcpStream>>>>;

impl Relay {
    /// Listens on a free port and leads to `target` inside `namespaces`.
    ///
    /// # Errors
    /// No port or thread is to be had.
    pub fn start(namespaces: &Arc<Namespaces>, target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listen for the relay")?;
        let address = listener.local_addr().context("address of the relay")?;
        let closing = Arc::new(AtomicBool::new(false));
        let clients = Clients::default();
        let (namespaces, closed) = (Arc::clone(namespaces), Arc::clone(&closing));
        let open = Arc::clone(&clients);
        thread::Builder::new()
            .name("relay".into())
            .spawn(move || {
                for client in listener.incoming() {
                    if closed.load(Ordering::Acquire) {
                        return;
                    }
                    let Ok(client) = client.map(Arc::new) else { continue };
                    {
                        let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
                        open.retain(|client| client.strong_count() > 0);
                        open.push(Arc::downgrade(&client));
                    }
                    let namespaces = Arc::clone(&namespaces);
                    // A client that is not served sees its connection closed.
                    let _ = thread::Builder::new()
                        .name("relay".into())
                        .spawn(move || carry(&client, namespaces, target));
                }
            })
            .context("start the relay's thread")?;
        Ok(Self { address, closing, clients })
    }

    /// The address outside.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Release);
        // Wakes the accepting thread.
        let _ = TcpStream::connect(self.address);
        // A client may keep its end open for as long as it lives, and with it a
        // socket inside the namespace.
        for client in self.clients.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            if let Some(client) = client.upgrade() {
                let _ = client.shutdown(Shutdown::Both);
            }
        }
    }
}

/// Copies both ways until both sides have said all. An error ends the connection,
/// which is how the two peers learn of it. The namespaces are let go before the
/// copying, as a quiet connection must not keep them.
fn carry(client: &TcpStream, namespaces: Arc<Namespaces>, target: SocketAddr) {
    let server = namespaces.run(|| TcpStream::connect(target));
    drop(namespaces);
    let Ok(Ok(server)) = server else { return };
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    thread::scope(|scope| {
        scope.spawn(|| one_way(client, &server));
        one_way(&server, client);
    });
}

fn one_way(mut from: &TcpStream, mut to: &TcpStream) {
    match io::copy(&mut from, &mut to) {
        // Half-close: the other direction may still have something to say.
        Ok(_) => drop(to.shutdown(Shutdown::Write)),
        Err(_) => {
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn bytes_pass_both_ways_and_ends_are_seen() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: namespaces need root");
            return;
        }
        let namespaces = Namespaces::private().unwrap();
        let server = namespaces.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).unwrap();
        let inside = server.local_addr().unwrap();
        let relay = Relay::start(&namespaces, inside).unwrap();
        let echo = thread::spawn(move || {
            let (mut connection, _) = server.accept().unwrap();
            let mut all = Vec::new();
            connection.read_to_end(&mut all).unwrap();
            connection.write_all(&all).unwrap();
        });
        let sent: Vec<u8> = (0..1_000_000u32).map(|n| n.to_le_bytes()[0]).collect();
        let mut client = TcpStream::connect(relay.address()).unwrap();
        client.write_all(&sent).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut back = Vec::new();
        client.read_to_end(&mut back).unwrap();
        echo.join().unwrap();
        assert!(back == sent);
        let address = relay.address();
        drop(relay);
        wait_until("the relay still listens", || TcpStream::connect(address).is_err());
    }

    #[test]
    fn the_end_of_the_relay_ends_what_its_clients_keep_open() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: namespaces need root");
            return;
        }
        let namespaces = Namespaces::private().unwrap();
        let server = namespaces.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).unwrap();
        let relay = Relay::start(&namespaces, server.local_addr().unwrap()).unwrap();
        let client = TcpStream::connect(relay.address()).unwrap();
        let (mut inside, _) = server.accept().unwrap();
        wait_until("a quiet connection keeps the namespaces", || Arc::strong_count(&namespaces) == 2);
        drop(relay);
        assert_eq!(inside.read(&mut [0]).unwrap(), 0, "the server sees the end");
        wait_until("the relay keeps the namespaces", || Arc::strong_count(&namespaces) == 1);
        drop(client);
    }

    fn wait_until(otherwise: &str, mut event: impl FnMut() -> bool) {
        let happened = (0..600).any(|_| {
            thread::sleep(std::time::Duration::from_millis(100));
            event()
        });
        assert!(happened, "{otherwise}");
    }
}
