//! Faults of single requests.

use std::time::Duration;

use anyhow::{Result, ensure};
use futures::TryStreamExt;
use http::Request;
use http::header::RETRY_AFTER;
use http_body_util::BodyExt;
use kube::api::{ListParams, WatchParams};
use kube::client::Body;
use springtide_e2e::fault_proxy::{Answer, At, Class, Fault, Latency, Stage, When};
use springtide_e2e::write_count::Verb;
use tokio::time::timeout;

use super::Rig;

/// Long enough for an answer that comes.
const MOMENT: Duration = Duration::from_secs(2);

#[tokio::test]
async fn refusals_come_as_the_server_words_them_and_nothing_is_stored() -> Result<()> {
    let rig = Rig::new("refused").await?;
    let answers = [
        (Answer::conflict(), 409, "Conflict"),
        (Answer::already_exists(), 409, "AlreadyExists"),
        (Answer::too_many_requests(None), 429, "TooManyRequests"),
        (Answer::internal_error(), 500, "InternalError"),
        (Answer::unavailable(), 503, "ServiceUnavailable"),
        (Answer::gateway_timeout(), 504, "Timeout"),
        (Answer::unauthorized(), 401, "Unauthorized"),
        (Answer::forbidden(), 403, "Forbidden"),
        (Answer::exceeded_quota(), 403, "Forbidden"),
        (Answer::too_large(), 413, "RequestEntityTooLarge"),
        (Answer::invalid(), 422, "Invalid"),
    ];
    for (answer, code, reason) in answers {
        let class = Class::of([Verb::Create]).resource("configmaps").namespace(&rig.namespace);
        let rule = rig.proxy.fault(class, When::Nth(1), Fault::Refuse(answer));
        let refused = rig.create("refused").await;
        let Err(kube::Error::Api(status)) = refused else { panic!("{reason}: {refused:?}") };
        assert_eq!((status.code, status.reason.as_str()), (code, reason));
        assert_eq!(rig.proxy.hits(rule).fired, 1);
        rig.proxy.remove(rule);
        ensure!(!rig.exists("refused").await?, "{reason} was stored");
    }
    // The second of the class passes.
    let rule = rig.proxy.fault(Class::writes(), When::Nth(1), Fault::Refuse(Answer::conflict()));
    rig.create("first").await.unwrap_err();
    rig.create("second").await?;
    assert_eq!(rig.proxy.hits(rule).matched, 2);
    let (code, upstream) = rig.proxy.journal(|all| {
        let entry = all.iter().find(|entry| entry.request.name == "first").unwrap();
        (entry.request.code, entry.upstream)
    });
    assert_eq!((code, upstream), (409, 0), "it never came to the API server");
    Ok(())
}

#[tokio::test]
async fn a_retry_after_is_a_header() -> Result<()> {
    let rig = Rig::new("retry").await?;
    let answer = Answer::too_many_requests(Some(7));
    rig.proxy.fault(Class::any(), When::Always, Fault::Refuse(answer));
    let request = Request::get("/api/v1/nodes").body(Body::empty())?;
    let response = rig.client.send(request).await?;
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()[RETRY_AFTER], "7");
    Ok(())
}

#[tokio::test]
async fn a_reply_is_lost_or_replaced_after_the_write_was_stored() -> Result<()> {
    let rig = Rig::new("stored").await?;
    let create = || Class::of([Verb::Create]).namespace(&rig.namespace);
    for (answer, code) in [
        (Answer::internal_error(), 500),
        (Answer::unavailable(), 503),
        (Answer::gateway_timeout(), 504),
        (Answer::conflict(), 409),
    ] {
        let name = format!("replaced-{code}");
        let rule = rig.proxy.fault(create(), When::Always, Fault::Replace(answer));
        let refused = rig.create(&name).await;
        ensure!(matches!(&refused, Err(kube::Error::Api(status)) if status.code == code), "{refused:?}");
        rig.proxy.remove(rule);
        ensure!(rig.exists(&name).await?, "{code} was not stored");
    }
    let rule = rig.proxy.fault(create(), When::Always, Fault::Reset(At::AfterCommit));
    let lost = rig.create("lost").await;
    ensure!(matches!(lost, Err(kube::Error::HyperError(_) | kube::Error::Service(_))), "{lost:?}");
    rig.proxy.remove(rule);
    ensure!(rig.exists("lost").await?);
    rig.proxy.fault(create(), When::Always, Fault::Reset(At::BeforeSend));
    let lost = rig.create("unsent").await;
    ensure!(matches!(lost, Err(kube::Error::HyperError(_) | kube::Error::Service(_))), "{lost:?}");
    ensure!(!rig.exists("unsent").await?);
    let stored = rig.proxy.journal(|all| all.iter().filter(|entry| entry.stored()).count());
    assert_eq!(stored, 5);
    Ok(())
}

#[tokio::test]
async fn a_body_breaks_is_cut_or_trickles() -> Result<()> {
    let rig = Rig::new("bodies").await?;
    rig.create("map").await?;
    let get = || Class::of([Verb::Get]).resource("configmaps");
    let rule = rig.proxy.fault(get(), When::Always, Fault::ResetBody { after: 100 });
    let broken = rig.maps.get("map").await.unwrap_err();
    ensure!(!matches!(broken, kube::Error::Api(_) | kube::Error::SerdeError(_)), "{broken:?}");
    rig.proxy.remove(rule);

    let rule = rig.proxy.fault(get(), When::Always, Fault::CutBody { after: 100 });
    let request = || Request::get(format!("/api/v1/namespaces/{}/configmaps/map", rig.namespace));
    let response = rig.client.send(request().body(Body::empty())?).await?;
    let cut = response.into_body().collect().await?.to_bytes();
    assert_eq!(cut.len(), 100);
    ensure!(serde_json::from_slice::<serde_json::Value>(&cut).unwrap_err().is_eof());
    rig.proxy.remove(rule);

    let slow = Fault::Trickle { bytes: 50, every: Duration::from_millis(1) };
    rig.proxy.fault(get(), When::Always, slow);
    let response = rig.client.send(request().body(Body::empty())?).await?;
    let mut frames = 0;
    let mut body = response.into_body().into_data_stream();
    let mut whole = Vec::new();
    while let Some(frame) = body.try_next().await? {
        frames += 1;
        whole.extend_from_slice(&frame);
    }
    ensure!(frames > 3, "{frames} pieces");
    let read: k8s_openapi::api::core::v1::ConfigMap = serde_json::from_slice(&whole)?;
    assert_eq!(read.data.unwrap()["text"].len(), 300);
    Ok(())
}

#[tokio::test]
async fn a_held_request_stays_until_its_client_gives_up() -> Result<()> {
    let rig = Rig::new("held").await?;
    for (name, at, stored) in [("before", At::BeforeSend, false), ("committed", At::AfterCommit, true)] {
        let rule = rig.proxy.fault(Class::writes().name(name), When::Always, Fault::Hold(at));
        let held = rig.create(name);
        tokio::pin!(held);
        let seen = rig.proxy.until("the held request", |all| {
            all.iter().find(|entry| entry.request.name == name && entry.stage == Stage::Held(at)).cloned()
        });
        let seen = tokio::select! {
            answer = &mut held => panic!("answered: {answer:?}"),
            seen = seen => seen?,
        };
        assert_eq!((seen.upstream == 201, seen.request.code), (stored, 0));
        ensure!(timeout(MOMENT, &mut held).await.is_err(), "it is still held");
        assert_eq!(rig.exists(name).await?, stored);
        rig.proxy.remove(rule);
    }
    // Both were given up when they went out of scope.
    rig.proxy
        .until("the end of both", |all| {
            let broken = all.iter().filter(|entry| entry.stage == Stage::Broken).count();
            (broken == 2).then_some(())
        })
        .await
}

#[tokio::test]
async fn a_request_that_is_held_until_its_rule_is_removed_goes_on_then() -> Result<()> {
    let rig = Rig::new("held-for-now").await?;
    let rule = rig.proxy.fault(Class::writes().name("late"), When::Nth(1), Fault::HoldUntilRemoved);
    let held = rig.create("late");
    tokio::pin!(held);
    ensure!(timeout(MOMENT, &mut held).await.is_err(), "it is held");
    // Another rule is not the one that it waits for.
    let other = rig.proxy.fault(Class::writes().name("other"), When::Always, Fault::HoldUntilRemoved);
    rig.proxy.remove(other);
    ensure!(timeout(MOMENT, &mut held).await.is_err(), "it is held");
    ensure!(!rig.exists("late").await?, "it is at the API server");
    rig.proxy.remove(rule);
    held.await?;
    ensure!(rig.exists("late").await?);
    Ok(())
}

#[tokio::test]
async fn the_three_expirations_and_a_refused_streaming_list_are_told_apart_by_the_query() -> Result<()> {
    let rig = Rig::new("gone").await?;
    for name in ["a", "b", "c"] {
        rig.create(name).await?;
    }
    let proxy = &rig.proxy;
    proxy.fault(
        Class::of([Verb::List]).query("continue="),
        When::Nth(1),
        Fault::Refuse(Answer::continue_expired()),
    );
    let first = rig.maps.list(&ListParams::default().limit(1)).await?;
    let token = first.metadata.continue_.unwrap();
    let next = ListParams::default().limit(1).continue_token(&token);
    let expired = rig.maps.list(&next).await.unwrap_err();
    ensure!(matches!(&expired, kube::Error::Api(status) if status.code == 410), "{expired:?}");
    rig.maps.list(&next).await?;

    let streaming = Class::of([Verb::Watch]).query("sendInitialEvents=true");
    proxy.fault(streaming, When::Always, Fault::Refuse(Answer::no_streaming_list()));
    proxy.fault(Class::of([Verb::Watch]), When::Nth(2), Fault::Refuse(Answer::too_old()));
    let refused = rig.maps.watch(&WatchParams::default().initial_events(), "0").await.map(drop).unwrap_err();
    ensure!(matches!(&refused, kube::Error::Api(status) if status.code == 422), "{refused:?}");
    let version = first.metadata.resource_version.unwrap();
    let old = rig.maps.watch(&WatchParams::default(), &version).await.map(drop).unwrap_err();
    ensure!(matches!(&old, kube::Error::Api(status) if status.code == 410), "{old:?}");
    drop(rig.maps.watch(&WatchParams::default(), &version).await?);
    Ok(())
}

#[tokio::test]
async fn latency_delays_each_request_by_its_own_time_and_a_seed_picks_the_faulty_ones() -> Result<()> {
    let rig = Rig::new("late").await?;
    let least = Duration::from_millis(50);
    let latency = Latency::Pareto { least, most: Duration::from_millis(500), shape: 1.0, seed: 3 };
    let rule = rig.proxy.fault(Class::writes(), When::Always, Fault::Delay(latency));
    let began = std::time::Instant::now();
    for name in ["a", "b", "c"] {
        rig.create(name).await?;
    }
    ensure!(began.elapsed() >= 3 * least, "they were not delayed");
    rig.proxy.remove(rule);
    let refuse = Fault::Refuse(Answer::unavailable());
    let run = async |seed| -> Result<Vec<bool>> {
        let rule =
            rig.proxy.fault(Class::of([Verb::Get]), When::Chance { probability: 0.5, seed }, refuse.clone());
        let mut met = Vec::new();
        for _ in 0..20 {
            met.push(rig.maps.get("a").await.is_err());
        }
        rig.proxy.remove(rule);
        Ok(met)
    };
    let first = run(11).await?;
    ensure!(first.contains(&true) && first.contains(&false), "{first:?}");
    assert_eq!(run(11).await?, first);
    Ok(())
}

#[tokio::test]
async fn an_answer_that_is_late_is_that_of_a_write_which_others_have_seen_before() -> Result<()> {
    let rig = Rig::new("late-answer").await?;
    let late = Fault::DelayAnswer(Latency::Fixed(Duration::from_secs(20)));
    let rule = rig.proxy.fault(Class::writes(), When::Nth(1), late);
    let create = rig.create("a");
    tokio::pin!(create);
    let seen = async {
        while rig.maps.get_opt("a").await?.is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        biased;
        answered = &mut create => anyhow::bail!("answered before anybody has seen it: {answered:?}"),
        seen = seen => seen?,
    }
    create.await?;
    assert_eq!(rig.proxy.hits(rule).fired, 1);
    Ok(())
}
