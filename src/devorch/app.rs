//! The applications behind the runners: what answers once a session is there.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::extract::ws::Message;
use axum::extract::ws::WebSocket;
use axum::extract::ws::WebSocketUpgrade;
use axum::response::IntoResponse;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::Request;
use http::StatusCode;
use http::header;
use http::request::Parts;
use http_body_util::BodyExt;
use http_body_util::Limited;
use serde::Deserialize;
use tokio::sync::watch;

use crate::devorch::apps::text;
use crate::devorch::body::Busy;
use crate::devorch::body::Held;
use crate::devorch::body::Ticks;
use crate::devorch::delay;
use crate::devorch::fault::Fault;
use crate::devorch::image;
use crate::devorch::image::Filter;
use crate::devorch::socket;
use crate::devorch::socket::Fate;
use crate::livepeer::runner::Mode;

/// An application that is always there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum App {
    /// Echoes bodies, ticks, and echoes WebSocket messages; persistent.
    Echo,
    /// Echoes one body after some work; single-shot.
    Once,
    /// Filters one PNG image; single-shot.
    Image,
}

impl App {
    /// All of them, in the order of the discovery list.
    pub(crate) const ALL: [Self; 3] = [Self::Echo, Self::Once, Self::Image];

    /// Returns the name in URLs.
    pub(crate) fn slug(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Once => "once",
            Self::Image => "image",
        }
    }

    /// Finds the application by its name in URLs.
    pub(crate) fn by_slug(slug: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.slug() == slug)
    }

    /// Returns how it is used.
    pub(crate) fn mode(self) -> Mode {
        match self {
            Self::Echo => Mode::Persistent,
            Self::Once | Self::Image => Mode::SingleShot,
        }
    }
}

/// What a request may do besides being answered.
pub(crate) struct Context {
    /// Keeps the session busy.
    pub(crate) busy: Busy,
    /// How long `demo/once` works when the request does not say.
    pub(crate) work: Duration,
    /// A fault of streams, which WebSockets have to play themselves.
    pub(crate) fault: Option<Fault>,
    /// Ends the connection.
    pub(crate) fate: Arc<watch::Sender<Fate>>,
}

/// Answers a request to `app`, where `path` is the part of its path behind `…/app/`.
pub(crate) async fn answer(
    app: App,
    path: &str,
    request: Request<Body>,
    context: Context,
) -> Response {
    let (parts, body) = request.into_parts();
    let answer = match (app, path) {
        (App::Echo, "ws") => return web_socket(parts, context).await,
        (App::Echo, "events") => events(&parts),
        (App::Image, _) => filter(&parts, body).await,
        (App::Once, _) => {
            let wait = number(&parts, "work_ms").map_or(context.work, Duration::from_millis);
            socket::wait(wait.min(MAX_WORK)).await;
            echo(&parts, body)
        }
        (App::Echo, _) => echo(&parts, body),
    };
    answer.map(|body| Body::new(Held { body, busy: Some(context.busy) }))
}

/// Sends the body back as it comes, or for a request without one (GET, HEAD) a description
/// of the request in JSON.
fn echo(parts: &Parts, body: Body) -> Response {
    let mut headers = serde_json::Map::new();
    for (name, value) in parts.headers.iter().take(MAX_HEADERS) {
        let text = String::from_utf8_lossy(value.as_bytes());
        headers.insert(name.to_string(), text.into());
    }
    if parts.method == Method::GET || parts.method == Method::HEAD {
        let described = serde_json::json!({
            "method": parts.method.as_str(),
            "path": parts.uri.path(),
            "query": parts.uri.query(),
            "headers": headers,
        });
        return axum::Json(described).into_response();
    }
    let mut answer = Response::new(body);
    let mut put = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            answer.headers_mut().insert(name, value);
        }
    };
    put("x-echo-method", parts.method.as_str());
    put("x-echo-path", parts.uri.path());
    put("x-echo-query", parts.uri.query().unwrap_or_default());
    if let Some(kind) = parts.headers.get(header::CONTENT_TYPE) {
        answer.headers_mut().insert(header::CONTENT_TYPE, kind.clone());
    }
    answer
}

/// Server-sent events: `n` of them, one each `every_ms`.
fn events(parts: &Parts) -> Response {
    let n = number(parts, "n").unwrap_or(10).min(MAX_EVENTS);
    let every = Duration::from_millis(number(parts, "every_ms").unwrap_or(100));
    let mut answer = Response::new(Body::new(Ticks::new(n, every.min(MAX_WORK))));
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    answer
}

/// Echoes text and binary messages until the caller closes.
async fn web_socket(mut parts: Parts, context: Context) -> Response {
    let upgrade = match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
        Ok(upgrade) => upgrade.max_message_size(MAX_MESSAGE),
        Err(refused) => return refused.into_response(),
    };
    upgrade.on_upgrade(move |mut socket| async move {
        let _busy = context.busy;
        let mut left = match context.fault {
            Some(Fault::CutStream(bytes)) => Some(bytes),
            Some(Fault::ResetAfterHead) => Some(0),
            Some(_) | None => None,
        };
        let silent = context.fault == Some(Fault::SilentStream);
        while left != Some(0) && echo_message(&mut socket, &mut left, silent).await {}
        if left == Some(0) {
            context.fate.send_replace(Fate::Reset);
        }
    })
}

/// Echoes one message and counts it down; false when the socket is done.
async fn echo_message(socket: &mut WebSocket, left: &mut Option<u64>, silent: bool) -> bool {
    let Some(Ok(message)) = socket.recv().await else { return false };
    let len = match &message {
        Message::Text(text) => text.len(),
        Message::Binary(bytes) => bytes.len(),
        // Answered by the library.
        Message::Ping(_) | Message::Pong(_) => return true,
        Message::Close(_) => return false,
    };
    *left = left.map(|it| it.saturating_sub(len as u64));
    silent || socket.send(message).await.is_ok()
}

/// Filters a picture: a PNG body with the filter in the query, or JSON
/// `{"image": base64, "filter": name}` for clients that can send nothing else.
async fn filter(parts: &Parts, body: Body) -> Response {
    let bad = |why: &str| text(StatusCode::BAD_REQUEST, why);
    // Base64 is a third longer than the file.
    let body = match Limited::new(body, image::MAX_FILE / 3 * 4 + 1024).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_cut_or_too_long) => return bad("the body was cut or is too long"),
    };
    let (picture, filter) = match read_order(&parts.headers, &body) {
        Ok(order) => order,
        Err(why) => return bad(why),
    };
    let filter = query(parts, "filter").or(filter).unwrap_or_else(|| "edge".to_owned());
    let done = match filter.parse::<Filter>() {
        Ok(filter) => tokio::task::spawn_blocking(move || image::apply(filter, &picture)).await,
        Err(why) => return bad(&why.to_string()),
    };
    match done {
        Ok(Ok(picture)) => ([(header::CONTENT_TYPE, "image/png")], picture).into_response(),
        Ok(Err(why)) => bad(&why.to_string()),
        Err(_panicked) => text(StatusCode::BAD_GATEWAY, "runner failed"),
    }
}

/// Returns the picture in a body, and the filter where the body names one.
fn read_order(headers: &HeaderMap, body: &Bytes) -> Result<(Bytes, Option<String>), &'static str> {
    #[derive(Deserialize)]
    struct Order {
        image: String,
        filter: Option<String>,
    }
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    if !kind.starts_with(b"application/json") {
        return Ok((body.clone(), None));
    }
    let order: Order = serde_json::from_slice(body)
        .map_err(|_bad| "send a PNG image, or JSON with `image` (base64) and `filter`")?;
    let picture = STANDARD.decode(order.image).map_err(|_bad| "`image` is not base64")?;
    Ok((picture.into(), order.filter))
}

/// Returns one value of the query, as it stands there; the values used here need no escapes.
fn query(parts: &Parts, name: &str) -> Option<String> {
    let pairs = parts.uri.query()?.split('&').filter_map(|it| it.split_once('='));
    pairs.into_iter().find(|(it, _)| *it == name).map(|(_, value)| value.to_owned())
}

fn number(parts: &Parts, name: &str) -> Option<u64> {
    query(parts, name)?.parse().ok()
}

/// The longest simulated work, and the longest pause between two events.
const MAX_WORK: Duration = delay::MAX_DELAY.saturating_mul(6);
/// The most events of one stream: a day of one each second.
const MAX_EVENTS: u64 = 86_400;
/// The longest WebSocket message, in bytes.
const MAX_MESSAGE: usize = 1 << 20;
/// The most headers an echo tells.
const MAX_HEADERS: usize = 64;
