//! A network in memory: every datagram takes its time, and some are lost.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io;
use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use quinn::AsyncUdpSocket;
use quinn::UdpPoller;
use quinn::udp::{RecvMeta, Transmit};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::clock;

/// What lies between all sockets.
#[derive(Debug)]
pub(crate) struct Sea {
    one_way: Duration,
    loss_percent: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    random: u64,
    n_sent: u64,
    n_lost: u64,
    cut: BTreeSet<SocketAddr>,
    shores: BTreeMap<SocketAddr, Shore>,
}

#[derive(Debug, Default)]
struct Shore {
    /// By when each is due, then by when it was sent.
    afloat: BTreeMap<(Instant, u64), (SocketAddr, Vec<u8>)>,
    waker: Option<Waker>,
}

/// One socket by the sea.
#[derive(Debug)]
struct Port {
    sea: Arc<Sea>,
    at: SocketAddr,
    alarm: Mutex<Pin<Box<Sleep>>>,
}

impl Sea {
    pub(crate) fn new(seed: u64, one_way: Duration, loss_percent: u64) -> Arc<Self> {
        let state = State {
            random: seed | 1,
            n_sent: 0,
            n_lost: 0,
            cut: BTreeSet::new(),
            shores: BTreeMap::new(),
        };
        Arc::new(Self { one_way, loss_percent, state: Mutex::new(state) })
    }

    pub(crate) fn port(self: &Arc<Self>, at: SocketAddr) -> Arc<dyn AsyncUdpSocket> {
        self.state.lock().unwrap().shores.insert(at, Shore::default());
        let alarm = Mutex::new(Box::pin(sleep_until(clock::now().into())));
        Arc::new(Port { sea: Arc::clone(self), at, alarm })
    }

    /// Loses all that goes to or comes from `at` from here on.
    pub(crate) fn cut(&self, at: SocketAddr) {
        self.state.lock().unwrap().cut.insert(at);
    }

    /// Lets through again what was cut.
    pub(crate) fn heal(&self, at: SocketAddr) {
        self.state.lock().unwrap().cut.remove(&at);
    }

    /// Returns how many datagrams were sent and how many of them chance lost.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let state = self.state.lock().unwrap();
        (state.n_sent, state.n_lost)
    }
}

impl AsyncUdpSocket for Port {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let mut state = self.sea.state.lock().unwrap();
        state.n_sent += 1;
        // Xorshift: enough to lose datagrams without a pattern.
        state.random ^= state.random << 13;
        state.random ^= state.random >> 7;
        state.random ^= state.random << 17;
        if state.random % 100 < self.sea.loss_percent {
            state.n_lost += 1;
            return Ok(());
        }
        let to = transmit.destination;
        if state.cut.contains(&self.at) || state.cut.contains(&to) {
            return Ok(());
        }
        let key = (Instant::from(clock::now() + self.sea.one_way), state.n_sent);
        if let Some(shore) = state.shores.get_mut(&to) {
            shore.afloat.insert(key, (self.at, transmit.contents.to_vec()));
            if let Some(waker) = shore.waker.take() {
                waker.wake();
            }
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.sea.state.lock().unwrap();
        let shore = state.shores.get_mut(&self.at).unwrap();
        shore.waker = Some(cx.waker().clone());
        let Some(next) = shore.afloat.first_entry() else { return Poll::Pending };
        let mut alarm = self.alarm.lock().unwrap();
        alarm.as_mut().reset(next.key().0);
        if next.key().0 > Instant::from(clock::now()) && alarm.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        let (addr, bytes) = next.remove();
        bufs[0][..bytes.len()].copy_from_slice(&bytes);
        let len = bytes.len();
        meta[0] = RecvMeta { addr, len, stride: len, ecn: None, dst_ip: None };
        Poll::Ready(Ok(1))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.at)
    }
}

#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
