//! What a job's pods request by its profile.

use super::explain;
use super::learned::Learnable;
#[cfg(doc)]
use super::learned::SAMPLES_NEEDED;
use crate::projections::job::Template;
use crate::projections::profile::{ProfileView, Recommended};
use springtide_plumbing::resources::{ContainerRequests, PodSpecRequests, ResourceList};
use crate::shape::Shape;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use springtide_crds::batch_job::{JobProfile, JobProfileStatus, PodTemplate};
use springtide_crds::batch_task_profile::{ProfileMode, RecommendedRequests};
use springtide_plumbing::key::{ObjectKey, Uid};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::quantity::quantity_text;
use std::collections::HashMap;
use std::sync::Arc;

/// Templates that are remembered of one profile: those of jobs with arguments of their own are all different.
const TEMPLATES_MAX: usize = 128;

/// What a job wants of its profile: what it says itself, else what its queue says; nothing without a key.
pub fn wanted(job: &JobProfile, default: ProfileMode) -> ProfileMode {
    job.key.as_ref().map_or(ProfileMode::Off, |_| job.mode.unwrap_or(default))
}

/// What a profile does for a job that wants this: no more than the profile allows.
pub fn mode(wanted: ProfileMode, profile: Option<&ProfileView>) -> ProfileMode {
    profile.map_or(wanted, |profile| wanted.min(profile.spec.max_mode))
}

/// One request that a profile sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetRequest {
    /// The container.
    pub container: Arc<str>,
    /// The resource.
    pub resource: Learnable,
    /// How much, in the units of [`resources`](springtide_plumbing::resources).
    pub amount: i64,
    /// What the template requests, in whose place it stands; `None` where that requests nothing.
    pub replaced: Option<i64>,
    /// Whether more is recommended than the container's limit, which it is held at.
    pub at_limit: bool,
}

/// The requests that a profile sets in one template, and the shape of the pods with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fitted {
    /// The requests; there is one at least.
    pub requests: Vec<SetRequest>,
    /// What decides where the pods fit.
    pub shape: Arc<Shape>,
}

impl Fitted {
    /// Fits what is recommended into a template; `None` where it sets nothing.
    pub fn new(template: &PodTemplate, recommended: &[Recommended], mode: ProfileMode) -> Option<Self> {
        let replaces = match mode {
            ProfileMode::Off | ProfileMode::Observe => return None,
            ProfileMode::Initial => false,
            ProfileMode::Auto => true,
        };
        let spec = template.spec()?;
        let asked = PodSpecRequests::deserialize(Value::Object(spec.clone())).ok()?;
        // Resources of the pod as a whole bound those of its containers, and whoever sets them means the sum.
        if asked.resources.requests.is_some() || asked.resources.limits.is_some() {
            return None;
        }
        let mut requests = Vec::new();
        for container in asked.containers.iter().chain(&asked.init_containers) {
            let row = recommended.iter().find(|row| *row.container == *container.name);
            requests.extend(row.into_iter().flat_map(|row| set(container, row, replaces)));
        }
        if requests.is_empty() {
            return None;
        }
        let mut fitted = template.clone();
        set_requests(fitted.0.get_mut("spec")?.as_object_mut()?, &requests);
        Some(Self { requests, shape: Arc::new(Shape::of_template(&fitted)) })
    }

    /// Writes the requests into a pod spec.
    pub fn apply(&self, spec: &mut Map<String, Value>) {
        set_requests(spec, &self.requests);
    }

    /// The sums over all containers, for the status.
    fn sums(&self) -> RecommendedRequests {
        let sum = |resource: Learnable| {
            let mut amounts =
                self.requests.iter().filter(|set| set.resource == resource).map(|set| set.amount);
            let first = amounts.next()?;
            Some(quantity_text(resource.name(), amounts.fold(first, i64::saturating_add)))
        };
        RecommendedRequests { cpu: sum(Learnable::Cpu), memory: sum(Learnable::Memory) }
    }
}

/// The requests of one container.
fn set<'a>(
    container: &'a ContainerRequests,
    row: &'a Recommended,
    replaces: bool,
) -> impl Iterator<Item = SetRequest> + 'a {
    Learnable::ALL.into_iter().filter_map(move |resource| {
        let held = |list: &Option<ResourceList>| {
            list.as_ref().map(|list| list.get(resource.name())).filter(|amount| *amount > 0)
        };
        let replaced = held(&container.resources.requests);
        if !replaces && replaced.is_some() {
            return None;
        }
        let recommended = row.amount(resource)?;
        let limit = held(&container.resources.limits).filter(|limit| *limit < recommended);
        Some(SetRequest {
            container: Arc::clone(&row.container),
            resource,
            amount: limit.unwrap_or(recommended),
            replaced,
            at_limit: limit.is_some(),
        })
    })
}

fn set_requests(spec: &mut Map<String, Value>, requests: &[SetRequest]) {
    for list in ["containers", "initContainers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        for container in containers.filter_map(Value::as_object_mut) {
            let name = container.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
            for set in requests.iter().filter(|set| *set.container == *name) {
                let requests =
                    member(container, "resources").and_then(|resources| member(resources, "requests"));
                let name = set.resource.name();
                if let Some(requests) = requests {
                    requests.insert(name.to_owned(), json!(quantity_text(name, set.amount)));
                }
            }
        }
    }
}

/// The object under a name; where there is none, or the null of an empty field, there is an empty one then.
fn member<'a>(object: &'a mut Map<String, Value>, name: &str) -> Option<&'a mut Map<String, Value>> {
    let place = object.entry(name).or_insert(Value::Null);
    if place.is_null() {
        *place = Value::Object(Map::new());
    }
    place.as_object_mut()
}

/// What comes of a job's profile now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fitting {
    /// Name of the profile, if it learns from the job's pods.
    pub profile: Option<Arc<str>>,
    /// Within so many seconds 95 of 100 runs end; absent while fewer than [`SAMPLES_NEEDED`] runs were learned from.
    pub p95_seconds: Option<u32>,
    /// What it sets; absent where nothing.
    pub fitted: Option<Arc<Fitted>>,
    /// Runs that it has learned from.
    pub samples: u32,
    /// What it sets and why, or why it sets nothing; empty where nobody asked for more than learning.
    pub note: String,
    /// Where each request comes from that it sets, a sentence each.
    pub reasons: Vec<String>,
}

impl Fitting {
    /// Writes the requests that it sets into a pod spec.
    pub fn apply(&self, spec: &mut Map<String, Value>) {
        if let Some(fitted) = &self.fitted {
            fitted.apply(spec);
        }
    }

    /// What the status of the job says of it.
    pub fn status(&self) -> Option<JobProfileStatus> {
        let applied = self.fitted.as_ref()?.sums();
        Some(JobProfileStatus { samples: self.samples, applied })
    }
}

/// Fits profiles into templates, each pair once for as long as the profile recommends the same.
#[derive(Debug, Default)]
pub struct Fittings(HashMap<ObjectKey, OfProfile>);

#[derive(Debug)]
struct OfProfile {
    uid: Uid,
    recommended: Arc<[Recommended]>,
    templates: HashMap<(Box<str>, ProfileMode), Option<Arc<Fitted>>>,
}

impl Fittings {
    /// What comes of a profile for a template, of a job that wants this of it. `key` is that of the profile, which may
    /// not be there yet.
    pub fn of(
        &mut self,
        key: &ObjectKey,
        wanted: ProfileMode,
        template: &Template,
        profile: Option<&ProfileView>,
    ) -> Fitting {
        let mode = mode(wanted, profile);
        let learns = match mode {
            ProfileMode::Off => None,
            ProfileMode::Observe | ProfileMode::Initial | ProfileMode::Auto => Some(Arc::clone(&key.name)),
        };
        let known = profile.filter(|_| learns.is_some());
        let fitting = Fitting {
            profile: learns,
            p95_seconds: known.and_then(ProfileView::p95_seconds),
            ..Fitting::default()
        };
        match wanted {
            ProfileMode::Off | ProfileMode::Observe => return fitting,
            ProfileMode::Initial | ProfileMode::Auto => {}
        }
        let Some(profile) = profile else {
            self.0.remove(key);
            return Fitting { note: format!("there is no BatchTaskProfile {} yet", key.name), ..fitting };
        };
        let samples = profile.status.samples;
        match mode {
            ProfileMode::Off | ProfileMode::Observe => {
                let note = format!("spec.maxMode of profile {} is {mode:?}", key.name);
                return Fitting { note, ..fitting };
            }
            ProfileMode::Initial | ProfileMode::Auto => {}
        }
        let fitted = self.fitted(key, profile, template, mode);
        let note = match &fitted {
            Some(fitted) => explain::in_short(profile, &fitted.requests),
            None if profile.recommended.iter().all(|row| row.cpu.is_none() && row.memory.is_none()) => {
                format!("profile {} has {samples} runs and recommends nothing yet", key.name)
            }
            None => format!("profile {} has nothing to add to the template's requests", key.name),
        };
        let requests = fitted.iter().flat_map(|fitted| &fitted.requests);
        let reasons = requests.map(|set| explain::request(profile, set)).collect();
        Fitting { fitted, samples, note, reasons, ..fitting }
    }

    /// The requests that a profile sets in a template in this mode; `None` where it sets nothing.
    pub fn fitted(
        &mut self,
        key: &ObjectKey,
        profile: &ProfileView,
        template: &Template,
        mode: ProfileMode,
    ) -> Option<Arc<Fitted>> {
        let uid = &profile.meta().uid;
        let of = || OfProfile {
            uid: uid.clone(),
            recommended: Arc::clone(&profile.recommended),
            templates: HashMap::new(),
        };
        let known = self.0.entry(key.clone()).or_insert_with(of);
        if known.uid != *uid || known.recommended != profile.recommended {
            *known = of();
        }
        let pair = (template.hash.clone(), mode);
        if !known.templates.contains_key(&pair) && known.templates.len() >= TEMPLATES_MAX {
            known.templates.clear();
        }
        let fit = || Fitted::new(&template.unpack(), &profile.recommended, mode).map(Arc::new);
        known.templates.entry(pair).or_insert_with(fit).clone()
    }

    /// A profile is gone.
    pub fn forget(&mut self, key: &ObjectKey) {
        self.0.remove(key);
    }
}

#[cfg(test)]
mod tests;
