//! Rights: what of the API server may be asked, each with the reason why it is needed.
//!
//! A controller states its rights in one table beside its code. The roles of the installation are rendered
//! from these tables, and [`WatchSet`](crate::watch::WatchSet) and [`Executor`](crate::executor::Executor)
//! refuse what the tables lack: what works in a test with an administrator's rights works as installed.

use crate::key::Resource;
use crate::lease::LEASE_NAME;
use crate::{brake, breaker};
use std::fmt;

/// What is done, as RBAC names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// Reads one object.
    Get,
    /// Reads a collection.
    List,
    /// Follows a collection, streaming lists included.
    Watch,
    /// Makes an object by POST.
    Create,
    /// Replaces an object.
    Update,
    /// Changes an object; server-side apply too, also where it creates.
    Patch,
    /// Deletes one object.
    Delete,
}

impl Verb {
    /// The word in a rule of a role.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
        }
    }
}

/// Where a right is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reach {
    /// Wherever the controllers act, and on cluster-scoped objects.
    Everywhere,
    /// In the manager's own namespace alone.
    OwnNamespace,
}

/// One verb on one resource, and why it is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Right {
    /// On which resource.
    pub resource: Resource,
    /// On which sub-resource; empty for the object itself.
    pub subresource: &'static str,
    /// What is done.
    pub verb: Verb,
    /// The only object that it is done to; any where absent. Nobody can be held to a name in a create.
    pub name: Option<&'static str>,
    /// Where.
    pub reach: Reach,
    /// The value below `rbac` of the chart by which it can be left out: who does not use what it is for need not grant it.
    pub option: Option<&'static str>,
    /// Why it is needed, as a part of a sentence.
    pub why: &'static str,
}

impl Right {
    /// A verb on the objects of a resource, everywhere.
    pub const fn new(resource: Resource, verb: Verb, why: &'static str) -> Self {
        let reach = Reach::Everywhere;
        Self { resource, subresource: "", verb, name: None, reach, option: None, why }
    }

    /// The same on a sub-resource.
    #[must_use]
    pub const fn on(self, subresource: &'static str) -> Self {
        Self { subresource, ..self }
    }

    /// The same in the manager's own namespace alone.
    #[must_use]
    pub const fn own(self) -> Self {
        Self { reach: Reach::OwnNamespace, ..self }
    }

    /// The same on the object of this name alone.
    #[must_use]
    pub const fn named(self, name: &'static str) -> Self {
        Self { name: Some(name), ..self }
    }

    /// The same, to be left out by a value of the chart.
    #[must_use]
    pub const fn only_with(self, option: &'static str) -> Self {
        Self { option: Some(option), ..self }
    }

    /// `resources` of a rule: the plural, with the sub-resource behind a slash.
    pub fn path(&self) -> String {
        match self.subresource {
            "" => self.resource.plural.to_owned(),
            subresource => format!("{}/{subresource}", self.resource.plural),
        }
    }
}

/// The rights of the manager itself, whatever controllers it runs.
pub const OWN: Rights = Rights { holder: "manager", table: OWN_TABLE };

/// Why a watch needs `list` beside `watch`.
const FALLBACK: &str = "stands in for the watch's first list where a server cannot stream it";

const OWN_TABLE: &[Right] = &[
    Right::new(Resource::LEASE, Verb::Watch, "standbys follow who leads").own().named(LEASE_NAME),
    Right::new(Resource::LEASE, Verb::List, FALLBACK).own().named(LEASE_NAME),
    Right::new(Resource::LEASE, Verb::Get, "after a renewal in conflict, one read tells who holds it")
        .own()
        .named(LEASE_NAME),
    Right::new(Resource::LEASE, Verb::Create, "the first manager makes it").own(),
    Right::new(Resource::LEASE, Verb::Update, "it is taken, renewed and given back").own().named(LEASE_NAME),
    Right::new(Resource::CONFIG_MAP, Verb::Watch, "whoever has to stop all writes says so there")
        .own()
        .named(brake::CONFIG_MAP),
    Right::new(Resource::CONFIG_MAP, Verb::List, FALLBACK).own().named(brake::CONFIG_MAP),
    Right::new(Resource::CONFIG_MAP, Verb::Watch, "whoever closes the breaker says so there")
        .own()
        .named(breaker::CONFIG_MAP),
    Right::new(Resource::CONFIG_MAP, Verb::List, FALLBACK).own().named(breaker::CONFIG_MAP),
    Right::new(
        Resource::CONFIG_MAP,
        Verb::Get,
        "one read settles a write whose outcome the server did not tell",
    )
    .own()
    .named(breaker::CONFIG_MAP),
    Right::new(Resource::CONFIG_MAP, Verb::Create, "the first incident of the breaker makes its record")
        .own(),
    Right::new(Resource::EVENT, Verb::Create, "whoever looks at the record learns why the breaker opened")
        .own(),
    Right::new(Resource::EVENT, Verb::Patch, "an event that happens again is counted in its series").own(),
    Right::new(Resource::CONFIG_MAP, Verb::Patch, "incidents of the breaker are recorded and cleared")
        .own()
        .named(breaker::CONFIG_MAP),
];

/// Something was to be asked of the API server that no table of rights has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{verb} on {path} is not among the rights of {holder}: it belongs into the table in its rights.rs")]
pub struct NotGranted {
    /// Whose table was asked.
    pub holder: String,
    /// What was to be done.
    pub verb: &'static str,
    /// To which resource.
    pub path: String,
}

/// The tables that hold for one process or controller.
#[derive(Clone, Copy)]
pub struct Rights {
    /// Whose they are, for messages.
    pub holder: &'static str,
    /// The table.
    pub table: &'static [Right],
}

impl Rights {
    /// Whether the table has a verb on a resource or sub-resource, for some object at least.
    ///
    /// # Errors
    /// It does not.
    pub fn check(&self, verb: Verb, resource: Resource, subresource: &str) -> Result<(), NotGranted> {
        let has = |right: &Right| {
            right.verb == verb && right.resource == resource && right.subresource == subresource
        };
        if self.table.iter().any(has) {
            return Ok(());
        }
        let path = match subresource {
            "" => resource.to_string(),
            subresource => format!("{resource}, subresource {subresource}"),
        };
        Err(NotGranted { holder: self.holder.to_owned(), verb: verb.as_str(), path })
    }
}

impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rights of {}", self.table.len(), self.holder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subresource_is_another_thing_than_its_object() {
        const TABLE: &[Right] = &[
            Right::new(Resource::POD, Verb::Patch, "x").on("status"),
            Right::new(Resource::POD, Verb::Get, "x"),
        ];
        let rights = Rights { holder: "a", table: TABLE };
        assert_eq!(rights.check(Verb::Patch, Resource::POD, "status"), Ok(()));
        assert_eq!(rights.check(Verb::Get, Resource::POD, ""), Ok(()));
        for (verb, resource, subresource) in [
            (Verb::Patch, Resource::POD, ""),
            (Verb::Get, Resource::POD, "status"),
            (Verb::Get, Resource::NODE, ""),
            (Verb::Delete, Resource::POD, ""),
        ] {
            let error = rights.check(verb, resource, subresource).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{} on {resource}", verb.as_str())), "{error}");
            assert!(error.contains("rights of a:") && error.contains("rights.rs"), "{error}");
        }
    }

    #[test]
    fn a_name_is_asked_only_where_the_server_can_hold_to_it() {
        for right in OWN.table {
            assert_eq!(right.reach, Reach::OwnNamespace);
            let is_anonymous = right.verb == Verb::Create || right.resource == Resource::EVENT;
            assert_eq!(right.name.is_none(), is_anonymous, "{right:?}");
        }
    }
}
