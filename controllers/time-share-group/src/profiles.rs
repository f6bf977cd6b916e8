//! The sizes of members' pods, made of what the spec states and of the limits in their templates.

use crate::observed::Member;
use crate::sizes::{Demand, Level, Profile, Size};
use crate::union::{demand_at, spec_demand};
use springtide_crds::common::Quantity;
use springtide_crds::time_share_group::{
    LimitsPolicy, Member as MemberSpec, MemberContainer, TimeShareGroupSpec,
};
use springtide_plumbing::quantity::{MAX_AMOUNT, parse_amount};
use springtide_plumbing::workloads::amounts::{Amounts, Pair};
use springtide_plumbing::workloads::content::{QosClass, qos_class};
use springtide_plumbing::workloads::pod::PodView;
use springtide_plumbing::workloads::template::Template;
use std::sync::Arc;

/// A field of which no size can be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("spec.{field}: {problem}")]
pub struct ProfileFault {
    /// The field, as a path below `spec`.
    pub field: String,
    /// What is wrong and what helps.
    pub problem: &'static str,
}

/// The sizes of all members' pods, in the order of the spec, which `members` are in too. Of a member without a workload
/// the limits are not known: it has no pods, and its sizes are requests alone.
///
/// # Errors
/// The first field that is no amount, or has no ratio to keep.
pub fn all(spec: &TimeShareGroupSpec, members: &[Member]) -> Result<Vec<Profile>, ProfileFault> {
    let specs = spec.members.iter().enumerate();
    let profiles = specs.map(|(index, spec)| {
        let workload = members.get(index).and_then(|member| member.workload.as_ref());
        profile(spec, workload.map(|workload| &*workload.template))
    });
    profiles.collect()
}

fn profile(spec: &MemberSpec, template: Option<&Template>) -> Result<Profile, ProfileFault> {
    let size = |level: Level| -> Result<Size, ProfileFault> {
        let containers = spec.containers.iter().map(|container| {
            let own = template.map(|template| stated(template, &container.name)).unwrap_or_default();
            let field = |rest: &str| format!("members[{}].containers[{}].{rest}", spec.name, container.name);
            Ok((Arc::from(container.name.as_str()), amounts(container, level, &own, field)?))
        });
        Ok(Size::new(containers.collect::<Result<Vec<_>, ProfileFault>>()?))
    };
    Ok(Profile { peak: size(Level::Peak)?, valley: size(Level::Valley)? })
}

/// What a template states of a container; nothing of one that it has not.
fn stated(template: &Template, container: &str) -> Amounts {
    template.content.containers.get(container).map(|content| content.amounts).unwrap_or_default()
}

/// Requests of a container as the spec has them, and of the limits that its template has what follows from them.
fn amounts(
    container: &MemberContainer,
    level: Level,
    own: &Amounts,
    field: impl Fn(&str) -> String,
) -> Result<Amounts, ProfileFault> {
    let wished = match level {
        Level::Peak => &container.peak,
        Level::Valley => &container.valley,
    };
    let amount = |name: &str, quantity: Option<&Quantity>| match quantity {
        None => Ok(None),
        Some(quantity) => match parse_amount(name, quantity.as_str()) {
            Some(amount) => Ok(Some(amount)),
            None => Err(ProfileFault {
                field: field(&format!("{}.{name}", level.as_str())),
                problem: "it is no quantity from 0 on: write it like \"500m\" or \"2Gi\"",
            }),
        },
    };
    let requests =
        Pair { cpu: amount("cpu", wished.cpu.as_ref())?, memory: amount("memory", wished.memory.as_ref())? };
    let limit = |request: Option<i64>, own_request: Option<i64>, own_limit: Option<i64>| {
        let Some((request, own_limit)) = request.zip(own_limit) else { return Ok(None) };
        match container.limits {
            LimitsPolicy::EqualRequests => Ok(Some(request)),
            // A request that the template does not state is that of its limit.
            LimitsPolicy::KeepRatio => match scaled(request, own_limit, own_request.unwrap_or(own_limit)) {
                Some(limit) => Ok(Some(limit)),
                None => Err(ProfileFault {
                    field: field("limits"),
                    problem: "KeepRatio has no ratio to keep, as the template requests nothing; use another",
                }),
            },
            LimitsPolicy::Keep => Ok(None),
        }
    };
    let limits = Pair {
        cpu: limit(requests.cpu, own.requests.cpu, own.limits.cpu)?,
        memory: limit(requests.memory, own.requests.memory, own.limits.memory)?,
    };
    Ok(Amounts { requests, limits })
}

/// `request` as many times as `limit` is `own_request`, rounded up: a limit never gets below its request by that, nor
/// equal to it where it was more. `None` where there is nothing to be that many times of.
fn scaled(request: i64, limit: i64, own_request: i64) -> Option<i64> {
    let [request, limit, own_request] =
        [request, limit, own_request].map(|amount| u128::from(amount.unsigned_abs()));
    let scaled =
        request.saturating_mul(limit).checked_add(own_request.checked_sub(1)?)?.checked_div(own_request)?;
    Some(i64::try_from(scaled).map_or(MAX_AMOUNT, |amount| amount.min(MAX_AMOUNT)))
}

/// The class of service that a pod would have at a size. That of a pod with amounts as a whole follows from these, whatever
/// its containers have.
pub fn qos_of(pod: &PodView, size: &Size) -> QosClass {
    match pod.qos {
        Some(class) if pod.traits.has_pod_level_resources => class,
        Some(_) | None => {
            let resized = pod.containers.iter().map(|own| own.amounts.overlaid(size.of(&own.name)));
            qos_class(&resized.collect::<Vec<_>>())
        }
    }
}

/// Whether pods are born at valley size, as far as requests go. Nothing is held against a workload that is not there.
pub fn template_at_valley(member: &Member, profile: &Profile) -> bool {
    off_valley(member, profile).is_none()
}

/// The first container that a member's template has not at valley size.
pub fn off_valley<'a>(member: &Member, profile: &'a Profile) -> Option<&'a Arc<str>> {
    let template = &member.workload.as_ref()?.template;
    let is_off = |name: &str, wished: &Amounts| {
        let own = stated(template, name);
        // A request that is not stated is that of its limit.
        !own.limits.overlaid(own.requests).has(&wished.requests)
    };
    profile.valley.containers().find(|(name, wished)| is_off(name, wished)).map(|(name, _)| name)
}

/// Whether a container of a pod would be restarted by the resize to a size: that of its template is looked at when the
/// group is accepted, and older pods may have another one.
pub fn restarts(pod: &PodView, size: &Size) -> bool {
    size.containers().any(|(name, wished)| {
        pod.container(name).is_some_and(|own| {
            let (cpu, memory) = own.amounts.changes_to(wished);
            (cpu && own.cpu_restarts) || (memory && own.memory_restarts)
        })
    })
}

/// By how much more the whole pod would request at a size than its spec asks for now; less than 0 is what it gives up.
pub fn change(pod: &PodView, size: &Size) -> Demand {
    demand_at(pod, size) - spec_demand(pod)
}

/// The same of the limits of its containers. A container that it has not has none.
pub fn limits_change(pod: &PodView, size: &Size) -> Demand {
    let changes = size
        .containers()
        .filter_map(|(name, wished)| Some(difference(pod.container(name)?.amounts.limits, wished.limits)));
    changes.sum()
}

fn difference(own: Pair, wished: Pair) -> Demand {
    let more = |own: Option<i64>, wished: Option<i64>| {
        wished.map_or(0, |wished| wished.saturating_sub(own.unwrap_or_default()))
    };
    Demand { cpu: more(own.cpu, wished.cpu), memory: more(own.memory, wished.memory) }
}

#[cfg(test)]
mod tests;
