//! Which servers are trusted under TLS.

use super::{Obstacle, unavailable};
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How often the authorities that are trusted are read again.
const PERIOD: Duration = Duration::from_secs(60);

/// The authorities of a file, or those of the system where there is no such file.
pub(super) struct Trust {
    ca_file: PathBuf,
    read: Mutex<Option<(Instant, Arc<ClientConfig>)>>,
}

impl Trust {
    pub(super) fn new(ca_file: PathBuf) -> Self {
        Self { ca_file, read: Mutex::default() }
    }

    /// TLS as it was read a minute ago at most.
    ///
    /// # Errors
    /// There is nobody to trust, or the file cannot be read.
    pub(super) async fn config(&self) -> Result<Arc<ClientConfig>, Obstacle> {
        if let Some((read, config)) = &*self.read.lock().unwrap_or_else(PoisonError::into_inner)
            && read.elapsed() < PERIOD
        {
            return Ok(Arc::clone(config));
        }
        let file = self.ca_file.clone();
        let config = tokio::task::spawn_blocking(move || client_config(&file))
            .await
            .unwrap_or_else(|error| Err(error.to_string()))
            .map_err(unavailable)?;
        let config = Arc::new(config);
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((Instant::now(), Arc::clone(&config)));
        Ok(config)
    }
}

/// TLS as a client that trusts the authorities of a file, or those of the system.
fn client_config(ca_file: &Path) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    if ca_file.exists() {
        let read = |error| format!("{}: {error}", ca_file.display());
        for certificate in CertificateDer::pem_file_iter(ca_file).map_err(read)? {
            roots
                .add(certificate.map_err(read)?)
                .map_err(|error| format!("{}: {error}", ca_file.display()))?;
        }
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if roots.is_empty() {
        return Err(format!(
            "no authority to trust: the manager needs certificates in {}",
            ca_file.display()
        ));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_authorities_trusts_nobody() {
        let file = std::env::temp_dir().join(format!("springtide-outbound-{}.pem", std::process::id()));
        std::fs::write(&file, "nothing").unwrap();
        let error = client_config(&file).unwrap_err();
        std::fs::remove_file(&file).unwrap();
        assert!(error.contains("no authority to trust") && error.contains("springtide-outbound"), "{error}");
    }
}
