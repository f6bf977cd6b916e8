//! The patch that gives containers of a live pod other amounts of cpu and memory.

use crate::key::ResourceVersion;
use crate::plan::{Action, Fields, Part, Patch};
use crate::projection::Projection;
use crate::workloads::amounts::Amounts;
use crate::workloads::pod::PodView;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The patch of `pods/resize` for one UID, and one version where it is given. Containers are merged by their names and
/// amounts by theirs, so that whatever is not named stays: other containers, other resources, and requests or limits that
/// are not stated. A container that the pod has not is left out.
pub fn patch<'a>(
    pod: &PodView,
    amounts: impl IntoIterator<Item = (&'a Arc<str>, &'a Amounts)>,
    resource_version: Option<ResourceVersion>,
) -> Action {
    let mut spec: Map<String, Value> = Map::new();
    for (name, amounts) in amounts {
        let Some(container) = pod.container(name) else { continue };
        let changed = json!({"name": name, "resources": amounts.to_json()});
        match spec.entry(container.role.list()).or_insert_with(|| json!([])) {
            Value::Array(list) => list.push(changed),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {}
        }
    }
    let fields = if spec.is_empty() { json!({}) } else { json!({"spec": spec}) };
    let uid = pod.meta().uid.clone();
    Action::Patch { part: Part::Resize, patch: Patch::Strategic(Fields { uid, resource_version, fields }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workloads::amounts::Pair;

    fn pod() -> PodView {
        let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": "rs", "controller": true});
        serde_json::from_value(json!({
            "metadata": {"name": "web-1", "namespace": "ns", "uid": "u", "ownerReferences": [owner]},
            "spec": {
                "containers": [{"name": "app"}, {"name": "log"}],
                "initContainers": [{"name": "setup"}, {"name": "proxy", "restartPolicy": "Always"}],
            },
        }))
        .unwrap()
    }

    fn fields(action: Action) -> (Option<ResourceVersion>, Value) {
        let Action::Patch { part: Part::Resize, patch: Patch::Strategic(fields) } = action else {
            panic!("{action:?}")
        };
        assert_eq!(&*fields.uid.0, "u");
        (fields.resource_version, fields.fields)
    }

    #[test]
    fn containers_are_named_where_they_stand_and_nothing_else_is() {
        let cpu = |cpu| Pair { cpu: Some(cpu), memory: None };
        let app = Amounts { requests: cpu(1500), ..Amounts::default() };
        let proxy = Amounts { limits: cpu(100), ..Amounts::default() };
        let names = ["app", "gone", "proxy"].map(Arc::<str>::from);
        let amounts = [(&names[0], &app), (&names[1], &app), (&names[2], &proxy)];
        let (version, fields) = fields(patch(&pod(), amounts, Some(ResourceVersion(7))));
        let spec = json!({
            "containers": [{"name": "app", "resources": {"requests": {"cpu": "1500m"}}}],
            "initContainers": [{"name": "proxy", "resources": {"limits": {"cpu": "100m"}}}],
        });
        assert_eq!((version, fields), (Some(ResourceVersion(7)), json!({"spec": spec})));
    }

    #[test]
    fn what_names_no_container_changes_nothing() {
        let name = Arc::from("gone");
        let action = patch(&pod(), [(&name, &Amounts::default())], None);
        assert!(action.is_noop());
        assert_eq!(fields(action), (None, json!({})));
    }
}
