//! The operator's orders, as they reach every node: from the admin door of one, from there to
//! all its peers at once, and to each that comes later when its link begins.

use std::sync::Arc;
use std::time::Duration;

use super::Mesh;
use super::Output;
use crate::id::NodeId;
use crate::operator::{Command, Gate, OperatorPublic, Refused};
use crate::orders::{BadOrders, InForce, Orders};
use crate::wire::Message;
use crate::wire::v1::CommandV1;

/// Whose commands are obeyed, in which mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Operator {
    /// The trust domain.
    pub mesh: String,
    /// The key; `None` where none is known, and no command is obeyed.
    pub key: Option<OperatorPublic>,
}

/// Why a command is not obeyed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotObeyed {
    /// This node knows no operator.
    #[error("this node knows no operator; name operator.pub of the CA's folder in mesh.operator")]
    NoOperator,
    /// The command is not good.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It holds no orders.
    #[error(transparent)]
    Orders(#[from] BadOrders),
    /// Others came first.
    #[error("the orders were made from number {from}, and {now} is in force; look and order again")]
    Overtaken {
        /// What they were made from.
        from: u64,
        /// What is in force.
        now: u64,
    },
}

/// The gate, and what is in force behind it.
#[derive(Debug)]
pub(super) struct Standing {
    gate: Option<Gate>,
    in_force: Arc<InForce>,
}

impl Standing {
    pub(super) fn new(operator: &Operator, in_force: Arc<InForce>) -> Self {
        let gate = operator.key.map(|key| Gate::new(&operator.mesh, key, in_force.number));
        Self { gate, in_force }
    }

    /// Takes a command by `admit`; the gate stays as it was when it is not obeyed.
    fn take(
        &mut self,
        bytes: &[u8],
        check: impl Fn(&Orders) -> Result<(), NotObeyed>,
        admit: impl Fn(&mut Gate) -> Result<Command, Refused>,
    ) -> Result<Arc<InForce>, NotObeyed> {
        let mut gate = self.gate.clone().ok_or(NotObeyed::NoOperator)?;
        let command = admit(&mut gate)?;
        let orders = Orders::read(&command.body)?;
        check(&orders)?;
        self.gate = Some(gate);
        self.in_force = Arc::new(InForce {
            number: command.sequence,
            orders,
            command: bytes.to_vec(),
            before: self.in_force.orders.clone(),
        });
        Ok(Arc::clone(&self.in_force))
    }
}

impl InForce {
    /// Returns the orders a command holds that was kept since it was obeyed, on top of those
    /// `before` them; an error for what `operator` never gave.
    pub fn kept(operator: &Operator, command: &[u8], before: Orders) -> Result<Self, NotObeyed> {
        let start = Self { orders: before, ..Self::default() };
        let mut standing = Standing::new(operator, Arc::new(start));
        let taken = standing.take(command, |_any| Ok(()), |gate| gate.learn(command))?;
        Ok(Self::clone(&taken))
    }
}

impl Mesh {
    /// Takes a command given to this node at the wall time `wall`, since 1970, obeys it and
    /// tells everybody.
    pub fn handle_command(&mut self, wall: Duration, bytes: &[u8]) -> Result<(), NotObeyed> {
        let now = self.standing.in_force.number;
        let check = |orders: &Orders| match orders.previous {
            from if from == now => Ok(()),
            from => Err(NotObeyed::Overtaken { from, now }),
        };
        let taken = self.standing.take(bytes, check, |gate| gate.admit(wall, bytes))?;
        self.obey(taken, None);
        Ok(())
    }

    /// Takes a command a peer passes on. Which came first, the node decided that it was given
    /// to. One that is not this node's operator's is counted and goes no further: the peer may
    /// be honest, and know another operator's key or a newer form.
    pub(super) fn take_command(&mut self, node: NodeId, command: &CommandV1) {
        let bytes = &command.signed;
        match self.standing.take(bytes, |_any| Ok(()), |gate| gate.learn(bytes)) {
            Ok(taken) => self.obey(taken, Some(node)),
            // Known already.
            Err(NotObeyed::Refused(Refused::Replayed)) => {}
            Err(_) => {
                if let Some(peer) = self.peers.get_mut(&node) {
                    peer.counts.n_disobeyed += 1;
                }
            }
        }
    }

    fn obey(&mut self, taken: Arc<InForce>, from: Option<NodeId>) {
        let others: Vec<NodeId> = self.links().filter(|it| Some(*it) != from).collect();
        for peer in others {
            self.pass_on(peer);
        }
        self.outputs.push_back(Output::Ordered(taken));
    }

    /// Tells a peer the latest command, if there was one.
    pub(super) fn pass_on(&mut self, peer: NodeId) {
        let signed = self.standing.in_force.command.clone();
        if !signed.is_empty() {
            self.send(peer, Message::Command(CommandV1 { signed }));
        }
    }
}
