//! The set in use, replaced while it answers.

use std::net::IpAddr;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::SystemTime;

use arc_swap::ArcSwap;

use super::Answer;
use super::Edition;
use super::Freshness;
use super::GeoError;
use super::GeoIp;
use crate::geo::Confidence;
use crate::geo::Place;

/// The database set in use: read without a lock, replaced as a whole.
pub struct GeoStore {
    files: Vec<PathBuf>,
    live: ArcSwap<GeoIp>,
    stale: AtomicBool,
    /// The files as they were when they were last tried; also keeps reloads apart.
    tried: Mutex<Vec<Option<Stamp>>>,
}

/// Whether a reload may go back in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// A file built before the one of the same source and type in use is refused.
    NotOlder,
    /// Any sound file is taken.
    Forced,
}

/// How a file looks from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    inode: u64,
    bytes: u64,
}

impl GeoStore {
    /// Opens `files`, or the embedded countries if none is named. A store always starts: if
    /// the files are refused, it answers from the embedded countries, and says why.
    pub fn open(files: Vec<PathBuf>, wall: Duration) -> (Self, Option<GeoError>) {
        let stamps = stamps(&files);
        let wanted = if files.is_empty() { GeoIp::embedded() } else { GeoIp::open(&files, wall) };
        let (set, error) = match wanted {
            Ok(set) => (set, None),
            Err(error) => (GeoIp::embedded().unwrap_or_else(|_| GeoIp::nothing()), Some(error)),
        };
        let store = Self {
            files,
            live: ArcSwap::from_pointee(set),
            stale: AtomicBool::new(false),
            tried: Mutex::new(stamps),
        };
        store.tell_time(wall);
        (store, error)
    }

    /// Returns what is known of `ip`; waits for nobody.
    pub fn lookup(&self, ip: IpAddr) -> Answer {
        let answer = self.live.load().lookup(ip);
        if !self.stale.load(Ordering::Relaxed) {
            return answer;
        }
        let doubted =
            |it: Place| Place { confidence: it.confidence.min(Confidence::Country), ..it };
        Answer { place: answer.place.map(doubted), ..answer }
    }

    /// Returns the set in use.
    pub fn current(&self) -> Arc<GeoIp> {
        self.live.load_full()
    }

    /// Compares the age of the set with the wall time, and from [`Freshness::STALE`] on
    /// stops believing cities. To be told daily; `None` if there is no file at all.
    pub fn tell_time(&self, wall: Duration) -> Option<Freshness> {
        let freshness = self.live.load().age(wall).map(Freshness::of);
        self.stale.store(freshness == Some(Freshness::Stale), Ordering::Relaxed);
        freshness
    }

    /// Tells whether a file looks other than when it was last tried, by modification time,
    /// inode and length; asks the file system, so it blocks.
    pub fn changed(&self) -> bool {
        let tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        *tried != stamps(&self.files)
    }

    /// Opens the files anew, checks them, and replaces the set. Blocks for as long as
    /// reading takes: not for a worker of the runtime. After an error the set that was in
    /// use stays in use.
    pub fn reload(&self, wall: Duration, how: Reload) -> Result<(), GeoError> {
        if self.files.is_empty() {
            return Ok(());
        }
        let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken before reading: what is written meanwhile shows as a change.
        *tried = stamps(&self.files);
        let fresh = GeoIp::open(&self.files, wall)?;
        if how == Reload::NotOlder {
            let live = self.live.load();
            let mut editions = fresh.editions();
            if let Some(older) = editions.find(|new| live.editions().any(|it| is_older(new, it))) {
                return Err(GeoError::Older { file: older.source.clone() });
            }
        }
        self.live.store(Arc::new(fresh));
        self.tell_time(wall);
        Ok(())
    }
}

impl std::fmt::Debug for GeoStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GeoStore").field("live", &*self.live.load()).finish_non_exhaustive()
    }
}

fn is_older(new: &Edition, live: &Edition) -> bool {
    new.source == live.source && new.kind == live.kind && new.built < live.built
}

fn stamps(files: &[PathBuf]) -> Vec<Option<Stamp>> {
    files.iter().take(GeoIp::FILES_MAX).map(|it| stamp(it)).collect()
}

/// Returns how a file looks; `None` if it is not there.
fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    #[cfg(unix)]
    let inode = std::os::unix::fs::MetadataExt::ino(&metadata);
    #[cfg(not(unix))]
    let inode = 0;
    Some(Stamp { modified: metadata.modified().ok(), inode, bytes: metadata.len() })
}

#[cfg(test)]
mod tests;
