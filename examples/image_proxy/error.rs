//! Every error of a request, and the answer to it: a status and one sentence.

use axum::{
    http::{
        HeaderValue, StatusCode,
        header::{CACHE_CONTROL, RETRY_AFTER},
    },
    response::{IntoResponse, Response},
};
use tower_image_trace::pool::TooManyRequests;

use super::{options::PathError, process::ProcessError, source::SourceError};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Path(#[from] PathError),
    #[error("{0}: try again in a second")]
    QueueFull(#[from] TooManyRequests),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Process(#[from] ProcessError),
}

impl Error {
    fn status(&self) -> StatusCode {
        match self {
            Error::Path(_) => StatusCode::BAD_REQUEST,
            Error::QueueFull(_) => StatusCode::SERVICE_UNAVAILABLE,
            Error::Source(error) => match error {
                SourceError::Url => StatusCode::BAD_REQUEST,
                SourceError::OriginNotAllowed(_) => StatusCode::FORBIDDEN,
                SourceError::Missing(_) => StatusCode::NOT_FOUND,
                SourceError::TooLarge(_) => StatusCode::UNPROCESSABLE_ENTITY,
                SourceError::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
                SourceError::Status(_)
                | SourceError::Redirect(_)
                | SourceError::TooManyRedirects
                | SourceError::Unreachable(_)
                | SourceError::BrokenOff(_) => StatusCode::BAD_GATEWAY,
            },
            Error::Process(ProcessError::Encode(_)) => StatusCode::INTERNAL_SERVER_ERROR,
            Error::Process(_) => StatusCode::UNPROCESSABLE_ENTITY,
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut response = (self.status(), format!("{self}\n")).into_response();
        // The next request may succeed.
        let no_store = HeaderValue::from_static("no-store");
        response.headers_mut().insert(CACHE_CONTROL, no_store);
        if matches!(self, Error::QueueFull(_)) {
            response.headers_mut().insert(RETRY_AFTER, 1.into());
        }
        response
    }
}
