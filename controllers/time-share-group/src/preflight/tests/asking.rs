//! Who is asked, when, and what answers are worth.

use super::*;
use crate::observed::Observed;
use crate::preflight::questions::ANSWER_AGE;
use proptest::prelude::*;
use springtide_plumbing::error::Refusal;
use springtide_plumbing::plan::{Part, Patch};
use springtide_plumbing::window::calendar::{Cause, Desired, Next};
use std::collections::HashMap;

#[test]
fn each_pod_is_asked_for_the_size_that_it_will_get_in_the_lowest_class() {
    let observed = stage(1, json!({}));
    let found = look(&observed, &to_promo(0), 0);
    let expected = [(Uid("promo-000".into()), Level::Peak), (Uid("pay-000".into()), Level::Valley)];
    assert_eq!(asked(&found.questions), expected);
    for (write, cpu) in found.questions.iter().zip(["4", "200m"]) {
        assert_eq!(write.class, WriteClass::Low);
        let Action::DryRun { of, .. } = &write.action else { panic!() };
        let Action::Patch { part: Part::Resize, patch: Patch::Strategic(fields) } = &**of else { panic!() };
        assert_eq!(fields.resource_version, None, "what the kubelet says meanwhile is no matter");
        let app = &fields.fields["spec"]["containers"][0];
        assert_eq!(app["resources"], json!({"requests": {"cpu": cpu}}), "memory stays");
    }
}

#[test]
fn pods_that_have_their_size_are_not_asked_for() {
    let observed = stage_of(1, json!({}), json!({}), (crate::fixtures::sized("200m", "200m"), on_stage()));
    let found = look(&observed, &to_promo(0), 0);
    assert_eq!((found.questions.len(), found.passed, found.is_complete), (0, 1, true));
}

#[test]
fn a_question_is_read_back_and_nothing_else_is_one() {
    let uid = Uid("0f3c-1".into());
    for level in [Level::Valley, Level::Peak] {
        assert_eq!(read_question(&question(&uid, level)), Some((uid.clone(), level)));
    }
    for other in ["", "peak", "/peak", "u/high", "template/abc"] {
        assert_eq!(read_question(other), None, "{other:?}");
    }
}

#[test]
fn who_refuses_is_told_by_the_servers_words() {
    let refusal = |code: u16, message: &str| {
        let (reason, message) = ("Forbidden".to_owned(), message.to_owned());
        refused_by(&Refusal { code, reason, message, fields: Vec::new() })
    };
    for (code, words, by) in [
        (403, "pods \"a\" is forbidden: exceeded quota: q, requested: requests.cpu=4", RefusedBy::Quota),
        (
            403,
            "pods \"a\" is forbidden: maximum cpu usage per Pod is 1, but limit is 4",
            RefusedBy::Admission,
        ),
        (
            422,
            "spec: Invalid value: \"Guaranteed\": Pod QOS Class may not change as a result of resizing",
            RefusedBy::QosClass,
        ),
        (422, "spec: Forbidden: Pod running on node without support for resize", RefusedBy::Ineligible),
        (422, "Forbidden: static pods cannot be resized", RefusedBy::Ineligible),
        (
            403,
            "pods \"a\" is forbidden: node didn't have enough allocatable resources: cpu",
            RefusedBy::Ineligible,
        ),
        (403, "pods \"a\" is forbidden: pod resize is only supported on linux nodes", RefusedBy::Ineligible),
        (422, "Forbidden: windows pods cannot be resized", RefusedBy::Ineligible),
        (
            403,
            "admission webhook \"w\" denied the request: pods of team a cannot be resized",
            RefusedBy::Admission,
        ),
        (
            422,
            "spec.containers[0].resources.requests: must be less than or equal to cpu limit",
            RefusedBy::Admission,
        ),
    ] {
        assert_eq!(refusal(code, words), by, "{words}");
    }
}

#[test]
fn a_unit_begins_by_fresh_answers_and_a_refusal_is_asked_again_after_a_while() {
    let mut observed = stage(1, json!({}));
    let since = |observed: &Observed, from: i64, now: i64| {
        let member = &observed.members[1];
        answered(member, &member.pods[0], Level::Peak, at(from), at(now))
    };
    let of = |observed: &Observed, now: i64| since(observed, 0, now);
    assert_eq!(of(&observed, 0), Answered::Unasked);
    let note = |observed: &mut Observed, refused: Refusals, refusals: u32| {
        let asked = &mut observed.members[1].pods[0].evidence.asked;
        (asked.peak, asked.refusals) = (Some(Answer { at: at(0), refused }), refusals);
    };
    note(&mut observed, None, 0);
    let age = ANSWER_AGE.as_secs();
    assert_eq!((of(&observed, age - 1), of(&observed, age)), (Answered::Accepted, Answered::Unasked));
    assert_eq!(since(&observed, 1, 2), Answered::Unasked, "it was before what it is wanted for");
    for (refusals, again) in [(1, 60), (2, 120), (9, 600)] {
        note(&mut observed, Some((RefusedBy::Admission, "no".into())), refusals);
        let refused = Answered::Refused { by: RefusedBy::Admission, again: at(again) };
        assert_eq!(of(&observed, 2 * age), refused, "{refusals}");
    }
    note(&mut observed, Some((RefusedBy::Quota, "exceeded quota: q".into())), 1);
    assert_eq!(of(&observed, 1), Answered::Refused { by: RefusedBy::Quota, again: at(60) });
    observed.members[1].quotas = vec![Quota::default()];
    assert_eq!(of(&observed, 1), Answered::Accepted, "our own count knows better");
}

#[test]
fn what_was_answered_before_the_lead_is_asked_again() {
    let mut observed = stage(1, json!({"guards": {"preflight": {"leadSeconds": 7200}}}));
    let first = look(&observed, &to_promo(0), 0);
    answer(&mut observed, &first.questions, 0, accepts);
    let later = look(&observed, &to_promo(20_000), 20_000 - 7200 + 3600);
    assert_eq!((later.is_complete, later.questions.len()), (false, 2));
    let soon = look(&observed, &to_promo(3000), 2000);
    assert!(soon.is_complete && soon.questions.is_empty());
}

#[test]
fn refused_resizes_are_tried_by_a_few_until_they_are_taken() {
    let mut observed = stage(30, json!({}));
    let upcoming = to_promo(0);
    let all = look(&observed, &upcoming, 0).questions;
    let refuses = |_: &str, level: Level| (level == Level::Peak).then(|| (RefusedBy::Admission, "no".into()));
    answer(&mut observed, &all, 0, refuses);
    let waiting = look(&observed, &upcoming, 599);
    assert_eq!((waiting.questions.len(), waiting.wake), (0, Some(at(600))));
    let probes = look(&observed, &upcoming, 600).questions;
    assert_eq!(probes.len(), PROBES);
    answer(&mut observed, &probes, 600, refuses);
    let waiting = look(&observed, &upcoming, 601);
    assert_eq!((waiting.questions.len(), waiting.wake), (0, Some(at(1200))), "one more refusal is enough");
    let mut now = 1200;
    for _ in 0..3 {
        let probes = look(&observed, &upcoming, now).questions;
        assert_eq!(probes.len(), PROBES);
        answer(&mut observed, &probes, now, accepts);
        now += 1;
    }
    assert_eq!(look(&observed, &upcoming, now).reason, PreflightPassedReason::AllUnits);
}

#[test]
fn many_questions_are_put_over_several_passes() {
    let mut observed = stage(130, json!({}));
    let upcoming = to_promo(0);
    let mut sizes = Vec::new();
    for now in 0..3 {
        let found = look(&observed, &upcoming, now);
        sizes.push((found.questions.len(), found.wake));
        answer(&mut observed, &found.questions, now, accepts);
    }
    assert_eq!(sizes, [(100, Some(at(1))), (100, Some(at(2))), (60, None)]);
}

fn desired(member: Option<&str>, next: Option<(Option<&str>, i64)>) -> Desired {
    let next = next.map(|(member, start)| Next {
        member: member.map(Into::into),
        start: at(start),
        window: None,
        window_start: None,
    });
    let (cause, member) = (Cause::Default, member.map(Into::into));
    Desired { member, cause, window: None, window_start: None, since: None, until: None, next }
}

#[test]
fn the_next_switch_is_the_one_that_is_due_or_else_the_one_of_the_schedule() {
    let observed = stage(1, json!({}));
    let last = Heading { id: 6, from: None, to: Some(PAY), is_return: false };
    let next =
        |desired: Desired, is_barred: bool| upcoming(&observed, Some(&last), &desired, is_barred, at(5));
    let to = |to: Option<MemberIndex>, start: i64| {
        let heading = Heading { id: 7, from: Some(PAY), to, is_return: false };
        Some(Upcoming { heading, start: at(start) })
    };
    assert_eq!(next(desired(Some("promo"), None), false), to(Some(PROMO), 5), "it is due");
    assert_eq!(next(desired(None, None), false), to(None, 5));
    assert_eq!(next(desired(Some("pay"), Some((Some("promo"), 900))), false), to(Some(PROMO), 900));
    assert_eq!(next(desired(Some("pay"), None), false), None);
    assert_eq!(next(desired(Some("promo"), Some((Some("pay"), 900))), true), None, "it was rolled back");
    assert_eq!(next(desired(Some("promo"), Some((None, 900))), true), to(None, 900));
}

#[test]
fn before_the_first_switch_nobody_gives_the_peak_up() {
    let mut observed = stage(1, json!({}));
    let mut group = (*observed.group).clone();
    group.status = Default::default();
    observed.group = group.into();
    let heading = Heading { id: 1, from: None, to: Some(PAY), is_return: false };
    let found = upcoming(&observed, None, &desired(Some("pay"), None), false, at(5));
    assert_eq!(found, Some(Upcoming { heading, start: at(5) }));
    let to_nobody = upcoming(&observed, None, &desired(None, None), false, at(5)).unwrap();
    assert_eq!(look(&observed, &to_nobody, 5).reason, PreflightPassedReason::AllUnits, "there is no unit");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn questions_keep_their_pace_and_each_is_put_once(
        nodes in 1..40_usize, lead in 0..900_i64, passes in proptest::collection::vec(1..60_i64, 0..20),
    ) {
        let mut observed = stage(nodes, json!({"guards": {"preflight": {"leadSeconds": lead}}}));
        let (start, total) = (10_000, 2 * nodes);
        let upcoming = to_promo(start);
        let begins = start - lead;
        let mut times: HashMap<(Uid, Level), u32> = HashMap::new();
        let mut extra = passes.into_iter();
        let mut now = begins;
        for _ in 0..2000 {
            let found = look(&observed, &upcoming, now);
            let elapsed = now - begins;
            for key in asked(&found.questions) {
                *times.entry(key).or_default() += 1;
            }
            prop_assert!(found.questions.len() <= ASK_PER_PASS);
            if now < start && 2 * elapsed < lead {
                let spread = i64::try_from(total).unwrap() * elapsed * 2 / lead.max(1) + 1;
                let most = usize::try_from(spread.max(elapsed + 1)).unwrap();
                prop_assert!(times.len() <= most, "{} of {total} are asked {elapsed} s after {lead} s before", times.len());
            }
            answer(&mut observed, &found.questions, now, accepts);
            let Some(wake) = found.wake else { break };
            let wake = wake.duration_since(at(0)).as_secs();
            prop_assert!(wake > now);
            // Other events bring passes in between.
            now = extra.next().map_or(wake, |more| wake.min(now + more));
        }
        prop_assert_eq!(times.len(), total, "every pod is asked");
        prop_assert!(times.values().all(|count| *count == 1), "{times:?}");
        prop_assert!(now <= begins + lead / 2 + 11, "half the lead is enough: {now}");
        prop_assert_eq!(look(&observed, &upcoming, now).reason, PreflightPassedReason::AllUnits);
    }
}
