use std::{
    collections::HashSet,
    sync::{PoisonError, RwLock},
};

use http::Request;
use opentelemetry::{KeyValue, StringValue};

use crate::semconv::{self, OTHER, default_port};

/// The server that a request is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Server {
    address: StringValue,
    port: Option<u16>,
}

impl Server {
    pub(super) fn of<B>(request: &Request<B>) -> Option<Self> {
        let uri = request.uri();
        let (host, port) = semconv::server(uri, || semconv::host(request.headers()))?;
        Some(Self {
            address: host.to_ascii_lowercase().into(),
            port: port.or_else(|| uri.scheme_str().and_then(default_port)),
        })
    }

    pub(super) fn attributes(&self) -> impl Iterator<Item = KeyValue> {
        let address = KeyValue::new("server.address", self.address.clone());
        let port = self
            .port
            .map(|port| KeyValue::new("server.port", i64::from(port)));
        std::iter::once(address).chain(port)
    }
}

/// The servers that metrics name: the first `limit` that are asked.
#[derive(Debug)]
pub(super) struct MeasuredServers {
    pub(super) limit: usize,
    seen: RwLock<HashSet<Server>>,
}

impl MeasuredServers {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            seen: RwLock::default(),
        }
    }

    /// The server itself, or `_OTHER` for all servers beyond the limit.
    pub(super) fn named(&self, server: Server) -> Server {
        if self.admits(&server) {
            return server;
        }
        Server {
            address: OTHER.into(),
            port: None,
        }
    }

    fn admits(&self, server: &Server) -> bool {
        {
            let seen = self.seen.read().unwrap_or_else(PoisonError::into_inner);
            if seen.contains(server) || seen.len() >= self.limit {
                return seen.contains(server);
            }
        }
        let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have added servers in between.
        if seen.len() < self.limit {
            seen.insert(server.clone());
        }
        seen.contains(server)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_servers_are_named_and_stay_so() {
        let server = |uri: &str| Server::of(&Request::get(uri).body(()).unwrap()).unwrap();
        let measured = MeasuredServers::new(2);
        let named = |uri| measured.named(server(uri)).address.to_string();
        assert_eq!(named("http://a.example/"), "a.example");
        assert_eq!(named("https://a.example/"), "a.example");
        assert_eq!(named("http://b.example/"), "_OTHER");
        assert_eq!(named("http://A.Example:80/other"), "a.example");
        assert_eq!(
            MeasuredServers::new(0).named(server("http://a.example/")),
            Server {
                address: "_OTHER".into(),
                port: None
            }
        );
    }

    /// Run under miri with many schedules too.
    #[test]
    fn threads_name_no_more_servers_than_the_limit() {
        const ROUNDS: usize = if cfg!(miri) { 4 } else { 200 };
        for _ in 0..ROUNDS {
            let measured = MeasuredServers::new(1);
            let named = &|address: &'static str| {
                let server = Server {
                    address: address.into(),
                    port: None,
                };
                measured.named(server).address.as_str() == address
            };
            let named = std::thread::scope(|scope| {
                let threads = ["a.example", "b.example", "c.example"];
                let threads = threads.map(|address| scope.spawn(move || named(address)));
                threads.map(|thread| thread.join().unwrap())
            });
            assert_eq!(named.iter().filter(|named| **named).count(), 1);
        }
    }
}
