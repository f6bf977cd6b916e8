//! Kinds that a server may lack.

use crate::script::{Script, settle, streaming_list, thing};
use springtide_plumbing::watch::WatchError;

fn missing() -> WatchError {
    WatchError::NotServed("the server could not find the requested resource".into())
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_an_optional_kind_and_it_is_seen_when_it_comes() {
    let mut script = Script::start_optional();
    assert!(!script.store.is_synced());
    for _ in 0..20 {
        let call = script.open().await;
        assert_eq!(call.request.start, streaming_list(None));
        assert!(!script.store.is_stale(), "the answers are signs of life");
        call.refuse(missing());
        settle().await;
        assert!(script.store.is_synced() && script.store.parts()[0].is_listed());
        assert_eq!(script.store.parts()[0].obstacle(), None);
    }
    assert_eq!(script.stats().restarts(), 0, "no connection was lost");
    let log = script.log();
    let feed = script.open().await.list(&[thing("a", 7)], 8);
    settle().await;
    assert_eq!(log.take(), ["apply a@7"], "it was not there before, so that is news");
    drop(feed);
    script.open().await.refuse(missing());
    settle().await;
    assert_eq!(log.take(), ["delete a@7"], "its definition was removed, and all of it with that");
    assert!(script.store.is_synced());
    let again = script.open().await;
    assert_eq!(again.request.start, streaming_list(Some(8)));
    let _feed = again.list(&[thing("b", 11)], 12);
    settle().await;
    assert_eq!(script.content(), [("b".into(), 11)]);
}

#[tokio::test(start_paused = true)]
async fn an_optional_kind_that_is_there_is_waited_for_like_any_other() {
    let mut script = Script::start_optional();
    let forbidden = WatchError::Server { code: 403, message: "forbidden".to_owned(), retry_after: None };
    script.open().await.refuse(forbidden);
    settle().await;
    assert!(!script.store.is_synced(), "nobody knows whether there is an object");
    let _feed = script.sync(&[thing("a", 7)], 8).await;
    assert_eq!(script.content(), [("a".into(), 7)]);
}
