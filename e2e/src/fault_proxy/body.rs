//! The bodies of replies on their way to the client.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Shared;
use super::faults::{Answer, EventFault, EventKind, REPLAY_MAX};
use super::link::Lever;
use crate::write_count::Request;

/// Why the body of a reply breaks off.
pub(super) type Broken = Box<dyn std::error::Error + Send + Sync>;
/// The body of a reply to the client.
pub(super) type ReplyBody = UnsyncBoxBody<Bytes, Broken>;

/// Events of a watch that may be on their way, above what a test's events come to.
const DELAYED_MAX: usize = 1 << 16;
/// How long bytes may take from here into the client's connection before it is reset.
const FLUSH: Duration = Duration::from_millis(100);

type Chunks = Pin<Box<dyn Stream<Item = Result<Bytes, Broken>> + Send>>;

/// A whole body.
pub(super) fn full(bytes: Bytes) -> ReplyBody {
    Full::new(bytes).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// What passes as it comes.
pub(super) fn passing(body: Incoming) -> ReplyBody {
    body.map_err(Broken::from).boxed_unsync()
}

/// The same body, and `done` runs once all of it has been taken. A connection that knows its length does
/// not ask for its end, but lets it go.
pub(super) fn then(body: ReplyBody, done: impl FnOnce() + Send + 'static) -> ReplyBody {
    struct Last<F: FnOnce()>(Option<F>);
    impl<F: FnOnce()> Drop for Last<F> {
        fn drop(&mut self) {
            if let Some(done) = self.0.take() {
                done();
            }
        }
    }
    let last = Last(Some(done));
    let chunks: Chunks = Box::pin(body.into_data_stream());
    boxed(stream::unfold((chunks, last), |(mut chunks, last)| async move {
        Some((chunks.next().await?, (chunks, last)))
    }))
}

/// Its first bytes; then it ends as if it were whole, or the connection is reset.
pub(super) fn first(body: ReplyBody, after: usize, reset: Option<Arc<Lever>>) -> ReplyBody {
    let chunks: Chunks = Box::pin(body.into_data_stream());
    boxed(stream::unfold((chunks, after, reset), |(mut chunks, left, reset)| async move {
        // A reply that is shorter breaks at its end.
        let next = if left > 0 { chunks.next().await } else { None };
        match next {
            Some(Ok(bytes)) => {
                let bytes = bytes.slice(..bytes.len().min(left));
                let left = left - bytes.len();
                Some((Ok(bytes), (chunks, left, reset)))
            }
            Some(Err(error)) => Some((Err(error), (chunks, left, reset))),
            None => {
                if let Some(lever) = &reset {
                    tokio::time::sleep(FLUSH).await;
                    lever.reset();
                    std::future::pending::<()>().await;
                }
                None
            }
        }
    }))
}

/// Pieces of `bytes` bytes, each after `every`.
pub(super) fn trickle(body: ReplyBody, bytes: usize, every: Duration) -> ReplyBody {
    let pieces = body.into_data_stream().flat_map(move |chunk| {
        let pieces: Vec<Result<Bytes, Broken>> = match chunk {
            Ok(chunk) => (0..chunk.len())
                .step_by(bytes.max(1))
                .map(|from| Ok(chunk.slice(from..chunk.len().min(from + bytes.max(1)))))
                .collect(),
            Err(error) => vec![Err(error)],
        };
        stream::iter(pieces)
    });
    boxed(pieces.then(move |piece| async move {
        tokio::time::sleep(every).await;
        piece
    }))
}

/// Nothing, with no end. What comes from the API server is read all the same.
pub(super) fn silent(body: Incoming) -> ReplyBody {
    let read = body.into_data_stream().filter_map(|_| std::future::ready(None::<Result<Bytes, Broken>>));
    boxed(read.chain(stream::pending()))
}

fn boxed(chunks: impl Stream<Item = Result<Bytes, Broken>> + Send + 'static) -> ReplyBody {
    BodyExt::boxed_unsync(StreamBody::new(chunks.map(|chunk| chunk.map(Frame::data))))
}

/// The events of a watch, with the faults that they meet.
pub(super) fn watch(body: Incoming, request: Request, shared: Arc<Shared>) -> ReplyBody {
    let (sender, receiver) = mpsc::channel(DELAYED_MAX);
    tokio::spawn(async move {
        let pump = Pump { request, shared, sender: sender.clone(), seen: VecDeque::new() };
        tokio::select! {
            () = pump.run(body) => {}
            // The client has gone: the API server's end of the watch goes too.
            () = sender.closed() => {}
        }
    });
    boxed(stream::unfold(receiver, |mut receiver| async move {
        let (due, chunk) = receiver.recv().await?;
        tokio::time::sleep_until(due).await;
        Some((chunk, receiver))
    }))
}

/// Takes the events of one watch one by one.
struct Pump {
    request: Request,
    shared: Arc<Shared>,
    sender: mpsc::Sender<(Instant, Result<Bytes, Broken>)>,
    /// The last events, oldest first, that could be shown again.
    seen: VecDeque<Bytes>,
}

impl Pump {
    async fn run(mut self, body: Incoming) {
        let mut chunks = body.into_data_stream();
        let mut begun = BytesMut::new();
        while let Some(chunk) = chunks.next().await {
            match chunk {
                Ok(chunk) => begun.extend_from_slice(&chunk),
                Err(error) => {
                    let _ = self.sender.send((Instant::now(), Err(error.into()))).await;
                    return;
                }
            }
            while let Some(end) = begun.iter().position(|byte| *byte == b'\n') {
                let line = begun.split_to(end + 1).freeze();
                if !self.event(line).await {
                    return;
                }
            }
        }
        // A last line without an end is passed as it is.
        if !begun.is_empty() {
            let _ = self.sender.send((Instant::now(), Ok(begun.freeze()))).await;
        }
    }

    /// Passes one event on; false ends the stream.
    async fn event(&mut self, line: Bytes) -> bool {
        let kind = EventKind::of(&line);
        let fault = kind.and_then(|kind| self.shared.on_event(&self.request, kind));
        let mut due = Instant::now();
        match fault {
            None => {}
            Some(EventFault::Drop) => return true,
            Some(EventFault::Replay { events }) => {
                let again = self.seen.iter().rev().take(events).rev().cloned().collect::<Vec<_>>();
                for line in again {
                    if self.sender.send((due, Ok(line))).await.is_err() {
                        return false;
                    }
                }
            }
            Some(EventFault::Delay(time)) => due += time,
            Some(EventFault::Silence) => std::future::pending().await,
            Some(EventFault::Close) => return false,
            Some(EventFault::Expire) => {
                let status = Answer::too_old().status();
                let event = [br#"{"type":"ERROR","object":"#, status.as_ref(), b"}\n"].concat();
                let _ = self.sender.send((due, Ok(event.into()))).await;
                return false;
            }
        }
        if self.seen.len() == REPLAY_MAX {
            self.seen.pop_front();
        }
        self.seen.push_back(line.clone());
        self.sender.send((due, Ok(line))).await.is_ok()
    }
}
