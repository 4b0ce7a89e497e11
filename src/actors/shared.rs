//! What the request path and the actors share: snapshots, counters, connections.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};
use ractor::ActorRef;
use tokio::sync::Notify;
use tokio::sync::mpsc;

use crate::actors::directory;
use crate::actors::geoip;
use crate::actors::mesh;
use crate::actors::mesh::PeerNews;
use crate::actors::sessions;
use crate::clock::pulse::Pulses;
use crate::geoip::GeoStore;
use crate::id::NodeId;
use crate::legs::Way;
use crate::mesh::Peers;
use crate::orders::InForce;
use crate::session::Table;
use crate::upstream::Upstream;
use crate::view::board::Board;
use crate::view::{Capabilities, CapabilityId, View};

/// One node's shared state. Actors write it; requests read it and add to counters.
#[derive(Debug)]
pub struct Shared {
    /// The picture decisions are made from; the directory is its only writer.
    pub view: ArcSwap<View>,
    /// The peers; the mesh is its only writer.
    pub peers: Arc<ArcSwap<Peers>>,
    /// The counters of orchestrators, and whose use peers are to be told of.
    pub board: Arc<Board>,
    /// Connections to orchestrators.
    pub upstream: Upstream,
    /// The sessions.
    pub sessions: Table,
    /// The address database.
    pub geo: GeoStore,
    /// The actors that may be told something; empty while one is being restarted.
    pub refs: Refs,
    /// What the mesh has to tell the directory; whoever holds the lock reads it.
    pub news: tokio::sync::Mutex<mpsc::Receiver<PeerNews>>,
    /// Whether the loops of this node go on.
    pub pulses: Arc<Pulses>,
    /// The operator's orders; the mesh is their only writer.
    pub orders: Arc<ArcSwap<InForce>>,
    /// Rung when other orders are in force.
    pub ordered: Arc<Notify>,
    /// What peers tell of ways to clients; more than it holds is lost, and told again.
    pub ways: mpsc::Sender<(NodeId, Vec<Way>)>,
    /// The other end; whoever holds the lock reads it.
    pub ways_told: tokio::sync::Mutex<mpsc::Receiver<(NodeId, Vec<Way>)>>,
    names: Mutex<Capabilities>,
}

/// The actors by kind.
#[derive(Debug, Default)]
pub struct Refs {
    /// The directory.
    pub directory: ArcSwapOption<ActorRef<directory::Msg>>,
    /// The mesh; empty on a node without peers.
    pub mesh: ArcSwapOption<ActorRef<mesh::Msg>>,
    /// The sessions.
    pub sessions: ArcSwapOption<ActorRef<sessions::Msg>>,
    /// The address database's keeper.
    pub geoip: ArcSwapOption<ActorRef<geoip::Msg>>,
}

impl Shared {
    /// Gathers the parts.
    pub fn new(
        view: View,
        upstream: Upstream,
        sessions: Table,
        geo: GeoStore,
        news: mpsc::Receiver<PeerNews>,
    ) -> Self {
        let (ways, ways_told) = mpsc::channel(WAYS_WAITING);
        Self {
            pulses: Arc::default(),
            orders: Arc::default(),
            ordered: Arc::default(),
            ways,
            ways_told: tokio::sync::Mutex::new(ways_told),
            names: Mutex::new(Capabilities::clone(&view.capabilities)),
            view: ArcSwap::from_pointee(view),
            peers: Arc::default(),
            board: Arc::default(),
            upstream,
            sessions,
            geo,
            refs: Refs::default(),
            news: tokio::sync::Mutex::new(news),
        }
    }

    /// Returns the number of a capability, giving it one if there is room.
    pub fn intern(&self, name: &str) -> Option<CapabilityId> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).intern(name)
    }

    /// Returns every capability numbered so far.
    pub fn capabilities(&self) -> Capabilities {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Messages of ways that wait to be taken: one of each node of a large mesh at once.
const WAYS_WAITING: usize = 256;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock;
    use crate::upstream::{self, Dialer};
    use crate::view::tests::atlas;

    #[tokio::test]
    async fn so_many_messages_of_ways_wait_and_one_more_is_refused_at_once() {
        let second = Duration::from_secs(1);
        let params = upstream::Params {
            connections_max: 1,
            idle_max: 1,
            idle_all_max: 1,
            idle_for: second,
            head_timeout: second,
        };
        let upstream = Upstream::new(params, Dialer::new(second));
        let view = View::empty(clock::now(), atlas(1));
        let (geo, _trouble) = GeoStore::open(Vec::new(), clock::wall());
        let shared = Shared::new(view, upstream, Table::new(1), geo, mpsc::channel(1).1);
        let told = || ("fra-1".parse().unwrap(), Vec::new());
        for _ in 0..WAYS_WAITING {
            shared.ways.try_send(told()).unwrap();
        }
        assert!(shared.ways.try_send(told()).is_err());
        shared.ways_told.lock().await.recv().await.unwrap();
        assert!(shared.ways.try_send(told()).is_ok(), "room for one again");
    }
}
