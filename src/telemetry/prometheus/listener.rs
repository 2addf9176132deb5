//! A listener of its own for the page.

use std::{io, net::TcpListener, sync::Arc, time::Duration};

use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net,
    sync::Semaphore,
    time::{sleep, timeout},
};

use super::Prometheus;

/// The connections that are open at a time; others wait.
const CONNECTIONS: usize = 64;
/// How long a connection may take to send a head, or stay idle.
const IDLE: Duration = Duration::from_secs(90);
/// How long a connection may stay open, whatever it does.
const LONGEST: Duration = Duration::from_secs(600);

/// Binds `host:port`, or `:port` on all addresses.
pub(in crate::telemetry) fn bind(address: &str) -> io::Result<TcpListener> {
    let listener = match address.strip_prefix(':') {
        // On most systems the first one takes IPv4 too.
        Some(port) => TcpListener::bind(format!("[::]:{port}"))
            .or_else(|_| TcpListener::bind(format!("0.0.0.0:{port}"))),
        None => TcpListener::bind(address),
    }?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Answers connections, for ever; runs on the I/O thread.
pub(in crate::telemetry) async fn serve(listener: TcpListener, page: Prometheus) {
    let listener = match net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "metrics cannot be served"),
    };
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    // Never closed.
    while let Ok(permit) = Arc::clone(&connections).acquire_owned().await {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(_) => {
                // Out of file descriptors, for example: trying at once would not help.
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(page.clone());
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .serve_connection(TokioIo::new(stream), service);
        tokio::spawn(async move {
            let _permit = permit;
            // What goes wrong on a connection is its client's business.
            let _ = timeout(LONGEST, connection).await;
        });
    }
}
