//! One bounded exchange over a connection of its own, for what is not at request rate.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::client::conn::http1;
use tokio::task::JoinSet;

use crate::livepeer::runner::MAX_BODY;
use crate::upstream::body::Body;
use crate::upstream::connect::{ConnectError, Dialer, Protocol};
use crate::uri::ServiceUri;

/// Why nothing was fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The exchange broke off.
    #[error("the answer broke off: {0}")]
    Http(#[from] hyper::Error),
    /// Not a success.
    #[error("the answer was {0}")]
    Status(StatusCode),
    /// Too long, broken off, or not of the form.
    #[error("{0}")]
    Body(String),
    /// Too slow.
    #[error("no answer within {0:?}")]
    Silent(Duration),
}

/// Fetches the body at `url`, at most [`MAX_BODY`] bytes.
pub async fn fetch(
    dialer: &Dialer,
    url: &ServiceUri,
    query: Option<&str>,
    timeout: Duration,
) -> Result<Bytes, FetchError> {
    let path = if url.base_path().is_empty() { "/" } else { url.base_path() };
    let query = query.map_or_else(String::new, |it| format!("?{it}"));
    let request = Request::get(format!("{path}{query}")).header(header::ACCEPT, "application/json");
    let request = request.body(Body::Empty).map_err(|bad| FetchError::Body(bad.to_string()))?;
    let answer = exchange(dialer, url, request, timeout).await?;
    if !answer.status().is_success() {
        return Err(FetchError::Status(answer.status()));
    }
    Ok(answer.into_body())
}

/// Sends one request to the origin of `url` and reads its answer, at most [`MAX_BODY`] bytes.
pub async fn exchange(
    dialer: &Dialer,
    url: &ServiceUri,
    request: Request<Body>,
    timeout: Duration,
) -> Result<Response<Bytes>, FetchError> {
    let exchanged = tokio::time::timeout(timeout, exchange_now(dialer, url, request)).await;
    exchanged.map_err(|_elapsed| FetchError::Silent(timeout))?
}

/// One connection kept for several exchanges, one after the other.
#[derive(Debug)]
pub struct Kept {
    sender: http1::SendRequest<Body>,
    host: header::HeaderValue,
    /// The connection's task, which ends with this.
    _tasks: JoinSet<hyper::Result<()>>,
}

impl Kept {
    /// Connects to the origin of `url`.
    pub async fn open(
        dialer: &Dialer,
        url: &ServiceUri,
        timeout: Duration,
    ) -> Result<Self, FetchError> {
        let opened = tokio::time::timeout(timeout, Self::open_now(dialer, url)).await;
        opened.map_err(|_elapsed| FetchError::Silent(timeout))?
    }

    /// Sends one request and reads its answer, at most [`MAX_BODY`] bytes.
    pub async fn exchange(
        &mut self,
        request: Request<Body>,
        timeout: Duration,
    ) -> Result<Response<Bytes>, FetchError> {
        let exchanged = tokio::time::timeout(timeout, self.exchange_now(request)).await;
        exchanged.map_err(|_elapsed| FetchError::Silent(timeout))?
    }

    async fn open_now(dialer: &Dialer, url: &ServiceUri) -> Result<Self, FetchError> {
        let connected = dialer.dial(url, Protocol::Http1).await?;
        let (sender, connection) = http1::handshake::<_, Body>(connected.io).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(connection);
        Ok(Self { sender, host: url.host_field().clone(), _tasks: tasks })
    }

    async fn exchange_now(
        &mut self,
        mut request: Request<Body>,
    ) -> Result<Response<Bytes>, FetchError> {
        request.headers_mut().insert(header::HOST, self.host.clone());
        // The end of the last answer may not have come round to the connection's task yet.
        self.sender.ready().await?;
        let (parts, body) = self.sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, MAX_BODY).collect().await;
        let body = body.map_err(|error| FetchError::Body(error.to_string()))?.to_bytes();
        Ok(Response::from_parts(parts, body))
    }
}

async fn exchange_now(
    dialer: &Dialer,
    url: &ServiceUri,
    request: Request<Body>,
) -> Result<Response<Bytes>, FetchError> {
    Kept::open_now(dialer, url).await?.exchange_now(request).await
}
