//! Servers that cannot stream a list.

use crate::script::*;
use springtide_plumbing::watch::{
    Identity, LIST_SILENCE, ListPage, ListRequest, ListVersion, StreamingLists, Unreadable, WatchError,
};
use std::time::Duration;
use tokio::time::{Instant, sleep};

fn refused() -> WatchError {
    WatchError::Refused { code: 422, message: "sendInitialEvents is forbidden".to_owned() }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_turns_the_whole_process_to_plain_lists() {
    let streaming = StreamingLists::default();
    let mut first = Script::start_with(&streaming, 1);
    first.open().await.refuse(refused());
    let list = first.list().await;
    assert_eq!(list.request, list_at(None));
    list.answer(Ok(page(vec![thing("a", 1)], 5)));
    let watch = first.open().await;
    assert_eq!(watch.request.start, watch_from(5));
    let feed = watch.accept();
    assert!(first.store.is_synced());

    let mut second = Script::start_with(&streaming, 2);
    second.list().await.answer(Ok(page(vec![], 5)));
    assert_eq!(second.open().await.request.start, watch_from(5));

    // A relist too: not older than what was seen.
    feed.error_event(410, "Expired");
    assert_eq!(first.list().await.request, list_at(Some(5)));
}

#[tokio::test(start_paused = true)]
async fn an_unanswered_request_is_given_up_after_thirty_seconds() {
    let mut script = Script::start();
    let asked = script.open().await;
    let list = script.list().await;
    assert_eq!(Instant::now() - asked.at, LIST_SILENCE);
    // Consistent: what is silent may be a server that has lost etcd, with a cache of any age.
    assert_eq!(list.request, ListRequest { version: ListVersion::Latest, continue_token: None });
    list.answer(Ok(page(vec![thing("a", 1)], 5)));
    assert_eq!(script.open().await.request.start, watch_from(5));
}

#[tokio::test(start_paused = true)]
async fn a_list_without_end_is_given_up_though_changes_and_bookmarks_keep_coming() {
    let mut script = Script::start();
    let list = script.open().await.accept();
    list.added(thing("a", 1));
    sleep(LIST_SILENCE - Duration::from_secs(1)).await;
    // A large list is slow, and progress.
    list.added(thing("b", 2));
    for second in 0..29 {
        sleep(Duration::from_secs(1)).await;
        list.modified(thing("b", 10 + second));
        list.bookmark(10 + second);
        assert!(script.is_quiet().await, "given up while it made progress");
    }
    sleep(Duration::from_secs(2)).await;
    assert!(list.is_dropped());
    script.list().await.answer(Ok(page(vec![thing("a", 1)], 40)));
    settle().await;
    assert_eq!(script.content(), [("a".into(), 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_answers_no_list_either_is_not_held_against_streaming_lists() {
    let streaming = StreamingLists::default();
    let mut script = Script::start_with(&streaming, 1);
    let _unanswered = script.open().await;
    script.list().await.answer(Err(broken()));
    assert!(streaming.available());
    let again = script.open().await;
    assert_eq!(again.request.start, streaming_list(None));
    let _feed = again.list(&[thing("a", 1)], 3);
    script.store.synced().await;
    assert!(streaming.available());
}

#[tokio::test(start_paused = true)]
async fn a_stream_cut_in_its_list_is_tried_again_and_not_given_up() {
    let streaming = StreamingLists::default();
    let mut script = Script::start_with(&streaming, 1);
    for _ in 0..10 {
        let list = script.open().await.accept();
        list.added(thing("a", 1));
        settle().await;
    }
    assert!(streaming.available());
    assert!(!script.store.is_synced());
    assert_eq!(script.stats().relists(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_list_older_than_what_was_seen_is_not_taken() {
    let streaming = StreamingLists::default();
    let mut script = Script::start_with(&streaming, 1);
    script.open().await.refuse(refused());
    script.list().await.answer(Ok(page(vec![thing("a", 5)], 5)));
    script.open().await.accept().error_event(410, "Expired");
    script.list().await.answer(Ok(page(vec![], 4)));
    let again = script.list().await;
    assert_eq!(again.request, list_at(Some(5)));
    assert_eq!(script.content(), [("a".into(), 5)]);
    assert_eq!(script.stats().rv_regressions(), 1);
    again.answer(Ok(page(vec![], 6)));
    settle().await;
    assert_eq!(script.content(), []);
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_went_back_is_followed_by_a_consistent_list() {
    let mut script = Script::start();
    script.open().await.refuse(refused());
    script.list().await.answer(Ok(page(vec![thing("a", 5)], 2000)));
    script.open().await.accept().error_event(410, "Expired");
    let relist = script.list().await;
    assert_eq!(relist.request, list_at(Some(2000)));
    relist.answer(Err(WatchError::AheadOfServer("Too large resource version".to_owned())));
    let consistent = script.list().await;
    assert_eq!(consistent.request, ListRequest { version: ListVersion::Latest, continue_token: None });
    consistent.answer(Ok(page(vec![thing("b", 3)], 1000)));
    let watch = script.open().await;
    assert_eq!(watch.request.start, watch_from(1000));
    assert_eq!(script.content(), [("b".into(), 3)]);
    // Once: after that the version last seen counts again.
    watch.accept().error_event(410, "Expired");
    assert_eq!(script.list().await.request, list_at(Some(1000)));
}

#[tokio::test(start_paused = true)]
async fn a_long_list_that_is_cut_says_nothing_against_streaming_lists() {
    let streaming = StreamingLists::default();
    let mut script = Script::start_with(&streaming, 1);
    let list = script.open().await.accept();
    for number in 0..4 {
        sleep(LIST_SILENCE / 2).await;
        list.added(thing(&format!("p{number}"), number));
    }
    drop(list);
    assert_eq!(script.open().await.request.start, streaming_list(None));
    assert!(streaming.available());
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_reaches_its_timeout_without_an_end_of_the_list_is_given_up() {
    let streaming = StreamingLists::default();
    let mut script = Script::start_with(&streaming, 1);
    let asked = script.open().await;
    let timeout = Duration::from_secs(asked.request.timeout_seconds.into());
    let list = asked.accept();
    for number in 0..timeout.as_secs() as u32 {
        sleep(Duration::from_secs(1)).await;
        list.added(thing("new", number));
    }
    drop(list);
    script.list().await.answer(Ok(page(vec![thing("a", 1)], 500)));
    settle().await;
    assert!(!streaming.available());
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_object_of_a_plain_list_stays_as_it_was_known() {
    let mut script = Script::start();
    script.open().await.refuse(refused());
    script.list().await.answer(Ok(page(vec![thing("a", 1), thing("b", 2)], 5)));
    script.open().await.accept().error_event(410, "Expired");
    let unreadable = |identity| Unreadable { identity, message: "invalid type".to_owned() };
    let identity = Identity { key: key("a"), resource_version: rv(6), deleted: false };
    let unreadable_a = vec![unreadable(Some(identity))];
    script.list().await.answer(Ok(ListPage { unreadable: unreadable_a, ..page(vec![], 7) }));
    let watch = script.open().await;
    assert_eq!(watch.request.start, watch_from(7));
    assert_eq!(script.content(), [("a".into(), 1)]);

    // Of one without a name it cannot be said whether it is known: the list is of no use.
    watch.accept().error_event(410, "Expired");
    let unreadable_one = vec![unreadable(None)];
    script.list().await.answer(Ok(ListPage { unreadable: unreadable_one, ..page(vec![], 8) }));
    assert_eq!(script.list().await.request, list_at(Some(7)));
    assert_eq!(script.content(), [("a".into(), 1)]);
}
