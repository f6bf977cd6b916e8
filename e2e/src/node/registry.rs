//! A registry of images in the network of a node: the part of the distribution API by which nodes pull, as it is in
//! <https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#pull>.
//!
//! containerd asks it for every image of every registry, so that names need no address; what it does not have does not
//! exist. Tests decide what it gives, to whom and how fast.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::Read as _;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine as _;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use springtide_image::Image;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::NodeCluster;
use super::machine::ADDRESS;

/// Where it listens on [`ADDRESS`].
const PORT: u16 = 5000;
/// Registry whose images have names without one.
const DEFAULT_REGISTRY: &str = "docker.io";
/// What names without a path have before them there.
const DEFAULT_PATH: &str = "library";
/// Header with the digest of a manifest.
const DIGEST: &str = "docker-content-digest";

const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
const BLOB_TYPE: &str = "application/octet-stream";

/// A running registry. Dropping it ends it; images that nodes have stay there.
#[derive(Debug)]
pub struct Registry {
    store: Arc<Mutex<Store>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Store {
    /// Manifests and layers by their digest, with their type.
    blobs: BTreeMap<String, (Bytes, String)>,
    /// Digests of manifests by full names, such as `registry.example/app:v1`.
    names: BTreeMap<String, String>,
    /// Who may pull from a repository, as the header says it; everybody from all others.
    guards: BTreeMap<String, String>,
    /// How long a layer of a repository takes.
    delays: BTreeMap<String, Duration>,
    /// How often each name was asked for.
    asked: BTreeMap<String, usize>,
}

impl Registry {
    /// Starts an empty one, to which the node of `cluster` turns for every image from now on.
    ///
    /// # Errors
    /// The port is taken, by another registry of this cluster, or the node's configuration cannot be written.
    pub fn start(cluster: &NodeCluster) -> Result<Self> {
        let machine = cluster.machine();
        let listener =
            machine.namespaces().run(|| TcpListener::bind((ADDRESS, PORT)))?.context("listen for nodes")?;
        listener.set_nonblocking(true).context("listen for nodes")?;
        let folder = machine.node_folder().join("certs.d/_default");
        std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        let hosts = format!("server = \"http://{ADDRESS}:{PORT}\"\n");
        std::fs::write(folder.join("hosts.toml"), hosts).context("say where images are")?;

        let store = Arc::new(Mutex::new(Store::default()));
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("a runtime")?;
        let (stop, stopped) = oneshot::channel();
        let served = Arc::clone(&store);
        // A thread of its own: callers block theirs while containerd waits for images.
        let thread = std::thread::Builder::new()
            .name("registry".into())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = serve(listener, served) => {}
                        // Whether it was told or its owner is gone.
                        _ = stopped => {}
                    }
                });
            })
            .context("start the registry's thread")?;
        Ok(Self { store, stop: Some(stop), thread: Some(thread) })
    }

    /// Offers an image under its name.
    ///
    /// # Errors
    /// Its archive is none.
    pub fn push(&self, image: &Image) -> Result<()> {
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(&*image.archive).entries().context("an archive")? {
            let mut entry = entry.context("an archive")?;
            let path = entry.path().context("a path")?.to_string_lossy().into_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).with_context(|| format!("read {path}"))?;
            files.insert(path, Bytes::from(content));
        }
        let index = files.get("index.json").context("an archive without an index")?;
        let index: Value = serde_json::from_slice(index).context("read the index")?;
        let manifest = &index["manifests"][0];
        let text = |field: &str| manifest[field].as_str().map(str::to_owned).context("a manifest");
        let (digest, media_type) = (text("digest")?, text("mediaType")?);
        let mut store = self.lock();
        for (path, content) in files {
            let Some(hex) = path.strip_prefix("blobs/sha256/").filter(|hex| !hex.is_empty()) else {
                continue;
            };
            let of = format!("sha256:{hex}");
            let of_type = if of == digest { media_type.clone() } else { BLOB_TYPE.to_owned() };
            store.blobs.insert(of, (content, of_type));
        }
        store.names.insert(full_name(&image.reference), digest);
        Ok(())
    }

    /// Offers what has the name `of` under another one as well; what had that before has no name then.
    ///
    /// # Errors
    /// There is nothing of that name.
    pub fn tag(&self, name: &str, of: &str) -> Result<()> {
        let digest = self.digest(of)?;
        self.lock().names.insert(full_name(name), digest);
        Ok(())
    }

    /// Digest of the manifest that has a name.
    ///
    /// # Errors
    /// There is nothing of that name.
    pub fn digest(&self, name: &str) -> Result<String> {
        let digest = self.lock().names.get(&full_name(name)).cloned();
        digest.with_context(|| format!("the registry has no {name}"))
    }

    /// Offers an image for machines of another kind alone.
    ///
    /// # Errors
    /// There is nothing of the name `of`.
    pub fn tag_for_others(&self, name: &str, of: &str) -> Result<()> {
        let digest = self.digest(of)?;
        let mut store = self.lock();
        let (manifest, media_type) = store.blobs.get(&digest).context("a manifest")?;
        let index = json!({
            "schemaVersion": 2,
            "mediaType": INDEX_TYPE,
            "manifests": [{
                "mediaType": media_type, "digest": digest, "size": manifest.len(),
                "platform": {"architecture": "s390x", "os": "linux"},
            }],
        });
        let index = Bytes::from(serde_json::to_vec(&index)?);
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(&index)));
        store.blobs.insert(digest.clone(), (index, INDEX_TYPE.to_owned()));
        store.names.insert(full_name(name), digest);
        Ok(())
    }

    /// Lets only this user pull from a repository, such as `registry.example/app`.
    pub fn guard(&self, repository: &str, user: &str, password: &str) {
        let secret = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        self.lock().guards.insert(full_name(repository), format!("Basic {secret}"));
    }

    /// Has each layer of a repository take so long.
    pub fn slow_down(&self, repository: &str, delay: Duration) {
        self.lock().delays.insert(full_name(repository), delay);
    }

    /// How often a node has asked what a name stands for.
    #[must_use]
    pub fn asked(&self, name: &str) -> usize {
        self.lock().asked.get(&full_name(name)).copied().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Store> {
        lock(&self.store)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended before.
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock(store: &Mutex<Store>) -> MutexGuard<'_, Store> {
    store.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The name with its registry, as containerd completes it.
fn full_name(name: &str) -> String {
    match name.split_once('/') {
        Some((first, _)) if first == "localhost" || first.contains(['.', ':']) => name.to_owned(),
        Some(_) => format!("{DEFAULT_REGISTRY}/{name}"),
        None => format!("{DEFAULT_REGISTRY}/{DEFAULT_PATH}/{name}"),
    }
}

async fn serve(listener: TcpListener, store: Arc<Mutex<Store>>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            // What a client breaks off is its own business.
            let _ = converse(store, stream).await;
        });
    }
}

async fn converse(store: Arc<Mutex<Store>>, stream: TcpStream) -> Result<()> {
    let service = service_fn(move |request: Request<Incoming>| {
        let store = Arc::clone(&store);
        async move {
            let (response, delay) = answer(&mut lock(&store), &request);
            tokio::time::sleep(delay).await;
            Ok::<_, Infallible>(response)
        }
    });
    let connection =
        http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    connection.await.context("HTTP/1.1")
}

/// What a path asks for.
enum Wanted<'a> {
    /// `/v2/`: whether this is a registry.
    Api,
    /// A manifest of a repository, by tag or digest.
    Manifest(&'a str, &'a str),
    /// A layer or configuration of a repository, by digest.
    Blob(&'a str, &'a str),
}

/// Reads `/v2/<repository>/manifests/<reference>` and the like.
fn wanted(path: &str) -> Option<Wanted<'_>> {
    let rest = path.strip_prefix("/v2/")?;
    if rest.is_empty() {
        return Some(Wanted::Api);
    }
    let (before, reference) = rest.rsplit_once('/')?;
    let (repository, kind) = before.rsplit_once('/')?;
    match kind {
        "manifests" => Some(Wanted::Manifest(repository, reference)),
        "blobs" => Some(Wanted::Blob(repository, reference)),
        _ => None,
    }
}

/// The answer, and how long it takes.
fn answer<B>(store: &mut Store, request: &Request<B>) -> (Response<Full<Bytes>>, Duration) {
    let now = |response| (response, Duration::ZERO);
    // Whose images are asked for here: the name's own registry.
    let query = request.uri().query().unwrap_or_default();
    let registry = query.split('&').find_map(|pair| pair.strip_prefix("ns=")).unwrap_or(DEFAULT_REGISTRY);
    let is_let_in = |repository: &str| {
        let shown = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        store.guards.get(repository).is_none_or(|guard| shown == Some(guard.as_str()))
    };
    match wanted(request.uri().path()) {
        Some(Wanted::Api) => now(Response::new(Full::default())),
        Some(Wanted::Manifest(repository, _) | Wanted::Blob(repository, _))
            if !is_let_in(&format!("{registry}/{repository}")) =>
        {
            let mut refusal = error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "authentication required");
            let challenge = HeaderValue::from_static("Basic realm=\"registry\"");
            refusal.headers_mut().insert(WWW_AUTHENTICATE, challenge);
            now(refusal)
        }
        Some(Wanted::Manifest(repository, reference)) => {
            let name = format!("{registry}/{repository}:{reference}");
            let is_digest = reference.contains(':');
            let digest = if is_digest { Some(reference.to_owned()) } else { store.names.get(&name).cloned() };
            if !is_digest {
                *store.asked.entry(name).or_default() += 1;
            }
            let found = digest.and_then(|digest| {
                let (content, media_type) = store.blobs.get(&digest)?;
                let mut response = Response::new(Full::new(content.clone()));
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_str(media_type).ok()?);
                response.headers_mut().insert(DIGEST, HeaderValue::from_str(&digest).ok()?);
                // Of a HEAD the size is what is asked for.
                response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(content.len()));
                Some(response)
            });
            now(found.unwrap_or_else(|| {
                error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", "manifest unknown to registry")
            }))
        }
        Some(Wanted::Blob(repository, digest)) => {
            let delay = store.delays.get(&format!("{registry}/{repository}")).copied().unwrap_or_default();
            let Some((content, media_type)) = store.blobs.get(digest) else {
                return now(error(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", "blob unknown to registry"));
            };
            let mut response = Response::new(Full::new(content.clone()));
            if let Ok(media_type) = HeaderValue::from_str(media_type) {
                response.headers_mut().insert(CONTENT_TYPE, media_type);
            }
            (response, delay)
        }
        None => now(error(StatusCode::NOT_FOUND, "UNSUPPORTED", "the operation is unsupported")),
    }
}

fn error(status: StatusCode, code: &str, message: &str) -> Response<Full<Bytes>> {
    let body = json!({"errors": [{"code": code, "message": message}]}).to_string();
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The value of a secret of type `kubernetes.io/dockerconfigjson`, in the form of `stringData`, for a user of a registry.
#[must_use]
pub fn pull_secret(registry: &str, user: &str, password: &str) -> Value {
    let auth = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    let entry = json!({"username": user, "password": password, "auth": auth});
    json!({".dockerconfigjson": json!({"auths": {registry: entry}}).to_string()})
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;
    use springtide_image::ImageSpec;

    fn registry() -> Registry {
        Registry { store: Arc::default(), stop: None, thread: None }
    }

    fn image(name: &str, content: &str) -> Image {
        ImageSpec::new(name).file("/bin/app", content.into()).entrypoint(["/bin/app"]).build().unwrap()
    }

    async fn get(registry: &Registry, path: &str, secret: Option<&str>) -> (u16, Bytes, Duration) {
        let mut request = Request::get(path);
        if let Some(secret) = secret {
            request = request.header(AUTHORIZATION, secret);
        }
        let (response, delay) = answer(&mut registry.lock(), &request.body(()).unwrap());
        let status = response.status().as_u16();
        (status, response.into_body().collect().await.unwrap().to_bytes(), delay)
    }

    #[test]
    fn names_are_completed_as_nodes_do() {
        for (name, full) in [
            ("app:v1", "docker.io/library/app:v1"),
            ("team/app:v1", "docker.io/team/app:v1"),
            ("localhost/app:v1", "localhost/app:v1"),
            ("registry.example/team/app", "registry.example/team/app"),
        ] {
            assert_eq!(full_name(name), full);
        }
    }

    #[tokio::test]
    async fn what_was_pushed_is_pulled_by_its_names_and_digests() {
        let registry = registry();
        let pushed = image("registry.example/team/app:v1", "one");
        registry.push(&pushed).unwrap();
        registry.tag("app:same", &pushed.reference).unwrap();
        let path = "/v2/team/app/manifests/v1?ns=registry.example";
        let (status, manifest, _) = get(&registry, path, None).await;
        assert_eq!((status, registry.asked(&pushed.reference)), (200, 1));
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(&manifest)));
        assert_eq!((&digest, &pushed.digest), (&registry.digest("app:same").unwrap(), &digest));
        let same = get(&registry, "/v2/library/app/manifests/same", None).await;
        let pinned = get(&registry, &format!("/v2/any/manifests/{digest}?ns=other.example"), None).await;
        assert_eq!((&same.1, &pinned.1), (&manifest, &manifest));
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        registry.slow_down("registry.example/team/app", Duration::from_secs(7));
        for blob in [&manifest["config"], &manifest["layers"][0]] {
            let path = format!("/v2/team/app/blobs/{}?ns=registry.example", blob["digest"].as_str().unwrap());
            let (status, content, delay) = get(&registry, &path, None).await;
            assert_eq!((status, delay.as_secs()), (200, 7));
            assert_eq!(content.len() as u64, blob["size"].as_u64().unwrap());
        }
        for path in
            ["/v2/team/app/manifests/v2?ns=registry.example", "/v2/team/app/manifests/v1", "/v2/x", "/"]
        {
            let (status, body, _) = get(&registry, path, None).await;
            assert!(status == 404 && body.starts_with(b"{\"errors\""), "{path}");
        }
    }

    #[tokio::test]
    async fn a_guarded_repository_wants_its_user_and_a_foreign_image_says_for_whom_it_is() {
        let registry = registry();
        registry.push(&image("private.example/app:v1", "one")).unwrap();
        registry.guard("private.example/app", "user", "secret");
        let path = "/v2/app/manifests/v1?ns=private.example";
        let basic = |pair: &str| format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
        for (shown, status) in
            [(None, 401), (Some(basic("user:wrong")), 401), (Some(basic("user:secret")), 200)]
        {
            assert_eq!(get(&registry, path, shown.as_deref()).await.0, status, "{shown:?}");
        }
        registry.tag_for_others("localhost/foreign:v1", "private.example/app:v1").unwrap();
        let (_, index, _) = get(&registry, "/v2/foreign/manifests/v1?ns=localhost", None).await;
        let index: Value = serde_json::from_slice(&index).unwrap();
        assert_eq!(index["manifests"][0]["platform"]["architecture"], "s390x");
        assert_eq!(index["manifests"][0]["digest"], *registry.digest("private.example/app:v1").unwrap());
        registry.tag("localhost/app:v1", "localhost/nothing:v1").unwrap_err();
    }
}
