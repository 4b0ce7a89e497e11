//! One CA in place of another, in three steps, while the mesh runs.

use std::io;
use std::time::{Duration, UNIX_EPOCH};

use super::{CA, Folder, FolderError, fingerprint};
use crate::clock;
use crate::net::tls::{self, Authority, Trust};

/// A step of a rotation. Between two of them every node has to have heard of the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// Nodes trust a new CA beside the old one, which goes on signing.
    Add,
    /// The new CA signs, and every node renews its certificate. Without `force` only once all
    /// nodes that run have had the time to hear of the new CA: one that does not trust it hears
    /// nothing any more.
    Reissue {
        /// Whether nodes that have not heard of it are left behind.
        force: bool,
    },
    /// Nodes trust the new CA alone. Without `force` only where no node needs the old one.
    Drop {
        /// Whether nodes without a certificate of the new CA are left behind.
        force: bool,
    },
}

impl Folder {
    /// Takes one step. Returns the fingerprint of the CA that signs from then on.
    pub fn rotate(&self, step: Rotation) -> Result<String, FolderError> {
        let _lock = self.lock()?;
        let mut kept = self.kept()?;
        let trust = Trust::load(&kept.trust_domain, &self.file(CA))?;
        let pems = each(&trust.ca_pem);
        // Which of two signs is told by their order; which is the newer one, by the ledger.
        let signer = fingerprint(&trust)?;
        let is_reissued = kept.incoming.as_ref() == Some(&signer);
        let path = self.file(CA);
        match (step, &pems[..]) {
            (Rotation::Add, [old]) => {
                let fresh = Authority::generate(&kept.trust_domain)?;
                kept.incoming = Some(self.write_key(&fresh)?);
                self.keep(&kept)?;
                tls::write(&path, &format!("{old}{}", fresh.trust().ca_pem), 0o644)?;
            }
            (Rotation::Reissue { force }, [first, second]) => {
                if is_reissued {
                    return Err(FolderError::Step(
                        "the new CA signs already; next is `portolan ca rotate drop`",
                    ));
                }
                if !force && self.age_of(CA)? < HEARD_AFTER {
                    return Err(FolderError::Step(
                        "nodes have not all heard of the new CA yet; try again in half a minute, \
                         or leave those that have not behind with --force",
                    ));
                }
                tls::write(&path, &format!("{second}{first}"), 0o644)?;
                // The list is signed by a CA that stays.
                self.write_list(&self.authority(&kept)?, &mut kept)?;
            }
            (Rotation::Drop { force }, [new, old]) => {
                if !is_reissued {
                    return Err(FolderError::Step(
                        "the old CA still signs; first comes `portolan ca rotate reissue`",
                    ));
                }
                let needed = kept.ledger.not_by(clock::wall(), &signer);
                if !force && !needed.is_empty() {
                    let names: Vec<&str> = needed.iter().map(|it| it.as_str()).collect();
                    return Err(FolderError::Needed(names.join(" ")));
                }
                tls::write(&path, new, 0o644)?;
                self.forget_key(&kept.trust_domain, old)?;
            }
            (Rotation::Add, _) => {
                return Err(FolderError::Step(
                    "a rotation is under way; next is `portolan ca rotate reissue` or drop",
                ));
            }
            (Rotation::Reissue { .. } | Rotation::Drop { .. }, _) => {
                return Err(FolderError::Step(
                    "there is one CA alone; first comes `portolan ca rotate add`",
                ));
            }
        }
        self.fingerprint()
    }

    /// Returns how long ago a file was written.
    fn age_of(&self, name: &str) -> Result<Duration, FolderError> {
        let path = self.file(name);
        let written = std::fs::metadata(&path).and_then(|it| it.modified());
        let written = written.map_err(|source| FolderError::Folder { path, source })?;
        let written = written.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(clock::wall().saturating_sub(written))
    }

    /// Removes the key of a CA that nobody trusts any more.
    fn forget_key(&self, trust_domain: &str, ca_pem: &str) -> Result<(), FolderError> {
        let trust = Trust { trust_domain: trust_domain.to_owned(), ca_pem: ca_pem.to_owned() };
        match std::fs::remove_file(self.key_file(&fingerprint(&trust)?)) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(FolderError::Folder { path: self.path.clone(), source })
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// Returns each certificate of a bundle that was read before, by itself.
fn each(ca_pem: &str) -> Vec<String> {
    let parts = ca_pem.split_inclusive(END);
    parts.filter(|it| it.contains(END)).map(|it| format!("{}\n", it.trim())).collect()
}

/// Nodes ask at least this often, and hold the question open for most of it.
const HEARD_AFTER: Duration = Duration::from_secs(30);
const END: &str = "-----END CERTIFICATE-----";
