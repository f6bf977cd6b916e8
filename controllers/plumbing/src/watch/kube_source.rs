//! The wire through kube's client. Lists and watches only: nothing here writes.
#![allow(clippy::disallowed_types, reason = "the one reader of collections; it cannot write")]

use super::source::{
    EventStream, Identity, ListPage, ListRequest, ListVersion, Selector, Source, Unreadable, WatchError,
    WatchRequest, WatchStart,
};
use crate::client::{Answer, never_answered};
use crate::key::{ObjectKey, Resource, ResourceVersion};
use crate::projection::Projection;
use futures::{AsyncBufRead, AsyncBufReadExt, StreamExt, TryStreamExt, stream};
use http::{HeaderValue, Request, Response, header};
use http_body_util::BodyExt;
use kube::client::Body;
use kube::core::params::{ListParams, VersionMatch, WatchParams};
use kube::core::request::Request as ListOrWatch;
use kube::core::{Status, WatchEvent};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

/// A client to watch with. kube's own retry must be off in it: the loop has its backoff per watch.
#[derive(Clone)]
pub struct KubeConnection {
    client: kube::Client,
}

impl From<kube::Client> for KubeConnection {
    fn from(client: kube::Client) -> Self {
        Self { client }
    }
}

impl KubeConnection {
    /// Sends a request; a refusal is an error. Not by kube's own functions for it: they drop the head of
    /// the answer, and kube-apiserver names the time to wait in `Retry-After` alone.
    async fn request(&self, request: Request<Vec<u8>>) -> Result<Response<Body>, WatchError> {
        let response = self.client.send(request.map(Body::from)).await.map_err(request_error)?;
        if response.status().is_success() {
            return Ok(response);
        }
        let answer = Answer::read(response).await.map_err(transport)?;
        let mut error = WatchError::from_status(&answer.status());
        if let WatchError::Server { retry_after, .. } = &mut error {
            *retry_after = (*retry_after).max(answer.retry_after);
        }
        Err(error)
    }
}

impl fmt::Debug for KubeConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KubeConnection")
    }
}

/// The objects of one kind that match a selector, in one namespace or in all, as the server sends them.
#[derive(Debug)]
pub(super) struct Collection {
    connection: KubeConnection,
    path: String,
    selector: Selector,
}

impl Collection {
    pub(super) fn new(
        connection: KubeConnection,
        resource: Resource,
        namespace: Option<&str>,
        selector: Selector,
    ) -> Self {
        Self { connection, path: resource.collection_path(namespace), selector }
    }

    /// Opens a watch, of which each line is decoded so.
    pub(super) async fn open<O: Send + 'static>(
        &self,
        request: WatchRequest,
        decode: impl Fn(&[u8]) -> Result<WatchEvent<O>, WatchError> + Send + 'static,
    ) -> Result<EventStream<O>, WatchError> {
        let request = self.watch_request(&request)?;
        let response = self.connection.request(request).await?;
        let lines = response.into_body().into_data_stream().map_err(std::io::Error::other).into_async_read();
        Ok(events(Box::pin(lines), decode))
    }

    /// The body of a LIST.
    pub(super) async fn list(&self, request: ListRequest) -> Result<bytes::Bytes, WatchError> {
        let request = self.list_request(request)?;
        let answer = Answer::read(self.connection.request(request).await?).await.map_err(transport)?;
        Ok(answer.body)
    }

    fn watch_request(&self, request: &WatchRequest) -> Result<Request<Vec<u8>>, WatchError> {
        let (send_initial_events, version) = match request.start {
            WatchStart::StreamingList { at: None } => (true, String::new()),
            WatchStart::StreamingList { at: Some(at) } => (true, at.to_string()),
            WatchStart::Watch { from } => (false, from.to_string()),
        };
        let params = WatchParams {
            label_selector: self.selector.labels.clone(),
            field_selector: self.selector.fields.clone(),
            timeout: Some(request.timeout_seconds),
            bookmarks: true,
            send_initial_events,
        };
        let mut built = ListOrWatch::new(self.path.as_str()).watch(&params, &version).map_err(transport)?;
        // A server may gzip a watch as one member per event, which decoders that end with the first
        // member cut short.
        built.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        Ok(built)
    }

    fn list_request(&self, request: ListRequest) -> Result<Request<Vec<u8>>, WatchError> {
        let not_older_than = match request.version {
            ListVersion::NotOlderThan(version) => Some(version),
            ListVersion::Latest => None,
        };
        let params = ListParams {
            label_selector: self.selector.labels.clone(),
            field_selector: self.selector.fields.clone(),
            version_match: not_older_than.map(|_| VersionMatch::NotOlderThan),
            resource_version: not_older_than.map(|version| version.to_string()),
            continue_token: request.continue_token,
            // With a limit kube would leave resourceVersion=0 out, and the server would read etcd.
            limit: None,
            ..ListParams::default()
        };
        ListOrWatch::new(self.path.as_str()).list(&params).map_err(transport)
    }
}

/// The same, decoded for one store.
#[derive(Debug)]
pub struct KubeSource<P> {
    collection: Collection,
    object: PhantomData<fn() -> P>,
}

impl<P: Projection> KubeSource<P> {
    /// Reads `P::RESOURCE` in `namespace`, or in all, over `connection`.
    pub fn new(connection: KubeConnection, namespace: Option<&str>, selector: Selector) -> Self {
        let collection = Collection::new(connection, P::RESOURCE, namespace, selector);
        Self { collection, object: PhantomData }
    }
}

impl<P: Projection> Source for KubeSource<P> {
    type Object = P;

    async fn open(&self, request: WatchRequest) -> Result<EventStream<P>, WatchError> {
        self.collection.open(request, decode_event::<P>).await
    }

    async fn list(&self, request: ListRequest) -> Result<ListPage<P>, WatchError> {
        decode_list(&self.collection.list(request).await?)
    }
}

fn transport(error: impl std::error::Error) -> WatchError {
    // hyper's errors say what happened only in their sources.
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    WatchError::Transport(text)
}

fn request_error(error: kube::Error) -> WatchError {
    match never_answered(&error) {
        Some(why) => WatchError::Unreachable(why),
        None => transport(error),
    }
}

/// Frames are lines. A last line without its end was cut by the connection and is no frame: the
/// resumed watch brings it again.
fn events<O: Send + 'static>(
    lines: impl AsyncBufRead + Unpin + Send + 'static,
    decode: impl Fn(&[u8]) -> Result<WatchEvent<O>, WatchError> + Send + 'static,
) -> EventStream<O> {
    stream::unfold(Some((lines, Vec::new(), decode)), |open| async move {
        let (mut lines, mut line, decode) = open?;
        line.clear();
        match lines.read_until(b'\n', &mut line).await {
            Ok(_) if line.last() == Some(&b'\n') => {
                let event = decode(&line);
                Some((event, Some((lines, line, decode))))
            }
            Ok(_) => None,
            Err(error) => Some((Err(transport(error)), None)),
        }
    })
    .boxed()
}

pub(super) fn decode_event<P: Projection>(line: &[u8]) -> Result<WatchEvent<P>, WatchError> {
    let error = match serde_json::from_slice(line) {
        Ok(event) => return Ok(event),
        Err(error) => error,
    };
    let identity = match serde_json::from_slice::<WatchEvent<Identified>>(line) {
        Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => Some(object.identity(false)),
        Ok(WatchEvent::Deleted(object)) => Some(object.identity(true)),
        // Those do not contain what `P` could fail on.
        Ok(WatchEvent::Bookmark(_) | WatchEvent::Error(_)) => None,
        // An error that came after the stream was opened may be sent without its event.
        Err(_) => match serde_json::from_slice::<Status>(line) {
            Ok(status) if status.code != 0 => return Err(WatchError::from_status(&status)),
            Ok(_) | Err(_) => None,
        },
    };
    Err(WatchError::Unreadable(Unreadable { identity, message: error.to_string() }))
}

/// The least that says whose an object is.
#[derive(Deserialize, Clone)]
struct Identified {
    metadata: IdentifiedMeta,
}

#[derive(Deserialize, Clone)]
#[serde(rename_all = "camelCase")]
struct IdentifiedMeta {
    #[serde(default)]
    namespace: Option<Arc<str>>,
    name: Arc<str>,
    resource_version: String,
}

impl Identified {
    fn identity(self, deleted: bool) -> Identity {
        let IdentifiedMeta { namespace, name, resource_version } = self.metadata;
        Identity {
            key: ObjectKey::new(namespace.unwrap_or_else(|| Arc::from("")), name),
            resource_version: ResourceVersion::parse(&resource_version).unwrap_or_default(),
            deleted,
        }
    }
}

#[derive(Deserialize)]
#[serde(bound = "T: DeserializeOwned")]
struct WireList<T> {
    metadata: WireListMeta,
    items: Vec<T>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireListMeta {
    resource_version: String,
    #[serde(default)]
    r#continue: String,
}

pub(super) fn decode_list<P: Projection>(text: &[u8]) -> Result<ListPage<P>, WatchError> {
    let (metadata, objects, unreadable) = match serde_json::from_slice::<WireList<P>>(text) {
        Ok(list) => (list.metadata, list.items, Vec::new()),
        // Slower and larger, but one bad object does not hide the others.
        Err(_) => {
            let list: WireList<serde_json::Value> = serde_json::from_slice(text).map_err(|error| {
                WatchError::Unreadable(Unreadable { identity: None, message: error.to_string() })
            })?;
            let (mut objects, mut unreadable) = (Vec::new(), Vec::new());
            for item in list.items {
                match P::deserialize(&item) {
                    Ok(object) => objects.push(object),
                    Err(error) => unreadable.push(Unreadable {
                        identity: Identified::deserialize(&item).ok().map(|object| object.identity(false)),
                        message: error.to_string(),
                    }),
                }
            }
            (list.metadata, objects, unreadable)
        }
    };
    let resource_version = ResourceVersion::parse(&metadata.resource_version).ok_or_else(|| {
        let message = format!("list with resourceVersion `{}`", metadata.resource_version);
        WatchError::Unreadable(Unreadable { identity: None, message })
    })?;
    let continue_token = (!metadata.r#continue.is_empty()).then_some(metadata.r#continue);
    Ok(ListPage { objects, unreadable, resource_version, continue_token })
}
