use super::*;
use crate::key::Resource;
use crate::projection::{Meta, NoLabels};
use crate::watch::{STALE_AFTER, Scope};
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;

#[derive(Clone, Debug, Deserialize, PartialEq)]
struct Pod {
    metadata: Meta,
    #[serde(default)]
    node: Option<Arc<str>>,
}

impl Projection for Pod {
    const RESOURCE: Resource = Resource::POD;
    type Labels = NoLabels;

    fn meta(&self) -> &Meta {
        &self.metadata
    }
}

const BY_NODE: Index<Pod> = Index::new("node", |pod| pod.node.as_ref().map(IndexKey::from));
const BY_OWNER: Index<Pod> =
    Index::new("owner", |pod| pod.metadata.controller.as_ref().map(|owner| IndexKey::from(&owner.uid)));

fn pod(namespace: &str, name: &str, version: u32, node: Option<&str>) -> Pod {
    serde_json::from_value(json!({
        "metadata": {
            "namespace": namespace, "name": name, "uid": format!("{namespace}-{name}"),
            "resourceVersion": version.to_string(),
            "ownerReferences": [{"kind": "Job", "name": "j", "uid": "job", "controller": true}],
        },
        "node": node,
    }))
    .unwrap()
}

fn names(pods: &[Arc<Pod>]) -> Vec<String> {
    pods.iter().map(|pod| pod.metadata.key.to_string()).collect()
}

#[test]
fn an_index_follows_its_objects_and_answers_in_key_order() {
    let (store, mut writer) = Store::new(&[BY_NODE, BY_OWNER]);
    let on = |node: &str| names(&store.by_index(&BY_NODE, &IndexKey::from(node)));
    for (number, name) in ["c", "a", "d", "b"].into_iter().enumerate() {
        writer.apply(pod("ns", name, number as u32, None));
    }
    assert_eq!(names(&store.by_index(&BY_OWNER, &IndexKey::from("job"))), ["ns/a", "ns/b", "ns/c", "ns/d"]);
    assert_eq!(on("n1"), Vec::<String>::new());

    writer.apply(pod("ns", "c", 10, Some("n1")));
    writer.apply(pod("ns", "a", 11, Some("n1")));
    writer.apply(pod("ns", "b", 12, Some("n2")));
    assert_eq!(on("n1"), ["ns/a", "ns/c"]);
    assert_eq!(on("n2"), ["ns/b"]);

    writer.apply(pod("ns", "a", 13, Some("n2")));
    writer.apply(pod("ns", "c", 14, None));
    assert_eq!(on("n1"), Vec::<String>::new());
    assert_eq!(on("n2"), ["ns/a", "ns/b"]);
    writer.delete(pod("ns", "a", 15, None));
    assert_eq!(on("n2"), ["ns/b"]);
    assert_eq!(store.by_index(&BY_OWNER, &IndexKey::from("job")).len(), 3);
    // The same bucket must hold the present version.
    writer.apply(pod("ns", "b", 16, Some("n2")));
    assert_eq!(store.by_index(&BY_NODE, &IndexKey::from("n2"))[0].metadata.resource_version.0, 16);
}

#[test]
fn an_object_is_found_by_each_of_its_keys_and_by_no_earlier_one() {
    const BY_PLACE: Index<Pod> = Index::many("place", |pod| {
        pod.node.iter().flat_map(|places| places.split(' ')).map(IndexKey::from).collect()
    });
    let (store, mut writer) = Store::new(&[BY_PLACE]);
    let at = |place: &str| names(&store.by_index(&BY_PLACE, &IndexKey::from(place)));
    writer.apply(pod("ns", "b", 1, Some("x y x")));
    writer.apply(pod("ns", "a", 2, Some("y")));
    assert_eq!((at("x"), at("y")), (vec!["ns/b".to_owned()], vec!["ns/a".to_owned(), "ns/b".to_owned()]));
    writer.apply(pod("ns", "b", 3, Some("y z")));
    assert_eq!((at("x").len(), at("y").len(), at("z").len()), (0, 2, 1));
    assert_eq!(store.by_index(&BY_PLACE, &IndexKey::from("y"))[1].metadata.resource_version.0, 3);
    writer.delete(pod("ns", "b", 4, None));
    assert_eq!((at("x").len(), at("y").len(), at("z").len()), (0, 1, 0));
}

#[test]
fn bytes_follow_the_objects() {
    let (store, mut writer) = Store::<Pod>::new(&[BY_OWNER]);
    let long = "n".repeat(100);
    writer.apply(pod("ns", "a", 1, None));
    let one = store.bytes();
    assert!(one > size_of::<Pod>());
    writer.apply(pod("ns", "a", 2, None));
    assert_eq!(store.bytes(), one, "the same object");
    writer.apply(pod("ns", &long, 3, None));
    // Its name, and its UID, which is made of it.
    assert_eq!(store.bytes(), 2 * one + 2 * 99);
    writer.delete(pod("ns", "a", 4, None));
    assert_eq!(store.bytes(), one + 2 * 99);
    writer.replace(BTreeMap::new(), ResourceVersion(5));
    assert_eq!(store.bytes(), 0);
}

#[test]
fn a_namespace_is_listed_without_its_neighbours() {
    let (store, mut writer) = Store::new(&[]);
    for (version, namespace) in ["a", "a-b", "b", "", "a"].into_iter().enumerate() {
        writer.apply(pod(namespace, &format!("p{version}"), version as u32, None));
    }
    assert_eq!(names(&store.list(Some("a"))), ["a/p0", "a/p4"]);
    assert_eq!(names(&store.list(Some("c"))), Vec::<String>::new());
    assert_eq!(store.list(None).len(), 5);
}

#[test]
#[should_panic(expected = "the store of pods has no index `node`")]
fn an_index_the_store_was_not_made_with_is_no_empty_answer() {
    let (store, _writer) = Store::new(&[BY_OWNER]);
    store.by_index(&BY_NODE, &IndexKey::from("n1"));
}

#[test]
fn another_uid_under_the_same_name_is_another_object() {
    let (store, mut writer) = Store::new(&[BY_OWNER]);
    writer.apply(pod("ns", "a", 1, None));
    let log = Arc::new(Mutex::new(Vec::new()));
    let lines = Arc::clone(&log);
    store.on_change(Arc::new(move |change| {
        let (kind, had) = match change {
            Change::Apply { old, .. } => ("apply", old.is_some()),
            Change::Delete { .. } => ("delete", true),
        };
        lock(&lines).push((kind, had, change.object().metadata.uid.to_string()));
    }));
    let mut second = pod("ns", "a", 5, None);
    second.metadata.uid = crate::key::Uid("second".into());
    writer.apply(second);
    let expected = [("apply", false, "ns-a"), ("delete", true, "ns-a"), ("apply", false, "second")];
    assert_eq!(*lock(&log), expected.map(|(kind, had, uid)| (kind, had, uid.to_owned())));
    assert_eq!(store.by_index(&BY_OWNER, &IndexKey::from("job")).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_stale_time_is_told_once_whatever_frame_ends_it() {
    let (store, mut writer) = Store::<Pod>::new(&[]);
    let told = Arc::new(Mutex::new(Vec::new()));
    let (log, reader) = (Arc::clone(&told), store.clone());
    store.on_fresh(Arc::new(move || log.lock().unwrap().push((reader.last_rv().0, reader.is_stale()))));
    let told = || std::mem::take(&mut *told.lock().unwrap());
    writer.replace(BTreeMap::new(), ResourceVersion(5));
    tokio::time::sleep(STALE_AFTER - Duration::from_secs(1)).await;
    writer.advance(ResourceVersion(6));
    assert_eq!(told(), [], "it never was");
    tokio::time::sleep(STALE_AFTER).await;
    writer.advance(ResourceVersion(6));
    writer.advance(ResourceVersion(7));
    assert_eq!(told(), [(6, false)], "though the version is the same");
    tokio::time::sleep(STALE_AFTER).await;
    writer.apply(pod("ns", "a", 8, None));
    assert_eq!(told(), [(8, false)]);
}

/// A store of the namespaces `a` and `b`, and the writers of both.
fn of_two() -> (Store<Pod>, StoreWriter<Pod>, StoreWriter<Pod>) {
    let (store, writers) = Store::within(&Scope::of(["b", "a"]), &[BY_NODE]);
    let [a, b] = <[_; 2]>::try_from(writers).unwrap();
    (store, a, b)
}

fn listed(pods: &[Pod]) -> BTreeMap<ObjectKey, Arc<Pod>> {
    pods.iter().map(|pod| (pod.metadata.key.clone(), Arc::new(pod.clone()))).collect()
}

#[test]
fn a_list_of_one_namespace_takes_nothing_from_another() {
    let (store, mut a, mut b) = of_two();
    assert_eq!([a.part(), b.part()].map(|part| part.namespace().unwrap().to_string()), ["a", "b"]);
    a.replace(listed(&[pod("a", "p", 1, None), pod("a", "q", 2, Some("n1"))]), ResourceVersion(2));
    b.replace(listed(&[pod("b", "p", 3, Some("n1"))]), ResourceVersion(9));
    assert_eq!(names(&store.list(None)), ["a/p", "a/q", "b/p"]);
    let log = Arc::new(Mutex::new(Vec::new()));
    let lines = Arc::clone(&log);
    store.on_change(Arc::new(move |change| {
        let Change::Delete { last } = change else { return };
        lock(&lines).push(last.metadata.key.to_string());
    }));
    // What was missed in one namespace is gone in that one.
    a.replace(listed(&[pod("a", "p", 1, None)]), ResourceVersion(5));
    assert_eq!(names(&store.list(None)), ["a/p", "b/p"]);
    assert_eq!(*lock(&log), ["a/q"]);
    b.replace(BTreeMap::new(), ResourceVersion(12));
    assert_eq!(names(&store.list(None)), ["a/p"]);
    assert_eq!(store.by_index(&BY_NODE, &IndexKey::from("n1")), []);
}

#[test]
fn each_namespace_has_a_version_of_its_own() {
    let (store, mut a, mut b) = of_two();
    let log = Arc::new(Mutex::new(Vec::new()));
    let lines = Arc::clone(&log);
    store.on_advance(Arc::new(move |part| {
        lock(&lines).push((part.namespace().unwrap().to_string(), part.last_rv().0));
    }));
    a.replace(BTreeMap::new(), ResourceVersion(5));
    b.replace(BTreeMap::new(), ResourceVersion(5));
    b.advance(ResourceVersion(40));
    // Older than what the other has seen, and news all the same.
    a.apply(pod("a", "p", 7, None));
    assert_eq!(*lock(&log), [("a", 5), ("b", 5), ("b", 40), ("a", 7)].map(|(n, rv)| (n.to_owned(), rv)));
    let at = |namespace| store.part_of(namespace).map(|part| part.last_rv().0);
    assert_eq!((at("a"), at("b"), at("c"), at("")), (Some(7), Some(40), None, None));
    assert_eq!(store.last_rv(), ResourceVersion(7), "what all have reached");
}

#[tokio::test(start_paused = true)]
async fn a_namespace_without_news_is_stale_and_the_others_are_not() {
    let (store, mut a, mut b) = of_two();
    a.replace(BTreeMap::new(), ResourceVersion(1));
    b.replace(BTreeMap::new(), ResourceVersion(1));
    tokio::time::sleep(STALE_AFTER).await;
    b.advance(ResourceVersion(2));
    let stale = |namespace| store.part_of(namespace).unwrap().is_stale();
    assert_eq!((stale("a"), stale("b"), store.is_stale()), (true, false, true));
    a.advance(ResourceVersion(1));
    assert!(!store.is_stale());
}

#[test]
fn one_namespace_that_is_forbidden_holds_nobody_up_and_stays_known() {
    let (store, mut a, mut b) = of_two();
    assert!(b.set_trouble(Trouble::Forbidden), "that is news");
    assert!(!b.set_trouble(Trouble::Forbidden), "that is none");
    assert!(!store.is_synced(), "the other one is waited for");
    a.replace(BTreeMap::new(), ResourceVersion(1));
    assert!(store.is_synced());
    assert_eq!(store.part_of("b").unwrap().trouble(), Some(Trouble::Forbidden));
    // Allowed at last: a first list like any other.
    let initial = Arc::new(Mutex::new(Vec::new()));
    let lines = Arc::clone(&initial);
    store.on_change(Arc::new(move |change| {
        let Change::Apply { initial, .. } = change else { return };
        lock(&lines).push(*initial);
    }));
    b.replace(listed(&[pod("b", "p", 3, None)]), ResourceVersion(9));
    assert!(store.part_of("b").unwrap().trouble().is_none() && store.is_synced());
    assert_eq!(*lock(&initial), [true]);
    // Forbidden anew: what is known serves on, and grows old.
    b.set_trouble(Trouble::Forbidden);
    assert!(store.is_synced() && store.len() == 1);

    let (store, mut a, mut b) = of_two();
    a.set_trouble(Trouble::Forbidden);
    b.set_trouble(Trouble::Forbidden);
    assert!(!store.is_synced(), "nothing at all may be seen");
    let (store, mut all) = Store::<Pod>::new(&[]);
    all.set_trouble(Trouble::Forbidden);
    assert!(!store.is_synced());
    all.replace(BTreeMap::new(), ResourceVersion(1));
    all.set_trouble(Trouble::NotServed);
    assert!(!store.is_synced());
}

#[test]
fn what_comes_goes_or_gets_another_generation_is_told_from_what_only_has_a_new_status() {
    let (store, mut writer) = Store::new(&[]);
    let at = |name: &str, version: u32, generation: i64| {
        let mut pod = pod("ns", name, version, None);
        pod.metadata.generation = generation;
        pod
    };
    let listed = at("a", 1, 1);
    writer.replace([(listed.metadata.key.clone(), Arc::new(listed))].into(), ResourceVersion::default());
    assert_eq!(
        store.part_of("ns").unwrap().stats().spec_changes(),
        0,
        "what was there before has not changed"
    );
    writer.apply(at("b", 2, 1));
    assert_eq!(store.part_of("ns").unwrap().stats().spec_changes(), 1);
    for version in 3..9 {
        writer.apply(at("b", version, 1));
    }
    assert_eq!(store.part_of("ns").unwrap().stats().spec_changes(), 1, "its status alone");
    writer.apply(at("b", 9, 2));
    assert_eq!(store.part_of("ns").unwrap().stats().spec_changes(), 2);
    writer.delete(at("b", 10, 2));
    assert_eq!(store.part_of("ns").unwrap().stats().spec_changes(), 3);
}
