//! The standard output of the process, on which nothing else is written: the log is on the standard error.

use super::super::outbox::{Failure, FailureKind};
use std::io::Write;
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use tokio::sync::oneshot;

/// A line, and who waits for it to be written.
type Order = (Vec<u8>, oneshot::Sender<std::io::Result<()>>);

/// Writes whole lines, by a thread of its own: a reader that does not read would hold up whoever writes, and the end
/// of the process.
#[derive(Debug, Default)]
pub(super) struct Stdout {
    thread: OnceLock<SyncSender<Order>>,
}

impl Stdout {
    pub(super) async fn write(&self, line: Vec<u8>) -> Result<(), Failure> {
        let unavailable =
            |problem: String| Failure { problem, kind: FailureKind::Unavailable, retry_after: None };
        let thread = self.thread.get_or_init(|| {
            // One line at a time comes; a second place is for the one that follows a line that takes too long.
            let (orders, received) = sync_channel(1);
            let spawned = std::thread::Builder::new().name("archive-stdout".to_owned());
            if let Err(error) = spawned.spawn(move || serve(&received, std::io::stdout)) {
                tracing::error!(%error, "no thread for the standard output");
            }
            orders
        });
        let (written, outcome) = oneshot::channel();
        thread
            .try_send((line, written))
            .map_err(|_| unavailable("nobody reads the standard output of the manager".to_owned()))?;
        match outcome.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(unavailable(error.to_string())),
            Err(_) => Err(unavailable("the standard output is closed".to_owned())),
        }
    }
}

/// Writes what comes, a line by one call, until nobody orders any more.
fn serve<W: Write>(orders: &Receiver<Order>, output: impl Fn() -> W) {
    for (line, written) in orders {
        let mut output = output();
        let outcome = output.write_all(&line).and_then(|()| output.flush());
        // Who gave up writes it again.
        let _ = written.send(outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Pipe(Arc<Mutex<Vec<u8>>>);

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if bytes.starts_with(b"broken") {
                return Err(std::io::ErrorKind::BrokenPipe.into());
            }
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn lines_are_written_whole_and_an_error_is_told() {
        let pipe = Pipe::default();
        let (orders, received) = sync_channel(1);
        let (stdout, output) = (Stdout::default(), pipe.clone());
        stdout.thread.set(orders).unwrap();
        let thread = std::thread::spawn(move || serve(&received, || output.clone()));
        for line in ["{\"a\":1}\n", "{\"a\":2}\n"] {
            stdout.write(line.as_bytes().to_vec()).await.unwrap();
        }
        let failure = stdout.write(b"broken\n".to_vec()).await.unwrap_err();
        assert!(failure.problem.contains("broken pipe"), "{failure:?}");
        assert_eq!(*pipe.0.lock().unwrap(), b"{\"a\":1}\n{\"a\":2}\n");
        drop(stdout);
        thread.join().unwrap();
    }

    #[tokio::test]
    async fn while_nobody_reads_no_further_line_waits() {
        let (orders, received) = sync_channel(0);
        let stdout = Stdout::default();
        stdout.thread.set(orders).unwrap();
        let failure = stdout.write(b"a\n".to_vec()).await.unwrap_err();
        assert!(failure.problem.contains("nobody reads"), "{failure:?}");
        drop(received);
    }
}
