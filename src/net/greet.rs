//! From a connection to a link: identities checked, greetings exchanged.

use std::time::Duration;

use quinn::Connection;
use rustls::pki_types::CertificateDer;

use super::Door;
use super::NetError;
use super::link::Control;
use super::link::Established;
use super::link::Link;
use super::link::next_frame;
use super::live;
use super::tls::Facts;
use super::tls::NoNode;
use crate::clock;
use crate::id::NodeId;
use crate::mesh::Greeting;
use crate::mesh::election::Dialer;
use crate::wire;
use crate::wire::FrameReader;
use crate::wire::Message;

impl Door {
    /// Greets `expected` over a connection this node dialed. The connection counts only
    /// with the answer: TLS tells a dialer that it is through before the other side has
    /// looked at its certificate.
    pub(super) async fn greet_first(
        &self,
        connection: Connection,
        expected: NodeId,
    ) -> Result<Established, NetError> {
        let proven = self.identity_of(&connection)?;
        if proven != expected {
            return Err(NetError::OtherNode { expected, proven });
        }
        let (mut send, mut recv) = connection.open_bi().await?;
        let hello = wire::encode(&Message::Hello(self.greeting().hello()))?;
        send.write_all(&hello).await.map_err(|error| lost(&connection, error.into()))?;
        let mut reader = FrameReader::new();
        let greeting = match next_frame(&mut recv, &mut reader).await? {
            Some(wire::Frame { message: Message::HelloAck(ack), .. }) => Greeting::from_ack(&ack)?,
            Some(_) => return Err(NetError::NotGreeted),
            None => return Err(lost(&connection, NetError::NotGreeted)),
        };
        let control = Control { connection, send, recv, reader };
        self.establish(control, greeting, proven, Dialer::Here)
    }

    /// Answers the greeting on a connection a peer dialed.
    pub(super) async fn greet_back(&self, connection: Connection) -> Result<Established, NetError> {
        let proven = self.identity_of(&connection)?;
        let (mut send, mut recv) = connection.accept_bi().await?;
        let mut reader = FrameReader::new();
        let greeting = match next_frame(&mut recv, &mut reader).await? {
            Some(wire::Frame { message: Message::Hello(hello), .. }) => {
                Greeting::from_hello(&hello)?
            }
            Some(_) => return Err(NetError::NotGreeted),
            None => return Err(lost(&connection, NetError::NotGreeted)),
        };
        let ack = wire::encode(&Message::HelloAck(self.greeting().ack()))?;
        send.write_all(&ack).await.map_err(|error| lost(&connection, error.into()))?;
        let control = Control { connection, send, recv, reader };
        self.establish(control, greeting, proven, Dialer::There)
    }

    fn establish(
        &self,
        control: Control,
        greeting: Greeting,
        proven: NodeId,
        dialer: Dialer,
    ) -> Result<Established, NetError> {
        if greeting.node != proven {
            return Err(NetError::OtherNode { expected: greeting.node, proven });
        }
        self.watch(&control.connection)?;
        self.note_found(proven, control.connection.remote_address());
        let (link, frames) = Link::start(self.next_link(), proven, control, self.outbound_max);
        Ok(Established { link, frames, greeting, dialer })
    }

    /// Takes the connection in among those that are ended in time.
    pub(super) fn watch(&self, connection: &Connection) -> Result<(), NetError> {
        let facts = facts_of(connection)?;
        let ends = Duration::from_secs(u64::try_from(facts.not_after).unwrap_or(0));
        let left = ends.saturating_sub(clock::wall());
        let until = clock::now() + live::life(self.age_max, left, rand::random());
        self.live.add(connection, facts.serial.clone(), until);
        // A list that came in between missed this one.
        self.check_revoked(&facts)
    }

    pub(super) fn identity_of(&self, connection: &Connection) -> Result<NodeId, NetError> {
        let facts = facts_of(connection)?;
        let node = facts.node_of(&self.trust_domain)?;
        self.check_revoked(&facts)?;
        Ok(node)
    }

    fn check_revoked(&self, facts: &Facts) -> Result<(), NetError> {
        if self.revoked.load().contains(&facts.serial) {
            return Err(NetError::Revoked(facts.serial.clone()));
        }
        Ok(())
    }
}

fn facts_of(connection: &Connection) -> Result<Facts, NetError> {
    let chain = connection
        .peer_identity()
        .and_then(|it| it.downcast::<Vec<CertificateDer<'static>>>().ok());
    let leaf = chain.as_ref().and_then(|it| it.first()).ok_or(NoNode::Unreadable)?;
    Ok(Facts::of(leaf).map_err(|_der| NoNode::Unreadable)?)
}

/// Says why the connection ended, where it has.
fn lost(connection: &Connection, otherwise: NetError) -> NetError {
    connection.close_reason().map_or(otherwise, NetError::Connection)
}
