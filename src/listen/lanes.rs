//! Lanes: threads that serve clients and nothing else.
//!
//! A connection stays on the lane it was given at first, with its requests. Those that are ready
//! at once are taken through the same step one after the other, while the code of that step is
//! still near the core; on the runtime of the actors, where whoever was woken last goes first,
//! a small call took half as much processor time again. They are few, so that what a request
//! touched is near the core too when its next step comes. A connection to an orchestrator stays
//! on the lane that made it and serves all of them: that idle ones are taken by their own lane
//! first was tried on two lanes, and made no difference that could be measured.

use std::io;
use std::sync::Arc;
use std::thread;

use metrics::counter;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The lanes of a node; they end when this is dropped, with all that runs on them.
#[derive(Debug)]
pub struct Lanes {
    lanes: Vec<Lane>,
    _open: watch::Sender<()>,
}

/// One thread, which alone runs what is given to it.
#[derive(Debug)]
struct Lane {
    runtime: Handle,
    /// Held once by each of its connections.
    connections: Arc<()>,
}

impl Lanes {
    /// Starts `number` lanes.
    pub fn start(number: usize) -> io::Result<Self> {
        let (open, watched) = watch::channel(());
        let lanes = (0..number).map(|at| Lane::start(at, watched.clone()));
        Ok(Self { lanes: lanes.collect::<io::Result<_>>()?, _open: open })
    }

    /// No lanes: connections are served where they are accepted.
    pub fn none() -> Self {
        Self { lanes: Vec::new(), _open: watch::Sender::default() }
    }

    /// Serves a connection on the lane that has the fewest, as one of `tasks`.
    pub(crate) fn serve<F>(
        &self,
        tasks: &mut JoinSet<()>,
        tcp: TcpStream,
        serve: impl FnOnce(TcpStream) -> F + Send + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let Some(lane) = self.lanes.iter().min_by_key(|it| it.connections()) else {
            tasks.spawn(serve(tcp));
            return;
        };
        // What is ready is heard of by the thread that registered the socket.
        let tcp = match tcp.into_std() {
            Ok(tcp) => tcp,
            Err(error) => return not_let_in(&error),
        };
        let held = Arc::clone(&lane.connections);
        let served = async move {
            let _held = held;
            match TcpStream::from_std(tcp) {
                Ok(tcp) => serve(tcp).await,
                Err(error) => not_let_in(&error),
            }
        };
        tasks.spawn_on(served, &lane.runtime);
    }

    /// Waits for a word of every lane, which of one that is stuck never comes; returns whether
    /// all of them run.
    pub async fn answer(&self) -> bool {
        let mut asked = JoinSet::new();
        for lane in &self.lanes {
            asked.spawn_on(async {}, &lane.runtime);
        }
        let mut all_run = true;
        while let Some(answer) = asked.join_next().await {
            all_run &= answer.is_ok();
        }
        all_run
    }

    /// Returns how many connections each has.
    pub fn connections(&self) -> impl Iterator<Item = usize> {
        self.lanes.iter().map(Lane::connections)
    }
}

impl Lane {
    fn start(at: usize, mut open: watch::Receiver<()>) -> io::Result<Self> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_io_events_per_tick(READY_AT_ONCE)
            .thread_name("lane-names")
            .max_blocking_threads(NAMES_AT_ONCE)
            .build()?;
        let lane = Self { runtime: runtime.handle().clone(), connections: Arc::default() };
        thread::Builder::new().name(format!("lane-{at}")).spawn(move || {
            // It fails when the lanes were dropped, which is what is waited for.
            drop(runtime.block_on(open.changed()));
            // A name that is being looked up is not waited for.
            runtime.shutdown_background();
        })?;
        Ok(lane)
    }

    fn connections(&self) -> usize {
        Arc::strong_count(&self.connections) - 1
    }
}

/// Counts a connection that was refused for want of something of the system's, such as file
/// handles.
pub(crate) fn not_let_in(error: &io::Error) {
    counter!("portolan_connections_refused_total", "reason" => "system").increment(1);
    tracing::warn!(%error, "a connection was not let in");
}

/// Connections a lane hears of at once. A request touches about 35 KiB, in four steps between
/// which all others have theirs; a core's own cache has room for some sixteen. A small call
/// took 9 to 16 % less than with tokio's 1,024 at 256 connections (three series of 15 to 36
/// rounds) and 8 % less at 32; with 24 and 32 the gain was gone, with 6 too.
const READY_AT_ONCE: usize = 16;
/// Names of orchestrators one lane has looked up at once, on threads that block; further
/// ones wait for those.
const NAMES_AT_ONCE: usize = 64;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Serves as many connections as `number` and returns the threads that did.
    async fn served_by(lanes: &Lanes, number: usize) -> Vec<String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (mut tasks, mut clients) = (JoinSet::new(), Vec::new());
        let at = listener.local_addr().unwrap();
        for _ in 0..number {
            clients.push(TcpStream::connect(at).await.unwrap());
            let (tcp, _peer) = listener.accept().await.unwrap();
            let say_where = |mut tcp: TcpStream| async move {
                let name = thread::current().name().unwrap_or("?").to_owned();
                tcp.write_all(name.as_bytes()).await.unwrap();
                tcp.read_to_end(&mut Vec::new()).await.unwrap();
            };
            lanes.serve(&mut tasks, tcp, say_where);
        }
        let mut threads = Vec::new();
        for client in &mut clients {
            let mut said = [0; 6];
            client.read_exact(&mut said).await.unwrap();
            threads.push(String::from_utf8(said.to_vec()).unwrap());
        }
        drop(clients);
        tasks.join_all().await;
        threads
    }

    #[tokio::test]
    async fn connections_are_dealt_to_the_lane_that_has_the_fewest() {
        let lanes = Lanes::start(3).unwrap();
        let mut threads = served_by(&lanes, 6).await;
        threads.sort_unstable();
        assert_eq!(threads, ["lane-0", "lane-0", "lane-1", "lane-1", "lane-2", "lane-2"]);
        assert_eq!(lanes.connections().collect::<Vec<_>>(), [0, 0, 0]);
    }

    #[tokio::test]
    async fn a_lane_that_is_stuck_does_not_answer() {
        let lanes = Lanes::start(2).unwrap();
        assert!(lanes.answer().await);
        let (go_on, stuck) = std::sync::mpsc::channel::<()>();
        lanes.lanes[1].runtime.spawn(async move { stuck.recv() });
        let answer = tokio::time::timeout(Duration::from_millis(100), lanes.answer());
        assert!(answer.await.is_err());
        drop(go_on);
        assert!(lanes.answer().await);
    }

    #[tokio::test]
    async fn what_runs_on_lanes_ends_with_them() {
        let lanes = Lanes::start(1).unwrap();
        let (held, mut ended) = tokio::sync::mpsc::channel::<()>(1);
        lanes.lanes[0].runtime.spawn(async move {
            held.send(()).await.unwrap();
            std::future::pending::<()>().await;
        });
        assert_eq!(ended.recv().await, Some(()));
        drop(lanes);
        assert_eq!(ended.recv().await, None);
    }
}
