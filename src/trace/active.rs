use std::{any::Any, fmt};

use bytes::Buf;
use http::{HeaderMap, Response};
use opentelemetry::Context;

use super::finish::Finish;
use crate::{
    instrument::{Exchange, Said, Work},
    request::Current,
};

/// What is active while a request is worked on.
#[derive(Debug)]
pub(super) enum Active {
    Traced(Finish),
    /// The request is not recorded; the caller's context is current for what it calls.
    Skipped(Context),
}

impl Active {
    fn finish(&mut self) -> Option<&mut Finish> {
        match self {
            Self::Traced(finish) => Some(finish),
            Self::Skipped(_) => None,
        }
    }
}

impl Work for Active {
    type Current = Current;

    fn attach(&mut self) -> Current {
        match self {
            Self::Traced(finish) => finish.attach(),
            Self::Skipped(context) => Current::context(context),
        }
    }

    fn detach(&mut self, current: Current) {
        if let Self::Traced(finish) = self {
            finish.detach(current);
        }
    }

    fn panicked(&mut self, payload: &(dyn Any + Send)) {
        if let Some(finish) = self.finish() {
            finish.panicked(payload);
        }
    }

    fn dropped(&mut self) {
        if let Some(finish) = self.finish() {
            finish.dropped();
        }
    }
}

impl Exchange for Active {
    fn head<B>(&mut self, response: &mut Response<B>, body: Said) {
        if let Some(finish) = self.finish() {
            finish.head(response, body);
        }
    }

    fn data(&mut self, data: &impl Buf) {
        if let Some(finish) = self.finish() {
            finish.data(data);
        }
    }

    fn trailers(&mut self, trailers: &HeaderMap) {
        if let Some(finish) = self.finish() {
            finish.trailers(trailers);
        }
    }

    fn completed(&mut self) {
        if let Some(finish) = self.finish() {
            finish.completed();
        }
    }

    fn failed<E: fmt::Display + 'static>(&mut self, error: &E) {
        if let Some(finish) = self.finish() {
            finish.failed(error);
        }
    }
}
