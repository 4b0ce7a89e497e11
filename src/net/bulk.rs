//! Streams for requests that peers forward, on connections of their own: however much they
//! carry, it does not stand before the news on a link.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use quinn::{Connection, RecvStream, SendStream, VarInt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Door, Endpoint, NetError, name};
use crate::id::NodeId;

/// One stream between two nodes; dropped before its end, the other side sees it break.
#[derive(Debug)]
pub struct BulkStream {
    /// The node at the other end, as its certificate names it.
    pub peer: NodeId,
    send: SendStream,
    recv: RecvStream,
}

/// The connections this node dialed, one a peer.
#[derive(Debug, Default)]
pub(super) struct Dialed(Mutex<BTreeMap<NodeId, Connection>>);

impl Dialed {
    fn get(&self, peer: NodeId) -> Option<Connection> {
        let mut dialed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        dialed.retain(|_peer, connection| connection.close_reason().is_none());
        dialed.get(&peer).cloned()
    }

    /// Keeps `connection`, or returns the one somebody else made meanwhile.
    fn keep(&self, peer: NodeId, connection: Connection) -> Connection {
        let mut dialed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        dialed.entry(peer).or_insert(connection).clone()
    }
}

impl Endpoint {
    /// Opens a stream to `peer`, to which there is a link; dials where none was opened yet.
    pub async fn bulk(&self, peer: NodeId) -> Result<BulkStream, NetError> {
        let door = &self.shared.door;
        let opened = async {
            let connection = match self.shared.dialed.get(peer) {
                Some(connection) => connection,
                None => self.dial_bulk_apart(peer).await?,
            };
            let (send, recv) = connection.open_bi().await?;
            Ok(BulkStream { peer, send, recv })
        };
        timeout(door.handshake_timeout, opened).await.map_err(|_elapsed| NetError::Timeout)?
    }

    /// Dials where all connections are driven, and not on a lane of clients.
    async fn dial_bulk_apart(&self, peer: NodeId) -> Result<Connection, NetError> {
        let (endpoint, mut dialing) = (self.clone(), JoinSet::new());
        dialing.spawn_on(async move { endpoint.dial_bulk(peer).await }, &self.shared.runtime);
        match dialing.join_next().await {
            Some(Ok(dialed)) => dialed,
            // It ends with the endpoint.
            Some(Err(_)) | None => Err(NetError::Unlinked(peer)),
        }
    }

    async fn dial_bulk(&self, peer: NodeId) -> Result<Connection, NetError> {
        let super::Shared { quinn, bulk_client, door, .. } = &*self.shared;
        let at = door.found_at(peer).ok_or(NetError::Unlinked(peer))?;
        let config = (**bulk_client.load()).clone();
        let connection = quinn.connect_with(config, at, &name::server_name(peer))?.await?;
        let proven = door.identity_of(&connection)?;
        if proven != peer {
            return Err(NetError::OtherNode { expected: peer, proven });
        }
        door.watch(&connection)?;
        Ok(self.shared.dialed.keep(peer, connection))
    }

    /// Waits for the next stream a peer opened; `None` when the endpoint is closed.
    pub async fn carried(&self) -> Option<BulkStream> {
        self.shared.carried.lock().await.recv().await
    }
}

/// Takes in the streams of every connection a peer dialed for them.
pub(super) async fn carry(
    door: Arc<Door>,
    mut connections: mpsc::Receiver<Connection>,
    streams: mpsc::Sender<BulkStream>,
) {
    let mut tasks = JoinSet::new();
    while let Some(connection) = connections.recv().await {
        while tasks.try_join_next().is_some() {}
        let Ok(peer) = door.identity_of(&connection).and_then(|peer| {
            door.watch(&connection)?;
            Ok(peer)
        }) else {
            super::link::close(&connection, super::CloseReason::Refused);
            continue;
        };
        if tasks.len() >= CONNECTIONS_MAX {
            super::link::close(&connection, super::CloseReason::Refused);
            continue;
        }
        connection.set_max_concurrent_bi_streams(VarInt::from_u32(STREAMS_MAX));
        let streams = streams.clone();
        tasks.spawn(async move {
            while let Ok((send, recv)) = connection.accept_bi().await {
                if streams.send(BulkStream { peer, send, recv }).await.is_err() {
                    return;
                }
            }
        });
    }
}

impl AsyncRead for BulkStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().recv).poll_read(context, buf)
    }
}

impl AsyncWrite for BulkStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.get_mut().send), context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().send).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().send).poll_shutdown(context)
    }
}

/// Requests one peer may have forwarded at once.
pub(super) const STREAMS_MAX: u32 = 256;
/// Connections for them: one of each node of the largest mesh, and some that end.
const CONNECTIONS_MAX: usize = 512;
