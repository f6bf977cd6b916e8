use super::*;
use crate::executor::Done;
use crate::key::ResourceVersion;
use crate::plan::Action;
use serde_json::json;

fn key() -> ObjectKey {
    ObjectKey::new("ns", "a")
}

fn write(action: Action) -> Write {
    Write { resource: Resource::POD, key: key(), class: WriteClass::Spec, action }
}

fn delete() -> Write {
    write(Action::Delete { uid: Uid("u".into()), resource_version: None, grace_seconds: None })
}

fn status() -> Write {
    let (status, stored) = (json!({"a": 1}), json!({}));
    write(Action::Status { uid: Uid("u".into()), resource_version: ResourceVersion(1), status, stored })
}

fn came_to(write: Write, outcome: Result<Done, WriteError>) -> WriteResult {
    WriteResult { write, outcome }
}

fn refused(write: Write, code: u16, message: &str) -> WriteResult {
    let message = message.to_owned();
    let refusal = Refusal { code, reason: String::new(), message, fields: Vec::new() };
    came_to(write, Err(WriteError::Refused(refusal)))
}

fn lost(write: Write, error: &str) -> WriteResult {
    came_to(write, Err(WriteError::Unknown(error.to_owned())))
}

fn done(write: Write) -> WriteResult {
    came_to(write, Ok(Done::default()))
}

fn noop(write: Write) -> WriteResult {
    came_to(write, Ok(Done { noop: true, ..Done::default() }))
}

/// What a turn says is to be told, which it then is.
fn tell(failures: &Failures, turn: Turn) -> (Told, String) {
    let Turn::Tell(failing) = turn else { panic!("{turn:?} is nothing to tell") };
    failures.told(&key());
    (failing.told().unwrap(), failing.message)
}

#[test]
fn the_third_answer_in_a_row_that_does_not_come_is_told_and_no_further_one() {
    let failures = Failures::default();
    let pass = |error: &str| failures.passed(&key(), &[lost(delete(), error)]);
    assert_eq!((pass("503 a"), pass("reset")), (Turn::None, Turn::None));
    let (told, message) = tell(&failures, pass("503 b"));
    assert_eq!(told, Told::NotReady);
    assert!(message.contains("cannot delete Pod a") && message.contains("503 b"), "{message}");
    for _ in 0..100 {
        assert_eq!(pass(&format!("{:x}", rand::random::<u32>())), Turn::None, "nobody reads what changes");
    }
    assert_eq!(failures.of(&key()).unwrap().message, message);
    assert_eq!(failures.passed(&key(), &[done(delete())]), Turn::Over);
    assert_eq!(failures.of(&key()), None);
    assert_eq!((pass("503"), pass("503")), (Turn::None, Turn::None), "it counts anew");
}

#[test]
fn what_was_not_told_is_told_at_the_next_chance() {
    let failures = Failures::default();
    let pass = || failures.passed(&key(), &[refused(delete(), 403, "policy x denied the request")]);
    for _ in 0..3 {
        assert!(matches!(pass(), Turn::Tell(_)));
    }
    failures.told(&key());
    assert_eq!(pass(), Turn::None);
}

#[test]
fn a_right_that_is_missing_is_named_with_verb_resource_namespace_and_remedy() {
    let failures = Failures::default();
    let server = "pods \"a\" is forbidden: User \"system:serviceaccount:x:y\" cannot delete resource \"pods\" in \
                  API group \"\" in the namespace \"ns\"";
    let (told, message) = tell(&failures, failures.passed(&key(), &[refused(delete(), 403, server)]));
    assert_eq!((told, told.reason()), (Told::Forbidden, "Forbidden"));
    assert!(message.starts_with("may not delete pods in namespace ns: grant it"), "{message}");
    assert!(message.ends_with(server), "{message}");
    let other = Failures::default();
    let server = "x is forbidden: User \"y\" cannot patch resource \"pods/status\" in API group \"\"";
    let (_, message) = tell(&other, other.passed(&key(), &[refused(status(), 403, server)]));
    assert!(message.starts_with("may not patch pods/status in namespace ns: "), "{message}");
    assert!(other.of(&key()).unwrap().is_of_status() && !failures.of(&key()).unwrap().is_of_status());
}

#[test]
fn quotas_and_policies_speak_for_themselves() {
    for message in
        ["pods \"a\" is forbidden: exceeded quota: q", "admission webhook \"w\" denied the request: no"]
    {
        let failures = Failures::default();
        let (told, said) = tell(&failures, failures.passed(&key(), &[refused(delete(), 403, message)]));
        assert_eq!((told, said), (Told::Forbidden, format!("cannot delete Pod a: {message}")));
    }
}

#[test]
fn what_only_we_can_mend_is_an_internal_error() {
    for code in [413, 422] {
        let failures = Failures::default();
        let (told, message) = tell(&failures, failures.passed(&key(), &[refused(status(), code, "no")]));
        assert_eq!((told, message.as_str()), (Told::InternalError, "cannot patch the status of Pod a: no"));
    }
    let failures = Failures::default();
    let (told, message) = tell(&failures, failures.panicked(&key(), "index 3\nof 2"));
    assert_eq!(told, Told::InternalError);
    assert!(message.contains("to be reported") && message.ends_with("index 3"), "{message}");
    assert_eq!(failures.panicked(&key(), "index 4"), Turn::None);
    assert_eq!(failures.passed(&key(), &[]), Turn::Over, "it did not panic");
}

#[test]
fn of_several_failures_the_gravest_is_told_and_a_conflict_is_none() {
    let failures = Failures::default();
    let conflict = came_to(status(), Err(WriteError::Conflict("old".into())));
    let results = [lost(status(), "503"), refused(delete(), 403, "no"), lost(delete(), "503")];
    assert_eq!(tell(&failures, failures.passed(&key(), &results)).0, Told::Forbidden);
    let other = Failures::default();
    assert_eq!(other.passed(&key(), &[conflict]), Turn::None);
    assert_eq!(other.of(&key()), None);
}

#[test]
fn another_failure_is_told_anew_and_ends_the_one_before() {
    let failures = Failures::default();
    tell(&failures, failures.passed(&key(), &[refused(delete(), 403, "no")]));
    let turn = failures.passed(&key(), &[lost(delete(), "503")]);
    assert_eq!(turn, Turn::Over, "it is forbidden no longer, and two more are to come");
    let (told, _) = tell(&failures, failures.passed(&key(), &[refused(status(), 413, "large")]));
    assert_eq!(told, Told::InternalError);
}

#[test]
fn it_is_over_when_such_a_write_succeeds_or_nobody_wants_it() {
    let start = || {
        let failures = Failures::default();
        tell(&failures, failures.passed(&key(), &[refused(delete(), 403, "no")]));
        failures
    };
    // The status that tells of it comes before the next try.
    assert_eq!(start().passed(&key(), &[done(status())]), Turn::None);
    let throttled = came_to(delete(), Err(WriteError::NotLeading));
    assert_eq!(start().passed(&key(), &[throttled]), Turn::None);
    assert_eq!(start().handled(&key(), &[lost(status(), "503")]), Turn::None);
    for over in [vec![done(delete())], vec![], vec![noop(status())]] {
        assert_eq!(start().passed(&key(), &over), Turn::Over, "{over:?}");
        assert_eq!(start().handled(&key(), &over), Turn::Over, "{over:?}");
    }
    let gone = came_to(delete(), Err(WriteError::Gone));
    assert_eq!(start().passed(&key(), &[gone]), Turn::Over);
    // A question that is denied is answered, but nothing has succeeded.
    let asked = |verdict| {
        let action = delete().action.dry_run("q");
        came_to(write(action), Ok(Done { dry_run: Some(verdict), ..Done::default() }))
    };
    let denied = Verdict::DisruptionBudget("no".to_owned());
    assert_eq!(start().passed(&key(), &[asked(denied)]), Turn::None);
    let accepted = Verdict::Accepted(std::sync::Arc::default());
    assert_eq!(start().passed(&key(), &[asked(accepted)]), Turn::Over);
    let forgotten = start();
    forgotten.forget(&key());
    assert_eq!(forgotten.passed(&key(), &[]), Turn::None);
}
