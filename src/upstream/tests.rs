use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::*;
use crate::clock;

const ID: OrchestratorId = OrchestratorId(1);
const PATIENCE: Duration = Duration::from_secs(5);

async fn upstream() -> (Upstream, TcpListener, ServiceUri) {
    let params = Params {
        connections_max: 4,
        idle_max: 4,
        idle_all_max: 4,
        idle_for: Duration::from_secs(60),
        head_timeout: PATIENCE,
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    (Upstream::new(params, Dialer::anywhere(PATIENCE)), listener, uri)
}

fn request() -> Request<Body> {
    Request::get("/").header("host", "x").body(Body::Empty).unwrap()
}

#[tokio::test]
async fn sweeping_closes_old_connections_and_counts_them_out() {
    let (upstream, listener, uri) = upstream().await;
    let gauge = Arc::new(Gauge::default());
    let mut lease = upstream.lease(ID, &uri, &gauge, clock::now()).await.unwrap();
    let answer = async {
        let (mut tcp, _peer) = listener.accept().await.unwrap();
        assert!(tcp.read(&mut [0; 1024]).await.unwrap() > 0);
        tcp.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        tcp
    };
    let (sent, _tcp) = tokio::join!(lease.send_within(request(), PATIENCE), answer);
    let now = clock::now();
    drop(sent.unwrap());
    lease.put_back(now);
    assert_eq!(gauge.warm(), 1);
    upstream.sweep(now);
    assert_eq!(gauge.warm(), 1);
    upstream.sweep(now + upstream.params.idle_for);
    assert_eq!(gauge.warm(), 0);
    assert_eq!(upstream.origin(ID, &gauge).open.load(Ordering::Acquire), 0);
}

#[tokio::test]
async fn a_fresh_connection_that_closes_at_once_is_no_reason_to_try_again() {
    let (upstream, listener, uri) = upstream().await;
    let gauge = Arc::new(Gauge::default());
    let mut lease = upstream.lease(ID, &uri, &gauge, clock::now()).await.unwrap();
    drop(listener.accept().await.unwrap());
    while !lease.sender.is_closed() {
        tokio::task::yield_now().await;
    }
    let sent = lease.send_within(request(), PATIENCE).await;
    assert!(matches!(sent, Err(SendError::Broken(Break { sent: false, .. }))), "{sent:?}");
}

#[tokio::test]
async fn one_connection_is_made_ahead_at_a_time_and_the_next_request_takes_it() {
    let (upstream, listener, uri) = upstream().await;
    let gauge = Arc::new(Gauge::default());
    let now = clock::now();
    for _ in 0..3 {
        upstream.preconnect(ID, &uri, &gauge, now);
    }
    let origin = upstream.origin(ID, &gauge);
    while gauge.warm() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!((gauge.warm(), origin.open.load(Ordering::Acquire)), (1, 1));
    drop(listener.accept().await.unwrap());
    let lease = upstream.lease(ID, &uri, &gauge, now).await.unwrap();
    assert_eq!((lease.warm, gauge.warm()), (true, 0));
}

#[tokio::test]
async fn what_has_carried_nothing_is_kept_for_five_seconds() {
    let (upstream, _listener, uri) = upstream().await;
    let gauge = Arc::new(Gauge::default());
    for (used, kept_for) in [(false, UNUSED_FOR), (true, upstream.params.idle_for)] {
        let now = clock::now();
        let lease = upstream.lease(ID, &uri, &gauge, now).await.unwrap();
        assert!(lease.keep(now, used));
        upstream.sweep(now + kept_for - Duration::from_millis(1));
        assert_eq!(gauge.warm(), 1);
        upstream.sweep(now + kept_for);
        assert_eq!(gauge.warm(), 0);
    }
}

#[tokio::test]
async fn the_last_place_is_left_to_requests() {
    let (mut upstream, listener, uri) = upstream().await;
    upstream.params.connections_max = 2;
    let gauge = Arc::new(Gauge::default());
    let _held = upstream.lease(ID, &uri, &gauge, clock::now()).await.unwrap();
    drop(listener.accept().await.unwrap());
    upstream.preconnect(ID, &uri, &gauge, clock::now());
    let refused = tokio::time::timeout(Duration::from_millis(100), listener.accept()).await;
    assert!(refused.is_err(), "the last place was taken");
    assert!(upstream.lease(ID, &uri, &gauge, clock::now()).await.is_ok());
}

#[tokio::test]
async fn one_that_ends_up_unkept_is_not_made_again_at_once() {
    let (mut upstream, listener, uri) = upstream().await;
    upstream.params.idle_all_max = 1;
    let gauge = Arc::new(Gauge::default());
    upstream.preconnect(ID, &uri, &gauge, clock::now());
    // Somebody else's connection takes the room meanwhile.
    let _other = Counted::new(&upstream.idle_all);
    drop(listener.accept().await.unwrap());
    let origin = upstream.origin(ID, &gauge);
    while matches!(*lock(&origin.ahead), Ahead::Making) {
        tokio::task::yield_now().await;
    }
    assert!(matches!(*lock(&origin.ahead), Ahead::Failed(_)));
    assert_eq!((gauge.warm(), origin.open.load(Ordering::Acquire)), (0, 0));
}

#[tokio::test]
async fn what_fails_ahead_is_left_alone_for_a_second_and_leaves_no_place_behind() {
    let (upstream, listener, uri) = upstream().await;
    let gauge = Arc::new(Gauge::default());
    drop(listener);
    let now = clock::now();
    upstream.preconnect(ID, &uri, &gauge, now);
    let origin = upstream.origin(ID, &gauge);
    let failed = async || loop {
        if let Ahead::Failed(at) = *lock(&origin.ahead) {
            return at;
        }
        tokio::task::yield_now().await;
    };
    let first = failed().await;
    upstream.preconnect(ID, &uri, &gauge, first + Duration::from_millis(999));
    assert_eq!(failed().await, first);
    upstream.preconnect(ID, &uri, &gauge, first + Duration::from_secs(1));
    assert!(failed().await > first);
    assert_eq!((gauge.warm(), origin.open.load(Ordering::Acquire)), (0, 0));
}

#[tokio::test]
async fn none_is_made_ahead_that_would_not_be_kept() {
    let (mut upstream, listener, uri) = upstream().await;
    upstream.params.idle_all_max = 1;
    let (gauge, other) = (Arc::new(Gauge::default()), Arc::new(Gauge::default()));
    let now = clock::now();
    upstream.preconnect(ID, &uri, &gauge, now);
    while gauge.warm() == 0 {
        tokio::task::yield_now().await;
    }
    drop(listener.accept().await.unwrap());
    upstream.preconnect(OrchestratorId(2), &uri, &other, now);
    let refused = tokio::time::timeout(Duration::from_millis(100), listener.accept()).await;
    assert!(refused.is_err(), "a second one was made");
}
