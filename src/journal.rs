//! The usage journal: one line a request, appended, checksummed, on disk within 50 ms.
//!
//! A request first reserves its place with [`Journal::admit`], so that whatever was served
//! can be written; when there is none, the request is refused and costs nobody anything.
//! Writing waits for nothing: a thread of the journal's own takes the records from a bounded
//! channel, so a slow disk slows no request until the channel is full.

pub mod line;
pub mod record;
pub mod writer;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use metrics::counter;
use tokio::sync::mpsc::OwnedPermit;
use tokio::sync::{mpsc, watch};

pub use line::{Entry, LINE_MAX};
pub use record::UsageRecord;

use crate::journal::writer::{Report, Writer};

/// The journal of this node.
#[derive(Debug)]
pub struct Journal {
    /// `None` in a node that keeps no journal.
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    records: mpsc::Sender<Entry>,
    stop: watch::Sender<bool>,
    /// Its sender lives as long as the writer.
    writer: watch::Receiver<()>,
}

/// A place in the journal, held for one request; dropped unused, it is free again.
#[derive(Debug)]
pub struct Slot(Option<OwnedPermit<Entry>>);

/// What [`verify`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Whole lines, all sound.
    pub records: u64,
    /// Bytes behind the last whole line: what a crash, or a writer at work, leaves. The next
    /// [`Journal::open`] cuts them off.
    pub torn_bytes: u64,
}

/// Why a journal was not opened, or is not to be believed. None of these changes the file.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file system refused.
    #[error("the journal {} cannot be used: {error}; check its directory and rights", .path.display())]
    Io {
        /// The journal.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// Another process writes it.
    #[error("the journal {} is open in another process; give each node its own", .0.display())]
    Taken(PathBuf),
    /// A line is not what was written.
    #[error("line {line} of the journal {} is damaged; restore the file, or cut that line out", .path.display())]
    Damaged {
        /// The journal.
        path: PathBuf,
        /// The first damaged line, from 1.
        line: u64,
    },
}

impl Journal {
    /// The largest capacity: 65,536 records, about 36 MB when all wait.
    pub const CAPACITY_MAX: usize = 65_536;

    /// Opens the journal at `path` for appending, with room for `capacity` records between
    /// the requests and the disk (1 to [`Journal::CAPACITY_MAX`], the nearest is taken).
    /// Makes the file and its directory where missing; a line the last run left unfinished
    /// is cut off. Blocks for a few disk accesses.
    pub fn open(path: &Path, capacity: usize) -> Result<Self, JournalError> {
        Self::over(Self::file(path)?, path, capacity)
    }

    /// Opens the file of the journal at `path`, for this process and those it hands the file
    /// to; makes it where missing, and cuts off a line the last run left unfinished.
    pub fn file(path: &Path) -> Result<File, JournalError> {
        let refused = |error| JournalError::Io { path: path.to_owned(), error };
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(refused)?;
        }
        let mut options = OpenOptions::new();
        let mut file = options.create(true).read(true).append(true).open(path).map_err(refused)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(JournalError::Taken(path.to_owned())),
            Err(TryLockError::Error(error)) => return Err(refused(error)),
        }
        cut_torn_line(&mut file, path).map_err(refused)?;
        Ok(file)
    }

    /// As [`Self::open`], with the file that [`Self::file`] opened, here or in a process that
    /// handed it over and may still append to it.
    pub fn over(file: File, path: &Path, capacity: usize) -> Result<Self, JournalError> {
        let refused = |error| JournalError::Io { path: path.to_owned(), error };
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(refused)?;

        let (records, receiver) = mpsc::channel(capacity.clamp(1, Self::CAPACITY_MAX));
        let (stop, stopped) = watch::channel(false);
        let (alive, writer) = watch::channel(());
        let report = Report::default();
        let task = Writer { file, path: path.to_owned(), records: receiver, stop: stopped, report };
        std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || {
                runtime.block_on(task.run());
                drop(alive);
            })
            .map_err(refused)?;
        Ok(Self { open: Some(Open { records, stop, writer }) })
    }

    /// Returns a journal that admits everything and keeps nothing.
    pub fn disabled() -> Self {
        Self { open: None }
    }

    /// Reserves the place of one record. `None` when the journal is full, closed, or its
    /// writer is dead: the request is to be refused.
    pub fn admit(&self) -> Option<Slot> {
        let Some(open) = &self.open else { return Some(Slot(None)) };
        open.records.clone().try_reserve_owned().ok().map(|permit| Slot(Some(permit)))
    }

    /// Admits nothing more, waits until what was admitted is written and synced, at most
    /// 5 s. Returns whether the writer came to its end. Slots still held have 2 s to write;
    /// a record written later is lost, so requests are drained first.
    pub async fn close(&self) -> bool {
        let Some(open) = &self.open else { return true };
        open.stop.send_replace(true);
        let mut writer = open.writer.clone();
        // Nothing is ever sent: this ends with an error, when the writer is gone.
        let gone = writer.changed();
        tokio::time::timeout(CLOSE_MAX, gone).await.is_ok()
    }
}

impl Slot {
    /// Hands a record to the writer; never waits.
    pub fn write(self, record: Entry) {
        if let Some(permit) = self.0 {
            drop(permit.send(record));
        }
    }
}

/// Reads the journal at `path` to its end and checks every line; blocks while it reads. May
/// run beside a writer.
pub fn verify(path: &Path) -> Result<Count, JournalError> {
    let refused = |error| JournalError::Io { path: path.to_owned(), error };
    let mut lines = BufReader::new(File::open(path).map_err(refused)?);
    let mut count = Count::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut lines).take(LINE_MAX as u64).read_until(b'\n', &mut line);
        match read.map_err(refused)? {
            0 => return Ok(count),
            n if line.ends_with(b"\n") && line::is_sound(&line[..n - 1]) => count.records += 1,
            n if n < LINE_MAX && !line.ends_with(b"\n") => count.torn_bytes = n as u64,
            _ => {
                let line = count.records + 1;
                return Err(JournalError::Damaged { path: path.to_owned(), line });
            }
        }
    }
}

/// Cuts `file` behind its last newline.
fn cut_torn_line(file: &mut File, path: &Path) -> io::Result<()> {
    let len = file.metadata()?.len();
    let mut whole = len;
    let mut piece = [0; 4096];
    while whole > 0 {
        let n = whole.min(piece.len() as u64) as usize;
        let start = whole - n as u64;
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut piece[..n])?;
        if let Some(at) = piece[..n].iter().rposition(|byte| *byte == b'\n') {
            whole = start + at as u64 + 1;
            break;
        }
        whole = start;
    }
    if whole < len {
        file.set_len(whole)?;
        file.sync_data()?;
        counter!("portolan_journal_torn_total").increment(1);
        tracing::warn!(journal = %path.display(), n_bytes = len - whole, "a torn line was cut off");
    }
    Ok(())
}

/// Covers the time late requests are given, a last batch and a slow sync.
const CLOSE_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
