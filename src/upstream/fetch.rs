//! One bounded GET.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
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
    timeout: Duration,
) -> Result<Bytes, FetchError> {
    let fetched = tokio::time::timeout(timeout, fetch_now(dialer, url)).await;
    fetched.map_err(|_elapsed| FetchError::Silent(timeout))?
}

async fn fetch_now(dialer: &Dialer, url: &ServiceUri) -> Result<Bytes, FetchError> {
    let connected = dialer.dial(url, Protocol::Http1).await?;
    let (mut sender, connection) = http1::handshake::<_, Body>(connected.io).await?;
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    let path = if url.base_path().is_empty() { "/" } else { url.base_path() };
    let request = Request::get(path)
        .header(header::HOST, url.authority())
        .header(header::ACCEPT, "application/json")
        .body(Body::Empty)
        .map_err(|bad| FetchError::Body(bad.to_string()))?;
    let answer = sender.send_request(request).await?;
    if !answer.status().is_success() {
        return Err(FetchError::Status(answer.status()));
    }
    let body = Limited::new(answer.into_body(), MAX_BODY).collect().await;
    Ok(body.map_err(|error| FetchError::Body(error.to_string()))?.to_bytes())
}
