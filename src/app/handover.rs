//! The hand-over to a new process: the running one starts its program again and gives it what
//! it listens on; the new one takes its place when it can serve as well, and the old one lets
//! what it serves come to its end. When anything goes wrong before, the old one goes on.
//!
//! They talk over a Unix socket that is the new process's standard input, so that nothing
//! lies in a file or in the environment. First comes an offer, along with the handles; then
//! the new process asks for the mesh's port, when it is about to use it, and says when it is
//! ready. Only one of the two may be this node to its peers: the old one leaves the port first,
//! and takes it again if the new one fails.

use std::ffi::OsString;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use crate::app::sockets::Named;
use crate::clock;
use crate::edge::Gateway;
use crate::view::row::Standing;

/// How to start the program again.
#[derive(Clone, Debug)]
pub struct Program {
    /// The program's file.
    pub path: PathBuf,
    /// Its arguments, without the name.
    pub arguments: Vec<OsString>,
}

/// What the old process tells the new one, beside the handles.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Offer {
    version: u32,
    /// The names of the handles, in their order.
    names: Vec<String>,
    /// How many orchestrators the old process has ready.
    n_ready: usize,
    /// The key of rewritten URLs, where no file holds it: a secret.
    key: Option<[u8; 32]>,
}

/// What the new process took over.
#[derive(Debug)]
pub struct Inherited {
    offer: Offer,
    handles: Vec<Named>,
    old: StdStream,
}

/// How a start in the place of another process differs from one from scratch; the default is
/// the latter.
#[derive(Debug, Default)]
pub(super) struct Takeover {
    offer: Option<Offer>,
    old: Option<Old>,
}

/// The new process's end of the talk.
#[derive(Debug)]
struct Old(UnixStream);

/// The old process's end of the talk. Dropped before the new process is ready, it ends that
/// one: it cannot say so any more.
#[derive(Debug)]
pub(super) struct New {
    process: Child,
    talk: UnixStream,
}

impl Program {
    /// Returns how this process was started. The path is the one it was called by where that
    /// names a file, so that a link set to a newer program is followed.
    pub fn current() -> io::Result<Self> {
        let mut all = std::env::args_os();
        let called = all.next().map(PathBuf::from).filter(|it| it.components().count() > 1);
        let path = match called {
            Some(path) => std::path::absolute(path)?,
            None => std::env::current_exe()?,
        };
        let arguments = all.filter(|it| it != FLAG).collect();
        Ok(Self { path, arguments })
    }
}

impl Offer {
    pub(super) fn new(held: &[Named], n_ready: usize, key: Option<[u8; 32]>) -> Self {
        let names = held.iter().map(|it| it.name.clone()).collect();
        Self { version: VERSION, names, n_ready, key }
    }
}

impl New {
    /// Starts `program` with what is `held`.
    pub(super) fn start(program: &Program, offer: &Offer, held: &[Named]) -> Result<Self> {
        let (ours, theirs) = StdStream::pair()?;
        let fds: Vec<BorrowedFd<'_>> = held.iter().map(|it| it.fd.as_fd()).collect();
        send(&ours, offer, &fds)?;
        ours.set_nonblocking(true)?;
        let process = Command::new(&program.path)
            .args(&program.arguments)
            .arg(FLAG)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .with_context(|| format!("{} did not start", program.path.display()))?;
        Ok(Self { process, talk: UnixStream::from_std(ours)? })
    }

    /// Waits for a word of the new process; an error when it ended.
    pub(super) async fn said(&mut self) -> Result<Word> {
        let word = self.talk.read_u8().await.ok().and_then(Word::of);
        word.context("the new process ended before it was ready; its own log says why")
    }

    /// Tells the new process that the mesh's port is its own.
    pub(super) async fn tell_left(&mut self) -> io::Result<()> {
        self.talk.write_u8(Word::Mesh as u8).await
    }

    /// Leaves the new process to itself and returns its id.
    pub(super) fn release(self) -> u32 {
        self.process.id().unwrap_or_default()
    }

    /// Ends the new process.
    pub(super) async fn kill(mut self) {
        if let Err(error) = self.process.kill().await {
            tracing::warn!(%error, "the process that did not become ready was not ended");
        }
    }
}

/// What the two say after the offer, one byte each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// From the new one: it wants the mesh's port. From the old one: it has left the port.
    Mesh = b'm' as isize,
    /// From the new one: it serves.
    Ready = b'r' as isize,
}

impl Word {
    fn of(byte: u8) -> Option<Self> {
        [Self::Mesh, Self::Ready].into_iter().find(|it| *it as u8 == byte)
    }
}

impl Inherited {
    /// Receives what the process before offers on standard input.
    pub fn receive() -> Result<Self> {
        let stdin = io::stdin();
        let old = StdStream::from(stdin.as_fd().try_clone_to_owned()?);
        let (offer, fds) = receive(&old).with_context(|| {
            format!("{FLAG} is for a process that takes over; start the node without it")
        })?;
        ensure!(offer.version == VERSION, "the process before offers in another way; restart it");
        ensure!(offer.names.len() == fds.len(), "the process before sent fewer handles than names");
        let named = offer.names.iter().cloned().zip(fds);
        let handles = named.map(|(name, fd)| Named { name, fd }).collect();
        Ok(Self { offer, handles, old })
    }
}

impl Takeover {
    /// Begins with what was inherited, if anything was; returns the handles beside.
    pub(super) fn new(before: Option<Inherited>) -> Result<(Self, Vec<Named>)> {
        let Some(Inherited { offer, handles, old }) = before else {
            return Ok((Self::default(), Vec::new()));
        };
        old.set_nonblocking(true)?;
        Ok((Self { offer: Some(offer), old: Some(Old(UnixStream::from_std(old)?)) }, handles))
    }

    /// Returns the key of rewritten URLs of the process before, where no file holds it.
    pub(super) fn key(&self) -> Option<[u8; 32]> {
        self.offer.as_ref()?.key
    }

    /// Waits until the process before has left the port of a node with a mesh.
    pub(super) async fn mesh(&mut self, has_mesh: bool) -> Result<()> {
        match &mut self.old {
            Some(old) if has_mesh => old.ask_mesh().await,
            Some(_) | None => Ok(()),
        }
    }

    /// Waits until as many orchestrators are ready as the process before has, or long enough;
    /// an error when there is none though that one has some.
    pub(super) async fn settle(&self, gateway: &Gateway) -> Result<()> {
        let Some(Offer { n_ready: before, .. }) = self.offer else { return Ok(()) };
        let begin = clock::now();
        while n_ready(gateway) < before && begin.elapsed() < SETTLE_MAX {
            tokio::time::sleep(LOOK).await;
        }
        let some = n_ready(gateway) > 0 || before == 0;
        ensure!(some, "no orchestrator is ready, though the process before has {before}");
        Ok(())
    }

    /// Tells the process before that this one serves.
    pub(super) async fn ready(self) -> Result<()> {
        match self.old {
            Some(old) => old.tell_ready().await,
            None => Ok(()),
        }
    }
}

impl Old {
    /// Asks for the mesh's port and waits until it is left.
    async fn ask_mesh(&mut self) -> Result<()> {
        self.0.write_u8(Word::Mesh as u8).await.context(GONE)?;
        let left = self.0.read_u8().await.context(GONE)?;
        ensure!(Word::of(left) == Some(Word::Mesh), "the process before keeps the mesh's port");
        Ok(())
    }

    /// Says that this process serves.
    async fn tell_ready(mut self) -> Result<()> {
        self.0.write_u8(Word::Ready as u8).await.context(GONE)
    }
}

/// Returns how many orchestrators may be given work.
pub(super) fn n_ready(gateway: &Gateway) -> usize {
    let view = gateway.shared.view.load();
    view.rows().filter(|(_slot, row)| row.standing == Standing::Ready).count()
}

fn send(to: &StdStream, offer: &Offer, fds: &[BorrowedFd<'_>]) -> Result<()> {
    let text = serde_json::to_vec(offer)?;
    ensure!(
        fds.len() <= HANDLES_MAX && text.len() <= OFFER_MAX,
        "a hand-over takes at most {HANDLES_MAX} listeners; restart the node instead"
    );
    let mut space = vec![MaybeUninit::uninit(); SendAncillaryMessage::ScmRights(fds).size()];
    let mut control = SendAncillaryBuffer::new(&mut space);
    ensure!(control.push(SendAncillaryMessage::ScmRights(fds)), "no room for the handles");
    let n = sendmsg(to, &[IoSlice::new(&text)], &mut control, SendFlags::empty())?;
    ensure!(n == text.len(), "the offer did not fit");
    Ok(())
}

fn receive(from: &StdStream) -> Result<(Offer, Vec<OwnedFd>)> {
    let mut text = vec![0; OFFER_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(HANDLES_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let said = recvmsg(from, &mut [IoSliceMut::new(&mut text)], &mut control, flags)?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(some) = message {
            fds.extend(some);
        }
    }
    Ok((serde_json::from_slice(&text[..said.bytes])?, fds))
}

/// The argument by which a process knows that it takes over.
const FLAG: &str = "--take-over";
/// Of what stands in an offer; another version takes a restart.
const VERSION: u32 = 1;
/// Handles in one offer; the kernel carries 253.
const HANDLES_MAX: usize = 128;
/// An offer's text, in bytes: what a socket surely carries as one message.
const OFFER_MAX: usize = 32 * 1024;
/// How long a new process waits for orchestrators: checks of those that live are answered in
/// less, those that do not answer are no reason to wait longer.
const SETTLE_MAX: Duration = Duration::from_secs(5);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(10);
/// How long a new process may take in all; databases are read in a second or two.
pub(super) const READY_MAX: Duration = Duration::from_secs(30);
/// How long whoever asks for a hand-over waits for its end.
pub const ANSWER_MAX: Duration = Duration::from_secs(35);
const GONE: &str = "the process before is gone, and this one ends before it serves";

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, SeekFrom, Write};

    use super::*;

    fn held(n: usize) -> Vec<Named> {
        let one = |n| {
            let mut file = tempfile::tempfile().unwrap();
            write!(file, "{n}").unwrap();
            Named { name: format!("file {n}"), fd: file.into() }
        };
        (0..n).map(one).collect()
    }

    fn handed(n: usize) -> Result<(Offer, Vec<OwnedFd>)> {
        let (ours, theirs) = StdStream::pair().unwrap();
        let held = held(n);
        let fds: Vec<BorrowedFd<'_>> = held.iter().map(|it| it.fd.as_fd()).collect();
        send(&ours, &Offer::new(&held, 7, Some([9; 32])), &fds)?;
        receive(&theirs)
    }

    #[test]
    fn handles_arrive_in_the_order_of_their_names() {
        let (offer, fds) = handed(HANDLES_MAX).unwrap();
        assert_eq!((offer.n_ready, offer.key, fds.len()), (7, Some([9; 32]), HANDLES_MAX));
        for (name, fd) in offer.names.iter().zip(fds) {
            let (mut file, mut text) = (std::fs::File::from(fd), String::new());
            file.seek(SeekFrom::Start(0)).unwrap();
            file.read_to_string(&mut text).unwrap();
            assert_eq!(*name, format!("file {text}"));
        }
        assert!(handed(HANDLES_MAX + 1).is_err());
    }

    #[test]
    fn what_is_no_offer_is_refused() {
        let (mut ours, theirs) = StdStream::pair().unwrap();
        ours.write_all(b"GET / HTTP/1.1").unwrap();
        assert!(receive(&theirs).is_err());
        drop(ours);
        assert!(receive(&theirs).is_err());
    }
}
