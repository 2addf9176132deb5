use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use http::Extensions;
use opentelemetry::StringValue;

/// The address of a connection's other end. A server inserts it into the extensions of the
/// connection's requests; axum's `ConnectInfo<SocketAddr>` is read too.
///
/// Make one for each connection and clone it for each request: clones share the text that is recorded.
///
/// ```
/// # use std::net::SocketAddr;
/// use tower_image_trace::trace::PeerAddr;
///
/// # fn serve(address: SocketAddr, mut request: http::Request<()>) {
/// let peer = PeerAddr::from(address);
/// request.extensions_mut().insert(peer.clone());
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddr {
    address: SocketAddr,
    text: Arc<str>,
}

impl PeerAddr {
    pub(crate) fn ip(&self) -> IpAddr {
        self.address.ip()
    }

    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(super) fn text(&self) -> StringValue {
        Arc::clone(&self.text).into()
    }

    /// The peer in a request's extensions: a `PeerAddr`, a `SocketAddr`, or (feature `axum`) axum's
    /// `ConnectInfo<SocketAddr>`.
    pub(crate) fn of(extensions: &Extensions) -> Option<Self> {
        if let Some(peer) = extensions.get::<Self>() {
            return Some(peer.clone());
        }
        #[cfg(feature = "axum")]
        if let Some(info) = extensions.get::<axum::extract::ConnectInfo<SocketAddr>>() {
            return Some(info.0.into());
        }
        extensions.get::<SocketAddr>().copied().map(Self::from)
    }
}

impl From<SocketAddr> for PeerAddr {
    fn from(address: SocketAddr) -> Self {
        // A dual-stack socket reports an IPv4 peer as a mapped address.
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        Self {
            address,
            text: address.ip().to_string().into(),
        }
    }
}
