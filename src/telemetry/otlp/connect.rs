//! Connections to the collector: to each address of its name, directly or through a proxy, with TLS or
//! without.

use std::{
    error::Error,
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderValue, Uri};
use hyper_rustls::{DefaultServerNameResolver, HttpsConnector, MaybeHttpsStream};
use hyper_util::{
    client::legacy::connect::proxy::{SocksV4, SocksV5, Tunnel},
    rt::TokioIo,
};
use tokio::{
    net::{TcpStream, lookup_host},
    task::JoinSet,
    time::timeout,
};
use tower_service::Service;

use super::{
    seen::{FirstBytes, Seen},
    tls::Tls,
};
use crate::{semconv::default_port, telemetry::settings::Proxy};

type BoxError = Box<dyn Error + Send + Sync>;
type BoxFuture<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

/// RFC 8305 §8: the pause before the next address is tried beside the earlier ones.
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

/// How a proxy is asked for a connection.
#[derive(Clone)]
pub(super) enum Route {
    /// The whole URL goes into the request line (RFC 9112 §3.2.2): plain HTTP/1.1.
    Forward {
        uri: Uri,
        auth: Option<HeaderValue>,
    },
    /// `CONNECT` (RFC 9110 §9.3.6): TLS and HTTP/2.
    Tunnel {
        uri: Uri,
        auth: Option<HeaderValue>,
    },
    /// RFC 1928.
    Socks5 {
        uri: Uri,
        auth: Option<(String, String)>,
    },
    Socks4 {
        uri: Uri,
    },
}

impl Route {
    /// `tunnel`: the connection carries more than plain HTTP/1.1.
    pub(super) fn new(proxy: &Proxy, tunnel: bool) -> Self {
        let uri = proxy.uri().clone();
        match uri.scheme_str() {
            Some("socks4" | "socks4a") => Self::Socks4 { uri },
            Some("socks5" | "socks5h") => Self::Socks5 {
                auth: proxy.credentials(),
                uri,
            },
            _ if tunnel => Self::Tunnel {
                auth: proxy.authorization(),
                uri,
            },
            _ => Self::Forward {
                auth: proxy.authorization(),
                uri,
            },
        }
    }

    /// The `Proxy-Authorization` that each request carries. A tunnel is asked for with its own.
    pub(super) fn authorization(&self) -> Option<HeaderValue> {
        match self {
            Self::Forward { auth, .. } => auth.clone(),
            _ => None,
        }
    }
}

/// The kind and the address, never the password.
impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, uri) = match self {
            Self::Forward { uri, .. } => ("Forward", uri),
            Self::Tunnel { uri, .. } => ("Tunnel", uri),
            Self::Socks5 { uri, .. } => ("Socks5", uri),
            Self::Socks4 { uri } => ("Socks4", uri),
        };
        f.debug_tuple(kind).field(uri).finish()
    }
}

/// Connects to one collector.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    tls: Option<Arc<Tls>>,
    proxy: Option<Route>,
    first_bytes: Arc<FirstBytes>,
}

impl Connector {
    pub(super) fn new(
        tls: Option<Arc<Tls>>,
        proxy: Option<Route>,
        first_bytes: Arc<FirstBytes>,
    ) -> Self {
        Self {
            tls,
            proxy,
            first_bytes,
        }
    }

    async fn connect(self, uri: Uri) -> Result<MaybeHttpsStream<Seen>, BoxError> {
        let Some(tls) = self.tls.clone() else {
            return self.raw(uri).await.map(MaybeHttpsStream::Http);
        };
        let config = tls.config()?;
        let names = Arc::new(DefaultServerNameResolver::default());
        let raw = RawConnector(self);
        HttpsConnector::new(raw, config, true, names)
            .call(uri)
            .await
    }

    /// The connection below TLS.
    async fn raw(self, uri: Uri) -> Result<Seen, BoxError> {
        let stream = match self.proxy {
            None => Tcp.call(uri).await?,
            Some(Route::Forward { uri: proxy, .. }) => {
                let stream = Tcp.call(proxy).await?;
                return Ok(self.first_bytes.watch(stream, true));
            }
            Some(Route::Tunnel { uri: proxy, auth }) => {
                let tunnel = Tunnel::new(proxy, Tcp);
                let mut tunnel = match auth {
                    Some(auth) => tunnel.with_auth(auth),
                    None => tunnel,
                };
                tunnel.call(with_port(uri)?).await?
            }
            Some(Route::Socks5 { uri: proxy, auth }) => {
                let socks = SocksV5::new(proxy, Tcp);
                let mut socks = match auth {
                    Some((user, password)) => socks.with_auth(user, password),
                    None => socks,
                };
                socks.call(with_port(uri)?).await?
            }
            Some(Route::Socks4 { uri: proxy }) => {
                SocksV4::new(proxy, Tcp).call(with_port(uri)?).await?
            }
        };
        Ok(self.first_bytes.watch(stream, false))
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<Seen>;
    type Error = BoxError;
    type Future = BoxFuture<Self::Response, BoxError>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

/// The connector below TLS.
struct RawConnector(Connector);

impl Service<Uri> for RawConnector {
    type Response = Seen;
    type Error = BoxError;
    type Future = BoxFuture<Seen, BoxError>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.0.clone().raw(uri))
    }
}

/// TCP to the host of a URI.
#[derive(Clone, Copy, Debug)]
struct Tcp;

impl Service<Uri> for Tcp {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = BoxFuture<TokioIo<TcpStream>, io::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(async move {
            let host = uri.host().unwrap_or_default();
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let addresses = lookup_host((host, port(&uri))).await?;
            let stream = first_to_answer(interleaved(addresses.collect())).await?;
            stream.set_nodelay(true)?;
            Ok(TokioIo::new(stream))
        })
    }
}

fn port(uri: &Uri) -> u16 {
    let default = match uri.scheme_str() {
        Some("socks4" | "socks4a" | "socks5" | "socks5h") => Some(1080),
        scheme => default_port(scheme.unwrap_or("http")),
    };
    uri.port_u16().or(default).unwrap_or(80)
}

/// Proxies need the port even when the URI leaves it to the scheme.
fn with_port(uri: Uri) -> Result<Uri, http::Error> {
    let authority = format!("{}:{}", uri.host().unwrap_or_default(), port(&uri));
    let scheme = uri.scheme_str().unwrap_or("http");
    Uri::builder()
        .scheme(scheme)
        .authority(authority)
        .path_and_query("/")
        .build()
}

/// RFC 8305 §4: the families alternate, the first one first, so that one that is broken is soon left.
fn interleaved(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let Some(first) = addresses.first().copied() else {
        return addresses;
    };
    let (same, other): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv4() == first.is_ipv4());
    let (mut same, mut other) = (same.into_iter(), other.into_iter());
    let mut ordered = Vec::new();
    loop {
        let pair = [same.next(), other.next()];
        if pair == [None, None] {
            return ordered;
        }
        ordered.extend(pair.into_iter().flatten());
    }
}

/// Tries one address after the other, the next one when the last has failed or is slow, and takes the
/// first connection there is (RFC 8305 §5).
async fn first_to_answer(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut left = addresses.into_iter();
    let mut attempts = JoinSet::new();
    let mut failures = Failures::default();
    loop {
        if let Some(address) = left.next() {
            attempts.spawn(async move {
                let connected = TcpStream::connect(address).await;
                connected.map_err(|error| (address, error))
            });
        } else if attempts.is_empty() {
            return Err(failures.into_error());
        }
        let ended = match left.len() {
            0 => attempts.join_next().await,
            _ => match timeout(NEXT_ADDRESS, attempts.join_next()).await {
                Ok(ended) => ended,
                Err(_) => continue,
            },
        };
        match ended {
            Some(Ok(Ok(stream))) => return Ok(stream),
            Some(Ok(Err(failure))) => failures.0.push(failure),
            Some(Err(_)) | None => {}
        }
    }
}

/// Why no address could be reached.
#[derive(Debug, Default)]
struct Failures(Vec<(SocketAddr, io::Error)>);

impl Failures {
    fn into_error(mut self) -> io::Error {
        match self.0.len() {
            0 => io::Error::new(io::ErrorKind::NotFound, "the name has no address"),
            1 => self.0.remove(0).1,
            _ => io::Error::new(self.0[0].1.kind(), self),
        }
    }
}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (address, error)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{address}: {error}")?;
        }
        Ok(())
    }
}

impl Error for Failures {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_alternate() {
        let addresses = |list: &[&str]| -> Vec<SocketAddr> {
            list.iter().map(|text| text.parse().unwrap()).collect()
        };
        let mixed = addresses(&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "1.1.1.2:1"]);
        let expected = addresses(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "1.1.1.2:1", "[::3]:1"]);
        assert_eq!(interleaved(mixed), expected);
        assert_eq!(interleaved(Vec::new()), []);
    }

    #[tokio::test]
    async fn an_address_that_fails_gives_way_to_the_next() {
        let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let refused = gone.local_addr().unwrap();
        drop(gone);
        let there = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = there.local_addr().unwrap();
        let stream = first_to_answer(vec![refused, address]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), address);
        let error = first_to_answer(vec![refused, refused]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(error.to_string().contains("; "), "{error}");
        let error = first_to_answer(Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    // faults C7
    #[tokio::test]
    async fn an_address_that_swallows_packets_does_not_hold_up_the_next() {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let full = socket.listen(1).unwrap();
        let swallowing = full.local_addr().unwrap();
        // Nobody accepts: once the backlog is full, further packets are dropped.
        let mut waiting = Vec::new();
        while let Ok(connected) =
            timeout(Duration::from_millis(500), TcpStream::connect(swallowing)).await
        {
            waiting.push(connected.unwrap());
        }
        let there = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = there.local_addr().unwrap();
        let connecting = first_to_answer(vec![swallowing, address]);
        let stream = timeout(Duration::from_secs(60), connecting).await;
        assert_eq!(stream.unwrap().unwrap().peer_addr().unwrap(), address);
    }
}
