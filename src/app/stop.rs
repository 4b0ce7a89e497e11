//! When to stop: a signal, or a parent that is gone.

use tokio::io::AsyncReadExt;

/// Completes on Ctrl-C or SIGTERM; with `parent`, also when standard input closes.
pub async fn told(parent: bool) {
    tokio::select! {
        () = signalled() => {}
        () = orphaned(), if parent => {}
    }
}

/// Completes on Ctrl-C or SIGTERM.
pub async fn signalled() {
    let interrupted = tokio::signal::ctrl_c();
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let Ok(mut terminated) = signal(SignalKind::terminate()) else {
            drop(interrupted.await);
            return;
        };
        tokio::select! {
            _told = interrupted => {}
            _told = terminated.recv() => {}
        }
    }
    #[cfg(not(unix))]
    drop(interrupted.await);
}

async fn orphaned() {
    let mut byte = [0];
    // Whatever the parent writes is not for us; its end is.
    while tokio::io::stdin().read(&mut byte).await.is_ok_and(|n| n > 0) {}
}
