//! Where a request goes, how an attempt is counted, and why one failed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::StatusCode;
use http::response::Parts;
use http::uri::PathAndQuery;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body as _, Incoming, SizeHint};

use crate::clock;
use crate::edge::places::Kept;
use crate::edge::refusal::ServeError;
use crate::edge::upload::Upload;
use crate::livepeer::runner::MAX_ANSWER;
use crate::upstream::Lease;
use crate::view::CapabilityId;
use crate::view::outcome::{Gauge, Outcome};
use crate::view::row::{Row, Standing};

/// Where a request goes.
#[derive(Clone, Debug)]
pub struct Route {
    /// The orchestrator.
    pub row: Arc<Row>,
    /// Position of the offer in its row.
    pub offer: u8,
    /// Path and query there.
    pub path: PathAndQuery,
}

/// An orchestrator's answer whose head is here, and the attempt it ends.
#[derive(Debug)]
pub struct Opened {
    /// The exchange; boxed, since it is handed on from step to step.
    pub exchange: Box<Exchange>,
    /// The attempt, counted in until it is counted out.
    pub attempt: Attempt,
}

/// A request sent and the head of its answer.
#[derive(Debug)]
pub struct Exchange {
    /// The answer's head.
    pub head: Parts,
    /// Its body.
    pub body: AnswerBody,
    /// The connection it comes over.
    pub lease: Lease,
    /// What connecting took; next to nothing on a warm connection.
    pub connecting: Duration,
    /// From the request sent to the head of the answer.
    pub waiting: Duration,
    /// How far the client's body has come.
    pub upload: Upload,
}

/// An answer's body.
#[derive(Debug)]
pub enum AnswerBody {
    /// As it comes.
    Stream(Incoming),
    /// All of it, read already.
    Whole(Bytes),
}

impl AnswerBody {
    /// Returns what is known of its length.
    pub(crate) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Stream(body) => body.size_hint(),
            Self::Whole(body) => SizeHint::with_exact(body.len() as u64),
        }
    }
}

impl Exchange {
    /// Returns the answer's status.
    pub(crate) fn status(&self) -> StatusCode {
        self.head.status
    }

    /// Reads a short answer whole; says what was wrong when it does not come.
    pub(crate) async fn read_whole(&mut self) -> Result<(), String> {
        let AnswerBody::Stream(body) = &mut self.body else { return Ok(()) };
        let read = Limited::new(body, MAX_ANSWER).collect();
        let body = match tokio::time::timeout(SHORT_ANSWER, read).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(broken)) => return Err(format!("its answer broke off: {broken}")),
            Err(_elapsed) => return Err(format!("its answer did not end within {SHORT_ANSWER:?}")),
        };
        self.body = AnswerBody::Whole(body);
        Ok(())
    }
}

/// Why an orchestrator did not serve a request. The client saw nothing of it.
#[derive(Debug, thiserror::Error)]
#[error("{said}")]
pub struct Refusal {
    /// Whose doing it is.
    pub why: Why,
    /// Whether the request, or a part of it, may have been processed.
    pub processed: bool,
    /// Whether any of it was sent: then it costs of the retry budget.
    pub sent: bool,
    /// How long the orchestrator asks to be left alone.
    pub retry_after: Option<Duration>,
    /// What happened, for people.
    pub said: String,
}

/// Whose doing a refusal is.
#[derive(Debug)]
pub enum Why {
    /// It is full.
    Full,
    /// It is broken, or cannot be reached.
    Broken,
    /// It is broken in a way that will not heal soon.
    Lasting,
    /// It did not answer in time.
    Silent,
    /// It does not offer that any more.
    Stale,
    /// The client's own.
    Client(ServeError),
}

impl Why {
    /// Returns a name for metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Broken => "broken",
            Self::Lasting => "lasting",
            Self::Silent => "silent",
            Self::Stale => "stale",
            Self::Client(_) => "client",
        }
    }
}

/// An attempt counted in at an orchestrator; counted out when it ends, however it ends.
#[derive(Debug)]
pub struct Attempt {
    gauge: Arc<Gauge>,
    counted: bool,
    probe: bool,
    outcome: Outcome,
    /// A wait of this length says what a timeout would have said.
    long: Duration,
    /// The upload whose answer is awaited.
    awaited: Option<Upload>,
    /// The capability of which peers claim all places.
    doubted: Option<CapabilityId>,
}

impl Attempt {
    /// Counts an attempt in, on the place that was `kept` for it where there is one; `None` when
    /// the one place of a probation is taken. One that is `bound` to its orchestrator puts
    /// nobody's claims to the test.
    pub(crate) fn begin(
        route: &Route,
        counted: bool,
        bound: bool,
        kept: Option<Kept>,
        now: Instant,
    ) -> Option<Self> {
        let row = &route.row;
        // What belongs to a session there goes on; only new work is held back.
        let probe = counted && row.standing == Standing::Probation;
        if probe && !row.gauge.take_probe() {
            return None;
        }
        let offer = row.offers.get(usize::from(route.offer));
        if let Some(runner) = offer.and_then(|it| it.runner.as_ref()).filter(|_| counted) {
            row.gauge.note_sought(runner.capacity);
            if row.gauge.begins_spills() {
                row.gauge.note_filling(now, runner.capacity);
            }
        }
        let is_kept = kept.as_ref().is_some_and(|it| it.orchestrator == row.id);
        let runner = offer
            .filter(|_| counted && !bound && !is_kept)
            .and_then(|it| Some((it, it.runner.as_ref()?)));
        let doubted = runner.filter(|(offer, runner)| {
            row.gauge.is_against_claims(now, offer.capability, runner.capacity)
        });
        let doubted = doubted.map(|(offer, _runner)| offer.capability);
        if counted {
            row.gauge.begin();
        }
        // Only now: in between it would be anybody's.
        drop(kept);
        let gauge = Arc::clone(&row.gauge);
        let usual = offer.and_then(|it| it.service);
        let long = Duration::from(usual.unwrap_or_default()).saturating_mul(5).max(LONG_WAIT);
        let outcome = Outcome::Neutral;
        Some(Self { gauge, counted, probe, outcome, long, awaited: None, doubted })
    }

    /// Notes that it was served: if by all accounts there was no place, they are wrong.
    pub(crate) fn served(&self) {
        if let Some(of) = self.doubted {
            self.gauge.note_room(clock::now(), of);
        }
    }

    /// Notes that an answer is owed once `upload` is sent whole.
    pub(crate) fn await_answer(&mut self, upload: &Upload) {
        self.awaited = self.counted.then(|| upload.clone());
    }

    /// Notes that the orchestrator answered, or refused.
    pub(crate) fn heard(&mut self) {
        self.awaited = None;
    }

    /// Sets how it will be counted out.
    pub fn will_end(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.probe {
            self.gauge.end_probe();
        }
        // A client that left after a long silence says of the orchestrator what a timeout
        // would have said; while its own upload was under way, nothing was owed.
        let waited = self.awaited.as_ref().and_then(|upload| upload.answer_owed(clock::now()));
        if waited.is_some_and(|waited| waited >= self.long) {
            self.outcome = Outcome::Failed;
        }
        if self.counted {
            self.gauge.end(self.outcome);
        } else if self.outcome == Outcome::Failed {
            self.gauge.fail_late();
        }
    }
}

impl Refusal {
    pub(crate) fn unprocessed(why: Why, said: &str) -> Self {
        Self { why, processed: false, sent: false, retry_after: None, said: said.to_owned() }
    }

    pub(crate) fn client(error: ServeError) -> Self {
        let said = error.to_string();
        Self { said, why: Why::Client(error), processed: false, sent: false, retry_after: None }
    }
}

/// How long a short answer may take after its head.
pub(crate) const SHORT_ANSWER: Duration = Duration::from_secs(10);
/// A wait is long from here on, or from five times the usual answer's delay.
const LONG_WAIT: Duration = Duration::from_secs(3);
