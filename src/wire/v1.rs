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

/// The body of a Goodbye.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct GoodbyeV1 {
    /// Why: 0 the node leaves. Other numbers are free.
    pub reason: u16,
}
