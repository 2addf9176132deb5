#[cfg(feature = "page")]
use std::borrow::Cow;
use std::fmt;

#[cfg(feature = "page")]
use super::{Asked, Route};
use crate::{
    instrument::{Exceptions, Propagation, StartSpan, TextRules},
    metrics::{PictureMetrics, StageMetrics},
};

/// What handles and stages need of the layer that traces their request.
pub(crate) struct Recording {
    pub(crate) tracer: Box<dyn StartSpan>,
    pub(crate) propagation: Propagation,
    /// Whether [`Stage::inject`](super::Stage::inject) writes anything.
    pub(crate) propagate_external: bool,
    pub(crate) stage_metrics: Option<StageMetrics>,
    pub(crate) picture_metrics: Option<PictureMetrics>,
    pub(crate) labelled: Labelled,
    pub(crate) exceptions: Exceptions,
    pub(crate) texts: TextRules,
    /// Whether the response tells how long its stages took.
    pub(crate) server_timing: bool,
    /// Whether the stages that are done are kept until the request's end.
    pub(crate) keeps_stages: bool,
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recording")
            .field("propagation", &self.propagation)
            .field("metrics", &self.stage_metrics.is_some())
            .finish_non_exhaustive()
    }
}

/// Which measurements have the attributes that the service has given to the request's own.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Labelled {
    pub(crate) stages: bool,
    pub(crate) downloads: bool,
}

/// The layer's part of a [`RequestState`](super::RequestState).
pub(crate) trait Layer: fmt::Debug + Send + Sync {
    fn recording(&self) -> &Recording;

    /// Whether the request is measured, by this layer or by one around it.
    fn measures(&self) -> bool;

    /// The name of the root span of a running request.
    #[cfg(feature = "page")]
    fn name(&self, route: Option<&Route>) -> Cow<'static, str>;

    /// What a running request asks for.
    #[cfg(feature = "page")]
    fn asked(&self) -> Asked;
}
