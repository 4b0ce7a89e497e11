//! The right to have a peer forward a request: one orchestrator, for a minute, said by a node
//! that has the mesh's key. It travels in place of the client's credentials.

use hmac::Mac;

use super::{BadTicket, Key, TAG};
use crate::id::{NodeId, OrchestratorId};

/// The longest such a right lasts, in seconds.
pub const FORWARD_FOR_S: u64 = 60;

impl Key {
    /// Returns the seal with which `entry` may have a peer forward to `orchestrator` until
    /// `expires`, in seconds since the Unix epoch.
    pub fn seal_forward(
        &self,
        entry: NodeId,
        orchestrator: OrchestratorId,
        expires: u64,
    ) -> [u8; TAG] {
        let tag = self.mac(&body(entry, orchestrator, expires)).finalize().into_bytes();
        tag.first_chunk().copied().unwrap_or_default()
    }

    /// Says why a seal is not good at `now`.
    pub fn open_forward(
        &self,
        entry: NodeId,
        orchestrator: OrchestratorId,
        expires: u64,
        seal: &[u8; TAG],
        now: u64,
    ) -> Result<(), BadTicket> {
        let genuine = self.mac(&body(entry, orchestrator, expires)).verify_truncated_left(seal);
        genuine.map_err(|_other| BadTicket::Forged)?;
        // Nobody seals for longer; clocks of two nodes may be a little apart.
        if expires <= now || expires > now + FORWARD_FOR_S + CLOCKS_APART_S {
            return Err(BadTicket::Expired);
        }
        Ok(())
    }
}

fn body(entry: NodeId, orchestrator: OrchestratorId, expires: u64) -> Vec<u8> {
    let name = entry.as_bytes();
    [&[VERSION][..], &orchestrator.0.to_be_bytes(), &expires.to_be_bytes(), name].concat()
}

/// No other ticket begins with it.
const VERSION: u8 = 3;
const CLOCKS_APART_S: u64 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_is_good_for_one_node_one_orchestrator_and_a_minute() {
        let key = Key::new([1; 32]);
        let (fra, nyc): (NodeId, NodeId) = ("fra-1".parse().unwrap(), "nyc-1".parse().unwrap());
        let (one, two) = (OrchestratorId(1), OrchestratorId(2));
        let seal = key.seal_forward(fra, one, 1060);
        assert_eq!(key.open_forward(fra, one, 1060, &seal, 1000), Ok(()));
        assert_eq!(key.open_forward(fra, one, 1060, &seal, 1060), Err(BadTicket::Expired));
        assert_eq!(key.open_forward(fra, one, 1060, &seal, 900), Err(BadTicket::Expired));
        assert_eq!(key.open_forward(nyc, one, 1060, &seal, 1000), Err(BadTicket::Forged));
        assert_eq!(key.open_forward(fra, two, 1060, &seal, 1000), Err(BadTicket::Forged));
        assert_eq!(key.open_forward(fra, one, 1061, &seal, 1000), Err(BadTicket::Forged));
        let other = Key::new([2; 32]);
        assert_eq!(other.open_forward(fra, one, 1060, &seal, 1000), Err(BadTicket::Forged));
    }
}
