//! An orchestrator that does, byte by byte, what a script says, and notes what it saw.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portolan::uri::ServiceUri;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// What it does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Reads the request's body to its end.
    Read,
    /// Writes these bytes.
    Send(String),
    /// Lets time pass.
    Wait(Duration),
    /// Resets the connection.
    Reset,
    /// Ends it in order.
    Close,
    /// Does nothing more, and keeps it open.
    Hang,
}

/// One request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) head: String,
    /// The body, as far as it was read.
    pub(crate) body: String,
}

/// A scripted orchestrator.
pub(crate) struct Scripted {
    pub(crate) uri: ServiceUri,
    at: SocketAddr,
    state: Arc<State>,
    tasks: JoinSet<()>,
    region: &'static str,
}

struct State {
    acceptor: TlsAcceptor,
    /// How far away it seems.
    delay: Duration,
    script: Mutex<Vec<Step>>,
    seen: Mutex<Vec<Seen>>,
    discovery: Mutex<String>,
}

impl Scripted {
    /// Starts one in `region` that seems `delay` away.
    pub(crate) async fn start(region: &'static str, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let made = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let made = made.self_signed(&key).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.der().clone()], key)
            .unwrap();
        // HTTP/1.1 alone, so that every byte of it stands in a script.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let state = Arc::new(State {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            delay,
            script: Mutex::new(Vec::new()),
            seen: Mutex::default(),
            discovery: Mutex::new(runners(at, "wall/once", 8)),
        });
        let uri = format!("https://{at}").parse().unwrap();
        let mut scripted = Self { uri, at, state, tasks: JoinSet::new(), region };
        scripted.listen(listener);
        scripted
    }

    fn listen(&mut self, listener: TcpListener) {
        let state = Arc::clone(&self.state);
        self.tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (tcp, _peer) = listener.accept().await.unwrap();
                let state = Arc::clone(&state);
                connections.spawn(async move {
                    // A client that goes away ends it.
                    drop(serve(&state, tcp).await);
                });
            }
        });
    }

    /// Its table in a configuration.
    pub(crate) fn table(&self) -> String {
        format!("[[orchestrator]]\nuri = \"{}\"\nregion = \"{}\"\n", self.uri, self.region)
    }

    /// Sets what it does with requests from now on; checks are answered all the same.
    pub(crate) fn does(&self, steps: impl IntoIterator<Item = Step>) {
        *self.state.script.lock().unwrap() = steps.into_iter().collect();
    }

    /// Serves everything, as one does that is well.
    pub(crate) fn is_well(&self) {
        self.does([Step::Read, Step::Send(answer("200 OK", "", "served"))]);
    }

    /// Offers something else than before.
    pub(crate) fn offers(&self, app: &str, capacity: u32) {
        *self.state.discovery.lock().unwrap() = runners(self.at, app, capacity);
    }

    /// Returns every request but for checks.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    /// Goes away: nobody listens, and every connection is gone.
    pub(crate) async fn leave(&mut self) {
        self.tasks.shutdown().await;
    }

    /// Comes back to the same address.
    pub(crate) async fn come_back(&mut self) {
        let begin = portolan::clock::now();
        let listener = loop {
            match TcpListener::bind(self.at).await {
                Ok(listener) => break listener,
                Err(taken) => assert!(begin.elapsed() < Duration::from_secs(5), "{taken}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        self.listen(listener);
    }
}

/// A whole answer.
pub(crate) fn answer(status: &str, fields: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{fields}content-length: {}\r\n\r\n{body}", body.len())
}

fn runners(at: SocketAddr, app: &str, capacity: u32) -> String {
    let runner = |path: &str, app: &str, mode: &str| {
        format!(
            "{{\"url\":\"https://{at}/{path}\",\"app\":\"{app}\",\"version\":\"1\",\"mode\":\"{mode}\",\
             \"capacity\":{capacity},\"capacity_used\":0,\"capacity_available\":{capacity}}}"
        )
    };
    let all = [runner("once", app, "single-shot"), runner("session", "wall/long", "persistent")];
    format!("[{{\"address\":\"https://{at}\",\"runners\":[{}]}}]", all.join(","))
}

async fn serve(state: &State, tcp: TcpStream) -> std::io::Result<()> {
    tcp.set_nodelay(true)?;
    let mut tls = state.acceptor.accept(tcp).await?;
    loop {
        let Some((head, mut body)) = read_head(&mut tls).await? else { return Ok(()) };
        if head.starts_with("GET /discovery ") {
            tokio::time::sleep(state.delay).await;
            let list = state.discovery.lock().unwrap().clone();
            tls.write_all(answer("200 OK", "", &list).as_bytes()).await?;
            continue;
        }
        let at = {
            let mut seen = state.seen.lock().unwrap();
            seen.push(Seen { head: head.clone(), body: body.clone() });
            seen.len() - 1
        };
        let steps = state.script.lock().unwrap().clone();
        for step in steps {
            match step {
                Step::Read => {
                    read_body(&mut tls, &head, &mut body).await?;
                    state.seen.lock().unwrap()[at].body.clone_from(&body);
                }
                Step::Send(bytes) => {
                    tls.write_all(bytes.as_bytes()).await?;
                    tls.flush().await?;
                }
                Step::Wait(time) => tokio::time::sleep(time).await,
                Step::Reset => {
                    let socket = SockRef::from(tls.get_ref().0);
                    return socket.set_linger(Some(Duration::ZERO));
                }
                Step::Close => return tls.shutdown().await,
                Step::Hang => std::future::pending().await,
            }
        }
    }
}

/// Reads a head and what came with it of the body.
async fn read_head(tls: &mut TlsStream<TcpStream>) -> std::io::Result<Option<(String, String)>> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|it| it == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
            return Ok(Some((text(&bytes), text(&rest))));
        }
        if tls.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    }
}

/// Reads the rest of a body, by its length or in chunks.
async fn read_body(
    tls: &mut TlsStream<TcpStream>,
    head: &str,
    body: &mut String,
) -> std::io::Result<()> {
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length = length.map(|it| it.trim().parse::<usize>().unwrap());
    let chunked = head.contains("transfer-encoding: chunked");
    let is_whole = |body: &str| match length {
        Some(length) => body.len() >= length,
        None => !chunked || body.ends_with("0\r\n\r\n"),
    };
    while !is_whole(body) {
        let mut bytes = Vec::new();
        if tls.read_buf(&mut bytes).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        body.push_str(&String::from_utf8_lossy(&bytes));
    }
    Ok(())
}
