//! The CA on disk: its keys, its certificates, its ledger.
//!
//! The first certificate in `ca.pem` is that of the CA that signs; its key lies in
//! `ca-<the first 16 digits of its fingerprint>.key`. Every change is one file put in place of
//! another, under a lock that all processes of this folder respect.

mod rotate;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::RngExt;

use super::message::{Named, Standing};
use crate::ca::name::{self, BadName};
use crate::ca::{BadRequest, Issued, Ledger, LedgerError, MAX_REVOKED, Request, Serial, Token};
use crate::clock;
use crate::id::NodeId;
use crate::net::tls::{self, Authority, Facts, TlsError, Trust};
use crate::operator::{BadKey, OperatorKey};

pub use self::rotate::Rotation;

/// A CA's folder.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
}

/// Why something cannot be done with a CA's folder.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// There is a CA already.
    #[error("{} holds a CA already; give another --dir", .0.display())]
    Exists(PathBuf),
    /// The folder cannot be made or locked.
    #[error("{}: {source}; check that this user may write there", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The ledger cannot be read.
    #[error("{}: {problem}; restore it from a backup", path.display())]
    Ledger {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// A file, a key or a certificate is of no use.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The operator's key cannot be made.
    #[error(transparent)]
    Operator(#[from] BadKey),
    /// A name is of no use.
    #[error(transparent)]
    Name(#[from] BadName),
    /// The ledger refuses.
    #[error(transparent)]
    Refused(#[from] LedgerError),
    /// The node's request is refused.
    #[error(transparent)]
    Request(#[from] BadRequest),
    /// A node may not renew what was revoked.
    #[error("the certificate is revoked; enrol again with a new join token")]
    Revoked,
    /// The certificate is of a CA that was dropped.
    #[error("no CA of this mesh signed the certificate; enrol again with a new join token")]
    Stranger,
    /// A node may renew its own certificate alone.
    #[error("the certificate request is for another node than the certificate")]
    OtherNode,
    /// A step of a rotation is out of turn.
    #[error("{0}")]
    Step(&'static str),
    /// Nodes still need the older CA.
    #[error(
        "these nodes have no certificate of the new CA yet: {0}; wait until they renewed, or \
         drop the old CA with --force and enrol them again"
    )]
    Needed(String),
}

/// The ledger as it lies on disk.
#[derive(serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    trust_domain: String,
    /// The fingerprint of the newest CA, signing already or not; `None` for the first.
    incoming: Option<String>,
    ledger: Ledger,
}

impl Folder {
    /// Names the folder at `path`; reads nothing.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Makes a CA and the operator's key in a folder that holds none. Returns the CA's
    /// fingerprint.
    pub fn init(&self, trust_domain: &str) -> Result<String, FolderError> {
        name::check_trust_domain(trust_domain)?;
        let failed = |source| FolderError::Folder { path: self.path.clone(), source };
        make_private(&self.path).map_err(failed)?;
        let _lock = self.lock()?;
        if self.file(CA).exists() || self.file(LEDGER).exists() {
            return Err(FolderError::Exists(self.path.clone()));
        }
        let operator = OperatorKey::from_seed(rand::rng().random())?;
        tls::write(&self.file(OPERATOR_KEY), &operator.to_pem(), 0o600)?;
        tls::write(&self.file(OPERATOR), &operator.public().to_pem(), 0o644)?;
        let authority = Authority::generate(trust_domain)?;
        let fingerprint = self.write_key(&authority)?;
        let trust_domain = trust_domain.to_owned();
        let mut kept = Kept { trust_domain, incoming: None, ledger: Ledger::default() };
        self.write_list(&authority, &mut kept)?;
        // Last, so that a folder with a CA is whole.
        authority.trust().write(&self.file(CA))?;
        Ok(fingerprint)
    }

    /// Makes a join token for `node`, good for `life`.
    pub fn token(&self, node: NodeId, life: Duration) -> Result<Token, FolderError> {
        name::check_node(node)?;
        let _lock = self.lock()?;
        let mut kept = self.kept()?;
        let token = Token::new(node, rand::rng().random());
        kept.ledger.add_token(clock::wall(), token.hash(), node, life)?;
        self.keep(&kept)?;
        Ok(token)
    }

    /// Uses up `token` and names the node that asks by `request`.
    pub fn enroll(&self, token: &Token, request: &str) -> Result<Named, FolderError> {
        let _lock = self.lock()?;
        let mut kept = self.kept()?;
        let request = Request::read(request, &kept.trust_domain)?;
        kept.ledger.redeem(clock::wall(), &token.hash(), request.node())?;
        self.name(&request, kept)
    }

    /// Names a node again that shows its present certificate.
    pub fn renew(&self, present: &Facts, request: &str) -> Result<Named, FolderError> {
        let _lock = self.lock()?;
        let kept = self.kept()?;
        let request = Request::read(request, &kept.trust_domain)?;
        if present.node_of(&kept.trust_domain) != Ok(request.node()) {
            return Err(FolderError::OtherNode);
        }
        self.check_good(&kept, present)?;
        self.name(&request, kept)
    }

    /// Returns how the mesh stands, to a node that shows its present certificate.
    pub fn standing(&self, present: &Facts) -> Result<Standing, FolderError> {
        let _lock = self.lock()?;
        let kept = self.kept()?;
        self.check_good(&kept, present)?;
        self.standing_of(&kept)
    }

    /// Returns what changes whenever the files that nodes hear of do.
    pub(super) fn stamp(&self) -> [Option<(u64, i64, i64)>; 2] {
        use std::os::unix::fs::MetadataExt;
        [CA, REVOKED].map(|name| {
            let it = std::fs::metadata(self.file(name)).ok()?;
            Some((it.ino(), it.mtime(), it.mtime_nsec()))
        })
    }

    /// Revokes all certificates of `node`; returns how many.
    pub fn revoke_node(&self, node: NodeId) -> Result<usize, FolderError> {
        let _lock = self.lock()?;
        let mut kept = self.kept()?;
        let n_revoked = kept.ledger.revoke_node(clock::wall(), node)?;
        self.write_list(&self.authority(&kept)?, &mut kept)?;
        Ok(n_revoked)
    }

    /// Revokes one certificate by its number.
    pub fn revoke_serial(&self, serial: Serial) -> Result<(), FolderError> {
        let _lock = self.lock()?;
        let mut kept = self.kept()?;
        kept.ledger.revoke_serial(clock::wall(), serial)?;
        self.write_list(&self.authority(&kept)?, &mut kept)?;
        Ok(())
    }

    /// Signs the list of what is revoked anew, so that nodes see the CA is alive.
    pub(super) fn renew_list(&self) -> Result<(), FolderError> {
        let _lock = self.lock()?;
        let mut kept = self.kept()?;
        self.write_list(&self.authority(&kept)?, &mut kept)
    }

    /// Returns the CA that signs, with its key.
    pub fn signer(&self) -> Result<Authority, FolderError> {
        let _lock = self.lock()?;
        self.authority(&self.kept()?)
    }

    /// Returns the certificates of the CAs.
    pub fn trust(&self) -> Result<Trust, FolderError> {
        Ok(Trust::load(&self.kept()?.trust_domain, &self.file(CA))?)
    }

    /// Returns the fingerprint of the CA that signs.
    pub fn fingerprint(&self) -> Result<String, FolderError> {
        fingerprint(&self.trust()?)
    }

    fn check_good(&self, kept: &Kept, present: &Facts) -> Result<(), FolderError> {
        if kept.ledger.is_revoked(&present.serial) {
            return Err(FolderError::Revoked);
        }
        // The connection may have begun before a CA was dropped.
        let trusted = self.trust()?.certificates()?.iter().any(|it| present.is_by(it));
        trusted.then_some(()).ok_or(FolderError::Stranger)
    }

    fn name(&self, request: &Request, mut kept: Kept) -> Result<Named, FolderError> {
        let authority = self.authority(&kept)?;
        let serial = Serial::random(rand::rng().random());
        let (certificate, ends) = authority.certify(request, &serial)?;
        let by = fingerprint(authority.trust())?;
        let issued = Issued { node: request.node(), not_after: ends.as_secs(), by };
        kept.ledger.note_issued(clock::wall(), serial, issued)?;
        // What is handed out is on record first: it can be revoked, and no token serves twice.
        self.keep(&kept)?;
        let operator = tls::read(&self.file(OPERATOR))?;
        Ok(Named { certificate, operator, standing: self.standing_of(&kept)? })
    }

    fn standing_of(&self, kept: &Kept) -> Result<Standing, FolderError> {
        Ok(Standing {
            trust_domain: kept.trust_domain.clone(),
            ca: tls::read(&self.file(CA))?,
            revoked: tls::read(&self.file(REVOKED))?,
        })
    }

    fn authority(&self, kept: &Kept) -> Result<Authority, FolderError> {
        let trust = Trust::load(&kept.trust_domain, &self.file(CA))?;
        let key = tls::read(&self.key_file(&fingerprint(&trust)?))?;
        Ok(Authority::from_pem(trust, &key)?)
    }

    fn write_key(&self, authority: &Authority) -> Result<String, FolderError> {
        let fingerprint = fingerprint(authority.trust())?;
        authority.write_key(&self.key_file(&fingerprint))?;
        Ok(fingerprint)
    }

    /// Signs and writes the list of what is revoked, and the ledger it comes from: the ledger
    /// first, since a list can be made again of it.
    fn write_list(&self, authority: &Authority, kept: &mut Kept) -> Result<(), FolderError> {
        let number = kept.ledger.next_list();
        self.keep(kept)?;
        let revoked = kept.ledger.revoked().take(MAX_REVOKED).map(|(it, why)| (it, why.at));
        let list = authority.revocation_list(number, revoked)?;
        Ok(tls::write(&self.file(REVOKED), &list, 0o644)?)
    }

    fn kept(&self) -> Result<Kept, FolderError> {
        let path = self.file(LEDGER);
        let text = tls::read(&path)?;
        serde_json::from_str(&text)
            .map_err(|error| FolderError::Ledger { path, problem: error.to_string() })
    }

    fn keep(&self, kept: &Kept) -> Result<(), FolderError> {
        let path = self.file(LEDGER);
        let text = serde_json::to_string_pretty(kept).map_err(|error| FolderError::Ledger {
            path: path.clone(),
            problem: error.to_string(),
        })?;
        Ok(tls::write(&path, &text, 0o600)?)
    }

    /// Holds the folder against other processes until the file is dropped.
    fn lock(&self) -> Result<File, FolderError> {
        let path = self.file(LOCK);
        let locked = || {
            let file = File::options().create(true).truncate(false).write(true).open(&path)?;
            file.lock()?;
            Ok(file)
        };
        locked().map_err(|source| FolderError::Folder { path: self.path.clone(), source })
    }

    fn key_file(&self, fingerprint: &str) -> PathBuf {
        let digits = fingerprint.trim_start_matches("sha256:");
        self.file(&format!("ca-{}.key", digits.get(..16).unwrap_or(digits)))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// Returns the fingerprint of the CA that signs.
fn fingerprint(trust: &Trust) -> Result<String, FolderError> {
    let certificates = trust.certificates()?;
    Ok(name::fingerprint(certificates.first().ok_or(TlsError::Unreadable)?))
}

fn make_private(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

const CA: &str = "ca.pem";
const LEDGER: &str = "ledger.json";
const REVOKED: &str = "revoked.pem";
const OPERATOR: &str = "operator.pub";
const OPERATOR_KEY: &str = "operator.key";
const LOCK: &str = "lock";
