use std::fmt;

use http::Uri;

use super::{Origin, server::MeasuredServers};
use crate::{
    instrument::{ErrorView, Exceptions, Propagation, StartSpan, TextRules},
    metrics::ClientMetrics,
    request::RequestTrace,
    semconv::KnownMethods,
};

/// What a layer does with each request; shared by all its services and their requests.
pub(super) struct Config {
    pub(super) tracer: Box<dyn StartSpan>,
    pub(super) propagation: Propagation,
    pub(super) propagate: Propagate,
    pub(super) metrics: Option<ClientMetrics>,
    pub(super) measured_servers: MeasuredServers,
    pub(super) known_methods: KnownMethods,
    pub(super) error_views: Vec<ErrorView>,
    pub(super) exceptions: Exceptions,
    /// How texts are recorded outside of requests.
    pub(super) texts: TextRules,
    /// Whether any rule was set here. Then they apply within requests too, after those of the request.
    pub(super) has_own_texts: bool,
}

impl Config {
    /// The rules for what is fetched for a request, to be applied one after the other.
    pub(super) fn texts<'a>(
        &'a self,
        request: &'a RequestTrace,
    ) -> (&'a TextRules, Option<&'a TextRules>) {
        match request.texts() {
            None => (&self.texts, None),
            Some(texts) => (texts, self.has_own_texts.then_some(&self.texts)),
        }
    }
}

/// Which requests carry the trace context.
#[derive(Debug, Default)]
pub(super) enum Propagate {
    #[default]
    None,
    All,
    To(Vec<Origin>),
}

impl Propagate {
    pub(super) fn includes(&self, uri: &Uri) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::To(origins) => Origin::of(uri).is_some_and(|origin| origins.contains(&origin)),
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("propagation", &self.propagation)
            .field("propagate", &self.propagate)
            .field("metrics", &self.metrics.is_some())
            .finish_non_exhaustive()
    }
}
