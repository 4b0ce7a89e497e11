//! Opening a route: what may fail before the client sees a byte.

use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use http_body_util::{BodyExt, Limited};

use crate::clock;
use crate::edge::Gateway;
use crate::edge::fields::Fields;
use crate::edge::job::{Job, JobBody, Work, says_full};
use crate::edge::refusal::ServeError;
use crate::edge::relay::rewriter;
use crate::edge::route::{AnswerBody, Attempt, Exchange, Opened, Refusal, Route, Why};
use crate::unit::Micros;
use crate::view::View;
use crate::view::outcome::Outcome;
use crate::view::row::{Mode, Standing};

impl Gateway {
    /// Connects, sends, and waits for the head of an answer worth passing on.
    pub(crate) async fn open(&self, route: &Route, job: &mut Job) -> Result<Opened, Refusal> {
        let counted = matches!(job.work, Work::New { .. });
        let kept = job.kept.take();
        let taken = || Refusal::unprocessed(Why::Full, "the one place of a probation is taken");
        let now = clock::now();
        let attempt = Attempt::begin(route, counted, job.belongs(), kept, now);
        let mut attempt = attempt.ok_or_else(taken)?;
        let exchanged = self.exchange(route, job, &mut attempt, now).await;
        attempt.heard();
        let judged = match exchanged {
            Ok(mut exchange) => match self.judge(&mut exchange, route, job).await {
                Ok(()) => Ok(exchange),
                Err(refusal) => Err(refusal),
            },
            Err(refusal) => Err(refusal),
        };
        let offer = route.row.offers.get(usize::from(route.offer));
        let capability = offer.map(|it| it.capability);
        match judged {
            Ok(exchange) => {
                if exchange.status().is_success() {
                    attempt.served();
                }
                attempt.will_end(outcome(route, &exchange, job));
                self.keep_affinity(job, route.row.id);
                Ok(Opened { exchange, attempt })
            }
            Err(refusal) => {
                if let Some(wait) = refusal.retry_after {
                    route.row.gauge.rest(clock::now(), wait);
                }
                if let (Why::Full, Some(of)) = (&refusal.why, capability) {
                    let runner = offer.and_then(|it| it.runner.as_ref());
                    let places = runner.map_or(0, |it| it.capacity);
                    route.row.gauge.note_full(clock::now(), of, places);
                }
                attempt.will_end(match refusal.why {
                    Why::Full => Outcome::Full,
                    Why::Broken | Why::Silent => Outcome::Failed,
                    Why::Lasting => Outcome::Lasting,
                    Why::Stale | Why::Client(_) => Outcome::Neutral,
                });
                Err(refusal)
            }
        }
    }

    /// Lets an answer pass, or turns it into a refusal when somebody else may do better.
    async fn judge(
        &self,
        exchange: &mut Exchange,
        route: &Route,
        job: &Job,
    ) -> Result<(), Refusal> {
        let status = exchange.status();
        let Work::New { mode, bound, .. } = &job.work else { return Ok(()) };
        let repeatable = !matches!(job.body, JobBody::Gone);
        let elsewhere = repeatable && bound.is_none();
        // An app may answer a single-shot call with a 404 of its own, and did its work then.
        if status == StatusCode::NOT_FOUND && elsewhere && *mode == Mode::Persistent {
            let said = "it does not know this runner any more";
            return Err(Refusal { sent: true, ..Refusal::unprocessed(Why::Stale, said) });
        }
        let overloaded = [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS];
        if overloaded.contains(&status) && elsewhere {
            let retry_after = retry_after(&exchange.head.headers, clock::wall());
            let body = std::mem::replace(&mut exchange.body, AnswerBody::Whole(Bytes::new()));
            let body = Box::pin(read_refusal(body)).await;
            let why = if says_full(status, &body) { Why::Full } else { Why::Broken };
            let said = format!("{status}: {}", crate::livepeer::error::message(&body));
            return Err(Refusal { why, processed: false, sent: true, retry_after, said });
        }
        let broken = |said: String| Refusal {
            why: Why::Broken,
            processed: true,
            sent: true,
            retry_after: None,
            said,
        };
        if status.is_server_error() && *mode == Mode::Persistent && elsewhere {
            return Err(broken(format!("it answered {status}")));
        }
        if status.is_success() && *mode == Mode::Persistent {
            // Only a session that can be read is one; whatever else comes, somebody else is asked.
            Box::pin(exchange.read_whole()).await.map_err(broken)?;
            if let AnswerBody::Whole(body) = &exchange.body
                && elsewhere
                && rewriter(self, job, route).reserved(body).is_err()
            {
                return Err(broken("its answer is not a reserved session".to_owned()));
            }
        }
        Ok(())
    }
}

/// Nobody offers an app: never, or not as far as is known yet.
pub(crate) fn unknown(view: &View, app: &str) -> ServeError {
    let unheard = view.version == 0
        || view
            .rows()
            .any(|(_slot, row)| row.standing == Standing::Unknown && row.last_failure.is_none());
    match unheard {
        true => ServeError::NotYet(app.to_owned()),
        false => ServeError::Unknown(app.to_owned()),
    }
}

/// Returns how long an orchestrator asks to be left alone (RFC 9110, section 10.2.3).
fn retry_after(headers: &HeaderMap, wall: Duration) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let at = httpdate::parse_http_date(text).ok()?;
    at.duration_since(UNIX_EPOCH).ok()?.checked_sub(wall)
}

async fn read_refusal(body: AnswerBody) -> Bytes {
    let body = match body {
        AnswerBody::Stream(body) => Limited::new(body, REFUSAL_MAX).collect(),
        AnswerBody::Whole(body) => return body,
    };
    let body = tokio::time::timeout(Duration::from_secs(2), body).await;
    body.ok().and_then(Result::ok).map(|it| it.to_bytes()).unwrap_or_default()
}

/// Returns how an attempt counts once its answer has gone through whole.
fn outcome(route: &Route, exchange: &Exchange, job: &Job) -> Outcome {
    let status = exchange.status();
    let counted = matches!(job.work, Work::New { .. });
    match () {
        // Busy is not bad, also where the request could not go elsewhere.
        () if [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS]
            .contains(&status) =>
        {
            if counted {
                Outcome::Full
            } else {
                Outcome::Neutral
            }
        }
        // Within a session a 500 is the app's affair; only the way to it is judged.
        () if !counted => match status {
            StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => Outcome::Failed,
            _ => Outcome::Neutral,
        },
        () if status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED => Outcome::Failed,
        () if status.is_client_error() => Outcome::Neutral,
        // It may be what the app means; a merit it is not, so that nobody who answers
        // everything with nothing looks fast.
        () if is_odd(exchange, job) => Outcome::Neutral,
        () => {
            let service = Micros::from(exchange.waiting).0.saturating_sub(route.row.link.rtt.0);
            Outcome::Served { service: Micros(service), offer: route.offer }
        }
    }
}

/// Tells whether a success has nothing in it, or something else than the client takes.
fn is_odd(exchange: &Exchange, job: &Job) -> bool {
    let head = &exchange.head;
    let is_empty = head.status == StatusCode::OK
        && job.visit.method == Method::POST
        && exchange.body.size_hint().exact() == Some(0);
    let is_other = job.visit.fields.has(Fields::ACCEPT) && {
        let accepted = job.headers.get(header::ACCEPT).and_then(|it| it.to_str().ok());
        let given = head.headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok());
        accepted.zip(given).is_some_and(|(accepted, given)| !accepts(accepted, given))
    };
    let is_odd = is_empty || is_other;
    if is_odd {
        metrics::counter!("portolan_answers_odd_total").increment(1);
    }
    is_odd
}

/// Tells whether a media type is among those of an `Accept` field; parameters are not looked
/// at.
fn accepts(accepted: &str, given: &str) -> bool {
    let plain = |text: &str| text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let given = plain(given);
    let kind = given.split('/').next().unwrap_or_default();
    accepted.split(',').map(plain).any(|range| {
        range == "*/*" || range == given || range.strip_suffix("/*").is_some_and(|it| it == kind)
    })
}

/// What is read of a refusal: a line of JSON.
const REFUSAL_MAX: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_read_in_seconds_and_as_a_date() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers, Duration::from_secs(784_111_777))
        };
        assert_eq!(read("120"), Some(Duration::from_secs(120)));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:47 GMT"), Some(Duration::from_secs(10)));
        for never in ["Sun, 06 Nov 1994 08:49:27 GMT", "-1", "soon", ""] {
            assert_eq!(read(never), None, "{never}");
        }
    }

    #[test]
    fn what_a_client_takes_is_read_without_parameters() {
        assert!(accepts("application/json", "application/json; charset=utf-8"));
        assert!(accepts("text/html, */*;q=0.1", "image/png"));
        assert!(accepts("image/*", "image/png"));
        assert!(!accepts("application/json", "text/html"));
    }
}
