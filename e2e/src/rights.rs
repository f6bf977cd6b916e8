//! Granted against used: the roles that a user has in a cluster, and what of them the audit log saw used.

use std::collections::BTreeSet;
use std::fmt;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};
use kube::api::{Api, ListParams, PostParams};

use crate::batch::{GENERAL, pool};
use crate::helm::checkout;
use crate::kwok::Stages;
use crate::local_cluster::{Component, LocalCluster};
use crate::manager::Manager;
use crate::write_count::WriteCount;

/// One verb on one resource or sub-resource, whichever objects it is limited to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Triple {
    /// Lower-case verb.
    pub verb: String,
    /// API group; empty for the core group.
    pub group: String,
    /// Resource, with the sub-resource behind a slash.
    pub resource: String,
}

impl Triple {
    /// A triple from its parts.
    #[must_use]
    pub fn new(verb: &str, group: &str, resource: &str) -> Self {
        Self { verb: verb.to_owned(), group: group.to_owned(), resource: resource.to_owned() }
    }
}

impl fmt::Display for Triple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verb, group, resource } = self;
        match group.as_str() {
            "" => write!(f, "{verb} {resource}"),
            group => write!(f, "{verb} {resource} of {group}"),
        }
    }
}

/// A service account.
#[derive(Debug, Clone, Copy)]
pub struct Account<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
}

/// Whom the installation makes the manager.
pub const ACCOUNT: Account<'_> = Account { namespace: "springtide-system", name: "springtide" };

/// A cluster that has the objects of a kustomize base, and these namespaces beside the manager's, with the admission
/// plugin that OpenShift has on by default.
///
/// # Errors
/// A part does not start, or is refused.
pub async fn installed(base: &str, namespaces: &[&str]) -> Result<LocalCluster> {
    let plugin = ["--enable-admission-plugins=OwnerReferencesPermissionEnforcement"];
    let nodes = pool(GENERAL, 2, "32", 110);
    let builder = LocalCluster::builder().extra_args(Component::ApiServer, plugin);
    let cluster = builder.kwok(nodes).stages(Stages::InPlace).start().await?;
    cluster.install_crds().await?;
    for name in [ACCOUNT.namespace].iter().chain(namespaces) {
        have_namespace(&cluster, name).await?;
    }
    apply_base(&cluster, base).await?;
    Ok(cluster)
}

async fn have_namespace(cluster: &LocalCluster, name: &str) -> Result<()> {
    cluster.apply(&format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}}}}}")).await
}

/// Starts a manager that has no other rights than those that are installed with it, on a cluster that has the CRDs, and
/// waits until it is ready. `name` tells its log from others'.
///
/// # Errors
/// As [`apply_base`], [`Manager::start`] and [`Manager::wait_ready`].
pub async fn manager(cluster: &LocalCluster, name: &str) -> Result<Manager> {
    have_namespace(cluster, ACCOUNT.namespace).await?;
    apply_base(cluster, "rbac").await?;
    let kubeconfig = cluster.kubeconfig_for(&ACCOUNT.user(), "system:serviceaccounts")?;
    let args = ["--lease-namespace", ACCOUNT.namespace];
    let mut manager = Manager::start_with(cluster, &kubeconfig, name, &args).await?;
    manager.wait_ready().await?;
    Ok(manager)
}

/// Holds what managers of [`manager`] have asked for against what they were told.
///
/// # Errors
/// One of them was refused something for want of a right, or none has asked for anything.
pub fn nothing_forbidden(cluster: &LocalCluster) -> Result<()> {
    let requests = cluster.audit_log()?.all()?.by_user(&ACCOUNT.user());
    ensure!(!requests.is_empty(), "nobody has asked as {}", ACCOUNT.user());
    let forbidden = requests.filter(|request| request.code == 403);
    ensure!(forbidden.is_empty(), "the roles lack something:\n{forbidden}");
    Ok(())
}

/// Applies the kustomize base `config/<base>` of this checkout.
///
/// # Errors
/// It is refused.
pub async fn apply_base(cluster: &LocalCluster, base: &str) -> Result<()> {
    let folder = checkout("config").join(base);
    let folder = folder.to_str().context("a path")?;
    let applied = cluster.kubectl(&["apply", "--server-side", "-k", folder]).await?;
    ensure!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    Ok(())
}

impl Account<'_> {
    /// Takes a right of its cluster role away; gives the rules as they were, for [`Account::restore`].
    ///
    /// # Errors
    /// The role has it not, or is not to be changed.
    pub async fn lose(&self, cluster: &LocalCluster, verb: &str, resource: &str) -> Result<Vec<PolicyRule>> {
        let roles: Api<ClusterRole> = Api::all(cluster.client("springtide-test")?);
        let mut role = roles.get(self.name).await?;
        let before = role.rules.clone().unwrap_or_default();
        let mut taken = 0;
        for rule in role.rules.iter_mut().flatten() {
            if rule.resources.iter().flatten().any(|held| held == resource) {
                taken += rule.verbs.iter().filter(|held| *held == verb).count();
                rule.verbs.retain(|held| held != verb);
            }
        }
        // A rule without verbs is not valid.
        role.rules.iter_mut().for_each(|rules| rules.retain(|rule| !rule.verbs.is_empty()));
        ensure!(taken > 0, "{} cannot {verb} {resource}", self.name);
        roles.replace(self.name, &PostParams::default(), &role).await?;
        Ok(before)
    }

    /// Gives its cluster role these rules.
    ///
    /// # Errors
    /// The role is not to be changed.
    pub async fn restore(&self, cluster: &LocalCluster, rules: Vec<PolicyRule>) -> Result<()> {
        let roles: Api<ClusterRole> = Api::all(cluster.client("springtide-test")?);
        let role = ClusterRole { rules: Some(rules), ..roles.get(self.name).await? };
        roles.replace(self.name, &PostParams::default(), &role).await?;
        Ok(())
    }

    /// The user that it acts as.
    #[must_use]
    pub fn user(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.name)
    }

    fn is(&self, subject: &Subject) -> bool {
        subject.kind == "ServiceAccount"
            && subject.name == self.name
            && subject.namespace.as_deref() == Some(self.namespace)
    }

    /// All that roles bound to this account by name grant it, as the server has them.
    ///
    /// # Errors
    /// The API server refuses something.
    pub async fn granted(&self, client: &kube::Client) -> Result<BTreeSet<Triple>> {
        let params = ListParams::default();
        let mut rules: Vec<PolicyRule> = Vec::new();
        let bound =
            |subjects: &Option<Vec<Subject>>| subjects.iter().flatten().any(|subject| self.is(subject));
        let cluster_roles: Api<ClusterRole> = Api::all(client.clone());
        for binding in Api::<ClusterRoleBinding>::all(client.clone()).list(&params).await? {
            if bound(&binding.subjects) {
                rules.extend(cluster_roles.get(&binding.role_ref.name).await?.rules.into_iter().flatten());
            }
        }
        for binding in Api::<RoleBinding>::all(client.clone()).list(&params).await? {
            if !bound(&binding.subjects) {
                continue;
            }
            let RoleRef { kind, name, .. } = binding.role_ref;
            let of_role = if kind == "ClusterRole" {
                cluster_roles.get(&name).await?.rules
            } else {
                let namespace = binding.metadata.namespace.unwrap_or_default();
                Api::<Role>::namespaced(client.clone(), &namespace).get(&name).await?.rules
            };
            rules.extend(of_role.into_iter().flatten());
        }
        Ok(rules.iter().flat_map(triples).collect())
    }
}

fn triples(rule: &PolicyRule) -> Vec<Triple> {
    let mut triples = Vec::new();
    for group in rule.api_groups.iter().flatten() {
        for resource in rule.resources.iter().flatten() {
            triples.extend(rule.verbs.iter().map(|verb| Triple::new(verb, group, resource)));
        }
    }
    triples
}

/// The triples of requests that the server has let pass.
#[must_use]
pub fn used(requests: &WriteCount) -> BTreeSet<Triple> {
    let allowed = requests.requests().iter().filter(|request| request.code != 403);
    allowed.map(|request| Triple::new(request.verb.name(), &request.group, &request.resource)).collect()
}

/// A right that is granted though no test sees it used, and why.
#[derive(Debug, Clone, Copy)]
pub struct Seldom {
    /// Verb.
    pub verb: &'static str,
    /// API group.
    pub group: &'static str,
    /// Resource with sub-resource.
    pub resource: &'static str,
    /// When it is used.
    pub when: &'static str,
}

/// Everything that is wrong between what is granted, what was used, and the list of exceptions.
#[must_use]
pub fn findings(granted: &BTreeSet<Triple>, used: &BTreeSet<Triple>, seldom: &[Seldom]) -> Vec<String> {
    let triple = |entry: &Seldom| Triple::new(entry.verb, entry.group, entry.resource);
    let excepted: BTreeSet<Triple> = seldom.iter().map(triple).collect();
    let mut findings: Vec<String> = granted
        .difference(used)
        .filter(|unused| !excepted.contains(unused))
        .map(|unused| format!("{unused}: granted, but never used"))
        .collect();
    for entry in &excepted {
        if used.contains(entry) {
            findings.push(format!("{entry}: stands among the seldom used, but was used"));
        } else if !granted.contains(entry) {
            findings.push(format!("{entry}: stands among the seldom used, but is not granted"));
        }
    }
    let boundless = |triple: &&Triple| {
        [&triple.verb, &triple.group, &triple.resource].iter().any(|word| word.contains('*'))
            || ["escalate", "impersonate", "bind"].contains(&triple.verb.as_str())
    };
    findings.extend(granted.iter().filter(boundless).map(|triple| format!("{triple}: may never be granted")));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(triples: &[(&str, &str)]) -> BTreeSet<Triple> {
        triples.iter().map(|(verb, resource)| Triple::new(verb, "", resource)).collect()
    }

    const LIST: Seldom = Seldom { verb: "list", group: "", resource: "pods", when: "x" };

    #[test]
    fn what_is_neither_used_nor_excepted_is_found_and_so_is_a_stale_exception() {
        let granted = set(&[("get", "pods"), ("list", "pods")]);
        let used = set(&[("get", "pods")]);
        assert_eq!(findings(&granted, &used, &[LIST]), Vec::<String>::new());
        assert_eq!(findings(&granted, &used, &[]), ["list pods: granted, but never used"]);
        assert!(findings(&granted, &granted, &[LIST])[0].ends_with("but was used"));
        assert!(findings(&used, &used, &[LIST])[0].ends_with("but is not granted"));
        let boundless = set(&[("*", "pods"), ("bind", "roles"), ("get", "*")]);
        assert_eq!(findings(&boundless, &boundless, &[]).len(), 3);
    }
}
