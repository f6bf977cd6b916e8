//! Every version of every EndpointSlice of a namespace: which pods a Service had at which time.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;

use super::pods::{Change, version};
use crate::oracle::feed::{Feed, Fold};

/// A watch on the EndpointSlices of one namespace.
pub type SliceFeed = Feed<Slices>;

/// Label of a slice: the Service that it is of.
const SERVICE: &str = "kubernetes.io/service-name";

/// A version of a slice.
#[derive(Clone, Debug)]
struct Version {
    at: u64,
    service: String,
    ready: BTreeSet<String>,
}

/// All versions seen so far.
#[derive(Debug, Default)]
pub struct Slices {
    lists: usize,
    /// By the name of the slice, in their order.
    versions: BTreeMap<String, Vec<Version>>,
}

impl Slices {
    /// UIDs of the pods that a Service has as ready now.
    #[must_use]
    pub fn ready(&self, service: &str) -> BTreeSet<String> {
        let newest = self.versions.values().filter_map(|versions| versions.last());
        newest.filter(|newest| newest.service == service).flat_map(|newest| newest.ready.clone()).collect()
    }

    /// Services, of these, that had a pod as ready when its image was changed.
    #[must_use]
    pub fn listing<'a>(&self, change: &Change, services: &[&'a str]) -> Vec<&'a str> {
        let newest =
            |versions: &Vec<Version>| versions.iter().rposition(|version| version.at < change.version);
        let lists = |service: &str| {
            let then = self.versions.values().filter_map(|versions| versions.get(newest(versions)?));
            then.filter(|then| then.service == service).any(|then| then.ready.contains(&change.uid))
        };
        services.iter().copied().filter(|service| lists(service)).collect()
    }

    /// How often the watch had to begin anew: versions in between were not seen.
    #[must_use]
    pub fn gaps(&self) -> usize {
        self.lists.saturating_sub(1)
    }
}

impl Fold for Slices {
    type Object = EndpointSlice;

    fn apply(&mut self, slice: EndpointSlice) {
        let is_ready = |ready: Option<bool>| ready.unwrap_or(true);
        let endpoints = slice.endpoints.iter().flatten();
        let ready = endpoints
            .filter(|endpoint| is_ready(endpoint.conditions.as_ref().and_then(|conditions| conditions.ready)))
            .filter_map(|endpoint| endpoint.target_ref.as_ref()?.uid.clone());
        let version = Version {
            at: version(&slice),
            service: slice.labels().get(SERVICE).cloned().unwrap_or_default(),
            ready: ready.collect(),
        };
        self.versions.entry(slice.name_any()).or_default().push(version);
    }

    fn delete(&mut self, slice: &EndpointSlice) {
        let gone = Version { at: version(slice), service: String::new(), ready: BTreeSet::new() };
        self.versions.entry(slice.name_any()).or_default().push(gone);
    }

    fn relisted(&mut self, _: &[EndpointSlice]) {
        self.lists += 1;
    }

    fn describe(&self) -> String {
        let newest = self.versions.iter().filter_map(|(name, versions)| Some((name, versions.last()?)));
        newest.map(|(name, newest)| format!("{name}: {newest:?}\n")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn slice(at: &str, ready: &[(&str, bool)]) -> EndpointSlice {
        let endpoint = |(uid, ready): &(&str, bool)| {
            json!({
                "addresses": ["10.0.0.1"], "conditions": {"ready": ready},
                "targetRef": {"kind": "Pod", "uid": uid},
            })
        };
        serde_json::from_value(json!({
            "metadata": {"name": "web-abc", "resourceVersion": at, "labels": {SERVICE: "web"}},
            "addressType": "IPv4",
            "endpoints": ready.iter().map(endpoint).collect::<Vec<_>>(),
        }))
        .unwrap()
    }

    #[test]
    fn what_a_service_had_at_a_time_is_told_by_versions() {
        let mut slices = Slices::default();
        slices.relisted(&[]);
        slices.apply(slice("10", &[("a", true), ("b", true)]));
        slices.apply(slice("100", &[("a", false), ("b", true)]));
        let change = |version| Change { pod: "web-a".into(), uid: "a".into(), version };
        assert_eq!(slices.listing(&change(99), &["web", "other"]), ["web"]);
        assert_eq!(slices.listing(&change(101), &["web"]), [""; 0]);
        assert_eq!(slices.ready("web"), BTreeSet::from(["b".to_owned()]));
        slices.delete(&slice("200", &[]));
        assert_eq!((slices.ready("web").len(), slices.gaps()), (0, 0));
    }
}
