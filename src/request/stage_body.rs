use std::{any::Any, fmt, mem};

use bytes::Buf;
use http::{HeaderMap, Response};
use pin_project_lite::pin_project;

use super::{Current, ErrorReport, Stage, stage::Scope};
use crate::instrument::{Exchange, Guarded, Said, Work, guarded_body};

/// The stage in which a body is sent.
///
/// It ends when this is dropped. Only the root span's owner knows whether a body that is dropped was
/// complete for its consumer; if not, it has interrupted the request by then.
#[derive(Debug)]
struct Sending {
    stage: Stage,
    scope: Scope,
}

impl Work for Sending {
    type Current = Current;

    fn attach(&mut self) -> Current {
        self.scope.attach()
    }

    fn panicked(&mut self, payload: &(dyn Any + Send)) {
        let stage = mem::take(&mut self.stage);
        stage.fail(|texts| ErrorReport::panic(payload, texts));
    }

    fn dropped(&mut self) {}
}

impl Exchange for Sending {
    fn head<B>(&mut self, _: &mut Response<B>, _: Said) {}

    fn data(&mut self, _: &impl Buf) {}

    fn trailers(&mut self, _: &HeaderMap) {}

    fn completed(&mut self) {
        mem::take(&mut self.stage).end();
    }

    fn failed<E: fmt::Display + 'static>(&mut self, error: &E) {
        let stage = mem::take(&mut self.stage);
        stage.fail(|texts| ErrorReport::of_any(error, &[], texts));
    }
}

pin_project! {
    /// A body that is sent as a stage, from [`Stage::body`].
    #[derive(Debug)]
    pub struct StageBody<B> {
        #[pin]
        body: Guarded<B, Sending>,
    }
}

impl<B> StageBody<B> {
    pub(super) fn new(stage: Stage, body: B) -> Self {
        let sending = stage.scope().map(|scope| Sending { stage, scope });
        Self {
            body: Guarded::new(body, sending),
        }
    }
}

guarded_body!(StageBody, body);
