//! Reads what the controllers watch, once, with the caller's rights, and says what they do not suffice for.
#![allow(clippy::disallowed_types, reason = "a command of a person reads with that person's rights")]

use super::ConnectionArgs;
use anyhow::{Context, Result, anyhow, bail};
use http::Request;
use kube::Client;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use springtide_plumbing::client::Connection;
use springtide_plumbing::executor::{WriteResult, ask};
use springtide_plumbing::key::{ObjectKey, Resource};
use springtide_plumbing::plan::Write;
use springtide_plumbing::projection::Projection;
use std::sync::Arc;
use std::time::Duration;

/// Objects of one page of a list, as kubectl has it.
const PAGE: usize = 500;
/// Deadline of one page.
const PAGE_DEADLINE: Duration = Duration::from_secs(60);

/// A connection with the caller's rights.
pub(super) struct Cluster {
    /// For what is not read once: a watch.
    pub(super) client: Client,
    /// The namespace that is meant.
    pub(super) namespace: String,
}

/// Something that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Unread {
    /// Plural of the kind.
    pub(crate) resource: String,
    /// Where: the cluster, or a namespace.
    pub(crate) scope: String,
    /// What the API server said.
    pub(crate) problem: String,
    /// What that means for the answer.
    pub(crate) consequence: String,
}

/// Why a list could not be read.
pub(super) enum Refused {
    /// The caller may not.
    Forbidden(String),
    /// The server has no such kind.
    NotServed(anyhow::Error),
    /// Anything else.
    Failed(anyhow::Error),
}

/// What the server says to a change that it was asked to try.
pub(super) enum DryRun {
    /// The object as it would be stored.
    Accepted(Value),
    /// The caller may not ask.
    Forbidden(String),
    /// The change is refused, in the server's words.
    Invalid(String),
}

impl Cluster {
    pub(super) async fn connect(args: &ConnectionArgs, purpose: &str) -> Result<Self> {
        let connection = Connection::load(args.kubeconfig.as_deref(), args.context.as_deref()).await?;
        let client = connection.client(&format!("springtide/{} {purpose}", env!("CARGO_PKG_VERSION")))?;
        let namespace = args.namespace.clone().unwrap_or_else(|| connection.default_namespace().to_owned());
        Ok(Self { client, namespace })
    }

    /// A kind in all namespaces, or in the one that is meant where the caller may not see all.
    pub(super) async fn widest<P: Projection>(&self) -> Result<Widest<P>> {
        let problem = match self.list(None).await {
            Ok(objects) => return Ok(Widest { objects, narrowed: None, namespace: String::new() }),
            Err(Refused::Forbidden(problem)) => problem,
            Err(refused @ (Refused::NotServed(_) | Refused::Failed(_))) => return Err(failure(refused)),
        };
        let objects = self.list(Some(&self.namespace)).await.map_err(failure)?;
        Ok(Widest { objects, narrowed: Some(problem), namespace: self.namespace.clone() })
    }

    /// All pages of a list. An object that cannot be read is left out: it is one that no controller reads either.
    pub(super) async fn list<P: Projection>(&self, namespace: Option<&str>) -> Result<Vec<Arc<P>>, Refused> {
        #[derive(Deserialize)]
        struct Page {
            #[serde(default)]
            metadata: PageMeta,
            #[serde(default)]
            items: Vec<Value>,
        }
        #[derive(Default, Deserialize)]
        struct PageMeta {
            #[serde(default, rename = "continue")]
            token: Option<String>,
        }
        let what = || match namespace {
            Some(namespace) => format!("list {} in namespace {namespace}", P::RESOURCE),
            None => format!("list {}", P::RESOURCE),
        };
        let path = P::RESOURCE.collection_path(namespace);
        let mut objects = Vec::new();
        let mut token = String::new();
        loop {
            let uri = match token.as_str() {
                "" => format!("{path}?limit={PAGE}"),
                token => format!("{path}?limit={PAGE}&continue={token}"),
            };
            let request =
                Request::get(uri).body(Vec::new()).map_err(|error| Refused::Failed(error.into()))?;
            let page: Page = match self.ask(request).await {
                Ok(page) => page,
                Err(kube::Error::Api(status)) if status.code == 403 => {
                    return Err(Refused::Forbidden(status.message.clone()));
                }
                Err(kube::Error::Api(status)) if status.code == 404 => {
                    let hint = if P::RESOURCE.is_custom() { ": are the CRDs installed?" } else { "" };
                    let error = anyhow!("the API server has no {}{hint}", P::RESOURCE);
                    return Err(Refused::NotServed(error));
                }
                Err(error) => {
                    return Err(Refused::Failed(anyhow::Error::from(error).context(what())));
                }
            };
            objects.extend(
                page.items.into_iter().filter_map(|item| serde_json::from_value(item).ok()).map(Arc::new),
            );
            match page.metadata.token.filter(|token| !token.is_empty()) {
                Some(next) => token = next,
                None => return Ok(objects),
            }
        }
    }

    /// One object as it is; `None` where there is none.
    pub(super) async fn get(&self, resource: Resource, key: &ObjectKey) -> Result<Option<Value>> {
        let request = Request::get(resource.object_path(key)).body(Vec::new())?;
        match self.ask(request).await {
            Ok(object) => Ok(Some(object)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read {resource} {key}")),
        }
    }

    /// Asks the server to try a server-side apply, and to store nothing.
    pub(super) async fn try_apply(
        &self,
        resource: Resource,
        key: &ObjectKey,
        field_manager: &str,
        manifest: &Value,
    ) -> Result<DryRun> {
        let uri = format!("{}?dryRun=All&force=true&fieldManager={field_manager}", resource.object_path(key));
        let request = Request::patch(uri)
            .header(http::header::CONTENT_TYPE, "application/apply-patch+yaml")
            .body(serde_json::to_vec(manifest)?)?;
        match self.ask(request).await {
            Ok(object) => Ok(DryRun::Accepted(object)),
            Err(kube::Error::Api(status)) => match status.code {
                403 => Ok(DryRun::Forbidden(status.message.clone())),
                400..=499 if status.code != 429 => Ok(DryRun::Invalid(status.message.clone())),
                _ => bail!("try to apply {resource} {key}: {}", status.message),
            },
            Err(error) => Err(error).with_context(|| format!("try to apply {resource} {key}")),
        }
    }

    /// Asks the server the questions of a planner, in its own name: who owns which field is part of the answer.
    pub(super) async fn ask_all(&self, controller: &str, questions: Vec<Write>) -> Vec<WriteResult> {
        let mut results = Vec::with_capacity(questions.len());
        for write in questions {
            let outcome = ask(&self.client, controller, &write).await;
            results.push(WriteResult { write, outcome });
        }
        results
    }

    async fn ask<T: serde::de::DeserializeOwned>(&self, request: Request<Vec<u8>>) -> Result<T, kube::Error> {
        match tokio::time::timeout(PAGE_DEADLINE, self.client.request(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(kube::Error::Service("the API server does not answer within 60 s".into())),
        }
    }
}

/// A list, and why it is of one namespace alone, if it is.
pub(super) struct Widest<P> {
    objects: Vec<Arc<P>>,
    narrowed: Option<String>,
    namespace: String,
}

impl<P: Projection> Widest<P> {
    /// The objects, and whether they are all.
    pub(super) fn or_note(self, unread: &mut Vec<Unread>, consequence: &str) -> Result<(Vec<Arc<P>>, bool)> {
        let Some(problem) = self.narrowed else { return Ok((self.objects, true)) };
        unread.push(Unread {
            resource: P::RESOURCE.plural.to_owned(),
            scope: format!("namespaces other than {}", self.namespace),
            problem,
            consequence: consequence.to_owned(),
        });
        Ok((self.objects, false))
    }
}

/// A list that an answer can do without; `None` where the caller may not see it, or there is no such kind.
///
/// # Errors
/// Anything else went wrong.
pub(super) fn optional<P: Projection>(
    list: Result<Vec<Arc<P>>, Refused>,
    scope: &str,
    unread: &mut Vec<Unread>,
    consequence: &str,
) -> Result<Option<Vec<Arc<P>>>> {
    match list {
        Ok(objects) => Ok(Some(objects)),
        Err(Refused::Forbidden(problem)) => {
            unread.push(Unread {
                resource: P::RESOURCE.plural.to_owned(),
                scope: scope.to_owned(),
                problem,
                consequence: consequence.to_owned(),
            });
            Ok(None)
        }
        Err(Refused::NotServed(_)) => Ok(None),
        Err(Refused::Failed(error)) => Err(error),
    }
}

/// The error of a list that an answer cannot do without.
pub(super) fn failure(refused: Refused) -> anyhow::Error {
    match refused {
        Refused::Forbidden(problem) => anyhow!("{problem}"),
        Refused::NotServed(error) | Refused::Failed(error) => error,
    }
}
