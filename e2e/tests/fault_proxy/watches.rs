//! Faults of watches and of their events.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::io::Lines;
use futures::{AsyncBufRead, AsyncBufReadExt, StreamExt};
use http::Request;
use kube::api::{DeleteParams, ListParams};
use serde_json::Value;
use springtide_e2e::batch;
use springtide_e2e::fault_proxy::{Class, EventFault, EventKind, Fault, When};
use springtide_e2e::write_count::Verb;
use tokio::time::timeout;

use super::Rig;

/// Far more than an event takes.
const SOON: Duration = Duration::from_secs(60);
/// In which an event would have come.
const MOMENT: Duration = Duration::from_secs(2);

type Events = Lines<std::pin::Pin<Box<dyn AsyncBufRead + Send>>>;

impl Rig {
    fn watched(&self) -> Class {
        Class::of([Verb::Watch]).resource("configmaps").namespace(&self.namespace)
    }

    /// A watch from now on, with `query` beside.
    async fn watch(&self, query: &str) -> Result<Events> {
        let version = self.truth.list(&ListParams::default()).await?.metadata.resource_version;
        let path = format!(
            "/api/v1/namespaces/{}/configmaps?watch=true&resourceVersion={}&{query}",
            self.namespace,
            version.context("a list has a version")?
        );
        let stream = self.client.request_stream(Request::get(path).body(Vec::new())?).await?;
        let stream: std::pin::Pin<Box<dyn AsyncBufRead + Send>> = Box::pin(stream);
        Ok(stream.lines())
    }
}

/// The next event as its type and the object's name; nothing at the end of the stream.
async fn next(events: &mut Events) -> Result<Option<(String, String)>> {
    let line = timeout(SOON, events.next()).await.context("no event comes")?;
    let Some(line) = line else { return Ok(None) };
    let event: Value = serde_json::from_str(&line?)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(Some((text(&event["type"]), text(&event["object"]["metadata"]["name"]))))
}

async fn names(events: &mut Events, count: usize) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for _ in 0..count {
        names.push(next(events).await?.context("the watch ended")?.1);
    }
    Ok(names)
}

#[tokio::test]
async fn events_are_dropped_and_shown_again() -> Result<()> {
    let rig = Rig::new("events").await?;
    let mut events = rig.watch("").await?;
    let drop = rig.proxy.event_fault(rig.watched(), &[EventKind::Added], When::Nth(2), EventFault::Drop);
    rig.proxy.event_fault(rig.watched(), &[], When::Nth(4), EventFault::Replay { events: 2 });
    for name in ["a", "b", "c", "d"] {
        rig.create(name).await?;
    }
    assert_eq!(names(&mut events, 5).await?, ["a", "c", "a", "c", "d"]);
    assert_eq!(rig.proxy.hits(drop).fired, 1);
    rig.maps.delete("d", &DeleteParams::default()).await?;
    assert_eq!(next(&mut events).await?, Some(("DELETED".into(), "d".into())));
    Ok(())
}

#[tokio::test]
async fn one_watch_lags_behind_without_losing_anything() -> Result<()> {
    let rig = Rig::new("lag").await?;
    // Far more than it takes to look for what is not to have come.
    let delay = Duration::from_secs(20);
    let mut events = rig.watch("").await?;
    rig.proxy.event_fault(rig.watched(), &[], When::Always, EventFault::Delay(delay));
    let began = std::time::Instant::now();
    rig.create("a").await?;
    rig.create("b").await?;
    ensure!(timeout(Duration::from_secs(1), events.next()).await.is_err(), "it is not late");
    assert_eq!(names(&mut events, 2).await?, ["a", "b"]);
    ensure!(began.elapsed() >= delay);
    Ok(())
}

#[tokio::test]
async fn a_watch_ends_early_expires_or_falls_silent() -> Result<()> {
    let rig = Rig::new("ends").await?;
    let mut events = rig.watch("").await?;
    let rule = rig.proxy.event_fault(rig.watched(), &[], When::Nth(2), EventFault::Close);
    rig.create("a").await?;
    rig.create("b").await?;
    assert_eq!(next(&mut events).await?, Some(("ADDED".into(), "a".into())));
    assert_eq!(next(&mut events).await?, None, "it ends as a server ends it");
    rig.proxy.remove(rule);

    let mut events = rig.watch("").await?;
    let rule = rig.proxy.event_fault(rig.watched(), &[], When::Nth(1), EventFault::Expire);
    rig.create("c").await?;
    assert_eq!(next(&mut events).await?, Some(("ERROR".into(), String::new())));
    assert_eq!(next(&mut events).await?, None);
    rig.proxy.remove(rule);

    // From an event on, and from the start on.
    let mut running = rig.watch("").await?;
    let rule = rig.proxy.event_fault(rig.watched(), &[], When::From(1), EventFault::Silence);
    let request = rig.proxy.fault(rig.watched(), When::Always, Fault::Silence);
    let mut new = rig.watch("").await?;
    rig.create("d").await?;
    for events in [&mut running, &mut new] {
        ensure!(timeout(MOMENT, events.next()).await.is_err(), "an event or an end");
    }
    assert_eq!(rig.proxy.hits(request).fired, 1);
    rig.proxy.fired(rule, 1).await?;
    rig.proxy.clear();
    ensure!(timeout(MOMENT, running.next()).await.is_err(), "what fell silent stays so");
    let mut after = rig.watch("").await?;
    rig.create("e").await?;
    assert_eq!(names(&mut after, 1).await?, ["e"]);
    Ok(())
}

#[tokio::test]
async fn a_streaming_list_without_its_end_and_a_watch_without_bookmarks() -> Result<()> {
    let rig = Rig::new("bookmarks").await?;
    rig.create("a").await?;
    let streaming = "allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
    let mut events = rig.watch(streaming).await?;
    assert_eq!(next(&mut events).await?, Some(("ADDED".into(), "a".into())));
    assert_eq!(next(&mut events).await?, Some(("BOOKMARK".into(), String::new())));
    let end = [EventKind::InitialEventsEnd];
    let end = rig.proxy.event_fault(rig.watched(), &end, When::Always, EventFault::Drop);
    let plain = [EventKind::Bookmark];
    let plain = rig.proxy.event_fault(rig.watched(), &plain, When::Always, EventFault::Drop);
    let mut events = rig.watch(streaming).await?;
    assert_eq!(next(&mut events).await?, Some(("ADDED".into(), "a".into())));
    ensure!(timeout(MOMENT, events.next()).await.is_err(), "the end of the list has come");
    assert_eq!(rig.proxy.hits(end).fired, 1);
    // A plain bookmark comes each minute.
    if !batch::long() {
        return Ok(());
    }
    let mut watch = rig.watch("allowWatchBookmarks=true&timeoutSeconds=75").await?;
    rig.proxy.fired(plain, 1).await?;
    rig.create("b").await?;
    assert_eq!(next(&mut watch).await?, Some(("ADDED".into(), "b".into())));
    Ok(())
}
