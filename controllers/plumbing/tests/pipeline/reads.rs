//! Single GETs: retried within bounds, so that a sick server is not hit harder for being sick.

use crate::rig::{key, pass, seconds};
use crate::wire::{Reply, Wire, answer, busy, object, refuse};
use futures::future::join_all;
use springtide_plumbing::budget::{BucketConfig, BudgetConfig, WriteBudget};
use springtide_plumbing::client::{ReadError, Reader};
use springtide_plumbing::key::{Resource, ResourceVersion};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

/// A reader whose n-th request is answered by the n-th reply, and all further ones by the last.
fn reader(replies: Vec<Reply>) -> (Wire, Reader) {
    let next = AtomicUsize::new(0);
    let (wire, client) = Wire::new(move |_| {
        let n = next.fetch_add(1, SeqCst).min(replies.len() - 1);
        replies[n].clone()
    });
    (wire, Reader::new(client))
}

fn found() -> Reply {
    answer(200, object("ns", "a", 7))
}

#[tokio::test(start_paused = true)]
async fn a_read_gets_through_two_failures() {
    for failure in [
        refuse(500, "x"),
        refuse(503, "x"),
        refuse(429, "x"),
        Reply::Reset,
        Reply::ResetInBody,
        Reply::Unreachable,
    ] {
        let (wire, reader) = reader(vec![failure.clone(), failure.clone(), found()]);
        let identity = reader.identity(Resource::POD, &key("a")).await.unwrap().unwrap();
        assert_eq!(identity.resource_version, ResourceVersion(7), "{failure:?}");
        assert_eq!(wire.gaps(), [Duration::from_millis(500); 2], "{failure:?}");

        let (wire, reader) = self::reader(vec![failure]);
        reader.identity(Resource::POD, &key("a")).await.unwrap_err();
        assert_eq!(wire.len(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_not_asked_for_twice() {
    let (wire, reader) =
        reader(vec![refuse(404, "NotFound"), refuse(403, "Forbidden"), answer(200, "?".into())]);
    assert!(matches!(reader.identity(Resource::POD, &key("a")).await, Ok(None)));
    assert!(matches!(reader.identity(Resource::POD, &key("a")).await, Err(ReadError::Refused(_))));
    assert!(matches!(reader.identity(Resource::POD, &key("a")).await, Err(ReadError::NotAnObject)));
    assert_eq!(wire.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_honoured_up_to_half_a_minute() {
    let (wire, reader) = reader(vec![busy(4), busy(100_000), found()]);
    reader.identity(Resource::POD, &key("a")).await.unwrap();
    assert_eq!(wire.gaps(), [seconds(4), seconds(30)]);
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_given_up_after_30_seconds() {
    let (wire, reader) = reader(vec![Reply::Silence, found()]);
    reader.identity(Resource::POD, &key("a")).await.unwrap();
    assert_eq!(wire.gaps(), [seconds(30) + Duration::from_millis(500)]);
}

#[tokio::test(start_paused = true)]
async fn retries_are_few_when_everything_fails() {
    let (wire, reader) = reader(vec![refuse(503, "ServiceUnavailable")]);
    for _ in 0..10 {
        let key = key("a");
        let reads = join_all((0..100).map(|_| reader.identity(Resource::POD, &key)));
        assert!(reads.await.iter().all(Result::is_err));
        pass(seconds(1)).await;
    }
    // A tenth of the reads, and one a second for whoever reads but little.
    assert!((1000..=1000 + 100 + 30).contains(&wire.len()), "{} requests for 1000 reads", wire.len());
}

#[tokio::test(start_paused = true)]
async fn a_retry_takes_a_token_of_the_write_budget_and_there_is_none_without() {
    let process = BucketConfig { rate: 0.001, burst: 3 };
    let budget = Arc::new(WriteBudget::new(BudgetConfig { process, ..BudgetConfig::default() }));
    let (wire, reader) = reader(vec![refuse(503, "ServiceUnavailable")]);
    let reader = reader.charged_to(budget.clone(), "c");
    for requests in [3, 5, 6] {
        reader.identity(Resource::POD, &key("a")).await.unwrap_err();
        // The bound on retries alone would let all through.
        pass(seconds(10)).await;
        assert_eq!(wire.len(), requests);
    }
    assert!(budget.stats(&[]).process_tokens < 1.0);
}
