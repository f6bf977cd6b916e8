//! When everything is listed anew, and what the store makes of it.

use crate::script::*;
use springtide_plumbing::watch::{
    DEAR_LIST, ListPage, RELIST_INTERVAL, RELIST_JITTER, StreamingLists, WatchError,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

#[tokio::test(start_paused = true)]
async fn what_was_deleted_while_the_watch_was_down_is_deleted_with_its_last_state() {
    let mut script = Script::start();
    let log = script.log();
    let feed = script.sync(&[thing("a", 1), thing("b", 2), thing("c", 3)], 5).await;
    assert_eq!(log.take(), ["apply a@1 initial", "apply b@2 initial", "apply c@3 initial"]);
    feed.modified(thing("b", 6));
    settle().await;
    assert_eq!(log.take(), ["apply b@6 was b@2"]);

    drop(feed);
    let resumed = script.open().await;
    assert_eq!(resumed.request.start, watch_from(6));
    resumed.refuse(expired());
    let relist = script.open().await;
    assert_eq!(relist.request.start, streaming_list(Some(6)));
    let before = script.store.get(&key("c")).unwrap();
    let _feed = relist.list(&[thing("a", 7), thing("c", 3), thing("d", 8)], 9);
    settle().await;

    assert_eq!(log.take(), ["delete b@6", "apply a@7 was a@1", "apply d@8"]);
    assert_eq!(script.content(), [("a".into(), 7), ("c".into(), 3), ("d".into(), 8)]);
    assert_eq!(script.store.last_rv(), rv(9));
    let after = script.store.get(&key("c")).unwrap();
    assert!(Arc::ptr_eq(&before, &after), "an unchanged object was replaced");
}

#[tokio::test(start_paused = true)]
async fn another_object_of_the_same_name_is_a_delete_and_an_apply() {
    let mut script = Script::start();
    let feed = script.sync(&[thing_of("a", "first", 1)], 1).await;
    let log = script.log();
    log.take();
    feed.error_event(410, "Expired");
    let _feed = script.open().await.list(&[thing_of("a", "second", 4)], 4);
    settle().await;
    assert_eq!(log.take(), ["delete a@1", "apply a@4"]);
}

/// Everything the loop asks for in the hour after a relist, while the server sends bookmarks.
async fn quiet_hour(script: &mut Script, feed: &Feed, at: u32) {
    for minute in 1..=60 {
        sleep(Duration::from_secs(60)).await;
        feed.bookmark(at + minute);
        assert!(script.is_quiet().await, "a request in minute {minute}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_410_as_error_event_gives_one_relist() {
    let mut script = Script::start();
    let feed = script.sync(&[thing("a", 1)], 5).await;
    feed.error_event(410, "Expired");
    let relist = script.open().await;
    assert_eq!(relist.request.start, streaming_list(Some(5)));
    let feed = relist.list(&[thing("a", 1)], 7);
    quiet_hour(&mut script, &feed, 7).await;
    assert_eq!(script.stats().relists(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_410_at_the_start_of_a_watch_gives_one_relist() {
    let mut script = Script::start();
    drop(script.sync(&[thing("a", 1)], 5).await);
    script.open().await.refuse(expired());
    let relist = script.open().await;
    assert_eq!(relist.request.start, streaming_list(Some(5)));
    let feed = relist.list(&[thing("a", 1)], 7);
    quiet_hour(&mut script, &feed, 7).await;
    assert_eq!(script.stats().relists(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_410_on_a_continue_token_gives_one_relist() {
    let mut script = Script::start();
    script.open().await.refuse(WatchError::Refused { code: 422, message: "no WatchList".into() });
    let first = script.list().await;
    assert_eq!(first.request, list_at(None));
    first.answer(Ok(ListPage { continue_token: Some("rest".into()), ..page(vec![thing("a", 1)], 5) }));
    let rest = script.list().await;
    assert_eq!(rest.request.continue_token.as_deref(), Some("rest"));
    rest.answer(Err(expired()));
    assert!(!script.store.is_synced(), "half a list was taken for a whole one");

    // The stream is not known to be at fault before a LIST has worked in its place.
    script.open().await.refuse(WatchError::Refused { code: 422, message: "no WatchList".into() });
    let again = script.list().await;
    assert_eq!(again.request, list_at(None));
    again.answer(Ok(ListPage { continue_token: Some("more".into()), ..page(vec![thing("a", 1)], 8) }));
    script.list().await.answer(Ok(page(vec![thing("b", 2)], 8)));
    let watch = script.open().await;
    assert_eq!(watch.request.start, watch_from(8));
    let feed = watch.accept();
    settle().await;
    assert_eq!(script.content(), [("a".into(), 1), ("b".into(), 2)]);
    quiet_hour(&mut script, &feed, 8).await;
    assert_eq!(script.stats().relists(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_always_says_410_is_asked_for_a_list_once_a_minute() {
    let mut script = Script::start();
    let mut feed = script.sync(&[thing("a", 1)], 5).await;
    let mut listed: Vec<Instant> = Vec::new();
    for round in 0..20 {
        feed.error_event(410, "Expired");
        let relist = script.open().await;
        listed.push(relist.at);
        feed = relist.list(&[thing("a", 1)], 6 + round);
        settle().await;
    }
    for pair in listed.windows(2) {
        let gap = pair[1] - pair[0];
        assert!(gap >= RELIST_INTERVAL && gap <= RELIST_INTERVAL + 2 * RELIST_JITTER, "{gap:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn relists_of_many_processes_are_spread_the_more_the_dearer_they_are() {
    let many: Vec<_> = (0..DEAR_LIST).map(|number| thing(&number.to_string(), 1)).collect();
    for (things, jitter) in [(&many[..], RELIST_JITTER), (&many[..1], RELIST_JITTER / 10)] {
        let mut waits = Vec::new();
        for seed in 0..20 {
            let mut script = Script::start_with(&StreamingLists::default(), seed);
            let feed = script.sync(things, 5).await;
            let expired = Instant::now();
            feed.error_event(410, "Expired");
            let wait = script.open().await.at - expired;
            assert!(wait <= jitter + Duration::from_millis(1), "{wait:?}");
            waits.push(wait);
        }
        waits.sort();
        assert!(waits[19] - waits[0] > jitter / 2, "{waits:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_old_store_serves_until_the_new_list_is_complete() {
    let mut script = Script::start();
    let feed = script.sync(&[thing("a", 1), thing("b", 2)], 5).await;
    let log = script.log();
    log.take();
    feed.error_event(410, "Expired");
    let relist = script.open().await.accept();
    relist.added(thing("c", 6));
    settle().await;
    assert_eq!(script.content(), [("a".into(), 1), ("b".into(), 2)]);
    assert!(script.store.is_synced());
    assert_eq!(script.store.last_rv(), rv(5));

    // Cut half way: nothing of it is taken, and nothing is deleted.
    drop(relist);
    let again = script.open().await;
    assert_eq!(again.request.start, streaming_list(Some(5)));
    assert_eq!(log.take(), Vec::<String>::new());
    let _feed = again.list(&[thing("c", 6)], 7);
    settle().await;
    assert_eq!(log.take(), ["delete a@1", "delete b@2", "apply c@6"]);
}

#[tokio::test(start_paused = true)]
async fn changes_that_come_before_the_end_of_a_list_are_part_of_it() {
    let mut script = Script::start();
    let log = script.log();
    let list = script.open().await.accept();
    list.added(thing("a", 1));
    list.added(thing("b", 2));
    list.modified(thing("a", 6));
    list.deleted(thing("b", 7));
    list.bookmark(7);
    settle().await;
    assert!(!script.store.is_synced());
    list.end_of_list(7);
    script.store.synced().await;
    assert_eq!(log.take(), ["apply a@6 initial"]);
}

#[tokio::test(start_paused = true)]
async fn a_version_the_server_has_not_reached_is_left_unset_once() {
    let mut script = Script::start();
    let feed = script.sync(&[thing("a", 90)], 100).await;
    let log = script.log();
    log.take();
    feed.error_event(410, "Expired");
    let ahead = || WatchError::AheadOfServer("current: 40".into());

    let relist = script.open().await;
    assert_eq!(relist.request.start, streaming_list(Some(100)));
    relist.refuse(ahead());
    let unset = script.open().await;
    assert_eq!(unset.request.start, streaming_list(None));
    unset.refuse(broken());
    // Once: the next attempt asks for the version last seen again.
    let relist = script.open().await;
    assert_eq!(relist.request.start, streaming_list(Some(100)));
    relist.refuse(ahead());

    // A consistent read that is older shows that the cluster itself went back.
    let unset = script.open().await;
    assert_eq!(unset.request.start, streaming_list(None));
    let feed = unset.list(&[thing("a", 30)], 40);
    settle().await;
    assert_eq!(log.take(), ["apply a@30 was a@90"]);
    assert_eq!(script.store.last_rv(), rv(40));
    feed.modified(thing("a", 41));
    settle().await;
    assert_eq!(log.take(), ["apply a@41 was a@30"]);
}
