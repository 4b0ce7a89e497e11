//! Every default of a node, with its unit and its reason.

use std::time::Duration;

use crate::health;
use crate::listen;
use crate::listen::pace::Patience;
use crate::mesh;
use crate::suspension;

/// Clients connect here: the port next to an orchestrator's own.
pub(super) const PUBLIC: &str = "0.0.0.0:8936";
/// The operator connects here: loopback only.
pub(super) const ADMIN: &str = "127.0.0.1:7936";
/// Requests at once: at 30 KB each about 120 MB.
pub(super) const IN_FLIGHT: usize = 4_096;
/// Sessions at once: each has an actor of about 7 KB.
pub(super) const SESSIONS: usize = 10_000;
/// Orchestrators known: twice the largest network planned for.
pub(super) const ORCHESTRATORS: usize = 20_000;
/// Checks a second: 10,000 orchestrators within a minute.
pub(super) const CHECKS_PER_SECOND: u32 = 200;
/// Checks under way at once: those that hang for their 3 s use up the budget, not more.
pub(super) const CHECKS_AT_ONCE: usize = 600;
/// An orchestrator with traffic is seen dead by a check at the latest after this.
pub(super) const CHECK_BUSY: Duration = Duration::from_secs(5);
/// One without is looked at this often while the budget allows,
pub(super) const CHECK_IDLE: Duration = Duration::from_secs(30);
/// and this often in any case.
pub(super) const CHECK_LONGEST: Duration = Duration::from_secs(300);
/// A check asks three questions over one connection around the globe.
pub(super) const CHECK_TIMEOUT: Duration = Duration::from_secs(3);
/// TCP and TLS around the globe take 0.9 s at 300 ms a round trip.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// What may go elsewhere waits this long for an answer's head.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// A reservation waits this long, so that two orchestrators fit into an SDK's five seconds.
pub(super) const RESERVE_TIMEOUT: Duration = Duration::from_secs(2);
/// What cannot waits longer: an app within a session may think.
pub(super) const SESSION_HEAD_TIMEOUT: Duration = Duration::from_secs(300);
/// A prompt is some kilobytes, a small picture in base64 some hundred; what is longer is seldom
/// refused by one who is full, and costs more to hold than to lose.
pub(super) const REPLAY_KIB: usize = 512;
/// Minutes of video in one call; whatever is longer is a stream, and belongs in a session.
pub(super) const CALL_BODY_MIB: u64 = 256;
/// All bodies held together.
pub(super) const REPLAY_ALL_MIB: usize = 256;
/// Of all requests a fifth may be sent again,
pub(super) const RETRY_PERCENT: u32 = 20;
/// and ten a second in any case.
pub(super) const RETRIES_PER_SECOND: u32 = 10;
/// A call's client hardly notices half a second, and a place lasts about as long.
pub(super) const PLACE_WAIT: Duration = Duration::from_millis(500);
/// All of it: in most fleets some region has no orchestrators of its own.
pub(super) const FOREIGN_PERCENT: u32 = 100;
/// After four orchestrators the fault is hardly theirs.
pub(super) const ATTEMPTS: usize = 4;
/// Connections to one orchestrator.
pub(super) const CONNECTIONS_EACH: u32 = 256;
/// Idle connections kept to one.
pub(super) const IDLE_EACH: usize = 16;
/// Idle connections kept to all: those with traffic, at 23 KB each about 12 MB.
pub(super) const IDLE_ALL: u32 = 512;
/// Go closes idle connections after two minutes or later.
pub(super) const IDLE_FOR: Duration = Duration::from_secs(60);
/// Threads that serve clients, at most.
pub(super) const LANES_MAX: usize = 256;
/// Connections of clients: at 28 KB each, and 9 KB of the kernel's, 740 MB.
pub(super) const CONNECTIONS: usize = 20_000;
/// Connections of one address: an office behind one translator, not a flood.
pub(super) const CONNECTIONS_OF_ONE: u32 = 512;
/// A head comes in one breath; one that drips is an attack.
pub(super) const HEAD: Duration = Duration::from_secs(5);
/// Browsers and SDKs keep connections about this long.
pub(super) const IDLE: Duration = Duration::from_secs(60);
/// A session nobody uses; orchestrators sweep idle ones after five minutes.
pub(super) const SESSION_IDLE: Duration = Duration::from_secs(300);
/// How long a session is assumed to keep its place.
pub(super) const SESSION_HOLDS: Duration = Duration::from_secs(60);
/// Longer than any session is expected to live.
pub(super) const TICKET_FOR: Duration = Duration::from_secs(24 * 3600);
/// How long stopping may take.
pub(super) const DRAIN: Duration = Duration::from_secs(30);
/// A list of orchestrators is read this often, as go-livepeer caches its webhook.
pub(super) const SOURCE_EVERY: Duration = Duration::from_secs(60);
/// Places of an orchestrator that tells none: go-livepeer's own default.
pub(super) const CAPACITY: u32 = 10;
/// One would wait a fifth of a second to save one cent.
pub(super) const WAIT_PER_CENT: Duration = Duration::from_millis(200);
/// What one ether is taken to cost, in US dollars.
pub(super) const ETHER_USD: u64 = 3_000;
/// An orchestrator's capacity ramps up over this after a suspension.
pub(super) const SLOW_START: Duration = Duration::from_secs(30);

/// Five failures in a row, or half of at least twenty within ten seconds, or two failed
/// checks; five seconds at first, five minutes at most.
pub(super) const SUSPENSION: suspension::Params = suspension::Params {
    consecutive: 5,
    share_permille: 500,
    requests_min: 20,
    checks: 2,
    first: Duration::from_secs(5),
    longest: Duration::from_secs(300),
};

pub(super) const LISTEN: listen::Params = listen::Params {
    connections_max: CONNECTIONS,
    each_max: CONNECTIONS_OF_ONE,
    handshake_timeout: Duration::from_secs(10),
    patience: Patience { head: HEAD, idle: IDLE },
};

/// One lane for each processor this process may use.
pub(super) fn lanes() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(LANES_MAX)
}

/// The periods and bounds of the mesh, but for its peers.
pub(super) fn mesh() -> mesh::Params {
    mesh::Params {
        peers: Vec::new(),
        push_interval: Duration::from_millis(250),
        frames_per_push: 1,
        ping_interval: Duration::from_secs(1),
        // A peer that froze is noticed within three seconds of its last word.
        silence: Duration::from_millis(2_500),
        // 100 KB/s with what is sent whatever is left: pings, datagrams, acknowledgements.
        bytes_per_second: 97_000,
        digest_interval: Duration::from_secs(7),
        quarantine: Duration::from_secs(60),
        news_interval: Duration::from_millis(100),
        levels_from: 300,
        share_load: true,
        about: mesh::About::default(),
        operator: mesh::Operator::default(),
        limits: mesh::limits::Params {
            frames_per_second: 200,
            bytes_per_second: 4_000_000,
            records_per_second: 30_000,
            datagrams_per_second: 200,
            datagram_bytes_per_second: 200_000,
        },
        health: health::Params {
            ttl: Duration::from_secs(90),
            refresh: Duration::from_secs(30),
            max_records: 20_000,
            max_origins: 320,
            max_version_jump: 1 << 32,
            max_epoch_jump: 1 << 42,
        },
    }
}
