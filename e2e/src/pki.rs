//! Certificates, the service account key and kubeconfig files of one cluster.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use serde_json::json;
use time::{Duration, OffsetDateTime};

/// A certificate authority with its folder. Keys are ECDSA P-256, certificates
/// are valid from an hour ago (clocks differ) for a year; files have mode 0600.
pub struct Pki {
    folder: PathBuf,
    authority: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its private key, as PEM files.
#[derive(Debug, Clone)]
pub struct KeyedCertificate {
    /// Path of the certificate.
    pub certificate: PathBuf,
    /// Path of the private key (PKCS #8).
    pub key: PathBuf,
}

/// The key pair that signs service account tokens, as PEM files.
#[derive(Debug, Clone)]
pub struct ServiceAccountKey {
    /// Path of the private key (PKCS #8).
    pub private: PathBuf,
    /// Path of the public key.
    pub public: PathBuf,
}

impl Pki {
    /// Makes an authority and writes `ca.crt` and `ca.key` into `folder`, which must exist.
    ///
    /// # Errors
    /// A key cannot be generated or a file cannot be written.
    pub fn create(folder: &Path) -> Result<Self> {
        let mut params = named("kubernetes", None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().context("generate the authority's key")?;
        let authority = CertifiedIssuer::self_signed(params, key).context("sign the authority")?;
        let pki = Self { folder: folder.to_owned(), authority };
        write_private(&pki.authority_certificate(), &pki.authority.pem())?;
        write_private(&pki.authority_key(), &pki.authority.key().serialize_pem())?;
        Ok(pki)
    }

    /// Makes another authority, in a folder of this name below that of this one.
    ///
    /// # Errors
    /// As [`Pki::create`], or the folder cannot be made.
    pub fn nested(&self, name: &str) -> Result<Self> {
        let folder = self.folder.join(name);
        std::fs::create_dir(&folder).with_context(|| format!("make {}", folder.display()))?;
        Self::create(&folder)
    }

    /// Path of the authority's certificate.
    #[must_use]
    pub fn authority_certificate(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    /// Path of the authority's private key.
    #[must_use]
    pub fn authority_key(&self) -> PathBuf {
        self.folder.join("ca.key")
    }

    /// A serving certificate `<name>.crt` for DNS names and IP addresses.
    ///
    /// # Errors
    /// A name is not a DNS name, or a file cannot be written.
    pub fn server(&self, name: &str, subject_alt_names: &[&str]) -> Result<KeyedCertificate> {
        let mut params = named(name, None);
        let names: Vec<String> = subject_alt_names.iter().map(ToString::to_string).collect();
        params.subject_alt_names = CertificateParams::new(names)
            .with_context(|| format!("subject alternative names of {name}"))?
            .subject_alt_names;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(name, params)
    }

    /// A client certificate `<file>.crt`: Kubernetes takes the common name as user
    /// and the organization as group.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn client(&self, file: &str, common_name: &str, organization: &str) -> Result<KeyedCertificate> {
        let mut params = named(common_name, Some(organization));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(file, params)
    }

    fn issue(&self, file: &str, mut params: CertificateParams) -> Result<KeyedCertificate> {
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().with_context(|| format!("generate the key of {file}"))?;
        let certificate = params.signed_by(&key, &self.authority).with_context(|| format!("sign {file}"))?;
        let paths = KeyedCertificate {
            certificate: self.folder.join(format!("{file}.crt")),
            key: self.folder.join(format!("{file}.key")),
        };
        write_private(&paths.certificate, &certificate.pem())?;
        write_private(&paths.key, &key.serialize_pem())?;
        Ok(paths)
    }

    /// Makes the service account key pair, `sa.key` and `sa.pub`.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn service_account_key(&self) -> Result<ServiceAccountKey> {
        let key = KeyPair::generate().context("generate the service account key")?;
        let paths =
            ServiceAccountKey { private: self.folder.join("sa.key"), public: self.folder.join("sa.pub") };
        write_private(&paths.private, &key.serialize_pem())?;
        write_private(&paths.public, &key.public_key_pem())?;
        Ok(paths)
    }

    /// Writes a kubeconfig for one user at `server` (a URL). It holds the
    /// certificates themselves, so it works wherever it is copied.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub fn kubeconfig(&self, path: &Path, server: &str, user: &KeyedCertificate) -> Result<()> {
        let data = |path: &Path| -> Result<String> {
            let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
            Ok(STANDARD.encode(bytes))
        };
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "springtide", "cluster": {
                "server": server,
                "certificate-authority-data": data(&self.authority_certificate())?,
            }}],
            "users": [{"name": "springtide", "user": {
                "client-certificate-data": data(&user.certificate)?,
                "client-key-data": data(&user.key)?,
            }}],
            "contexts": [{"name": "springtide", "context": {
                "cluster": "springtide", "user": "springtide",
            }}],
            "current-context": "springtide",
        });
        let text = serde_yaml::to_string(&config).context("write a kubeconfig")?;
        write_private(path, &text)
    }
}

/// Parameters with a subject, valid for a year.
fn named(common_name: &str, organization: Option<&str>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    if let Some(organization) = organization {
        params.distinguished_name.push(DnType::OrganizationName, organization);
    }
    params.distinguished_name.push(DnType::CommonName, common_name);
    let now = OffsetDateTime::now_utc();
    params.not_before = now - Duration::HOUR;
    params.not_after = now + Duration::days(365);
    params
}

/// Writes a new file that only its owner can read.
fn write_private(path: &Path, text: &str) -> Result<()> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_private_and_the_kubeconfig_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::create(folder.path()).unwrap();
        let admin = pki.client("admin", "admin", "system:masters").unwrap();
        pki.server("apiserver", &["localhost", "127.0.0.1"]).unwrap();
        pki.service_account_key().unwrap();
        let path = folder.path().join("kubeconfig");
        pki.kubeconfig(&path, "https://127.0.0.1:1", &admin).unwrap();
        for entry in fs::read_dir(folder.path()).unwrap() {
            let entry = entry.unwrap();
            let mode = std::os::unix::fs::PermissionsExt::mode(&entry.metadata().unwrap().permissions());
            assert_eq!(mode & 0o777, 0o600, "{}", entry.path().display());
        }
        let parsed = kube::config::Kubeconfig::read_from(&path).unwrap();
        let user = parsed.auth_infos[0].auth_info.as_ref().unwrap();
        assert!(user.client_certificate_data.is_some());
        assert_eq!(parsed.current_context.as_deref(), Some("springtide"));
    }

    #[test]
    fn a_bad_name_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::create(folder.path()).unwrap();
        let error = format!("{:#}", pki.server("apiserver", &["bücher"]).unwrap_err());
        assert!(error.contains("subject alternative names of apiserver"), "{error}");
    }
}
