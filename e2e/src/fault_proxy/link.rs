//! The TCP connection of a client, which can be reset and frozen at any moment.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// The hand on a connection.
#[derive(Debug, Default)]
pub(super) struct Lever {
    frozen: AtomicBool,
    reset: CancellationToken,
}

impl Lever {
    /// Nothing more is read or written, and the connection stays open: what a client sees of a peer that
    /// has vanished without a word.
    pub(super) fn freeze(&self) {
        self.frozen.store(true, Ordering::Release);
    }

    /// Ends the connection with RST.
    pub(super) fn reset(&self) {
        self.reset.cancel();
    }

    /// Resolves when the connection is to be dropped.
    pub(super) async fn is_reset(&self) {
        self.reset.cancelled().await;
    }
}

/// The connection, below its TLS.
#[derive(Debug)]
pub(super) struct Link {
    stream: TcpStream,
    lever: Arc<Lever>,
}

impl Link {
    pub(super) fn new(stream: TcpStream, lever: Arc<Lever>) -> Self {
        Self { stream, lever }
    }

    fn frozen(&self) -> bool {
        self.lever.frozen.load(Ordering::Acquire)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if self.lever.reset.is_cancelled() {
            // The kernel then sends RST in place of FIN. What cannot be set belongs to a
            // connection that is gone.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.frozen() {
            // Nothing wakes the task but the end of the connection.
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Link {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.frozen() {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.frozen() {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
