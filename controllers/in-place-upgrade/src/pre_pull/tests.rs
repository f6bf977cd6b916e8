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
    /// Nodes whose kubelets are too old for image volumes.
    old_nodes: Vec<&'static str>,
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
            old_nodes: Vec::new(),
            pullers: Vec::new(),
            room,
        }
    }

    fn wish() -> Wish {
        Wish::of(&InPlaceUpgradeSpec::new(TargetKind::Deployment, "web"), &template("app:2", json!({})))
    }

    fn puller(&mut self, node: &str, status: Value) {
        let volumes = json!([{"name": "image-0", "image": {"reference": "app:2"}}]);
        self.puller_by(Way::ImageVolume, node, json!({"volumes": volumes}), status);
    }

    fn puller_by_init(&mut self, node: &str, status: Value) {
        let inits = json!([{"name": "copy", "image": "springtide:1"}, {"name": "pull-0", "image": "app:2"}]);
        self.puller_by(Way::InitContainer, node, json!({"initContainers": inits}), status);
    }

    fn puller_by(&mut self, way: Way, node: &str, spec: Value, status: Value) {
        let name = name(&Self::wish(), way, &[Arc::from("app:2")], node);
        let owner = json!([{"apiVersion": "x", "kind": "InPlaceUpgrade", "name": "web", "uid": "ipu", "controller": true}]);
        let mut over = json!({
            "metadata": {"ownerReferences": owner, "creationTimestamp": at(0).to_string()},
            "spec": {"nodeName": node},
            "status": {"phase": "Pending", "containerStatuses": []},
        });
        overlay(&mut over, json!({"spec": spec, "status": status}));
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
            mounts_images: &|node| !self.old_nodes.contains(&node),
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

fn is_by_init(manifest: &Value) -> bool {
    manifest["spec"].get("initContainers").is_some()
}

/// Nodes that get a puller, and whether it has init containers.
fn ways(plan: &PrePull) -> Vec<(&str, bool)> {
    made(plan).into_iter().map(|manifest| (node_of(manifest), is_by_init(manifest))).collect()
}

#[test]
fn where_no_image_can_be_mounted_init_containers_pull() {
    let cannot_be_made = json!({"phase": "Pending", "containerStatuses": [{"name": "app", "state": {
        "waiting": {"reason": "CreateContainerError", "message": "failed to mkdir \"\": no such file or directory"},
    }}]});
    let mut run = Run::new(&["n1"]);
    assert_eq!(ways(&run.plan(0)), [("n1", false)]);
    run.puller("n1", cannot_be_made.clone());
    let fallen_back = run.plan(1);
    assert_eq!(ways(&fallen_back), [("n1", true)]);
    assert_eq!(fallen_back.steps.len(), 1, "what shows that it cannot stays");
    assert_eq!((fallen_back.reason, fallen_back.counts.unwrap().failed), (PrePulledReason::InProgress, 0));
    run.puller_by_init("n1", json!({}));
    let waiting = run.plan(2);
    assert_eq!((waiting.steps.len(), waiting.wake), (0, Some(at(600))));
    // Its kubelet tries again all the while, and what it says differs.
    run.pullers.remove(0);
    assert!(run.plan(3).steps.is_empty(), "what was begun in one way is not begun in the other");
    run.pullers.clear();
    run.puller("n1", cannot_be_made.clone());
    run.puller_by_init("n1", json!({"phase": "Running"}));
    assert_eq!((run.plan(4).reason, run.plan(4).steps.len()), (PrePulledReason::AllNodes, 0));
    run.members[0].stand.state = PodState::Updated;
    assert_eq!(run.plan(5).steps.len(), 2, "both go");

    // Who asks for volumes is told.
    run.members[0].stand.state = PodState::Old;
    run.spec.mode = PrePullMode::ImageVolume;
    run.pullers.pop();
    let told = run.plan(6);
    assert_eq!((told.reason, told.steps.len()), (PrePulledReason::PullerNotScheduled, 0));
    assert!(told.message.contains("n1") && told.message.contains("CreateContainerError"), "{}", told.message);
    run.spec.mode = PrePullMode::InitContainer;
    run.pullers.clear();
    assert_eq!(ways(&run.plan(7)), [("n1", true)]);
}

#[test]
fn a_puller_whose_volumes_were_taken_away_has_pulled_nothing_though_it_runs() {
    let mut run = Run::new(&["n1"]);
    run.puller_by(Way::ImageVolume, "n1", json!({}), json!({"phase": "Running"}));
    let plan = run.plan(0);
    assert_eq!((plan.reason, ways(&plan)), (PrePulledReason::InProgress, vec![("n1", true)]));
    assert!(!plan.has_images(&run.members[0]));
}

#[test]
fn what_one_node_cannot_do_and_what_a_kubelet_is_too_old_for_is_not_tried_elsewhere() {
    let mut run = Run::new(&["n1", "n2", "n3"]);
    run.old_nodes.push("n2");
    assert_eq!(ways(&run.plan(0)), [("n1", false), ("n2", true), ("n3", false)]);
    run.puller_by(Way::ImageVolume, "n1", json!({}), json!({}));
    run.puller("n3", json!({}));
    // What pulls already goes on with it.
    assert_eq!(ways(&run.plan(1)), [("n1", true), ("n2", true)]);
    run.pullers.pop();
    assert_eq!(ways(&run.plan(2)), [("n1", true), ("n2", true), ("n3", true)]);
}

#[test]
fn an_image_that_is_not_there_is_told_in_both_ways_by_its_name() {
    let missing = |name: &str| {
        let waiting = json!({"reason": "ErrImagePull", "message": "reg.example/app:2: not found"});
        json!({"initContainerStatuses": [], "containerStatuses": [{"name": name, "state": {"waiting": waiting}}]})
    };
    let mut by_volumes = Run::new(&["n1"]);
    by_volumes.puller("n1", missing("app"));
    let mut by_init = Run::new(&["n1"]);
    by_init.spec.mode = PrePullMode::InitContainer;
    let mut status = missing("pull-0");
    status["initContainerStatuses"] = status["containerStatuses"].take();
    status["containerStatuses"] = json!([]);
    by_init.puller_by_init("n1", status);
    for run in [by_volumes, by_init] {
        let plan = run.plan(1);
        assert_eq!(plan.reason, PrePulledReason::ImageNotFound);
        assert!(plan.message.contains("app:2") && !plan.message.contains("springtide"), "{}", plan.message);
    }
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
    let recipe = Recipe {
        namespace: &namespace,
        owner: "web",
        uid: &uid,
        template: &template,
        tools_image: "springtide:1",
    };
    let images = [Arc::from("app:2"), Arc::from("b:1")];
    let volumes = manifest(&recipe, Way::ImageVolume, "ipu-pull-a", "n1", &images);
    let spec = &volumes["spec"];
    assert_eq!(
        (&spec["imagePullSecrets"], &spec["serviceAccountName"]),
        (&json!([{"name": "reg"}]), &json!("web"))
    );
    assert_eq!(spec["automountServiceAccountToken"], false);
    assert_eq!(spec["tolerations"], json!([{"operator": "Exists"}]));
    assert_eq!(spec["volumes"][1]["image"]["reference"], "b:1");
    assert!(spec["containers"][0].get("resources").is_none(), "it takes no room");
    let inits = manifest(&recipe, Way::InitContainer, "ipu-pull-a", "n1", &images);
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
