//! What of a spec no schema can check: addresses, and what it says of workloads that are there.
//!
//! What is looked at is the workload's template, which all its pods are to come from. A pod that differs from it is a
//! matter of the [preflight](crate::preflight).

use crate::memory_safety::widest;
use crate::names::TIME_SHARE_TRAFFIC;
use crate::observed::{Observed, Workload};
use crate::profiles::{self, ProfileFault};
use crate::sizes::{Profile, Size};
use crate::traffic::route;
use serde_json::Value;
use springtide_crds::common::MetricGate;
use springtide_crds::time_share_group::{LimitsPolicy, Member as MemberSpec, MemberContainer, TrafficMode};
use springtide_plumbing::quantity::quantity_text;
use springtide_plumbing::workloads::amounts::Amounts;
use springtide_plumbing::workloads::content::{QosClass, Role, qos_class, role};

/// What is wrong with a spec, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct InvalidSpec {
    /// The field, as a path that begins with `spec`.
    pub field: String,
    /// What is wrong and what helps.
    pub message: String,
}

impl InvalidSpec {
    fn new(field: &str, message: impl Into<String>) -> Self {
        Self { field: format!("spec.{field}"), message: message.into() }
    }
}

impl From<ProfileFault> for InvalidSpec {
    fn from(fault: ProfileFault) -> Self {
        Self::new(&fault.field, fault.problem)
    }
}

/// Checks a spec. Of a member whose workload is not there nothing is said.
///
/// # Errors
/// The first field that cannot be used.
pub fn check(observed: &Observed) -> Result<(), InvalidSpec> {
    let spec = &observed.group.spec;
    let guards = &spec.guards;
    if let Some(gate) = &guards.donor_max_load {
        metric_is_usable("guards.donorMaxLoad", gate, observed)?;
    }
    for gate in &guards.metrics {
        metric_is_usable(&format!("guards.metrics[{}]", gate.name), gate, observed)?;
    }
    let profiles = profiles::all(spec, &observed.members)?;
    for ((spec, member), profile) in spec.members.iter().zip(&observed.members).zip(&profiles) {
        if let Some(workload) = &member.workload {
            Rules::of(spec, profile, workload).check()?;
            if let Some(problem) = route::missing(spec, member) {
                return Err(InvalidSpec::new(&format!("members[{}].traffic.httpRoute", spec.name), problem));
            }
        }
    }
    match route::contested(observed) {
        Some(problem) => Err(InvalidSpec::new("members", problem)),
        None => Ok(()),
    }
}

fn metric_is_usable(field: &str, gate: &MetricGate, observed: &Observed) -> Result<(), InvalidSpec> {
    if let Some(problem) = observed.refused_addresses.get(&gate.prometheus.address) {
        return Err(InvalidSpec::new(&format!("{field}.prometheus.address"), problem.as_str()));
    }
    for (name, bound) in [("failureAbove", &gate.failure_above), ("failureBelow", &gate.failure_below)] {
        if bound.as_ref().is_some_and(|bound| bound.value().is_none()) {
            let problem = "it is no decimal number: write it like \"0.01\"";
            return Err(InvalidSpec::new(&format!("{field}.{name}"), problem));
        }
    }
    Ok(())
}

/// A member and the template of its workload.
struct Rules<'a> {
    spec: &'a MemberSpec,
    workload: &'a Workload,
    /// Its template.
    template: Value,
    /// As much of the sizes as moves.
    peak: Size,
    valley: Size,
}

impl<'a> Rules<'a> {
    fn of(spec: &'a MemberSpec, profile: &Profile, workload: &'a Workload) -> Self {
        let scope = widest(spec.memory);
        Self {
            spec,
            workload,
            template: workload.template.value(),
            peak: profile.peak.scoped(scope),
            valley: profile.valley.scoped(scope),
        }
    }

    fn check(&self) -> Result<(), InvalidSpec> {
        self.label_selects_no_pods()?;
        self.gate_is_listed()?;
        for container in &self.spec.containers {
            self.container_is_there(container)?;
            self.container_keeps_running(container)?;
            self.kept_limits_are_enough(container)?;
        }
        self.class_of_service_stays()
    }

    fn invalid(&self, rest: &str, message: impl Into<String>) -> InvalidSpec {
        InvalidSpec::new(&format!("members[{}].{rest}", self.spec.name), message)
    }

    fn invalid_container(
        &self,
        container: &MemberContainer,
        rest: &str,
        message: impl Into<String>,
    ) -> InvalidSpec {
        self.invalid(&format!("containers[{}]{rest}", container.name), message)
    }

    /// Whatever turns traffic of the member: a label that is there is opened where nothing else turns traffic by it, and a
    /// pod that its workload does not select any more is replaced.
    fn label_selects_no_pods(&self) -> Result<(), InvalidSpec> {
        let (selector, label) = (&self.workload.selector, TIME_SHARE_TRAFFIC.label);
        let expressions = selector["matchExpressions"].as_array().into_iter().flatten();
        let mut keys = expressions.filter_map(|expression| expression["key"].as_str());
        if selector["matchLabels"].get(label).is_some() || keys.any(|key| key == label) {
            return Err(self.invalid("targetRef", format!("its selector has {label}, which switches change")));
        }
        Ok(())
    }

    /// A pod that does not list the gate never leaves traffic, and would shrink under it.
    fn gate_is_listed(&self) -> Result<(), InvalidSpec> {
        let gate = TIME_SHARE_TRAFFIC.gate;
        let is_listed = || {
            let mut gates = self.template["spec"]["readinessGates"].as_array().into_iter().flatten();
            gates.any(|listed| listed["conditionType"] == gate)
        };
        match self.spec.traffic.mode {
            TrafficMode::ReadinessGate if !is_listed() => {
                Err(self
                    .invalid("traffic.mode", format!("the workload's template has no readiness gate {gate}")))
            }
            TrafficMode::ReadinessGate
            | TrafficMode::ServiceLabel
            | TrafficMode::HttpRoute
            | TrafficMode::None => Ok(()),
        }
    }

    fn container_is_there(&self, container: &MemberContainer) -> Result<(), InvalidSpec> {
        let found = self.workload.template.content.containers.get(container.name.as_str());
        let problem = match found.map(|content| content.role) {
            Some(Role::Main | Role::Sidecar) => return Ok(()),
            Some(Role::Init) => "it ends before others start, so it cannot be resized: take it out",
            None => "the workload's template has no such container",
        };
        Err(self.invalid_container(container, "", problem))
    }

    fn container_keeps_running(&self, container: &MemberContainer) -> Result<(), InvalidSpec> {
        let policies = containers(&self.template)
            .filter(|(found, _)| found["name"] == *container.name)
            .flat_map(|(found, _)| found["resizePolicy"].as_array().into_iter().flatten());
        let (cpu, memory) = self.valley.of(&container.name).changes_to(&self.peak.of(&container.name));
        for policy in policies {
            let moves = match policy["resourceName"].as_str() {
                Some("cpu") => cpu,
                Some("memory") => memory,
                Some(_) | None => false,
            };
            if moves && policy["restartPolicy"] == "RestartContainer" {
                let message = "its resizePolicy restarts it: set NotRequired in the workload's template";
                return Err(self.invalid_container(container, "", message));
            }
        }
        Ok(())
    }

    /// A request above its limit is refused by the API server.
    fn kept_limits_are_enough(&self, container: &MemberContainer) -> Result<(), InvalidSpec> {
        match container.limits {
            LimitsPolicy::Keep => {}
            LimitsPolicy::EqualRequests | LimitsPolicy::KeepRatio => return Ok(()),
        }
        let found = self.workload.template.content.containers.get(container.name.as_str());
        let limits = found.map(|content| content.amounts.limits).unwrap_or_default();
        let peak = self.peak.of(&container.name).requests;
        for (name, limit, peak) in [("cpu", limits.cpu, peak.cpu), ("memory", limits.memory, peak.memory)] {
            if let Some((limit, _)) = limit.zip(peak).filter(|(limit, peak)| limit < peak) {
                let limit = quantity_text(name, limit);
                let message = format!("it is above the template's limit of {limit}, and limits is Keep");
                return Err(self.invalid_container(container, &format!(".peak.{name}"), message));
            }
        }
        Ok(())
    }

    /// No resize changes the class of a pod, and the template decides with which it is born.
    fn class_of_service_stays(&self) -> Result<(), InvalidSpec> {
        if !Amounts::read(&self.template["spec"]["resources"]).is_empty() {
            // That of a pod with amounts as a whole follows from these.
            return Ok(());
        }
        let class = |size: &Size| {
            let resized = containers(&self.template).map(|(container, is_init)| {
                let own = Amounts::read(&container["resources"]);
                match role(container, is_init) {
                    Role::Main | Role::Sidecar => {
                        own.overlaid(container["name"].as_str().map(|name| size.of(name)).unwrap_or_default())
                    }
                    Role::Init => own,
                }
            });
            qos_class(&resized.collect::<Vec<_>>())
        };
        let born = class(&Size::default());
        for (level, size) in [("peak", &self.peak), ("valley", &self.valley)] {
            let resized = class(size);
            if resized != born {
                let message = format!(
                    "QoS class would be {} at {level} and is {} by the template: set limits otherwise",
                    name_of(resized),
                    name_of(born)
                );
                return Err(self.invalid("containers", message));
            }
        }
        Ok(())
    }
}

/// The containers of a template, and whether they are of its init containers.
fn containers(template: &Value) -> impl Iterator<Item = (&Value, bool)> {
    [("containers", false), ("initContainers", true)].into_iter().flat_map(move |(list, is_init)| {
        let found = template["spec"][list].as_array().into_iter().flatten();
        found.map(move |container| (container, is_init))
    })
}

fn name_of(class: QosClass) -> &'static str {
    match class {
        QosClass::Guaranteed => "Guaranteed",
        QosClass::Burstable => "Burstable",
        QosClass::BestEffort => "BestEffort",
    }
}

#[cfg(test)]
mod tests;
