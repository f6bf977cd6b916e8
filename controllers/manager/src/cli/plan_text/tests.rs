use super::*;
use crate::cli::API_VERSION;

fn write(verb: &str, name: &str, job: &str, grace_seconds: Option<u32>) -> PlannedWrite {
    PlannedWrite {
        verb: verb.into(),
        kind: "Pod".into(),
        namespace: "team-a".into(),
        name: name.into(),
        subresource: String::new(),
        job: job.into(),
        requests: BTreeMap::new(),
        grace_seconds,
    }
}

fn answer() -> Answer {
    Answer {
        api_version: API_VERSION,
        kind: "WritePlan",
        time: jiff::Timestamp::UNIX_EPOCH,
        objects: vec![
            Applied {
                kind: "BatchQueue".into(),
                namespace: "team-a".into(),
                name: "reports".into(),
                is_new: false,
                is_checked: true,
                unchecked_because: String::new(),
            },
            Applied {
                kind: "BatchJob".into(),
                namespace: "team-a".into(),
                name: "etl".into(),
                is_new: true,
                is_checked: false,
                unchecked_because: "patch is forbidden".into(),
            },
        ],
        writes: vec![
            write("delete", "old-0-0", "old", Some(30)),
            PlannedWrite { kind: "BatchTaskProfile".into(), ..write("create", "etl-daily", "", None) },
            PlannedWrite {
                requests: [("cpu", "500m"), ("memory", "64Mi")].map(|(a, b)| (a.into(), b.into())).into(),
                ..write("create", "etl-0-0", "etl", None)
            },
            write("create", "etl-1-0", "etl", None),
        ],
        spared: vec![write("create", "other-0-0", "other", None)],
        jobs: Vec::new(),
        is_cut: false,
        sees_nodes: false,
        not_seen: Vec::new(),
    }
}

#[test]
fn writes_are_told_in_their_order() {
    let expected = "\
BatchQueue team-a/reports would be changed; the API server has tried it and accepts it
BatchJob team-a/etl would be created; NOT checked by the API server, its rules may refuse it: patch is forbidden

The manager would write now (4 writes):
  delete pod team-a/old-0-0 (bj/old), grace 30 s
  create batchtaskprofile team-a/etl-daily
  create pod team-a/etl-0-0 (bj/etl), cpu 500m, memory 64Mi
  create pod team-a/etl-1-0 (bj/etl)
and the statuses of the jobs, queues and profiles that these concern.
It would no longer write, though due now:
  create pod team-a/other-0-0 (bj/other)
What fits on the nodes is not known: these are the most pods that could be created at first.
";
    assert_eq!(text(&answer()), expected);
}

#[test]
fn many_alike_are_counted() {
    let pods = (0..25).map(|index| write("create", &format!("etl-{index}-0"), "etl", None)).collect();
    let said = text(&Answer { writes: pods, ..answer() });
    assert!(said.contains("(25 writes)") && said.contains("  create 5 pods more like these\n"), "{said}");
    let nothing = text(&Answer { writes: Vec::new(), spared: Vec::new(), sees_nodes: true, ..answer() });
    assert!(nothing.ends_with("\nThe manager would write nothing for it now.\n"), "{nothing}");
}

#[test]
fn the_json_has_the_documented_fields() {
    let json = serde_json::to_value(answer()).unwrap();
    let page = include_str!("../../../../../docs/cli.md");
    let writes = json["writes"].as_array().unwrap().iter();
    let written = writes.flat_map(|write| write.as_object().unwrap().keys());
    let applied = json["objects"][0].as_object().unwrap().keys();
    for field in json.as_object().unwrap().keys().chain(written).chain(applied) {
        assert!(page.contains(&format!("`{field}`")), "docs/cli.md says nothing of {field}");
    }
}
