//! The recorder of events.

use crate::wire::{Wire, answer};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

#[tokio::test]
async fn each_publish_is_a_call_and_bears_the_first_note() {
    let (wire, client) = Wire::new(|sent| answer(200, sent.body.clone()));
    let recorder = Recorder::new(client, Reporter::from("probe".to_owned()));
    let regarding = ObjectReference {
        namespace: Some("ns".to_owned()),
        name: Some("job".to_owned()),
        ..ObjectReference::default()
    };
    for node in 1..=20 {
        let event = Event {
            type_: EventType::Warning,
            reason: "DoesNotFit".to_owned(),
            note: Some(format!("node {node} is full")),
            action: "Admit".to_owned(),
            secondary: None,
        };
        recorder.publish(&event, &regarding).await.unwrap();
    }
    let methods = wire.methods();
    assert_eq!(methods[0], "POST");
    assert_eq!(methods[1..], vec!["PATCH"; 19], "the recorder gathers a series now");
    for sent in wire.all() {
        assert_eq!(sent.body["note"], "node 1 is full", "a new note goes out now");
    }
}
