//! Connections that fall silent, break, go back in time, or bring what nobody can read.

use crate::script::*;
use springtide_plumbing::watch::{
    Identity, LIVENESS, PROBE_AGE, PROBE_JITTER, PROBE_TIMEOUT_SECONDS, RELIST_INTERVAL, STALE_AFTER,
    Unreadable, WATCH_TIMEOUT_SECONDS, WatchError,
};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_replaced_and_its_store_goes_stale() {
    let mut script = Script::start();
    let feed = script.sync(&[thing("a", 1)], 5).await;
    sleep(Duration::from_secs(70)).await;
    feed.bookmark(9);
    settle().await;
    let last_frame = Instant::now();

    sleep(LIVENESS - 2 * SECOND).await;
    assert!(script.is_quiet().await);
    assert!(!feed.is_dropped());
    let reconnect = script.open().await;
    assert!(feed.is_dropped());
    assert_eq!(reconnect.request.start, watch_from(9));
    assert!(reconnect.at - last_frame <= LIVENESS);
    assert!(!script.store.is_stale());

    sleep(STALE_AFTER - (Instant::now() - last_frame) + SECOND).await;
    assert!(script.store.is_stale());
    assert!(script.store.is_synced());
    let feed = reconnect.accept();
    settle().await;
    assert!(script.store.is_stale(), "an open connection alone says nothing about the content");
    feed.bookmark(10);
    settle().await;
    assert!(!script.store.is_stale());
    assert_eq!(script.stats().relists(), 0);
    assert_eq!(script.stats().restarts(), 1);
}

/// The next request, which is a probe from that version.
async fn probe(script: &mut Script, from: u32) -> OpenCall {
    let call = script.open().await;
    assert_eq!(call.request.start, watch_from(from));
    assert_eq!(call.request.timeout_seconds, PROBE_TIMEOUT_SECONDS);
    call
}

#[tokio::test(start_paused = true)]
async fn after_a_silence_a_brief_watch_brings_a_sign_of_life_before_the_store_is_stale() {
    let mut script = Script::start();
    let _silent = script.sync(&[thing("a", 1)], 5).await;
    let probe = probe(&mut script, 5).await;
    let opened = probe.at;
    let feed = probe.accept();
    // As kube-apiserver does it, whose timer for bookmarks ticks every 1.25 s at most.
    sleep(Duration::from_secs(u64::from(PROBE_TIMEOUT_SECONDS) - 2) + Duration::from_millis(1250)).await;
    assert!(!script.store.is_stale());
    feed.bookmark(6);
    sleep(Duration::from_secs(PROBE_TIMEOUT_SECONDS.into()) - opened.elapsed()).await;
    drop(feed);
    let closed = Instant::now();
    let resumed = script.open().await;
    assert_eq!(resumed.at, closed, "an end of our own asking is no failure");
    assert_eq!(resumed.request.start, watch_from(6));
    assert!(WATCH_TIMEOUT_SECONDS.contains(&resumed.request.timeout_seconds));
    assert!(!script.store.is_stale());
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_nothing_changes_is_listed_once_after_each_mute_probe_and_its_store_is_never_stale() {
    // kube-apiserver sends a watch no bookmark of the version it began with; a streaming list gets one.
    let mut script = Script::start();
    let mut feed = script.sync(&[thing("a", 1)], 5).await;
    for round in 0..20 {
        let probe = probe(&mut script, 5).await;
        assert!(feed.is_dropped());
        let answers = round % 2 == 0;
        let mute = probe.accept();
        let ended = if answers {
            sleep(Duration::from_secs(PROBE_TIMEOUT_SECONDS.into())).await;
            drop(mute);
            Instant::now()
        } else {
            // The server never ends it.
            Instant::now() + Duration::from_secs(PROBE_TIMEOUT_SECONDS.into()) + 5 * SECOND
        };
        let list = script.open().await;
        assert!(list.at - ended <= PROBE_JITTER + Duration::from_millis(1), "{:?}", list.at - ended);
        assert_eq!(list.request.start, streaming_list(Some(5)));
        assert!(!script.store.is_stale(), "round {round}");
        feed = list.list(&[thing("a", 1)], 5);
        settle().await;
    }
    assert_eq!(script.stats().relists(), 0);
    assert_eq!(script.content(), [("a".into(), 1)]);
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_a_probe_tells_first_whether_anything_was_missed() {
    let mut script = Script::start();
    drop(script.sync(&[thing("a", 1)], 5).await);
    let down = Instant::now();
    let mut call = script.open().await;
    while call.at - down <= PROBE_AGE {
        assert!(WATCH_TIMEOUT_SECONDS.contains(&call.request.timeout_seconds));
        call.refuse(broken());
        call = script.open().await;
    }
    // One that is refused is followed by another.
    while call.at - down < 95 * SECOND {
        assert_eq!(call.request.timeout_seconds, PROBE_TIMEOUT_SECONDS);
        call.refuse(broken());
        call = script.open().await;
    }
    assert_eq!((call.request.start, call.request.timeout_seconds), (watch_from(5), PROBE_TIMEOUT_SECONDS));
    let feed = call.accept();
    feed.modified(thing("a", 6));
    settle().await;
    assert!(!script.store.is_stale());
    drop(feed);
    let resumed = script.open().await;
    assert_eq!(resumed.request.start, watch_from(6));
    assert!(WATCH_TIMEOUT_SECONDS.contains(&resumed.request.timeout_seconds));
    assert_eq!(script.stats().relists(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_mute_probe_of_a_cluster_that_went_back_ends_with_what_it_holds_now() {
    let mut script = Script::start();
    let _silent = script.sync(&[thing("a", 90)], 100).await;
    drop(probe(&mut script, 100).await.accept());
    let list = script.open().await;
    assert_eq!(list.request.start, streaming_list(Some(100)));
    list.refuse(WatchError::AheadOfServer("current: 40".into()));
    let unset = script.open().await;
    assert_eq!(unset.request.start, streaming_list(None));
    let _feed = unset.list(&[thing("a", 30)], 40);
    settle().await;
    assert_eq!(script.content(), [("a".into(), 30)]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_nobody_reaches_is_asked_every_few_seconds_however_long_it_was_away() {
    let mut script = Script::start();
    drop(script.sync(&[thing("a", 1)], 5).await);
    let mut call = script.open().await;
    for attempt in 0..200 {
        let asked = call.at;
        call.refuse(if attempt % 2 == 0 {
            WatchError::Unreachable("connection refused".to_owned())
        } else {
            WatchError::Starting("please try again".to_owned())
        });
        call = script.open().await;
        let wait = call.at - asked;
        assert!(wait >= SECOND * 3 / 2 && wait <= 3 * SECOND + Duration::from_millis(1), "{wait:?}");
    }
    // One that answers, but not well, is left alone for longer with each time, as if it had not been away.
    let mut longest = Duration::ZERO;
    for failures in 1..=6 {
        let asked = call.at;
        call.refuse(WatchError::Server { code: 503, message: "starting".into(), retry_after: None });
        call = script.open().await;
        longest = longest.max(call.at - asked);
        assert!(failures > 1 || longest <= Duration::from_millis(3201), "{longest:?}");
    }
    assert!(longest >= 15 * SECOND, "{longest:?}");
    drop(call);
}

#[tokio::test(start_paused = true)]
async fn the_servers_own_timeout_is_followed_by_an_immediate_resume() {
    let mut script = Script::start();
    let mut feed = script.sync(&[thing("a", 1)], 5).await;
    let mut timeouts = Vec::new();
    for round in 0..10 {
        for _ in 0..5 {
            sleep(Duration::from_secs(60)).await;
            feed.bookmark(10 + round);
        }
        settle().await;
        drop(feed);
        let ended = Instant::now();
        let resumed = script.open().await;
        assert_eq!(resumed.at, ended);
        assert_eq!(resumed.request.start, watch_from(10 + round));
        timeouts.push(resumed.request.timeout_seconds);
        feed = resumed.accept();
    }
    assert!(timeouts.iter().all(|seconds| WATCH_TIMEOUT_SECONDS.contains(seconds)), "{timeouts:?}");
    timeouts.dedup();
    assert!(timeouts.len() > 5, "one fixed timeout: {timeouts:?}");
    assert_eq!(script.stats().relists(), 0);
}

#[tokio::test(start_paused = true)]
async fn watches_closed_early_back_off_and_do_not_relist() {
    let mut script = Script::start();
    let mut feed = script.sync(&[thing("a", 1)], 5).await;
    let mut waits = Vec::new();
    let mut restarts = 0;
    for round in 0..12 {
        // A frame each time: progress does not make a connection sound.
        feed.bookmark(6 + round);
        settle().await;
        drop(feed);
        let closed = Instant::now();
        let mut resumed = script.open().await;
        assert_eq!(resumed.request.start, watch_from(6 + round));
        waits.push(resumed.at - closed);
        restarts += 1;
        if resumed.request.timeout_seconds == PROBE_TIMEOUT_SECONDS {
            // After the longest waits. It shows that nothing is missed, so an ordinary one follows.
            let probe = resumed.accept();
            probe.modified(thing("a", 6 + round));
            settle().await;
            drop(probe);
            resumed = script.open().await;
            restarts += 1;
        }
        feed = resumed.accept();
    }
    let minimum = Duration::from_millis(800);
    assert!(waits.iter().all(|wait| *wait >= minimum && *wait <= 30 * SECOND), "{waits:?}");
    assert!(waits[6..].iter().all(|wait| *wait >= 15 * SECOND), "{waits:?}");
    assert_eq!(script.stats().relists(), 0);
    assert_eq!(script.stats().restarts(), restarts);

    // A sound connection starts the backoff anew, and its cut is no failure: the first answer of a server that gets up
    // is.
    sleep(31 * SECOND).await;
    feed.send(Err(broken()));
    let broke = Instant::now();
    let spread = minimum..=2 * minimum + Duration::from_millis(1);
    let call = script.open().await;
    assert!(spread.contains(&(call.at - broke)));
    let asked = call.at;
    call.refuse(WatchError::Server { code: 503, message: "starting".into(), retry_after: None });
    assert!(spread.contains(&(script.open().await.at - asked)));
}

#[tokio::test(start_paused = true)]
async fn a_busy_server_is_not_asked_before_the_time_it_named() {
    let mut script = Script::start();
    let mut call = script.open().await;
    for (named, waited) in [(17, 17), (100_000, 60)] {
        let asked = call.at;
        let retry_after = Some(named * SECOND);
        call.refuse(WatchError::Server { code: 429, message: "busy".into(), retry_after });
        call = script.open().await;
        assert_eq!(call.at - asked, waited * SECOND, "within reason");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_older_than_seen_is_counted_and_not_applied() {
    let mut script = Script::start();
    let feed = script.sync(&[thing("a", 10)], 20).await;
    let log = script.log();
    log.take();

    feed.modified(thing("a", 19));
    let resumed = script.open().await;
    assert!(feed.is_dropped(), "the connection was kept");
    assert_eq!(resumed.request.start, watch_from(20));
    let feed = resumed.accept();
    feed.deleted(thing("a", 15));
    let feed = script.open().await.accept();
    feed.bookmark(19);
    let feed = script.open().await.accept();
    assert_eq!(script.stats().rv_regressions(), 3);
    assert_eq!(script.store.last_rv(), rv(20));
    assert_eq!(log.take(), Vec::<String>::new());

    // So is a whole list.
    feed.error_event(410, "Expired");
    drop(script.open().await.list(&[], 19));
    let again = script.open().await;
    assert_eq!(again.request.start, streaming_list(Some(20)));
    assert_eq!(script.stats().rv_regressions(), 4);
    assert_eq!(script.content(), [("a".into(), 10)]);
    let feed = again.list(&[thing("a", 10)], 21);

    // Another object's event may bear the very version a bookmark had.
    feed.bookmark(22);
    feed.modified(thing("a", 22));
    // And the same event once more changes nothing.
    feed.modified(thing("a", 22));
    settle().await;
    assert_eq!(log.take(), ["apply a@22 was a@10"]);
    assert_eq!(script.stats().rv_regressions(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_is_not_served_is_waited_for() {
    let mut script = Script::start();
    let missing = || WatchError::NotServed("the server could not find the requested resource".into());
    for _ in 0..20 {
        let call = script.open().await;
        assert_eq!(call.request.start, streaming_list(None));
        call.refuse(missing());
    }
    assert!(!script.store.is_synced());
    let feed = script.sync(&[thing("a", 7)], 8).await;

    // Its definition is removed, and made again.
    drop(feed);
    script.open().await.refuse(missing());
    settle().await;
    assert!(!script.store.is_synced());
    assert_eq!(script.content(), [("a".into(), 7)]);
    let log = script.log();
    log.take();
    let relist = script.open().await;
    assert_eq!(relist.request.start, streaming_list(Some(8)));
    let _feed = relist.list(&[], 12);
    settle().await;
    assert!(script.store.is_synced());
    assert_eq!(log.take(), ["delete a@7"]);
}

fn unreadable(identity: Option<Identity>) -> WatchError {
    WatchError::Unreadable(Unreadable { identity, message: "invalid type".to_owned() })
}

fn identity(name: &str, version: u32, deleted: bool) -> Option<Identity> {
    Some(Identity { key: key(name), resource_version: rv(version), deleted })
}

#[tokio::test(start_paused = true)]
async fn one_unreadable_object_leaves_the_watch_and_the_others_alone() {
    let mut script = Script::start();
    let feed = script.sync(&[thing("a", 1), thing("b", 2)], 5).await;
    let log = script.log();
    log.take();
    feed.send(Err(unreadable(identity("a", 6, false))));
    feed.modified(thing("b", 7));
    settle().await;
    assert_eq!(log.take(), ["apply b@7 was b@2"]);
    assert_eq!(script.store.get(&key("a")).unwrap().metadata.resource_version, rv(1));
    assert!(!feed.is_dropped());

    // In a list too: it exists, so it is not deleted.
    feed.error_event(410, "Expired");
    let relist = script.open().await.accept();
    relist.send(Err(unreadable(identity("a", 6, false))));
    relist.send(Err(unreadable(identity("never-seen", 8, false))));
    relist.added(thing("b", 7));
    relist.end_of_list(9);
    settle().await;
    assert_eq!(log.take(), Vec::<String>::new());
    assert_eq!(script.content(), [("a".into(), 1), ("b".into(), 7)]);

    // Its deletion needs no more than its name.
    relist.send(Err(unreadable(identity("a", 10, true))));
    settle().await;
    assert_eq!(log.take(), ["delete a@1"]);
    assert_eq!(script.store.last_rv(), rv(10));
    assert_eq!(script.stats().unreadable(), 4);
    assert_eq!(script.stats().relists(), 1);
}

#[tokio::test(start_paused = true)]
async fn events_that_are_no_events_cost_at_most_a_list_a_minute() {
    let mut script = Script::start();
    let mut feed = script.sync(&[thing("a", 1)], 5).await;
    let mut listed: Vec<Instant> = Vec::new();
    for round in 0..5 {
        feed.send(Err(unreadable(None)));
        let relist = script.open().await;
        assert_eq!(relist.request.start, streaming_list(Some(5 + round)));
        listed.push(relist.at);
        feed = relist.list(&[thing("a", 1)], 6 + round);
        settle().await;
    }
    for pair in listed.windows(2) {
        assert!(pair[1] - pair[0] >= RELIST_INTERVAL, "{listed:?}");
    }
    assert_eq!(script.stats().unreadable(), 5);
}
