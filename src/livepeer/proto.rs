//! Messages of the protobuf package `net`, by hand: the numbers are those of go-livepeer's
//! `lp_rpc.proto` (v0.9.1), so that no compiler of protobuf files is needed to build.
//!
//! Decoding drops unknown fields; whatever must reach its reader unchanged travels as bytes.

use std::collections::BTreeMap;

/// The question and the answer of `Orchestrator.Ping`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PingPong {
    /// Bytes to be signed; an orchestrator off-chain answers none.
    #[prost(bytes = "vec", tag = "1")]
    pub value: Vec<u8>,
}

/// What a gateway asks `Orchestrator.GetOrchestrator` with.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OrchestratorRequest {
    /// The gateway's Ethereum address (20 bytes), empty off-chain.
    #[prost(bytes = "vec", tag = "1")]
    pub address: Vec<u8>,
    /// Its signature over that address, empty off-chain.
    #[prost(bytes = "vec", tag = "2")]
    pub sig: Vec<u8>,
    /// What the gateway needs; unset asks for everything.
    #[prost(message, optional, tag = "3")]
    pub capabilities: Option<Capabilities>,
    /// Whether a full orchestrator shall answer all the same.
    #[prost(bool, tag = "4")]
    pub ignore_capacity_check: bool,
}

/// What an orchestrator says of itself.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OrchestratorInfo {
    /// Its service URI, the base of every other call; empty means "not working".
    #[prost(string, tag = "1")]
    pub transcoder: String,
    /// How tickets must look; unset off-chain.
    #[prost(message, optional, tag = "2")]
    pub ticket_params: Option<TicketParams>,
    /// The price of what was asked for; unset off-chain.
    #[prost(message, optional, tag = "3")]
    pub price_info: Option<PriceInfo>,
    /// Its Ethereum address (20 bytes, zero off-chain).
    #[prost(bytes = "vec", tag = "4")]
    pub address: Vec<u8>,
    /// What it can do.
    #[prost(message, optional, tag = "5")]
    pub capabilities: Option<Capabilities>,
    /// The token that later calls must carry.
    #[prost(message, optional, tag = "6")]
    pub auth_token: Option<AuthToken>,
    /// Its hardware, told only when no capability was asked for.
    #[prost(message, repeated, tag = "7")]
    pub hardware: Vec<HardwareInformation>,
    /// Object stores it wants results in.
    #[prost(message, repeated, tag = "32")]
    pub storage: Vec<OsInfo>,
    /// A price per capability, told only when none was asked for.
    #[prost(message, repeated, tag = "33")]
    pub capabilities_prices: Vec<PriceInfo>,
    /// Further service URIs of the same operator.
    #[prost(string, repeated, tag = "34")]
    pub nodes: Vec<String>,
}

/// What a node can do, or what a job needs.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Capabilities {
    /// Bit `b` of word `i` stands for capability `64 i + b`.
    #[prost(uint64, repeated, tag = "1")]
    pub bitstring: Vec<u64>,
    /// Bits a partner must understand.
    #[prost(uint64, repeated, tag = "2")]
    pub mandatories: Vec<u64>,
    /// How much of each capability there is.
    #[prost(btree_map = "uint32, uint32", tag = "3")]
    pub capacities: BTreeMap<u32, u32>,
    /// The node's software version.
    #[prost(string, tag = "4")]
    pub version: String,
    /// Models and minimum versions.
    #[prost(message, optional, tag = "5")]
    pub constraints: Option<capabilities::Constraints>,
}

/// A token an orchestrator issued; opaque to everybody else.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AuthToken {
    /// The MAC (32 bytes).
    #[prost(bytes = "vec", tag = "1")]
    pub token: Vec<u8>,
    /// The session it stands for.
    #[prost(string, tag = "2")]
    pub session_id: String,
    /// When it ends, in seconds since the Unix epoch.
    #[prost(int64, tag = "3")]
    pub expiration: i64,
}

/// A price as a fraction.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PriceInfo {
    /// Numerator, in wei.
    #[prost(int64, tag = "1")]
    pub price_per_unit: i64,
    /// Denominator; zero makes the price invalid.
    #[prost(int64, tag = "2")]
    pub pixels_per_unit: i64,
    /// The capability it is for.
    #[prost(uint32, tag = "3")]
    pub capability: u32,
    /// The model it is for.
    #[prost(string, tag = "4")]
    pub constraint: String,
}

/// What an orchestrator demands of a ticket.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TicketParams {
    /// Who is paid (20 bytes).
    #[prost(bytes = "vec", tag = "1")]
    pub recipient: Vec<u8>,
    /// Big-endian, without leading zeros.
    #[prost(bytes = "vec", tag = "2")]
    pub face_value: Vec<u8>,
    /// Big-endian, without leading zeros.
    #[prost(bytes = "vec", tag = "3")]
    pub win_prob: Vec<u8>,
    /// Commitment of the recipient (32 bytes).
    #[prost(bytes = "vec", tag = "4")]
    pub recipient_rand_hash: Vec<u8>,
    /// Lets the recipient find its random number again.
    #[prost(bytes = "vec", tag = "5")]
    pub seed: Vec<u8>,
    /// The block after which these parameters are stale.
    #[prost(bytes = "vec", tag = "6")]
    pub expiration_block: Vec<u8>,
    /// When tickets made now expire.
    #[prost(message, optional, tag = "7")]
    pub expiration_params: Option<TicketExpirationParams>,
}

/// The round a ticket was made in.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TicketExpirationParams {
    /// Number of the round.
    #[prost(int64, tag = "1")]
    pub creation_round: i64,
    /// Hash of its first block (32 bytes).
    #[prost(bytes = "vec", tag = "2")]
    pub creation_round_block_hash: Vec<u8>,
}

/// What the sender adds to each ticket.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TicketSenderParams {
    /// Rises with every ticket under one commitment.
    #[prost(uint32, tag = "1")]
    pub sender_nonce: u32,
    /// Signature over the ticket (65 bytes).
    #[prost(bytes = "vec", tag = "2")]
    pub sig: Vec<u8>,
}

/// The content of a `Livepeer-Payment` header.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Payment {
    /// The parameters as the orchestrator gave them.
    #[prost(message, optional, tag = "1")]
    pub ticket_params: Option<TicketParams>,
    /// Who pays (20 bytes).
    #[prost(bytes = "vec", tag = "2")]
    pub sender: Vec<u8>,
    /// When the tickets expire.
    #[prost(message, optional, tag = "3")]
    pub expiration_params: Option<TicketExpirationParams>,
    /// One entry per ticket.
    #[prost(message, repeated, tag = "4")]
    pub ticket_sender_params: Vec<TicketSenderParams>,
    /// The price the sender believes in.
    #[prost(message, optional, tag = "5")]
    pub expected_price: Option<PriceInfo>,
}

/// The answer to a payment.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PaymentResult {
    /// Fresh ticket parameters and price.
    #[prost(message, optional, tag = "16")]
    pub info: Option<OrchestratorInfo>,
}

/// An object store.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OsInfo {
    /// 0 direct, 1 S3, 2 Google.
    #[prost(int32, tag = "1")]
    pub storage_type: i32,
    /// How to reach it, for S3 and Google.
    #[prost(message, optional, tag = "16")]
    pub s3info: Option<S3OsInfo>,
}

/// A signed grant for an S3 bucket.
#[derive(Clone, PartialEq, prost::Message)]
pub struct S3OsInfo {
    /// Bucket URL.
    #[prost(string, tag = "1")]
    pub host: String,
    /// Prefix of the objects.
    #[prost(string, tag = "2")]
    pub key: String,
    /// Signed policy.
    #[prost(string, tag = "3")]
    pub policy: String,
    /// Signature of the policy.
    #[prost(string, tag = "4")]
    pub signature: String,
    /// Scope of the key that signed.
    #[prost(string, tag = "5")]
    pub credential: String,
    /// Date of the signature.
    #[prost(string, tag = "6")]
    pub x_amz_date: String,
}

/// The hardware behind one model.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HardwareInformation {
    /// Name of the pipeline.
    #[prost(string, tag = "1")]
    pub pipeline: String,
    /// Name of the model.
    #[prost(string, tag = "2")]
    pub model_id: String,
    /// Its GPUs by number.
    #[prost(btree_map = "string, message", tag = "3")]
    pub gpu_info: BTreeMap<String, GpuComputeInfo>,
}

/// One GPU.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GpuComputeInfo {
    /// Unique id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Name of the product.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Compute capability, first number.
    #[prost(uint32, tag = "4")]
    pub major: u32,
    /// Compute capability, second number.
    #[prost(uint32, tag = "5")]
    pub minor: u32,
    /// Free memory in bytes.
    #[prost(int64, tag = "6")]
    pub memory_free: i64,
    /// All memory in bytes.
    #[prost(int64, tag = "7")]
    pub memory_total: i64,
}

/// The content of a `Livepeer-Segment` header. Only what a relay reads is decoded; the
/// header itself is passed on as it came.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SegData {
    /// The stream it belongs to.
    #[prost(bytes = "vec", tag = "1")]
    pub manifest_id: Vec<u8>,
    /// Number of the segment.
    #[prost(int64, tag = "2")]
    pub seq: i64,
    /// Keccak-256 of the segment (32 bytes).
    #[prost(bytes = "vec", tag = "3")]
    pub hash: Vec<u8>,
    /// Retired; always the text `invalid`.
    #[prost(bytes = "vec", tag = "4")]
    pub profiles: Vec<u8>,
    /// The gateway's signature.
    #[prost(bytes = "vec", tag = "5")]
    pub sig: Vec<u8>,
    /// Length in milliseconds.
    #[prost(int32, tag = "6")]
    pub duration: i32,
    /// What the job needs.
    #[prost(message, optional, tag = "7")]
    pub capabilities: Option<Capabilities>,
    /// The orchestrator's token, which binds the call to it.
    #[prost(message, optional, tag = "8")]
    pub auth_token: Option<AuthToken>,
    /// Whether a perceptual hash is wanted.
    #[prost(bool, tag = "10")]
    pub calc_perceptual_hash: bool,
    /// Where results may be stored.
    #[prost(message, repeated, tag = "32")]
    pub storage: Vec<OsInfo>,
}

/// Tells an orchestrator that a session is over.
#[derive(Clone, PartialEq, prost::Message)]
pub struct EndTranscodingSessionRequest {
    /// The token of the session.
    #[prost(message, optional, tag = "1")]
    pub auth_token: Option<AuthToken>,
}

/// The empty answer to it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct EndTranscodingSessionResponse {}

/// The parts of [`Capabilities`] that nest.
pub mod capabilities {
    use std::collections::BTreeMap;

    /// Limits beyond the bits.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Constraints {
        /// The least software version a partner must have.
        #[prost(string, tag = "1")]
        pub min_version: String,
        /// Models by capability.
        #[prost(btree_map = "uint32, message", tag = "2")]
        pub per_capability: BTreeMap<u32, CapabilityConstraints>,
    }

    /// The models of one capability.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct CapabilityConstraints {
        /// By model id.
        #[prost(btree_map = "string, message", tag = "1")]
        pub models: BTreeMap<String, ModelConstraint>,
    }

    /// One model.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct ModelConstraint {
        /// Whether it is loaded.
        #[prost(bool, tag = "1")]
        pub warm: bool,
        /// Idle slots.
        #[prost(uint32, tag = "2")]
        pub capacity: u32,
        /// Version of its runner.
        #[prost(string, tag = "3")]
        pub runner_version: String,
        /// Busy slots.
        #[prost(uint32, tag = "4")]
        pub capacity_in_use: u32,
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::vectors::from_hex;
    use super::vectors::vector;
    use super::*;

    /// Decodes a recorded message and checks that encoding gives the same bytes.
    #[track_caller]
    fn check<M: Message + Default + PartialEq + std::fmt::Debug>(hex: &str) -> M {
        let bytes = from_hex(hex);
        let message = M::decode(&*bytes).unwrap();
        let again = M::decode(&*message.encode_to_vec()).unwrap();
        assert_eq!(message, again);
        // In an entry of a map a zero key and an empty value may be left out, two bytes each;
        // the recorded capabilities have one of both. Anything more is a field not known here.
        assert!(bytes.len() - message.encoded_len() <= 4, "a field is not known here");
        message
    }

    #[test]
    fn a_request_reads_as_the_go_gateway_and_the_sdk_write_it() {
        let go: OrchestratorRequest = check(vector!("orchreq_offchain_go"));
        assert_eq!((go.address.len(), go.sig.len(), go.capabilities), (20, 0, None));
        let sdk: OrchestratorRequest = check(vector!("orchreq_offchain_sdk"));
        assert!(sdk.ignore_capacity_check && sdk.address.is_empty());
        let live: OrchestratorRequest = check(vector!("orchreq_lv2v_sdk"));
        let caps = live.capabilities.unwrap();
        assert!(caps.bitstring.is_empty() && caps.capacities.contains_key(&35));
        let signed: OrchestratorRequest = check(vector!("orchreq_onchain_text_to_image"));
        assert_eq!((signed.address.len(), signed.sig.len()), (20, 65));
    }

    #[test]
    fn an_answer_reads_with_and_without_a_price() {
        let free: OrchestratorInfo = check(vector!("orchinfo_offchain"));
        assert_eq!((free.price_info, free.ticket_params), (None, None));
        assert_eq!(free.auth_token.unwrap().session_id, "8fa2c1d0");
        let paid: OrchestratorInfo = check(vector!("orchinfo_onchain"));
        assert_eq!(paid.transcoder, "https://127.0.0.1:8935");
        assert_eq!(paid.nodes, ["https://127.0.0.2:8935"]);
        assert_eq!(paid.hardware[0].gpu_info["0"].name, "NVIDIA L40S");
        assert_eq!(paid.capabilities_prices[0].constraint, "noop");
        assert_eq!(paid.ticket_params.unwrap().recipient, [0x22; 20]);
    }

    #[test]
    fn small_messages_keep_their_bytes() {
        let token: AuthToken = check(vector!("auth_token"));
        assert_eq!(token.encode_to_vec(), from_hex(vector!("auth_token")));
        assert_eq!((token.expiration, token.token.len()), (1_900_000_000, 32));
        let end: EndTranscodingSessionRequest = check(vector!("end_session"));
        assert_eq!(end.auth_token.as_ref(), Some(&token));
        let payment: Payment = check(vector!("payment_one_ticket"));
        assert_eq!(payment.ticket_sender_params[0].sender_nonce, 1);
        let caps: Capabilities = check(vector!("caps_text_to_image_go"));
        assert!(caps.constraints.unwrap().per_capability.contains_key(&27));
    }

    #[test]
    fn a_segment_header_gives_its_token() {
        for hex in [
            vector!("segdata_offchain_sdk"),
            vector!("segdata_ai_offchain_go"),
            vector!("segdata_ai_onchain_go"),
            vector!("segdata_transcode_offchain"),
        ] {
            let segment = SegData::decode(&*from_hex(hex)).unwrap();
            assert_eq!(segment.auth_token.unwrap().session_id, "8fa2c1d0");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_a_decoder_panic(bytes: Vec<u8>) {
            drop(OrchestratorInfo::decode(&*bytes));
            drop(OrchestratorRequest::decode(&*bytes));
            drop(SegData::decode(&*bytes));
            drop(Payment::decode(&*bytes));
        }
    }
}

#[cfg(test)]
pub(crate) mod vectors {
    //! Recorded messages, in hexadecimal under `tests/data/livepeer`.

    /// Reads lower-case hexadecimal.
    pub(crate) fn from_hex(hex: &str) -> Vec<u8> {
        let digits = hex.trim().as_bytes();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16);
        digits.chunks(2).map(|pair| byte(pair).unwrap()).collect()
    }

    macro_rules! vector {
        ($name:literal) => {
            include_str!(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/data/livepeer/",
                $name,
                ".hex"
            ))
        };
    }
    pub(crate) use vector;
}
