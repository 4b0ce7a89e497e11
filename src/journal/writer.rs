//! The thread that writes: in batches, each line whole or not at all.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use metrics::counter;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::clock;
use crate::journal::Entry;
use crate::journal::cut_torn_line;

/// Owns the file while the journal is open.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) file: File,
    /// Where the file is, for those who are told of it.
    pub(crate) path: PathBuf,
    pub(crate) records: mpsc::Receiver<Entry>,
    /// Turns true, or loses its sender, when the journal is to close.
    pub(crate) stop: watch::Receiver<bool>,
    pub(crate) report: Report,
}

/// Tells of errors: each is counted, one a minute is logged.
#[derive(Debug, Default)]
pub(crate) struct Report {
    logged_at: Option<Instant>,
}

impl Writer {
    /// Writes until the journal is closed, then what was admitted before.
    pub(crate) async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        let few = BATCH.min(self.records.max_capacity() / 8);
        let mut sync_at: Option<Instant> = None;
        let mut close_at: Option<Instant> = None;
        // A disk may take seconds, in which records are still taken.
        let mut syncing = JoinSet::new();
        loop {
            let sync_due = sync_at.filter(|_| syncing.is_empty());
            let wake_at = sync_due.into_iter().chain(close_at).min();
            tokio::select! {
                biased;
                () = told(&mut self.stop), if close_at.is_none() => {
                    // Slots given out still write; nobody is admitted any more.
                    self.records.close();
                    close_at = Some(clock::now() + LATE_MAX);
                }
                // Ends with 0 when the channel is closed and every slot was used or dropped.
                n = self.records.recv_many(&mut batch, BATCH) => {
                    if n == 0 {
                        break;
                    }
                    self.write(&mut batch);
                    sync_at = sync_at.or(Some(clock::now() + SYNC_EVERY));
                    if n <= few {
                        // Meanwhile nobody who sends one more has to wake this thread.
                        tokio::time::sleep(GATHER).await;
                    }
                }
                Some(synced) = syncing.join_next() => self.synced(synced.map_err(io::Error::other).flatten()),
                () = sleep_until(wake_at) => {}
            }
            let now = clock::now();
            if sync_due.is_some_and(|at| at <= now) {
                sync_at = None;
                match self.file.try_clone() {
                    Ok(file) => drop(syncing.spawn_blocking(move || file.sync_data())),
                    Err(error) => self.synced(Err(error)),
                }
            }
            if close_at.is_some_and(|at| at <= now) {
                break;
            }
        }
        // What was sent is at most what the channel holds.
        while let Ok(record) = self.records.try_recv() {
            batch.push(record);
        }
        self.write(&mut batch);
        let synced = self.file.sync_data();
        self.synced(synced);
    }

    /// Writes all records of `batch` in one call and empties it.
    fn write(&mut self, batch: &mut Vec<Entry>) {
        let n_records = batch.len() as u64;
        let mut text = Vec::with_capacity(batch.len() * LINE_TYPICAL);
        for entry in batch.drain(..) {
            entry.push(&mut text);
        }
        if let Err(error) = self.file.write_all(&text) {
            counter!("portolan_journal_lost_total").increment(n_records);
            self.report.take("write", &error);
            // A line half written would spoil the next one. Where the file ends is looked up:
            // a process that hands this one its place writes there too.
            if let Err(error) = cut_torn_line(&mut self.file, &self.path) {
                self.report.take("cut", &error);
            }
        }
    }

    fn synced(&mut self, synced: io::Result<()>) {
        if let Err(error) = synced {
            self.report.take("sync", &error);
        }
    }
}

impl Report {
    fn take(&mut self, step: &'static str, error: &io::Error) {
        counter!("portolan_journal_errors_total", "step" => step).increment(1);
        let now = clock::now();
        if self.logged_at.is_none_or(|at| now >= at + LOG_EVERY) {
            self.logged_at = Some(now);
            tracing::error!(step, %error, "usage is not on disk; see to the journal's disk");
        }
    }
}

async fn told(stop: &mut watch::Receiver<bool>) {
    // An error says that the journal was dropped, which closes it too.
    drop(stop.wait_for(|stop| *stop).await);
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// Records written by one call; what waits meanwhile stays in the channel.
const BATCH: usize = 256;
/// What to reserve for a line, in bytes.
const LINE_TYPICAL: usize = 512;
/// How long records are left to gather after a write, unless many came already: one write and
/// one waking for a hundred of them cost hardly more than for one.
const GATHER: Duration = Duration::from_millis(5);
/// With [`GATHER`] the 50 ms a crash of the machine may lose; a disk takes 20 syncs a second
/// without effort.
const SYNC_EVERY: Duration = Duration::from_millis(45);
/// How long requests under way may still write after the journal was told to close.
const LATE_MAX: Duration = Duration::from_secs(2);
/// One error a minute says as much as a thousand.
const LOG_EVERY: Duration = Duration::from_secs(60);
