//! Labels by which a workload knows its pods. One that is changed under it is one pod less to its controller, which makes
//! another in its place, and knows nothing of the first any more.

use crate::message::quoting;
use crate::observed::Observed;
use crate::target::Target;
use crate::wish::Wish;
use springtide_crds::in_place_upgrade::SourceType;
use springtide_plumbing::label_selector::LabelSelector;
use springtide_plumbing::projection::Projection;
use springtide_plumbing::traffic::Lever;
use springtide_plumbing::workloads::content::POD_TEMPLATE_HASH;
use springtide_plumbing::workloads::names::UPGRADE_TRAFFIC;
use springtide_plumbing::workloads::template::Template;

/// Which field of the spec would have the workload lose its pods; `None` where none does.
pub(super) fn loses_pods(observed: &Observed, target: &Target) -> Option<String> {
    let spec = &observed.upgrade.spec;
    // One that cannot be read is none of an API server's.
    let selector: LabelSelector = serde_json::from_value(target.selector().clone()).unwrap_or_default();
    let wished = Wish::of(spec, target.template());
    let hash = match target {
        // Templates are read without it; one that its Deployment has left behind selects by it.
        Target::ReplicaSet(set) => set.meta().labels.pod_template_hash.as_deref(),
        Target::Deployment { .. } | Target::StatefulSet { .. } | Target::DaemonSet { .. } => None,
    };
    let selects = |template: &Template, serving: Option<&'static str>| {
        selector.selects(|key| match key {
            POD_TEMPLATE_HASH => hash,
            key if key == UPGRADE_TRAFFIC.label && serving.is_some() => serving,
            key => template.content.labels.get(key).map(AsRef::as_ref),
        })
    };
    let (own, wished) = (target.template(), &wished.template);
    let inline = match spec.source.type_ {
        SourceType::Inline => spec.source.inline.as_ref().and_then(|inline| inline.metadata.as_ref()),
        SourceType::Template => None,
    };
    let has_inline_labels = inline.is_some_and(|metadata| !metadata.labels.is_empty());
    if has_inline_labels && selects(own, None) && !selects(wished, None) {
        let remedy = ": with these labels its selector does not select its pods any more; take them out";
        let before = "spec.source.inline.metadata.labels of ";
        return Some(quoting(before, &observed.upgrade.target_text(), remedy));
    }
    if selects(own, Some("true")) == selects(own, Some("false")) {
        return None;
    }
    let by_label = observed
        .pods
        .iter()
        .any(|pod| pod.is_live() && pod.signals.lever(spec.traffic.mode) == Ok(Some(Lever::ServiceLabel)));
    by_label.then(|| {
        let before = "spec.traffic.mode: the selector of ";
        let after = format!(
            " has label {}, so that a pod without traffic would be replaced: leave it out of the selector, or use mode \
             ReadinessGate or None",
            UPGRADE_TRAFFIC.label
        );
        quoting(before, &observed.upgrade.target_text(), &after)
    })
}
