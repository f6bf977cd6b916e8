use super::*;
use crate::census::tests::member;
use crate::fixtures::{at, overlay, pod, template};
use crate::verdict::Verdict;
use serde_json::{Value, json};
use springtide_crds::in_place_upgrade::{InPlaceUpgradeSpec, TargetKind};

/// A run on pods of several nodes, and what is known of images and pullers.
struct Run {
    spec: PrePullSpec,
    members: Vec<Member>,
    images: Vec<Vec<Arc<str>>>,
    on_nodes: Vec<&'static str>,
    pullers: Vec<Arc<PodView>>,
    room: usize,
}

impl Run {
    fn new(nodes: &[&str]) -> Self {
        let members: Vec<Member> = nodes
            .iter()
            .enumerate()
            .map(|(number, node)| {
                let name = format!("web-{number}");
                let mut member = member(&name, Verdict::InPlace, PodState::Old);
                member.pod = pod(&name, json!({"spec": {"nodeName": node}}));
                member
            })
            .collect();
        let images = members.iter().map(|_| vec![Arc::from("app:2")]).collect();
        let room = members.len();
        Self {
            spec: PrePullSpec::default(),
            members,
            images,
            on_nodes: Vec::new(),
            pullers: Vec::new(),
            room,
        }
    }

    fn wish() -> Wish {
        Wish::of(&InPlaceUpgradeSpec::new(TargetKind::Deployment, "web"), &template("app:2", json!({})))
    }

    fn puller(&mut self, node: &str, status: Value) {
        let name = name(&Self::wish(), &[Arc::from("app:2")], node);
        let owner = json!([{"apiVersion": "x", "kind": "InPlaceUpgrade", "name": "web", "uid": "ipu", "controller": true}]);
        let mut over = json!({
            "metadata": {"ownerReferences": owner, "creationTimestamp": at(0).to_string()},
            "spec": {"nodeName": node},
            "status": {"phase": "Pending", "containerStatuses": []},
        });
        overlay(&mut over, json!({"status": status}));
        self.pullers.push(pod(&name, over));
    }

    fn plan(&self, now: i64) -> PrePull {
        let wish = Self::wish();
        let images: Vec<&[Arc<str>]> = self.images.iter().map(Vec::as_slice).collect();
        let namespace = Arc::from("ns");
        let uid = Uid("ipu".into());
        let recipe = Recipe {
            namespace: &namespace,
            owner: "web",
            uid: &uid,
            mode: self.spec.mode,
            template: &wish.template,
            tools_image: "springtide:1",
        };
        let input = PrePullInput {
            spec: &self.spec,
            sees_nodes: true,
            goal: &wish,
            members: &self.members,
            images: &images,
            has_images: &|node, _| self.on_nodes.contains(&node),
            pullers: &self.pullers,
            room: self.room,
            recipe: &recipe,
        };
        pre_pull(&input, at(now))
    }
}

fn made(plan: &PrePull) -> Vec<&Value> {
    let writes = plan.steps.iter().flat_map(Step::writes);
    writes
        .filter_map(|write| match &write.action {
            Action::Create { manifest } => Some(manifest),
            Action::Delete { .. }
            | Action::Patch { .. }
            | Action::Apply { .. }
            | Action::Evict { .. }
            | Action::Status { .. }
            | Action::DryRun { .. } => None,
        })
        .collect()
}

fn node_of(manifest: &Value) -> &str {
    manifest
        .pointer("/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0/matchFields/0/values/0")
        .and_then(Value::as_str)
        .unwrap()
}

#[test]
fn a_node_that_lacks_the_image_gets_one_puller_and_its_pods_wait() {
    let mut run = Run::new(&["n1", "n1", "n2"]);
    run.on_nodes.push("n2");
    let plan = run.plan(0);
    assert_eq!(made(&plan).into_iter().map(node_of).collect::<Vec<_>>(), ["n1"]);
    assert_eq!((plan.counts.unwrap().nodes, plan.counts.unwrap().ready), (2, 1));
    assert_eq!(plan.reason, PrePulledReason::InProgress);
    let ready: Vec<_> = run.members.iter().map(|member| plan.has_images(member)).collect();
    assert_eq!(ready, [false, false, true]);
    run.puller("n1", json!({}));
    let waiting = run.plan(10);
    assert_eq!((waiting.steps.len(), waiting.wake), (0, Some(at(600))));
    run.pullers.clear();
    run.puller("n1", json!({"phase": "Running"}));
    let done = run.plan(20);
    assert_eq!((done.reason, done.steps.len()), (PrePulledReason::AllNodes, 0));
    assert!(run.members.iter().all(|member| done.has_images(member)));
}

#[test]
fn only_the_pods_that_the_step_has_room_for_are_pulled_for_unless_all_are_asked_for() {
    let mut run = Run::new(&["n1", "n2", "n3"]);
    run.room = 1;
    assert_eq!(made(&run.plan(0)).len(), 1);
    run.spec.scope = PrePullScope::All;
    assert_eq!(made(&run.plan(0)).len(), 3);
    run.spec.parallelism = 2;
    assert_eq!(made(&run.plan(0)).len(), 2);
}

#[test]
fn what_goes_wrong_is_told_apart_and_stops_nothing_else() {
    let of = |status: Value, now: i64| {
        let mut run = Run::new(&["n1"]);
        run.puller("n1", status);
        run.plan(now)
    };
    let waiting = |message: &str| {
        json!({"containerStatuses": [
            {"name": "app", "state": {"waiting": {"reason": "ImagePullBackOff", "message": message}}},
        ]})
    };
    let missing = of(waiting("reg.example/app:2: not found"), 1);
    assert_eq!((missing.reason, missing.counts.unwrap().failed), (PrePulledReason::ImageNotFound, 1));
    assert!(missing.has_failed() && missing.message.contains("n1"));
    assert_eq!(
        of(waiting("pull access denied, repository does not exist"), 1).reason,
        PrePulledReason::PullDenied
    );
    assert_eq!(of(waiting("no match for platform in manifest"), 1).reason, PrePulledReason::ImageNotFound);
    let slow = of(waiting("connection refused"), 1);
    assert_eq!(slow.reason, PrePulledReason::InProgress, "a registry may come back");
    assert_eq!(of(waiting("connection refused"), 600).reason, PrePulledReason::TimedOut);
}

#[test]
fn a_puller_that_nobody_needs_any_more_goes() {
    let mut run = Run::new(&["n1"]);
    run.puller("n1", json!({"phase": "Running"}));
    run.members[0].stand.state = PodState::Updated;
    let plan = run.plan(0);
    assert_eq!((plan.steps.len(), plan.reason), (1, PrePulledReason::NotNeeded));
    let write = &plan.steps[0].writes()[0];
    assert_eq!((write.action.verb(), write.action.uid()), ("delete", Some(&*run.pullers[0].meta().uid.0)));
    run.spec.mode = PrePullMode::None;
    assert_eq!(run.plan(0).steps.len(), 1);
}

#[test]
fn a_puller_is_restricted_pinned_and_bears_the_secrets_of_the_workload() {
    let secrets = json!({"spec": {"imagePullSecrets": [{"name": "reg"}], "serviceAccountName": "web"}});
    let template = template("app:2", secrets);
    let namespace = Arc::from("ns");
    let uid = Uid("ipu".into());
    let recipe = |mode| Recipe {
        namespace: &namespace,
        owner: "web",
        uid: &uid,
        mode,
        template: &template,
        tools_image: "springtide:1",
    };
    let images = [Arc::from("app:2"), Arc::from("b:1")];
    let volumes = manifest(&recipe(PrePullMode::Auto), "ipu-pull-a", "n1", &images);
    let spec = &volumes["spec"];
    assert_eq!(
        (&spec["imagePullSecrets"], &spec["serviceAccountName"]),
        (&json!([{"name": "reg"}]), &json!("web"))
    );
    assert_eq!(spec["automountServiceAccountToken"], false);
    assert_eq!(spec["tolerations"], json!([{"operator": "Exists"}]));
    assert_eq!(spec["volumes"][1]["image"]["reference"], "b:1");
    assert!(spec["containers"][0].get("resources").is_none(), "it takes no room");
    let inits = manifest(&recipe(PrePullMode::InitContainer), "ipu-pull-a", "n1", &images);
    let names: Vec<_> =
        inits["spec"]["initContainers"].as_array().unwrap().iter().map(|c| &c["image"]).collect();
    assert_eq!(names, ["springtide:1", "app:2", "b:1"]);
    for manifest in [volumes, inits] {
        let containers =
            ["initContainers", "containers"].into_iter().filter_map(|list| manifest["spec"][list].as_array());
        for container in containers.flatten() {
            assert_eq!(container["securityContext"]["allowPrivilegeEscalation"], false, "{container}");
        }
        assert_eq!(manifest["spec"]["securityContext"]["runAsNonRoot"], true);
    }
}
