//! Somebody who undoes what a controller writes costs the server a few writes, and the controller nothing else.

use crate::rig::{HOUR, Seen, Setup, create, key, pass, patch, plan, pod, seconds};
use crate::wire::done;
use http::Method;

#[tokio::test(start_paused = true)]
async fn what_somebody_keeps_undoing_is_written_seldom_and_all_else_goes_on() {
    let mut rig = Setup::new(|seen: &Seen| {
        let made = seen.passes.to_string();
        plan(vec![vec![create(&key(&made))], vec![patch(&seen.key)]])
    })
    .start(|sent| done(sent, 10));
    let contested = key("a");
    // The object changes each second, as somebody else writes to it, and the pod made is gone at once.
    for second in 0..HOUR.as_secs() {
        rig.pods.apply(pod(&contested, 100 + second));
        rig.event(&contested);
        pass(seconds(1)).await;
    }
    // Four in four seconds; then 10, 20, 40, 80, 160, 320 s apart, and 600 s: 11 in 1230 s, 14 in an hour.
    let patches: Vec<_> = rig.wire.all().into_iter().filter(|sent| sent.is(&Method::PATCH)).collect();
    let [told, ours]: [Vec<_>; 2] = [true, false]
        .map(|events| patches.iter().filter(|sent| sent.path.contains("events") == events).collect());
    assert!((13..=14).contains(&ours.len()), "{}", ours.len());
    let created = |events: bool| {
        let creates = rig.wire.all().into_iter().filter(|sent| sent.is(&Method::POST));
        creates.filter(|sent| sent.path.contains("events") == events).count()
    };
    assert!(created(false) > 1000, "the pods are made all the same: {}", created(false));
    assert!(created(true) + told.len() <= 12, "one and one in ten minutes: {} {}", created(true), told.len());
    let text = rig.metrics.encode().unwrap();
    let conflicts = ours.len() - 3;
    let line = format!(r#"springtide_field_conflicts_total{{controller="scripted"}} {conflicts}"#);
    assert!(text.contains(&line), "{text}");
}
