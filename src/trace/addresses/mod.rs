//! The addresses of a request: client, peer and server (semconv http-spans, general/attributes).

mod forwarded;
mod networks;
mod peer;

use std::{fmt, net::SocketAddr};

use http::{Extensions, Request};
use opentelemetry::StringValue;

use self::forwarded::{Client, Forwarded};
pub use self::{
    forwarded::ForwardedHeader,
    networks::{Networks, NetworksError},
    peer::PeerAddr,
};
use crate::{
    instrument::{AddAttributes, guarded},
    semconv::{ServerText, scheme},
};

type FindPeer = dyn Fn(&Extensions) -> Option<SocketAddr> + Send + Sync;

/// Where a layer finds the addresses of a request.
#[derive(Default)]
pub(super) struct AddressRules {
    /// Replaces the lookup in the extensions that [`PeerAddr::of`] knows.
    pub(super) peer: Option<Box<FindPeer>>,
    /// The proxies whose forwarding headers are read; `None`: no such header is read.
    pub(super) proxies: Option<Networks>,
    /// The header that the proxies own, if that was said.
    pub(super) forwarded: Option<ForwardedHeader>,
}

impl AddressRules {
    pub(super) fn peer(&self, extensions: &Extensions) -> Option<PeerAddr> {
        match &self.peer {
            // A panic in the service's closure must not fail the request.
            Some(find) => guarded(|| find(extensions)).flatten().map(PeerAddr::from),
            None => PeerAddr::of(extensions),
        }
    }
}

impl fmt::Debug for AddressRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddressRules")
            .field("proxies", &self.proxies)
            .finish_non_exhaustive()
    }
}

/// The addresses of one request.
#[derive(Debug)]
pub(super) struct Addresses<'a> {
    pub(super) scheme: &'static str,
    server: ServerText<'a>,
    /// The port that a proxy has said.
    server_port: Option<u16>,
    client: Option<StringValue>,
    peer: Option<PeerAddr>,
}

impl<'a> Addresses<'a> {
    #[inline(always)]
    pub(super) fn of<B>(
        rules: &AddressRules,
        request: &'a Request<B>,
        host: Option<&'a str>,
    ) -> Self {
        let uri = request.uri();
        let peer = rules.peer(request.extensions());
        let mut addresses = Self {
            scheme: scheme(uri.scheme_str()),
            server: ServerText::of(uri, || host),
            server_port: None,
            client: peer.as_ref().map(PeerAddr::text),
            peer,
        };
        if let (Some(proxies), Some(peer)) = (&rules.proxies, &addresses.peer)
            && proxies.contains(peer.ip())
        {
            let forwarded = Forwarded::read(request.headers(), proxies, rules.forwarded);
            addresses.take(forwarded);
        }
        addresses
    }

    fn take(&mut self, forwarded: Forwarded<'a>) {
        if forwarded.proto.is_some() {
            self.scheme = scheme(forwarded.proto);
        }
        let host = forwarded.host.map(ServerText::Host);
        if let Some(host) = host.filter(|host| host.parts().is_some()) {
            self.server = host;
        }
        self.server_port = forwarded.port;
        self.client = match forwarded.client {
            None => self.client.take(),
            Some(Client::Hidden) => None,
            Some(Client::Address(address)) => Some(address.to_string().into()),
        };
    }

    /// What the server's address is read from.
    pub(super) fn server(&self) -> ServerText<'a> {
        self.server
    }

    pub(super) fn add_server<A: AddAttributes + ?Sized>(&self, attributes: &mut A) {
        let port = match self.server.known() {
            Some(known) => {
                attributes.fixed("server.address", &known.host);
                known.port
            }
            None => match self.server.parts() {
                Some((host, port)) => {
                    attributes.text("server.address", host);
                    port
                }
                None => return,
            },
        };
        if let Some(port) = self.server_port.or(port) {
            attributes.number("server.port", port.into());
        }
    }

    pub(super) fn add_client<A: AddAttributes + ?Sized>(&self, attributes: &mut A) {
        if let Some(client) = &self.client {
            attributes.shared("client.address", client);
        }
    }

    pub(super) fn add_peer<A: AddAttributes + ?Sized>(&self, attributes: &mut A) {
        if let Some(peer) = &self.peer {
            attributes.shared("network.peer.address", &peer.text());
            attributes.number("network.peer.port", peer.port().into());
        }
    }
}
