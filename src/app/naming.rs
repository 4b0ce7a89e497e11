//! Who this node is in the mesh: read from its files, read again when they change, renewed in
//! time.
//!
//! Nothing here ends anything but links of revoked nodes. A file that cannot be used leaves
//! the node as it was, and so does a CA that is away.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail};
use arc_swap::ArcSwap;
use metrics::{counter, gauge};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::ca::{Revoked, renewal};
use crate::clock;
use crate::clock::pulse::Pulse;
use crate::config::MeshConfig;
use crate::enroll::{Standing, client};
use crate::net::Endpoint;
use crate::net::tls::{self, Facts, Identity, TlsError, Trust};

/// What a node shows and whom it believes, as it stood in its files.
#[derive(Clone, Debug)]
pub(super) struct Naming {
    pub(super) identity: Identity,
    pub(super) trust: Trust,
    pub(super) revoked: Revoked,
}

/// Keeps the naming of an endpoint fresh.
#[derive(Debug)]
pub(super) struct Keeper {
    mesh: MeshConfig,
    endpoint: Endpoint,
    current: ArcSwap<Naming>,
    seen: Mutex<Seen>,
}

/// Which state of the files is in use, and which was found to be of none.
#[derive(Debug)]
struct Seen {
    taken: Stamps,
    failed: Option<Stamps>,
}

/// What tells that a file is another than before; `None` for one that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamps(Vec<Option<(u64, i64, i64, u64)>>);

impl Naming {
    /// Reads the files of a mesh.
    pub(super) fn read(mesh: &MeshConfig) -> Result<Self, TlsError> {
        let trust = Trust::load(&mesh.trust_domain, &mesh.ca)?;
        let identity = Identity::load(&mesh.cert, &mesh.key)?;
        let revoked = mesh.revoked.as_ref().map(|it| trust.load_revoked(it)).transpose()?;
        Ok(Self { identity, trust, revoked: revoked.unwrap_or_default() })
    }

    fn facts(&self) -> Result<Facts, TlsError> {
        self.identity.facts()
    }
}

impl Keeper {
    /// Begins with what `endpoint` was bound with.
    pub(super) fn new(mesh: MeshConfig, endpoint: Endpoint, naming: Naming) -> Self {
        let seen = Seen { taken: Stamps::of(&mesh), failed: None };
        tell(&naming);
        Self { mesh, endpoint, current: ArcSwap::from_pointee(naming), seen: Mutex::new(seen) }
    }

    /// Returns the endpoint whose naming this is.
    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Reads the files where they are others than those in use.
    pub(super) fn read(&self) -> Result<Option<(Naming, Stamps)>, TlsError> {
        let stamps = Stamps::of(&self.mesh);
        if stamps == self.seen().taken {
            return Ok(None);
        }
        let naming = Naming::read(&self.mesh)?;
        tls::check(&naming.trust, &naming.identity)?;
        Ok(Some((naming, stamps)))
    }

    /// Uses what was read for all links to come.
    pub(super) fn take(&self, naming: Naming, stamps: Stamps) -> Result<()> {
        let Naming { identity, trust, revoked } = &naming;
        let n_ended = self.endpoint.swap(identity, trust, revoked.clone())?;
        let expires = naming.facts()?.not_after;
        tracing::info!(expires, revoked = revoked.len(), n_ended, "the node's files are in use");
        tell(&naming);
        self.current.store(Arc::new(naming));
        self.seen().taken = stamps;
        Ok(())
    }

    /// Takes the files where they changed; a state of them that is of no use is told once.
    fn look(&self) {
        let outcome = match self.read() {
            Ok(None) => return,
            Ok(Some((naming, stamps))) => self.take(naming, stamps),
            Err(error) => Err(error.into()),
        };
        let stamps = Stamps::of(&self.mesh);
        let label = if outcome.is_ok() { "applied" } else { "refused" };
        if let Err(error) = outcome {
            if self.seen().failed.replace(stamps.clone()) == Some(stamps) {
                return;
            }
            let error = format!("{error:#}");
            tracing::warn!(%error, "the node's files are of no use; those before stay in use");
        }
        counter!("portolan_mesh_identity_reloads_total", "outcome" => label).increment(1);
    }

    /// Says what an operator should look at before links fail.
    fn complain(&self) {
        let naming = self.current.load();
        let now = clock::wall();
        let Ok(facts) = naming.facts() else { return };
        if renewal::is_late(now, facts.not_before, facts.not_after) {
            let left_s = facts.not_after.saturating_sub(now.as_secs() as i64);
            tracing::warn!(left_s, "the node's certificate ends soon; is the CA served?");
        }
        if naming.revoked.contains(&facts.serial) {
            tracing::error!("this node's certificate is revoked; enrol it again");
        }
        let due = naming.revoked.next_update();
        if self.mesh.revoked.is_some() && due < now.as_secs() as i64 {
            tracing::warn!("the revocation list is older than its CA promised; is it served?");
        }
    }

    /// Asks the CA how the mesh stands, waiting for that to change where `tag` says that it is
    /// known, and for the next certificate where it is time: by its age, or because another CA
    /// signs now. What comes is written to the files, from which it is taken like any other
    /// change. Returns whether a certificate came.
    async fn ask(&self, at: &str, draw: u32, tag: &mut Option<String>) -> Result<bool> {
        let naming = self.current.load_full();
        let facts = naming.facts()?;
        let is_due = clock::wall() >= renewal::due(facts.not_before, facts.not_after, draw);
        // What is due is not waited for.
        let known = tag.take().filter(|_| !is_due);
        let told = client::standing(at, &naming.trust, &naming.identity, known.as_deref()).await?;
        let Some((standing, fresh)) = told else {
            *tag = known;
            return Ok(false);
        };
        if standing.trust_domain != naming.trust.trust_domain {
            bail!("{at} is of another mesh, {}", standing.trust_domain);
        }
        let signs = Trust { ca_pem: standing.ca.clone(), ..naming.trust.clone() };
        let is_by = signs.certificates()?.first().is_some_and(|it| facts.is_by(it));
        if is_by && !is_due {
            self.write(standing).await?;
            *tag = Some(fresh);
            return Ok(false);
        }
        let named = client::renew(at, &naming.trust, &naming.identity).await;
        let label = if named.is_ok() { "renewed" } else { "failed" };
        counter!("portolan_mesh_renewals_total", "outcome" => label).increment(1);
        let named = named?;
        let (cert, certificate) = (self.mesh.cert.clone(), named.certificate);
        let written = move || tls::write(&cert, &certificate, 0o644);
        tokio::task::spawn_blocking(written).await??;
        tracing::info!("the CA has given this node its next certificate");
        self.write(named.standing).await?;
        Ok(true)
    }

    async fn write(&self, standing: Standing) -> Result<()> {
        let mut files = vec![(self.mesh.ca.clone(), standing.ca)];
        files.extend(self.mesh.revoked.clone().map(|it| (it, standing.revoked)));
        let written = move || files.iter().try_for_each(|(path, text)| write_changed(path, text));
        Ok(tokio::task::spawn_blocking(written).await??)
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stamps {
    fn of(mesh: &MeshConfig) -> Self {
        let paths = [Some(&mesh.ca), Some(&mesh.cert), Some(&mesh.key), mesh.revoked.as_ref()];
        let stamp = |path: &PathBuf| {
            let it = std::fs::metadata(path).ok()?;
            Some((it.ino(), it.mtime(), it.mtime_nsec(), it.len()))
        };
        Self(paths.into_iter().flatten().map(stamp).collect())
    }
}

/// Keeps the naming fresh for as long as `watches` runs.
pub(super) fn keep(keeper: Arc<Keeper>, watches: &mut JoinSet<()>, pulse: Arc<Pulse>) {
    if let Some(at) = keeper.mesh.enrolment.clone() {
        watches.spawn(keep_named(Arc::clone(&keeper), at));
    }
    watches.spawn(watch(keeper, pulse));
}

/// Takes the files whenever they change.
async fn watch(keeper: Arc<Keeper>, pulse: Arc<Pulse>) {
    let mut complain_at = clock::now();
    loop {
        let keeper = Arc::clone(&keeper);
        if clock::now() >= complain_at {
            complain_at = clock::now() + COMPLAIN;
            keeper.complain();
        }
        // What became of it is in the log, and in the metrics.
        drop(tokio::task::spawn_blocking(move || keeper.look()).await);
        pulse.beat(clock::now());
        sleep(LOOK).await;
    }
}

/// Keeps the files fresh, with the help of the CA's service at `at`.
async fn keep_named(keeper: Arc<Keeper>, at: String) {
    let draw = rand::random();
    let mut n_failed = 0u32;
    let mut tag = None;
    loop {
        let before = keeper.current.load_full();
        let asked = keeper.ask(&at, draw, &mut tag).await;
        let looking = Arc::clone(&keeper);
        drop(tokio::task::spawn_blocking(move || looking.look()).await);
        let is_taken = !Arc::ptr_eq(&before, &keeper.current.load());
        let asked = asked.and_then(|renewed| {
            // One that is asked for again at once would be of no use again.
            if renewed && !is_taken {
                bail!("the certificate that came is of no use")
            } else {
                Ok(())
            }
        });
        let wait = match asked {
            Ok(()) => {
                n_failed = 0;
                PAUSE * u32::from(rand::random::<u8>()) / 256
            }
            Err(error) => {
                n_failed = n_failed.saturating_add(1);
                if n_failed.is_power_of_two() {
                    let error = format!("{error:#}");
                    tracing::warn!(%error, n_failed, "the CA's service does not help");
                }
                renewal::wait(n_failed, rand::random())
            }
        };
        sleep(wait).await;
    }
}

fn write_changed(path: &Path, text: &str) -> Result<(), TlsError> {
    if tls::read(path).is_ok_and(|before| before == text) {
        return Ok(());
    }
    tls::write(path, text, 0o644)
}

fn tell(naming: &Naming) {
    if let Ok(facts) = naming.facts() {
        gauge!("portolan_mesh_certificate_expiry_timestamp_seconds").set(facts.not_after as f64);
    }
    gauge!("portolan_mesh_revoked_certificates").set(naming.revoked.len() as f64);
}

/// Files are looked at this often: a revocation ends links within a second.
const LOOK: Duration = Duration::from_millis(500);

/// Between an answer and the next question, at most: a change is heard of at once by all
/// nodes, and they need not come for the next one in the same moment.
const PAUSE: Duration = Duration::from_millis(500);

/// What goes on being wrong is said again after this.
const COMPLAIN: Duration = Duration::from_secs(3600);
