//! A listener of its own for a page, where a service does not put the page among its routes.

use std::{convert::Infallible, io, net::TcpListener, pin::pin, sync::Arc, time::Duration};

use http::{Request, Response};
use http_body::Body;
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net,
    sync::Semaphore,
    time::{sleep, timeout},
};
use tower_service::Service;

use crate::trace::PeerAddr;

/// The connections that are open at a time; others wait.
const CONNECTIONS: usize = 64;
/// How long a connection may take to send a head, or stay idle.
const IDLE: Duration = Duration::from_secs(90);
/// How long a connection may stay open. A response that is on its way then has [`IDLE`] to end.
const LONGEST: Duration = Duration::from_secs(600);

/// Binds `host:port`, or `:port` on all addresses.
pub(super) fn bind(address: &str) -> io::Result<TcpListener> {
    let listener = match address.strip_prefix(':') {
        // On most systems the first one takes IPv4 too.
        Some(port) => TcpListener::bind(format!("[::]:{port}"))
            .or_else(|_| TcpListener::bind(format!("0.0.0.0:{port}"))),
        None => TcpListener::bind(address),
    }?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Answers connections, for ever; runs on the I/O thread. Requests have the address of their peer in their
/// extensions. `what` is served, for the log.
pub(super) async fn serve<S, B>(listener: TcpListener, page: S, what: &'static str)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
    B: Body<Error = Infallible> + Send + 'static,
    B::Data: Send,
{
    let listener = match net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "{what} cannot be served"),
    };
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    // Never closed.
    while let Ok(permit) = Arc::clone(&connections).acquire_owned().await {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(_) => {
                // Out of file descriptors, for example: trying at once would not help.
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let service = WithPeer {
            inner: page.clone(),
            peer: peer.into(),
        };
        tokio::spawn(async move {
            let _permit = permit;
            answer(stream, service).await;
        });
    }
}

/// Answers the requests of one connection.
async fn answer<I, S, B>(stream: I, service: S)
where
    I: AsyncRead + AsyncWrite + Unpin,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone,
    B: Body<Error = Infallible> + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let mut connection = pin!(connection);
    // What goes wrong on a connection is its client's business.
    if timeout(LONGEST, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = timeout(IDLE, connection).await;
    }
}

/// Tells the service where its requests come from.
#[derive(Clone)]
struct WithPeer<S> {
    inner: S,
    peer: PeerAddr,
}

impl<S: Service<Request<B>>, B> Service<Request<B>> for WithPeer<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        request.extensions_mut().insert(self.peer.clone());
        self.inner.call(request)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tower::service_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_has_had_its_time_ends_after_its_response() {
        let service = service_fn(async |_: Request<Incoming>| {
            sleep(LONGEST + IDLE / 2).await;
            Ok::<_, Infallible>(Response::new(String::from("whole")))
        });
        let (mut client, stream) = duplex(1 << 12);
        let request = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
        client.write_all(request).await.unwrap();
        let mut told = String::new();
        let reads = client.read_to_string(&mut told);
        let ((), read) = tokio::join!(answer(stream, service), reads);
        read.unwrap();
        assert!(told.ends_with("whole"), "{told}");
    }
}
