use std::{
    cell::RefCell,
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
            text: text_of(address.ip()),
        }
    }
}

/// How many texts a thread keeps.
const KEPT: usize = 64;

type KeptText = Option<(IpAddr, Arc<str>)>;

thread_local! {
    /// The texts of the last addresses, for servers that give every request the address alone: to format
    /// one takes two allocations.
    static TEXTS: RefCell<[KeptText; KEPT]> =
        const { RefCell::new([const { None }; KEPT]) };
}

fn text_of(ip: IpAddr) -> Arc<str> {
    let last = match ip {
        IpAddr::V4(ip) => ip.octets()[3],
        IpAddr::V6(ip) => ip.octets()[15],
    };
    let kept = TEXTS.try_with(|texts| {
        let place = &mut texts.borrow_mut()[usize::from(last) % KEPT];
        match place {
            Some((of, text)) if *of == ip => Arc::clone(text),
            _ => {
                let text = Arc::<str>::from(ip.to_string());
                *place = Some((ip, Arc::clone(&text)));
                text
            }
        }
    });
    // This fails only while the thread ends.
    kept.unwrap_or_else(|_| ip.to_string().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_kept_and_do_not_mix() {
        let ips = ["10.0.0.1", "10.0.1.1", "::1", "10.0.0.65", "2001:db8::1"];
        for text in ips.iter().chain(&ips) {
            let ip = text.parse().unwrap();
            assert_eq!(&*text_of(ip), *text);
            assert!(Arc::ptr_eq(&text_of(ip), &text_of(ip)));
        }
    }
}
