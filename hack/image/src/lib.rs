//! OCI images without a registry and without a builder: one archive with one
//! uncompressed layer of static programs, ready for `ctr images import`.
//!
//! The same input gives the same bytes, so that an image has one digest on
//! every machine with the same programs.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Where programs go by convention; part of the `PATH` of every image, as an
/// image from scratch has none and a relative command would not be found.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The customary user of images without a user database ("nonroot" of
/// distroless): pods under the `restricted` profile need a numeric one.
const USER: &str = "65532:65532";

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";

/// What goes into an image. Files are executable by everybody and owned by
/// root.
///
/// ```
/// use springtide_image::ImageSpec;
///
/// let image = ImageSpec::new("localhost/hello:1")
///     .file("/bin/hello", b"\x7fELF...".to_vec())
///     .entrypoint(["/bin/hello"])
///     .build()?;
/// assert!(image.digest.starts_with("sha256:"));
/// # Ok::<(), anyhow::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ImageSpec {
    reference: String,
    entrypoint: Vec<String>,
    files: BTreeMap<String, Vec<u8>>,
    user: String,
    labels: BTreeMap<String, String>,
    created: Option<String>,
}

/// A finished image.
#[derive(Clone, Debug)]
pub struct Image {
    /// The full name under which pods ask for it, such as `localhost/pause:1`.
    pub reference: String,
    /// Digest of the manifest, `sha256:` and 64 hexadecimal digits.
    pub digest: String,
    /// The OCI archive (a tar file).
    pub archive: Vec<u8>,
}

impl ImageSpec {
    /// An image without files. `reference` must be complete
    /// (`registry/name:tag`): the kubelet adds a default registry to anything
    /// less, and then misses the image.
    #[must_use]
    pub fn new(reference: &str) -> Self {
        Self {
            reference: reference.to_owned(),
            entrypoint: Vec::new(),
            files: BTreeMap::new(),
            user: USER.to_owned(),
            labels: BTreeMap::new(),
            created: None,
        }
    }

    /// Adds a file by its absolute path; a second one of the same path
    /// replaces the first.
    #[must_use]
    pub fn file(mut self, path: &str, content: Vec<u8>) -> Self {
        self.files.insert(path.to_owned(), content);
        self
    }

    /// The command of containers that give none; their `args` are appended.
    #[must_use]
    pub fn entrypoint<'a>(mut self, words: impl IntoIterator<Item = &'a str>) -> Self {
        self.entrypoint = words.into_iter().map(str::to_owned).collect();
        self
    }

    /// Numeric user and group (`uid:gid`) of containers that name none;
    /// 65532:65532 when not called.
    #[must_use]
    pub fn user(mut self, user: &str) -> Self {
        user.clone_into(&mut self.user);
        self
    }

    /// Adds a label of the image's configuration.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// When the image was made (RFC 3339); an image without says nothing of it. Part of the digest.
    #[must_use]
    pub fn created(mut self, time: &str) -> Self {
        self.created = Some(time.to_owned());
        self
    }

    /// Builds the archive in memory: three times the size of the files while
    /// it runs.
    ///
    /// # Errors
    /// A reference without registry or tag, a file path that is not absolute
    /// and plain, or a machine whose architecture has no OCI name here.
    pub fn build(&self) -> Result<Image> {
        let Some((_, tag)) = self.reference.split_once('/').and_then(|(_, rest)| rest.rsplit_once(':'))
        else {
            bail!("image reference {:?}: expected registry/name:tag", self.reference);
        };
        let architecture = architecture()?;
        let layer = self.layer()?;
        let mut config = json!({
            "architecture": architecture,
            "os": "linux",
            "config": { "Entrypoint": self.entrypoint, "Env": [PATH], "User": self.user, "WorkingDir": "/" },
            // The digest of the layer's uncompressed form, which is what it has.
            "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
        });
        if !self.labels.is_empty() {
            config["config"]["Labels"] = json!(self.labels);
        }
        if let Some(created) = &self.created {
            config["created"] = json!(created);
        }
        let config = serde_json::to_vec(&config)?;
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": descriptor(CONFIG_TYPE, &config),
            "layers": [descriptor(LAYER_TYPE, &layer)],
        }))?;
        let mut entry = descriptor(MANIFEST_TYPE, &manifest);
        entry["platform"] = json!({ "architecture": architecture, "os": "linux" });
        entry["annotations"] = json!({
            "io.containerd.image.name": self.reference,
            "org.opencontainers.image.ref.name": tag,
        });
        let index = serde_json::to_vec(&json!({ "schemaVersion": 2, "manifests": [entry] }))?;

        let mut archive = Archive::new();
        archive.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        archive.file("index.json", &index)?;
        for blob in [&manifest, &config, &layer] {
            archive.file(&format!("blobs/sha256/{}", hex_digest(blob)), blob)?;
        }
        Ok(Image { reference: self.reference.clone(), digest: digest(&manifest), archive: archive.finish()? })
    }

    fn layer(&self) -> Result<Vec<u8>> {
        let mut archive = Archive::new();
        for (path, content) in &self.files {
            let inside = path
                .strip_prefix('/')
                .filter(|inside| inside.split('/').all(|part| !matches!(part, "" | "." | "..")))
                .with_context(|| {
                    format!("image {}: file {path:?} is not an absolute plain path", self.reference)
                })?;
            archive.file(inside, content)?;
        }
        archive.finish()
    }
}

/// Go's name of this machine's architecture, which OCI uses.
fn architecture() -> Result<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => bail!("no OCI name known for the architecture {other}"),
    }
}

fn hex_digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex_digest(bytes))
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": digest(bytes), "size": bytes.len() })
}

/// A tar file with everything in it that could differ between two runs fixed:
/// times are zero, owners are root, parents come once and before their files.
struct Archive {
    tar: tar::Builder<Vec<u8>>,
    folders: BTreeSet<String>,
}

impl Archive {
    fn new() -> Self {
        Self { tar: tar::Builder::new(Vec::new()), folders: BTreeSet::new() }
    }

    fn file(&mut self, path: &str, content: &[u8]) -> Result<()> {
        for (end, _) in path.match_indices('/') {
            let folder = &path[..=end];
            if self.folders.insert(folder.to_owned()) {
                self.entry(folder, tar::EntryType::Directory, &[])?;
            }
        }
        self.entry(path, tar::EntryType::Regular, content)
    }

    fn entry(&mut self, path: &str, kind: tar::EntryType, content: &[u8]) -> Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        self.tar.append_data(&mut header, path, content).with_context(|| format!("tar entry {path}"))
    }

    fn finish(self) -> Result<Vec<u8>> {
        Ok(self.tar.into_inner()?)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn spec() -> ImageSpec {
        ImageSpec::new("localhost/hello:7")
            .file("/bin/hello", b"program".to_vec())
            .file("/bin/other", b"another".to_vec())
            .entrypoint(["/bin/hello", "world"])
    }

    fn unpack(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        tar::Archive::new(archive)
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let path = entry.path().unwrap().to_str().unwrap().to_owned();
                let mut content = Vec::new();
                entry.read_to_end(&mut content).unwrap();
                (path, content)
            })
            .collect()
    }

    /// Follows one descriptor as a container engine does: by digest, checking
    /// digest and size.
    fn follow<'a>(files: &'a BTreeMap<String, Vec<u8>>, descriptor: &Value) -> &'a [u8] {
        let digest = descriptor["digest"].as_str().unwrap();
        let hex = digest.strip_prefix("sha256:").unwrap();
        let blob = &files[&format!("blobs/sha256/{hex}")];
        assert_eq!(hex::encode(Sha256::digest(blob)), hex);
        assert_eq!(descriptor["size"].as_u64().unwrap(), blob.len() as u64);
        blob
    }

    #[test]
    fn every_digest_leads_to_its_blob() {
        let image = spec().build().unwrap();
        let files = unpack(&image.archive);
        let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        let entry = &index["manifests"][0];
        assert_eq!(entry["digest"], image.digest);
        assert_eq!(entry["annotations"]["io.containerd.image.name"], "localhost/hello:7");
        assert_eq!(entry["annotations"]["org.opencontainers.image.ref.name"], "7");
        let manifest: Value = serde_json::from_slice(follow(&files, entry)).unwrap();
        let config: Value = serde_json::from_slice(follow(&files, &manifest["config"])).unwrap();
        let layer = follow(&files, &manifest["layers"][0]);
        assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
        assert_eq!(config["config"]["Entrypoint"], json!(["/bin/hello", "world"]));
        let inside = unpack(layer);
        assert_eq!(inside.keys().collect::<Vec<_>>(), ["bin/", "bin/hello", "bin/other"]);
        assert_eq!(inside["bin/hello"], b"program");
    }

    #[test]
    fn same_input_same_bytes() {
        let turned = ImageSpec::new("localhost/hello:7")
            .entrypoint(["/bin/hello", "world"])
            .file("/bin/other", b"another".to_vec())
            .file("/bin/hello", b"program".to_vec());
        assert_eq!(spec().build().unwrap().archive, turned.build().unwrap().archive);
        let changed = spec().file("/bin/hello", b"programme".to_vec());
        assert_ne!(spec().build().unwrap().digest, changed.build().unwrap().digest);
    }

    #[test]
    fn labels_and_time_stand_in_the_configuration() {
        let image = spec().label("a", "b").created("2026-01-02T03:04:05Z").build().unwrap();
        assert_ne!(image.digest, spec().build().unwrap().digest);
        let files = unpack(&image.archive);
        let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        let manifest: Value = serde_json::from_slice(follow(&files, &index["manifests"][0])).unwrap();
        let config: Value = serde_json::from_slice(follow(&files, &manifest["config"])).unwrap();
        assert_eq!(
            (&config["config"]["Labels"], &config["created"]),
            (&json!({"a": "b"}), &json!("2026-01-02T03:04:05Z"))
        );
    }

    #[test]
    fn refuses_what_a_node_would_miss() {
        for reference in ["hello", "hello:1", "localhost/hello"] {
            let error = ImageSpec::new(reference).build().unwrap_err();
            assert!(error.to_string().contains("registry/name:tag"), "{error}");
        }
        for path in ["bin/hello", "/../hello", "/bin//hello", "/"] {
            let error = ImageSpec::new("localhost/hello:1").file(path, Vec::new()).build().unwrap_err();
            assert!(error.to_string().contains("absolute plain path"), "{error}");
        }
    }
}
