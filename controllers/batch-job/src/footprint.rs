//! What a queued job holds in memory, counted: ten thousand of them may wait.

use crate::admission::Admission;
use crate::observe::Record;
use crate::projections::job::JobView;
use serde_json::json;
use springtide_plumbing::key::{ObjectKey, Uid};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::store::Store;
use std::sync::Arc;

/// A job of many that differ in their name, their UID and the times of their conditions.
fn job(number: u32, version: u32) -> JobView {
    let time = format!("2026-11-11T00:00:{number:02}Z");
    let condition = |type_: &str, reason: &str| {
        json!({
            "type": type_, "status": "False", "observedGeneration": 1, "reason": reason,
            "message": "waits for cpu", "lastTransitionTime": time,
        })
    };
    serde_json::from_value(json!({
        "metadata": {
            "namespace": "team", "name": format!("night-{number}"), "uid": format!("0a1b2c3d-{number}"),
            "resourceVersion": version.to_string(), "generation": 1, "creationTimestamp": time,
            "labels": {"team": "night", "app": "etl"},
        },
        "spec": {
            "queueName": "default", "podFailurePolicy": {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "X"}]}]},
            "template": {"spec": {"containers": [{"name": "main", "image": "app"}]}},
        },
        "status": {"queue": "default", "conditions": [
            condition("Complete", "Queued"), condition("Reconciling", "Queued"), condition("Queued", "NoCapacity"),
            condition("Admitted", "NoCapacity"),
        ]},
    }))
    .unwrap()
}

#[test]
fn jobs_that_wait_share_all_but_their_names_and_times() {
    let (one, other) = (job(1, 1), job(2, 1));
    assert!(Arc::ptr_eq(&one.spec, &other.spec));
    assert!(Arc::ptr_eq(&one.template, &other.template));
    assert!(Arc::ptr_eq(&one.meta().key.namespace, &other.meta().key.namespace));
    assert!(one.meta().labels.others.is_same_text(&other.meta().labels.others));
    assert!(one.status.shares_with(&other.status));
    assert_ne!(one.status.since("Queued"), other.status.since("Queued"));
}

#[test]
fn a_new_version_of_a_job_keeps_the_texts_that_others_hold_it_by() {
    let (store, mut writer) = Store::<JobView>::new(&[]);
    let texts = || {
        let job = store.get(&ObjectKey::new("team", "night-1")).unwrap();
        (Arc::clone(&job.meta().key.name), Arc::clone(&job.meta().uid.0), job.meta().resource_version.0)
    };
    writer.apply(job(1, 1));
    let (name, uid, _) = texts();
    writer.apply(job(1, 2));
    let (new_name, new_uid, version) = texts();
    assert_eq!(version, 2);
    assert!(Arc::ptr_eq(&name, &new_name) && Arc::ptr_eq(&uid, &new_uid));
}

/// The bounds have little to spare: what comes on top is there ten thousand times.
#[test]
fn a_queued_job_takes_little_of_its_own() {
    // In the store: itself, the counts of its Arc, its name and UID with theirs, and the times of four conditions.
    let stored = size_of::<JobView>() + 16 + 2 * (16 + 40) + 4 * 16;
    // What is remembered of it is boxed, so that free places of its table are small.
    let remembered = size_of::<Record>();
    let admitted = Admission::BYTES_OF_JOB;
    let places = 2 * size_of::<(ObjectKey, Box<Record>)>() + 2 * size_of::<(Uid, usize)>();
    let all = (stored, remembered, admitted, places);
    assert!(stored <= 416 && remembered <= 400 && admitted <= 304 && places <= 128, "{all:?}");
}
