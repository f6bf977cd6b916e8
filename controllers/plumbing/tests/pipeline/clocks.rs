//! A wall clock that somebody puts hours forward or back: what is waited for is timed by the other one.

use crate::rig::{HOUR, Seen, Setup, create, idle, key, pass, plan, seconds};
use crate::wire::{done, refuse};
use jiff::{SignedDuration, Timestamp};
use springtide_plumbing::plan::Plan;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

/// Seconds of two hours.
const OFF: i64 = 7200;

/// The gaps between the tries of a controller whose writes are refused, while events keep coming for two hours; in each
/// half hour the clock is put anew, to so many seconds ahead.
async fn gaps_of_refusals(ahead: [i64; 4]) -> Vec<Duration> {
    let rig = Setup::new(|seen: &Seen| plan(vec![vec![create(&seen.key)]])).start(|_| refuse(422, "Invalid"));
    for ahead in ahead {
        rig.put_clock_ahead(ahead);
        rig.events(&key("a"), HOUR / 2).await;
    }
    rig.wire.gaps()
}

#[tokio::test(start_paused = true)]
async fn a_backoff_is_as_long_as_it_is_whatever_the_clock_shows() {
    let (steady, moved) = (gaps_of_refusals([0; 4]).await, gaps_of_refusals([OFF, -OFF, OFF, 0]).await);
    assert!(steady.len() > 15, "{steady:?}");
    assert_eq!(moved, steady);
}

#[tokio::test(start_paused = true)]
async fn a_point_in_time_is_waited_for_anew_when_the_clock_is_put_back_and_never_in_a_hot_loop() {
    let due = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(60);
    let back = 60 + OFF.unsigned_abs();
    for (ahead, expected) in [(0, vec![0, 60]), (-OFF, vec![0, 60, back]), (OFF, vec![0, 60])] {
        let (looks, start) = (Arc::new(Mutex::new(Vec::new())), Instant::now());
        let seen_at = Arc::clone(&looks);
        let rig = Setup::new(move |seen: &Seen| {
            seen_at.lock().unwrap().push(start.elapsed().as_secs());
            Plan { wake: (seen.now < due).then_some(due), ..idle() }
        });
        let rig = rig.start(|sent| done(sent, 10));
        rig.event(&key("a"));
        pass(seconds(30)).await;
        rig.put_clock_ahead(ahead);
        pass(4 * HOUR).await;
        assert_eq!(*looks.lock().unwrap(), expected, "{ahead} s ahead");
    }
}
