//! How a watch gets the whole of its objects: by a streaming list, else by one plain LIST.

use super::run::{Cause, Ended, Following, Watch, closed, unreadable};
use super::sink::{Sink, Watched};
use super::source::{ListRequest, ListVersion, Source, WatchError, WatchRequest, WatchStart};
use super::{LIST_DEADLINE, LIST_SILENCE};
use crate::key::ResourceVersion;
use futures::StreamExt;
use kube::core::WatchEvent;
use kube::core::watch::Bookmark;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};

/// The annotation that marks the end of a streaming list's objects.
const END_OF_LIST: &str = "k8s.io/initial-events-end";

/// Whether streaming lists work against this server, as found by all watches of one client together:
/// the first that had to fall back, and could, spares the others the wait.
#[derive(Clone, Debug, Default)]
pub struct StreamingLists {
    given_up: Arc<AtomicBool>,
}

impl StreamingLists {
    /// Whether a watch is to try one.
    pub fn available(&self) -> bool {
        !self.given_up.load(Relaxed)
    }

    fn give_up(&self, why: &str) {
        if !self.given_up.swap(true, Relaxed) {
            tracing::warn!(why, "streaming lists do not work here; plain LIST from now on");
        }
    }
}

/// The version a list is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ListAt {
    /// Not older than what was last seen.
    LastSeen,
    /// Unset: consistent, whatever was seen before.
    Unset,
}

/// Why a streaming list came to nothing.
enum StreamingFailure {
    /// The server cannot do it, or does not finish it.
    Unusable(String),
    /// Anything else.
    Ended(Ended),
}

impl From<Ended> for StreamingFailure {
    fn from(ended: Ended) -> Self {
        Self::Ended(ended)
    }
}

impl<S: Source, W: Sink<Object = S::Object>> Watch<S, W> {
    /// Lists, and gives the open watch that follows when the list came with one.
    pub(super) async fn list(&mut self, at: ListAt) -> Result<Option<Following<S::Object>>, Ended> {
        let seen = self.writer.part().last_rv();
        let not_older = match at {
            ListAt::LastSeen if seen != ResourceVersion::default() => Some(seen),
            ListAt::LastSeen | ListAt::Unset => None,
        };
        let mut unusable = None;
        if self.streaming.available() {
            match self.streaming_list(at, not_older).await {
                Ok(following) => return Ok(Some(following)),
                Err(StreamingFailure::Ended(ended)) => return Err(ended),
                Err(StreamingFailure::Unusable(why)) => unusable = Some(why),
            }
        }
        self.plain_list(at, not_older).await?;
        // Only a LIST that works where the stream did not shows that the stream is at fault.
        if let Some(why) = unusable {
            self.streaming.give_up(&why);
        }
        Ok(None)
    }

    async fn streaming_list(
        &mut self,
        at: ListAt,
        not_older: Option<ResourceVersion>,
    ) -> Result<Following<S::Object>, StreamingFailure> {
        let opened = Instant::now();
        let mut deadline = opened + LIST_SILENCE;
        let timeout_seconds = self.watch_timeout();
        let request = WatchRequest { start: WatchStart::StreamingList { at: not_older }, timeout_seconds };
        let silent = || StreamingFailure::Unusable(format!("nothing for {} s", LIST_SILENCE.as_secs()));
        self.count_connection();
        let mut events = timeout_at(deadline, self.source.open(request))
            .await
            .map_err(|_| silent())?
            .map_err(streaming_error)?;
        let mut listing = W::Listing::default();
        loop {
            let Some(frame) = timeout_at(deadline, events.next()).await.map_err(|_| silent())? else {
                // A server that ignores `sendInitialEvents` closes at the watch's timeout.
                return Err(if opened.elapsed() >= Duration::from_secs(timeout_seconds.into()) {
                    StreamingFailure::Unusable("closed without the end bookmark".to_owned())
                } else {
                    closed(opened).into()
                });
            };
            match frame {
                // Objects of the list come as ADDED, so only these are progress: a server that does not
                // know streaming lists sends changes and bookmarks for ever, but no end.
                Ok(WatchEvent::Added(object)) => {
                    self.writer.part().stats().count_event();
                    self.writer.put(&mut listing, object);
                    deadline = Instant::now() + LIST_SILENCE;
                }
                Ok(WatchEvent::Modified(object)) => {
                    self.writer.part().stats().count_event();
                    self.writer.put(&mut listing, object);
                }
                Ok(WatchEvent::Deleted(object)) => {
                    self.writer.part().stats().count_event();
                    self.writer.drop_listed(&mut listing, object.key());
                }
                Ok(WatchEvent::Bookmark(bookmark)) => {
                    if bookmark.metadata.annotations.contains_key(END_OF_LIST) {
                        let rv = bookmark_rv(&bookmark).map_err(Ended::early)?;
                        self.take_list(listing, rv, at)?;
                        return Ok(Following { events, opened });
                    }
                }
                Ok(WatchEvent::Error(status)) => {
                    return Err(streaming_error(WatchError::from_status(&status)));
                }
                Err(WatchError::Unreadable(object)) => {
                    let Some(identity) = unreadable(&self.writer, object) else {
                        return Err(Ended::early(Cause::Unreadable).into());
                    };
                    if identity.deleted {
                        self.writer.drop_listed(&mut listing, &identity.key);
                    } else {
                        self.writer.keep(&mut listing, &identity.key);
                    }
                }
                Err(error) => return Err(streaming_error(error)),
            }
        }
    }

    async fn plain_list(&mut self, at: ListAt, not_older: Option<ResourceVersion>) -> Result<(), Ended> {
        let version = not_older.map_or(ListVersion::Latest, ListVersion::NotOlderThan);
        let mut listing = W::Listing::default();
        let mut request = ListRequest { version, continue_token: None };
        loop {
            let answer = timeout(LIST_DEADLINE, self.source.list(request)).await;
            let page = match answer {
                Ok(page) => page.map_err(|error| Ended::early(error.into()))?,
                Err(_) => {
                    let message = format!("no answer to a LIST for {} s", LIST_DEADLINE.as_secs());
                    return Err(Ended::early(WatchError::Transport(message).into()));
                }
            };
            for object in page.objects {
                self.writer.part().stats().count_event();
                self.writer.put(&mut listing, object);
            }
            for object in page.unreadable {
                let Some(identity) = unreadable(&self.writer, object) else {
                    return Err(Ended::early(Cause::Unreadable));
                };
                self.writer.keep(&mut listing, &identity.key);
            }
            match page.continue_token {
                Some(token) => request = ListRequest { version, continue_token: Some(token) },
                None => return self.take_list(listing, page.resource_version, at),
            }
        }
    }

    fn take_list(&mut self, listing: W::Listing, rv: ResourceVersion, at: ListAt) -> Result<(), Ended> {
        let seen = self.writer.part().last_rv();
        if rv < seen {
            self.writer.part().stats().count_rv_regression();
            match at {
                ListAt::LastSeen => return Err(Ended::early(Cause::Regressed { rv })),
                // A consistent read cannot be behind, so it is the cluster that went back.
                ListAt::Unset => tracing::error!(
                    resource = %self.writer.resource(), %seen, %rv,
                    "the cluster's state is older than what was seen before (restored from a backup?); following it"
                ),
            }
        }
        self.writer.replace(listing, rv);
        Ok(())
    }
}

fn streaming_error(error: WatchError) -> StreamingFailure {
    match error {
        WatchError::Refused { .. } => StreamingFailure::Unusable(error.to_string()),
        WatchError::Expired(_)
        | WatchError::AheadOfServer(_)
        | WatchError::NotServed(_)
        | WatchError::Server { .. }
        | WatchError::Unreadable(_)
        | WatchError::Transport(_)
        | WatchError::Unreachable(_)
        | WatchError::Starting(_) => StreamingFailure::Ended(Ended::early(error.into())),
    }
}

/// `metadata.resourceVersion` of a bookmark.
pub(super) fn bookmark_rv(bookmark: &Bookmark) -> Result<ResourceVersion, Cause> {
    let text = &bookmark.metadata.resource_version;
    ResourceVersion::parse(text)
        .ok_or_else(|| WatchError::Transport(format!("bookmark with resourceVersion `{text}`")).into())
}
