//! The listeners for clients: bound in order, all of them before any serves.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use tokio::net::TcpListener;

use crate::config::Listening;
use crate::edge::listen::names::Names;
use crate::edge::listen::tls::{Certificate, Tls};
use crate::edge::listen::{Listener, Speech};

/// Binds every listener; at least one is left to clients.
pub(super) async fn bind(listening: &[Listening]) -> Result<Vec<Listener>> {
    ensure!(!listening.is_empty(), "listen: clients have nowhere to connect; set listen.public");
    let mut bound = Vec::with_capacity(listening.len());
    for it in listening {
        let taken = || format!("listen: {}: is another process using it?", it.address);
        let tcp = TcpListener::bind(it.address).await.with_context(taken)?;
        let certificate = it.tls.as_ref().map(Certificate::load).transpose()?;
        let tls = certificate.map(Tls::new).transpose()?;
        let names = Names::new(it.names.iter().cloned());
        let speech = Arc::new(Speech { tls, proxied: it.proxied, names });
        bound.push(Listener { tcp, speech });
    }
    Ok(bound)
}

/// Binds the operator's listener.
pub(super) async fn bind_admin(at: SocketAddr) -> Result<TcpListener> {
    let taken = || format!("listen.admin = {at}: is another process using it?");
    TcpListener::bind(at).await.with_context(taken)
}

/// Returns where clients connect, in the order of the configuration.
pub(super) fn addresses(bound: &[Listener]) -> Result<Vec<SocketAddr>> {
    let addresses: std::io::Result<Vec<SocketAddr>> =
        bound.iter().map(|it| it.tcp.local_addr()).collect();
    Ok(addresses?)
}
