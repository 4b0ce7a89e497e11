//! What the CA remembers: tokens not yet used, certificates given, certificates revoked.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Serial;
use super::TokenHash;
use crate::id::NodeId;

/// The CA's memory. Times are wall times since 1970, here in seconds; what has expired is
/// forgotten with the next change.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ledger {
    tokens: BTreeMap<TokenHash, Pending>,
    issued: BTreeMap<Serial, Issued>,
    revoked: BTreeMap<Serial, Revocation>,
    /// The number of the latest revocation list.
    list_number: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Pending {
    node: NodeId,
    not_after: u64,
}

/// One certificate that was given.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issued {
    /// Whom it names.
    pub node: NodeId,
    /// When it ends.
    pub not_after: u64,
    /// The fingerprint of the CA that signed it.
    pub by: String,
}

/// One certificate that was revoked.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// When it was revoked.
    pub at: u64,
    /// When it would have ended; `None` for one this CA did not give, which stays listed.
    pub not_after: Option<u64>,
}

/// Why the ledger does not take something; it is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// Too many tokens are not yet used.
    #[error("{MAX_TOKENS} join tokens wait already; use them or let them expire")]
    Tokens,
    /// A token would be good for too long.
    #[error("a join token is good for 1 second to 24 hours")]
    Life,
    /// The token is not there.
    #[error("the join token is unknown, used or expired; make another with `portolan ca token`")]
    Token,
    /// The token is for another node.
    #[error("the join token is for another node than the certificate request")]
    OtherNode,
    /// Too many certificates are good.
    #[error("{MAX_ISSUED} certificates are good already")]
    Issued,
    /// One node has too many good certificates.
    #[error("{0} has {MAX_EACH} good certificates already; is its key in many hands?")]
    Each(NodeId),
    /// Too many certificates are revoked.
    #[error("{MAX_REVOKED} certificates are revoked already; `portolan ca rotate` ends them all")]
    Revoked,
    /// There is nothing to revoke.
    #[error("no certificate of {0} is good; name another by --serial")]
    Nothing(NodeId),
}

impl Ledger {
    /// Takes a new token for `node`, good for `life`.
    pub fn add_token(
        &mut self,
        now: Duration,
        hash: TokenHash,
        node: NodeId,
        life: Duration,
    ) -> Result<(), LedgerError> {
        if !(TOKEN_LEAST..=TOKEN_MOST).contains(&life) {
            return Err(LedgerError::Life);
        }
        self.forget(now);
        if self.tokens.len() >= MAX_TOKENS {
            return Err(LedgerError::Tokens);
        }
        let not_after = (now + life).as_secs();
        self.tokens.insert(hash, Pending { node, not_after });
        Ok(())
    }

    /// Uses a token up for `node`. One for another node stays.
    pub fn redeem(
        &mut self,
        now: Duration,
        hash: &TokenHash,
        node: NodeId,
    ) -> Result<(), LedgerError> {
        self.forget(now);
        let pending = self.tokens.get(hash).ok_or(LedgerError::Token)?;
        if pending.node != node {
            return Err(LedgerError::OtherNode);
        }
        self.tokens.remove(hash);
        Ok(())
    }

    /// Notes a certificate before it is given.
    pub fn note_issued(
        &mut self,
        now: Duration,
        serial: Serial,
        issued: Issued,
    ) -> Result<(), LedgerError> {
        self.forget(now);
        if self.issued.len() >= MAX_ISSUED {
            return Err(LedgerError::Issued);
        }
        let of_node = |(serial, it): &(&Serial, &Issued)| {
            it.node == issued.node && !self.revoked.contains_key(*serial)
        };
        if self.issued.iter().filter(of_node).count() >= MAX_EACH {
            return Err(LedgerError::Each(issued.node));
        }
        self.issued.insert(serial, issued);
        Ok(())
    }

    /// Revokes every good certificate of `node`, and its unused tokens; returns how many
    /// certificates.
    pub fn revoke_node(&mut self, now: Duration, node: NodeId) -> Result<usize, LedgerError> {
        self.forget(now);
        let good = |(serial, it): &(&Serial, &Issued)| {
            it.node == node && !self.revoked.contains_key(*serial)
        };
        let serials: Vec<(Serial, u64)> = self
            .issued
            .iter()
            .filter(good)
            .map(|(serial, it)| (serial.clone(), it.not_after))
            .collect();
        if self.revoked.len() + serials.len() > MAX_REVOKED {
            return Err(LedgerError::Revoked);
        }
        let n_tokens = self.tokens.len();
        self.tokens.retain(|_, it| it.node != node);
        if serials.is_empty() && n_tokens == self.tokens.len() {
            return Err(LedgerError::Nothing(node));
        }
        let n_revoked = serials.len();
        for (serial, not_after) in serials {
            let not_after = Some(not_after);
            self.revoked.insert(serial, Revocation { at: now.as_secs(), not_after });
        }
        Ok(n_revoked)
    }

    /// Revokes one certificate, also one of another making.
    pub fn revoke_serial(&mut self, now: Duration, serial: Serial) -> Result<(), LedgerError> {
        self.forget(now);
        if self.revoked.len() >= MAX_REVOKED {
            return Err(LedgerError::Revoked);
        }
        let not_after = self.issued.get(&serial).map(|it| it.not_after);
        self.revoked.entry(serial).or_insert(Revocation { at: now.as_secs(), not_after });
        Ok(())
    }

    /// Tells whether a certificate is revoked.
    pub fn is_revoked(&self, serial: &Serial) -> bool {
        self.revoked.contains_key(serial)
    }

    /// Returns what stands on the revocation list.
    pub fn revoked(&self) -> impl Iterator<Item = (&Serial, &Revocation)> {
        self.revoked.iter()
    }

    /// Returns the nodes with a good certificate that another CA than `by` signed.
    pub fn not_by(&self, now: Duration, by: &str) -> Vec<NodeId> {
        let old = |(serial, it): &(&Serial, &Issued)| {
            it.by != by && it.not_after > now.as_secs() && !self.revoked.contains_key(*serial)
        };
        // Whoever was named by the present one since has no need of the older.
        let fresh = |node: NodeId| self.issued.values().any(|it| it.by == by && it.node == node);
        let nodes: std::collections::BTreeSet<NodeId> =
            self.issued.iter().filter(old).map(|(_, it)| it.node).collect();
        nodes.into_iter().filter(|node| !fresh(*node)).collect()
    }

    /// Returns the number for a new revocation list.
    pub fn next_list(&mut self) -> u64 {
        self.list_number += 1;
        self.list_number
    }

    fn forget(&mut self, now: Duration) {
        let now = now.as_secs();
        self.tokens.retain(|_, it| it.not_after > now);
        self.issued.retain(|_, it| it.not_after > now);
        self.revoked.retain(|_, it| it.not_after.is_none_or(|at| at > now));
    }
}

/// A mesh is enrolled node by node.
const MAX_TOKENS: usize = 1000;

const TOKEN_LEAST: Duration = Duration::from_secs(1);

/// Tokens travel by mail and chat.
const TOKEN_MOST: Duration = Duration::from_secs(24 * 3600);

/// Those of one week: 3,000 nodes have two each, and some more where something is wrong.
const MAX_ISSUED: usize = 20_000;

/// A node needs two at once; one that was taken over cannot use up the room of all.
const MAX_EACH: usize = 50;

/// Every request reads the list, every node holds it.
pub const MAX_REVOKED: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::Token;

    const NOW: Duration = Duration::from_secs(1_800_000_000);
    const WEEK: u64 = 7 * 86_400;

    fn node(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    fn serial(n: u8) -> Serial {
        Serial::random([n; 16])
    }

    fn issued(name: &str, by: &str) -> Issued {
        Issued { node: node(name), not_after: NOW.as_secs() + WEEK, by: by.to_owned() }
    }

    fn minutes(n: u64) -> Duration {
        Duration::from_secs(n * 60)
    }

    #[test]
    fn a_token_is_used_once_by_its_node_and_in_time() {
        let mut ledger = Ledger::default();
        let hash = Token::new(node("a"), [1; 32]).hash();
        ledger.add_token(NOW, hash.clone(), node("a"), minutes(10)).unwrap();
        assert_eq!(ledger.redeem(NOW, &hash, node("b")), Err(LedgerError::OtherNode));
        assert_eq!(
            ledger.clone().redeem(NOW + minutes(10), &hash, node("a")),
            Err(LedgerError::Token)
        );
        assert_eq!(ledger.redeem(NOW + minutes(9), &hash, node("a")), Ok(()));
        assert_eq!(ledger.redeem(NOW + minutes(9), &hash, node("a")), Err(LedgerError::Token));
        for life in [Duration::ZERO, TOKEN_MOST + Duration::from_secs(1)] {
            let added = ledger.add_token(NOW, hash.clone(), node("a"), life);
            assert_eq!(added, Err(LedgerError::Life));
        }
    }

    #[test]
    fn waiting_tokens_are_bounded_and_expire() {
        let mut ledger = Ledger::default();
        let hash = |n: usize| {
            let mut secret = [0; 32];
            secret[..8].copy_from_slice(&n.to_be_bytes());
            Token::new(node("a"), secret).hash()
        };
        let add =
            |ledger: &mut Ledger, now, n| ledger.add_token(now, hash(n), node("a"), minutes(1));
        assert!((0..MAX_TOKENS).all(|n| add(&mut ledger, NOW, n).is_ok()));
        assert_eq!(add(&mut ledger, NOW, MAX_TOKENS), Err(LedgerError::Tokens));
        assert_eq!(add(&mut ledger, NOW + minutes(1), MAX_TOKENS), Ok(()));
        assert_eq!(ledger.tokens.len(), 1);
    }

    #[test]
    fn a_revoked_node_loses_all_certificates_and_tokens_and_no_other_does() {
        let mut ledger = Ledger::default();
        for (n, name) in [(1, "a"), (2, "b"), (3, "a")] {
            ledger.note_issued(NOW, serial(n), issued(name, "x")).unwrap();
        }
        let hash = Token::new(node("a"), [1; 32]).hash();
        ledger.add_token(NOW, hash.clone(), node("a"), minutes(10)).unwrap();
        assert_eq!(ledger.revoke_node(NOW, node("a")), Ok(2));
        assert!(ledger.is_revoked(&serial(1)) && ledger.is_revoked(&serial(3)));
        assert!(!ledger.is_revoked(&serial(2)));
        assert_eq!(ledger.redeem(NOW, &hash, node("a")), Err(LedgerError::Token));
        assert_eq!(ledger.revoke_node(NOW, node("a")), Err(LedgerError::Nothing(node("a"))));
        // What has expired is refused by its date, and the list is kept short.
        ledger.revoke_serial(NOW, serial(9)).unwrap();
        ledger.forget(NOW + Duration::from_secs(WEEK));
        assert_eq!(ledger.revoked().map(|(it, _)| it.clone()).collect::<Vec<_>>(), [serial(9)]);
    }

    #[test]
    fn one_node_cannot_use_up_the_room_of_all() {
        let mut ledger = Ledger::default();
        let mut note = |n: u8, name: &str| ledger.note_issued(NOW, serial(n), issued(name, "x"));
        assert!((0..MAX_EACH as u8).all(|n| note(n, "a").is_ok()));
        assert_eq!(note(200, "a"), Err(LedgerError::Each(node("a"))));
        assert_eq!(note(201, "b"), Ok(()));
        // Once they are revoked, a new token is the way back.
        ledger.revoke_node(NOW, node("a")).unwrap();
        assert_eq!(ledger.note_issued(NOW, serial(202), issued("a", "x")), Ok(()));
    }

    #[test]
    fn an_old_ca_is_needed_until_each_of_its_nodes_has_another_certificate() {
        let mut ledger = Ledger::default();
        for (n, name) in [(1, "a"), (2, "b"), (3, "c")] {
            ledger.note_issued(NOW, serial(n), issued(name, "old")).unwrap();
        }
        ledger.note_issued(NOW, serial(4), issued("a", "new")).unwrap();
        ledger.revoke_serial(NOW, serial(3)).unwrap();
        assert_eq!(ledger.not_by(NOW, "new"), [node("b")]);
        assert_eq!(ledger.not_by(NOW + Duration::from_secs(WEEK), "new"), []);
    }

    #[test]
    fn a_ledger_reads_back_and_holds_no_secret() {
        let mut ledger = Ledger::default();
        let token = Token::new(node("a"), [0x5a; 32]);
        ledger.add_token(NOW, token.hash(), node("a"), minutes(10)).unwrap();
        ledger.note_issued(NOW, serial(1), issued("a", "x")).unwrap();
        ledger.revoke_serial(NOW, serial(1)).unwrap();
        ledger.next_list();
        let text = serde_json::to_string(&ledger).unwrap();
        assert_eq!(serde_json::from_str::<Ledger>(&text).unwrap(), ledger);
        assert!(!text.contains(token.reveal().rsplit(':').next().unwrap()));
    }
}
