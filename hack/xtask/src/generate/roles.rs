//! Roles, from the tables of rights beside the code: for kustomize, for the chart, and as a page.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Result;
use serde_json::{Value, json};
use springtide_crds::{Kind, Writers};
use springtide_plumbing::rights::{OWN, Reach, Right, Rights};

use super::{MARK, yaml};

/// The tables of the controllers, under the keys that they have in the chart's values.
pub(crate) const CONTROLLERS: &[(&str, Rights)] = &[
    ("batchJob", springtide_batch_job::RIGHTS),
    ("inPlaceUpgrade", springtide_in_place_upgrade::RIGHTS),
    ("timeShareGroup", springtide_time_share_group::RIGHTS),
];

/// Name of everything that the manager is installed as, when nobody chooses another.
const NAME: &str = "springtide";
/// The namespace of the kustomize overlays.
const NAMESPACE: &str = "springtide-system";

/// What users may do with a kind: who, the role of the cluster that it is added to, and the verbs.
type User = (&'static str, Option<&'static str>, &'static [&'static str]);

const USERS: &[User] = &[
    ("admin", Some("admin"), WRITERS),
    ("editor", Some("edit"), WRITERS),
    ("viewer", Some("view"), READERS),
];
/// The same for a kind by which one decides over the tasks of others in the namespace.
const OF_ADMINS: &[User] = &[
    ("admin", Some("admin"), WRITERS),
    ("editor", Some("edit"), READERS),
    ("viewer", Some("view"), READERS),
];
/// The same for a kind whose objects take what others have.
const ADMINISTRATORS: &[User] = &[("admin", None, WRITERS), ("viewer", Some("view"), READERS)];
const READERS: &[&str] = &["get", "list", "watch"];
const WRITERS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// All files, by path from the repository's root.
pub(super) fn files(kinds: &[Kind]) -> Result<BTreeMap<PathBuf, String>> {
    let mut files = BTreeMap::new();
    let mut add = |path: String, object: &Value, comments: &[&str]| -> Result<()> {
        files.insert(PathBuf::from(path), yaml::document(object, comments)?);
        Ok(())
    };
    let all = || CONTROLLERS.iter().flat_map(|(_, rights)| rights.table);
    let everywhere = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": NAME},
        "rules": rules(all().filter(|right| right.reach == Reach::Everywhere)),
    });
    add("config/rbac/manager-cluster-role.yaml".into(), &everywhere, &["What the controllers may do."])?;
    let own = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "rules": rules(OWN.table.iter().chain(all()).filter(|right| right.reach == Reach::OwnNamespace)),
    });
    add("config/rbac/manager-role.yaml".into(), &own, &["What the manager may do in its own namespace."])?;
    let mut roles = vec!["manager-cluster-role.yaml".to_owned(), "manager-role.yaml".to_owned()];
    for kind in kinds {
        let names = &kind.crd.spec.names;
        let lower = names.kind.to_lowercase();
        for (who, aggregate, verbs) in users(kind) {
            let mut role = json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
                "metadata": {"name": format!("{NAME}-{lower}-{who}")},
                "rules": user_rules(kind, verbs),
            });
            let comment = match aggregate {
                Some(aggregate) => {
                    role["metadata"]["labels"] =
                        json!({format!("rbac.authorization.k8s.io/aggregate-to-{aggregate}"): "true"});
                    format!("Added to the cluster's role {aggregate}.")
                }
                None => {
                    "Added to no other role: bind it to those who may take capacity and priority.".to_owned()
                }
            };
            roles.push(format!("{lower}-{who}-role.yaml"));
            add(format!("config/rbac/{lower}-{who}-role.yaml"), &role, &[&comment])?;
        }
    }
    let mut resources = vec!["service-account.yaml".to_owned(), "manager-bindings.yaml".to_owned()];
    resources.extend(roles);
    // The labels that the chart's roles have.
    let labels = json!({
        "app.kubernetes.io/instance": NAME,
        "app.kubernetes.io/name": NAME,
        "app.kubernetes.io/part-of": NAME,
        "app.kubernetes.io/version": env!("CARGO_PKG_VERSION"),
    });
    let list = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
        "labels": [{"pairs": labels}],
        "resources": resources,
    });
    add("config/rbac/kustomization.yaml".into(), &list, &[])?;
    add(
        "charts/springtide/files/rights.yaml".into(),
        &chart_rights(),
        &["The manager's rules: its own, and those of each controller: everywhere, or in namespaces alone."],
    )?;
    let of_chart: Vec<Value> = kinds.iter().map(chart_kind).collect();
    add(
        "charts/springtide/files/kinds.yaml".into(),
        &json!({"kinds": of_chart}),
        &["The kinds, for roles and quotas."],
    )?;
    files.insert(PathBuf::from("docs/reference/rbac.md"), page(kinds)?);
    Ok(files)
}

/// Rules of a role: one per resource and name, its verbs sorted.
fn rules<'a>(rights: impl IntoIterator<Item = &'a Right>) -> Value {
    let mut grouped: BTreeMap<(&str, String, Option<&str>), BTreeSet<&str>> = BTreeMap::new();
    for right in rights {
        let key = (right.resource.group, right.path(), right.name);
        grouped.entry(key).or_default().insert(right.verb.as_str());
    }
    let rule = |((group, resource, name), verbs): (_, BTreeSet<&str>)| {
        let mut rule = json!({"apiGroups": [group], "resources": [resource], "verbs": verbs});
        if let Some(name) = name {
            rule["resourceNames"] = json!([name]);
        }
        rule
    };
    grouped.into_iter().map(rule).collect()
}

fn users(kind: &Kind) -> &'static [User] {
    match kind.writers {
        Writers::Users => USERS,
        Writers::Administrators => OF_ADMINS,
        Writers::ClusterAdministrators => ADMINISTRATORS,
    }
}

/// The status, where there is one, is the controller's alone.
fn user_rules(kind: &Kind, verbs: &[&str]) -> Value {
    let (group, plural) = (&kind.crd.spec.group, &kind.crd.spec.names.plural);
    let of_spec = json!({"apiGroups": [group], "resources": [plural], "verbs": verbs});
    let of_status =
        json!({"apiGroups": [group], "resources": [format!("{plural}/status")], "verbs": ["get"]});
    std::iter::once(of_spec).chain(kind.has_status().then_some(of_status)).collect()
}

fn chart_rights() -> Value {
    let always = |right: &&Right| right.option.is_none();
    let of = |rights: &Rights, reach| {
        rules(rights.table.iter().filter(|right| right.reach == reach).filter(always))
    };
    let controllers: serde_json::Map<String, Value> = CONTROLLERS
        .iter()
        .map(|(key, rights)| {
            let rules = json!({
                "everywhere": of(rights, Reach::Everywhere),
                "inNamespaces": rules(in_namespaces(rights).filter(always)),
                "own": of(rights, Reach::OwnNamespace),
                "optional": optional(rights),
            });
            ((*key).to_owned(), rules)
        })
        .collect();
    json!({"own": rules(OWN.table), "controllers": controllers})
}

/// What a value of the chart leaves out, by that value.
fn optional(rights: &Rights) -> Value {
    let options: BTreeSet<&str> = rights.table.iter().filter_map(|right| right.option).collect();
    let of = |option: &str| rules(rights.table.iter().filter(|right| right.option == Some(option)));
    let options: serde_json::Map<String, Value> =
        options.into_iter().map(|option| (option.to_owned(), of(option))).collect();
    Value::Object(options)
}

/// What is left of the rights everywhere where the scope is a list of namespaces.
fn in_namespaces(rights: &Rights) -> impl Iterator<Item = &'static Right> {
    rights.table.iter().filter(|right| right.reach == Reach::Everywhere && right.resource.namespaced)
}

fn chart_kind(kind: &Kind) -> Value {
    let (spec, annotations) = (&kind.crd.spec, kind.crd.metadata.annotations.clone().unwrap_or_default());
    let roles: Vec<Value> = users(kind)
        .iter()
        .map(|(who, aggregate, verbs)| {
            json!({"who": who, "aggregate": aggregate.unwrap_or_default(), "rules": user_rules(kind, verbs)})
        })
        .collect();
    json!({
        "group": spec.group,
        "kind": spec.names.kind,
        "plural": spec.names.plural,
        "maxPerNamespace": annotations.get(springtide_crds::MAX_PER_NAMESPACE),
        "roles": roles,
    })
}

/// The reference page: every right with its reason.
fn page(kinds: &[Kind]) -> Result<String> {
    let mut page = format!(
        "<!-- {MARK}; edits are lost. -->\n# Rights\n\n\
         What the manager may ask of the API server, and why. The roles of the chart and of `config/rbac` are \
         rendered from the same tables, and the manager itself refuses to send what they lack. In namespaced mode \
         (`scope.type: Namespaces`) they are Roles in the namespaces of the scope, and nothing of the cluster is \
         read. There is no `*`, \
         `escalate`, `impersonate` or `bind` among them, and no Secret.\n"
    );
    for rights in std::iter::once(&OWN).chain(CONTROLLERS.iter().map(|(_, rights)| rights)) {
        writeln!(page, "\n## {}\n\n| resource | verb | where | why |\n|---|---|---|---|", rights.holder)?;
        for right in rights.table {
            let group = match right.resource.group {
                "" => String::new(),
                group => format!(".{group}"),
            };
            let place = match (right.reach, right.resource.namespaced, right.name) {
                (Reach::OwnNamespace, _, None) => "its own namespace".to_owned(),
                (Reach::OwnNamespace, _, Some(name)) => format!("`{name}` in its own namespace"),
                (Reach::Everywhere, true, None) => "all namespaces, or those of its scope".to_owned(),
                (Reach::Everywhere, false, None) => "the cluster; not in namespaced mode".to_owned(),
                (Reach::Everywhere, _, Some(name)) => format!("`{name}`"),
            };
            let verb = right.verb.as_str();
            let option =
                right.option.map(|option| format!("; with `rbac.{option}` of the chart")).unwrap_or_default();
            writeln!(page, "| `{}`{group} | {verb} | {place}{option} | {} |", right.path(), right.why)?;
        }
    }
    writeln!(
        page,
        "\n## Users\n\nFor each kind there are roles, added to the cluster's own by aggregation; in namespaced \
         mode they are Roles of each namespace, to be bound by name. The status is written by the controller \
         alone. Who writes a BatchQueue takes capacity, priority and loans from others: that role is added to no \
         other one, and an administrator of the cluster binds it. Only an admin writes a BatchTaskProfile, which \
         decides what the jobs of others request; the controller makes those that are missing. Only an admin writes a \
         TimeShareGroup, which shrinks the pods of its members and takes their traffic, and a ReferenceGrant, which \
         lets objects of other namespaces do that here.\n\n\
         | role | added to | verbs |\n|---|---|---|"
    )?;
    for kind in kinds {
        for (who, aggregate, verbs) in users(kind) {
            let kind = kind.crd.spec.names.kind.to_lowercase();
            let aggregate = aggregate.map_or_else(|| "none".to_owned(), |aggregate| format!("`{aggregate}`"));
            writeln!(page, "| `{NAME}-{kind}-{who}` | {aggregate} | {} |", verbs.join(", "))?;
        }
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_right_is_boundless() {
        for right in CONTROLLERS.iter().chain([("", OWN)].iter()).flat_map(|(_, rights)| rights.table) {
            assert!(!right.resource.plural.contains('*') && !right.resource.group.contains('*'), "{right:?}");
            assert_ne!(right.resource.plural, "secrets", "{right:?}");
            assert!(right.why.len() > 10, "{right:?}");
        }
    }

    #[test]
    fn in_namespaced_mode_only_what_lies_outside_of_namespaces_is_missing() {
        for (name, rights) in CONTROLLERS {
            let rest: Vec<_> = in_namespaces(rights).collect();
            let lacking: BTreeSet<_> =
                rights.table.iter().filter(|right| !rest.contains(right)).map(Right::path).collect();
            let outside = BTreeSet::from(["nodes".to_owned(), "priorityclasses".to_owned()]);
            assert!(lacking.contains("nodes") && lacking.is_subset(&outside), "{name}: {lacking:?}");
        }
    }

    #[test]
    fn no_right_stands_twice() {
        for (_, rights) in CONTROLLERS.iter().chain([("", OWN)].iter()) {
            let mut seen = BTreeSet::new();
            for right in rights.table {
                assert!(
                    seen.insert((right.resource.group, right.path(), right.verb, right.name)),
                    "{right:?}"
                );
            }
        }
    }

    #[test]
    fn what_a_value_of_the_chart_leaves_out_is_namespaced_and_in_no_other_list() {
        let rights = chart_rights();
        let of_groups = &rights["controllers"]["timeShareGroup"];
        let patches = |list: &Value, resource: &str| {
            list.as_array().into_iter().flatten().any(|rule| {
                rule["resources"] == json!([resource])
                    && rule["verbs"].as_array().into_iter().flatten().any(|verb| verb == "patch")
            })
        };
        for (option, resource) in [("serviceLabels", "pods"), ("httpRoutes", "httproutes")] {
            assert!(patches(&of_groups["optional"][option], resource), "{option}");
            for list in ["everywhere", "inNamespaces"] {
                assert!(!patches(&of_groups[list], resource), "{option} {list}");
            }
        }
        for (_, rights) in CONTROLLERS {
            for right in rights.table.iter().filter(|right| right.option.is_some()) {
                assert!(right.reach == Reach::Everywhere && right.resource.namespaced, "{right:?}");
            }
        }
    }

    #[test]
    fn verbs_on_one_resource_become_one_rule_and_names_another() {
        assert_eq!(
            rules(OWN.table.iter().filter(|right| right.resource.plural == "leases")),
            json!([
                {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
                {
                    "apiGroups": ["coordination.k8s.io"], "resources": ["leases"],
                    "resourceNames": ["springtide-manager"], "verbs": ["get", "list", "update", "watch"],
                },
            ])
        );
    }
}
