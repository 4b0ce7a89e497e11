//! Version 1 of every body. Frozen: a published struct is never edited.

use bincode::{Decode, Encode};

/// The body of a Hello.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct HelloV1 {
    /// The lowest version of the conversation the sender speaks.
    pub min: u16,
    /// The highest.
    pub max: u16,
    /// The sender's node name; has to be the one of its certificate.
    pub node: String,
    /// The region the sender runs in.
    pub region: String,
    /// The sender's boot epoch: greater after every restart.
    pub epoch: u64,
    /// A bit per optional ability; unknown bits are ignored.
    pub features: u64,
}

/// The body of a HelloAck.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct HelloAckV1 {
    /// The version both sides will speak: the lower of the two highest.
    pub version: u16,
    /// The sender's node name; has to be the one of its certificate.
    pub node: String,
    /// The region the sender runs in.
    pub region: String,
    /// The sender's boot epoch: greater after every restart.
    pub epoch: u64,
    /// A bit per optional ability; unknown bits are ignored.
    pub features: u64,
}

/// The body of a Delta: records of the sender, by rising version.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DeltaV1 {
    /// The sender's boot epoch, under which the versions count.
    pub epoch: u64,
    /// The version of the first record.
    pub first_version: u64,
    /// At most [`super::MAX_RECORDS`] records.
    pub records: Vec<RecordV1>,
}

/// What the sender saw of one orchestrator.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RecordV1 {
    /// This record's version less the delta's first.
    pub after_first: u32,
    /// How old the observation was when sent, in milliseconds.
    pub age_ms: u32,
    /// The orchestrator's id.
    pub orchestrator: u64,
    /// The round trip, in microseconds.
    pub rtt_us: Option<u64>,
    /// Failures, decayed, in thousandths of an event.
    pub failures_milli: u32,
    /// Successes, decayed, in thousandths of an event.
    pub successes_milli: u32,
    /// Requests under way from the sender.
    pub in_flight: u32,
    /// Requests the sender starts, in thousandths per second.
    pub arrivals_milli: u32,
    /// The service time, in microseconds.
    pub service_us: Option<u64>,
    /// The learned capacity, in thousandths of a request at a time.
    pub capacity_milli: Option<u32>,
}

/// The body of a Ping.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PingV1 {
    /// A number the answer repeats.
    pub nonce: u64,
}

/// The body of a Pong.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PongV1 {
    /// The number of the question.
    pub nonce: u64,
}

/// The body of a Digest: what the sender has sent over this link of its own records.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DigestV1 {
    /// The sender's boot epoch.
    pub epoch: u64,
    /// How many records.
    pub n_records: u32,
    /// The exclusive or of a number per record, made of its orchestrator and version.
    pub sum: u64,
}

/// The body of a Pull: send what the digest counts again.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PullV1 {
    /// The boot epoch of the digest that did not agree.
    pub epoch: u64,
}

/// The body of a Goodbye.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct GoodbyeV1 {
    /// Why: 0 the node leaves. Other numbers are free.
    pub reason: u16,
}

/// The body of a Load: what the sender has in flight at orchestrators of which few places are
/// left; each row replaces what it said of that one before.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct LoadV1 {
    /// How old the counts were when sent, in milliseconds.
    pub age_ms: u32,
    /// At most [`super::MAX_LOADS`] rows.
    pub rows: Vec<LoadRowV1>,
}

/// What the sender has in flight at one orchestrator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct LoadRowV1 {
    /// The orchestrator's id.
    pub orchestrator: u64,
    /// Requests and sessions of the sender there.
    pub in_flight: u32,
}

/// The body of a Want: how many requests of the sender wait for a place at orchestrators of
/// which few are left; each row replaces what it said of that one before.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct WantV1 {
    /// At most [`super::MAX_LOADS`] rows.
    pub rows: Vec<WantRowV1>,
}

/// What the sender knows of the want of places at one orchestrator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct WantRowV1 {
    /// The orchestrator's id.
    pub orchestrator: u64,
    /// Requests that wait there, rounded up so that it need not be told often.
    pub waiting: u32,
    /// What all together had there when it last told the sender that it was full; 0 where it
    /// did not of late.
    pub places: u32,
}

/// The body of a Ways: round trips between groups of clients and places, as the sender measured
/// them or as clients told it, each agreed on by at least three clients of the group.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct WaysV1 {
    /// At most [`super::MAX_WAYS`] rows.
    pub rows: Vec<WayV1>,
}

/// The way between one group of clients and one place.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct WayV1 {
    /// The group.
    pub group: GroupV1,
    /// The place.
    pub to: PlaceV1,
    /// The median round trip, in microseconds.
    pub rtt_us: u32,
}

/// A group of clients: the leading bytes of their addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum GroupV1 {
    /// A /24 of IPv4.
    V4([u8; 3]),
    /// A /48 of IPv6.
    V6([u8; 6]),
}

/// The far end of a way.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum PlaceV1 {
    /// A node, by name.
    Node(String),
    /// An orchestrator, by id.
    Orchestrator(u64),
}

/// The body of a Command: one of the operator's, under the operator's signature.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CommandV1 {
    /// As it was signed.
    pub signed: Vec<u8>,
}

/// The body of an About: what the sender says of itself to those who send it clients.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AboutV1 {
    /// How clients reach it, without a trailing slash; none where it does not know.
    pub url: Option<String>,
    /// The version of its software.
    pub version: String,
}

/// One life of a member of the mesh, in a datagram of membership.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct MemberIdV1 {
    /// Its node name.
    pub node: String,
    /// Where it answers dials; none where it cannot be dialed.
    pub at: Option<AddressV1>,
    /// Its boot epoch.
    pub epoch: u64,
    /// How often it came back within that life after it was declared down.
    pub renewals: u16,
}

/// A UDP address: the bytes of the IP address, then the port.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum AddressV1 {
    /// IPv4.
    V4([u8; 4], u16),
    /// IPv6.
    V6([u8; 16], u16),
}

/// How a datagram of membership begins.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct GossipV1 {
    /// The sender; has to be the one of the link's certificate.
    pub source: MemberIdV1,
    /// The sender's incarnation: rises when it refutes a suspicion.
    pub incarnation: u16,
    /// Whom it is for.
    pub target: MemberIdV1,
    /// What it wants.
    pub ask: AskV1,
}

/// What a datagram of membership wants; `number` tells probes apart.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum AskV1 {
    /// Are you there?
    Ping(u8),
    /// I am.
    Ack(u8),
    /// Ask this member for me.
    PingFor(MemberIdV1, u8),
    /// Are you there? That member wants to know.
    PingFrom(MemberIdV1, u8),
    /// I am; tell that member.
    AckFor(MemberIdV1, u8),
    /// That member is there.
    AckFrom(MemberIdV1, u8),
    /// Let me in, and tell me who else there is.
    Announce,
    /// These are members.
    Feed,
    /// Something changed; no answer is wanted.
    Gossip,
    /// What a broadcast would carry; none is sent.
    Broadcast,
    /// The sender holds you for down.
    TurnUndead,
}

/// What is said of one member.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct MemberV1 {
    /// Who.
    pub id: MemberIdV1,
    /// Its incarnation.
    pub incarnation: u16,
    /// How it stands.
    pub state: StateV1,
}

/// How a member stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum StateV1 {
    /// It answers.
    Alive,
    /// It did not answer somebody.
    Suspect,
    /// It did not refute a suspicion in time.
    Down,
}

/// What comes first on a stream that carries a forwarded request.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ForwardV1 {
    /// The nodes it passed, the one the client entered by first.
    pub hops: Vec<String>,
    /// The orchestrator it is for.
    pub orchestrator: u64,
    /// How long its client waits, in milliseconds; 0 where it did not say.
    pub deadline_ms: u32,
    /// The trace it belongs to.
    pub trace: [u8; 16],
    /// When `seal` ends, in seconds since the Unix epoch.
    pub expires: u64,
    /// The seal of the mesh's key over the last hop, the orchestrator and `expires`.
    pub seal: [u8; 16],
}
