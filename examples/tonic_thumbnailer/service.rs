//! The work behind the calls. The `RequestTrace` is in the extensions of each request.

use bytes::Bytes;
use futures_util::{Stream, stream};
use opentelemetry::KeyValue;
use tonic::{Request, Response, Status};
use tower_image_trace::{RequestTrace, attribute};

use super::{
    api::{Picture, ResizeManyRequest, ResizeRequest},
    options::{Format, MAX_SIDE, Mode, Options},
    process::{ProcessError, process as process_picture},
};

/// Most memory that one thumbnail may take, in bytes. A small file can claim any size.
const MEMORY: u64 = 512 << 20;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ResizeError {
    #[error("the width must be 1 to {MAX_SIDE} pixels, not {0}")]
    Width(u32),
    #[error(transparent)]
    Process(#[from] ProcessError),
}

impl From<ResizeError> for Status {
    fn from(error: ResizeError) -> Self {
        match error {
            ResizeError::Process(ProcessError::Encode(_)) => Self::internal(error.to_string()),
            _ => Self::invalid_argument(error.to_string()),
        }
    }
}

pub(crate) async fn resize(request: Request<ResizeRequest>) -> Result<Response<Picture>, Status> {
    let trace = RequestTrace::from_extensions(request.extensions());
    let ResizeRequest { source, width } = request.into_inner();
    Ok(Response::new(process(&trace, source, width).await?))
}

/// Makes each thumbnail when the client is ready for it, and stops when the client leaves.
pub(crate) async fn resize_many(
    request: Request<ResizeManyRequest>,
) -> Result<Response<impl Stream<Item = Result<Picture, Status>> + Send>, Status> {
    let trace = RequestTrace::from_extensions(request.extensions());
    let ResizeManyRequest { source, widths } = request.into_inner();
    let pictures = stream::unfold(widths.into_iter(), move |mut widths| {
        let (trace, source) = (trace.clone(), source.clone());
        async move {
            let width = widths.next()?;
            let picture = process(&trace, source, width).await.map_err(Status::from);
            Some((picture, widths))
        }
    });
    Ok(Response::new(pictures))
}

async fn process(trace: &RequestTrace, source: Bytes, width: u32) -> Result<Picture, ResizeError> {
    let stage = trace.process(format!("w:{width}"));
    stage.set_attribute(KeyValue::new(
        attribute::SOURCE_SIZE,
        i64::try_from(source.len()).unwrap_or(i64::MAX),
    ));
    stage.run_blocking(move || thumbnail(&source, width)).await
}

fn thumbnail(source: &[u8], width: u32) -> Result<Picture, ResizeError> {
    if !(1..=MAX_SIDE).contains(&width) {
        return Err(ResizeError::Width(width));
    }
    let options = Options {
        mode: Mode::Force,
        width,
        format: Some(Format::Jpeg),
        ..Options::default()
    };
    let thumbnail = process_picture(source, &options, MEMORY)?;
    Ok(Picture {
        jpeg: thumbnail.bytes.into(),
        width: thumbnail.width,
        height: thumbnail.height,
    })
}
