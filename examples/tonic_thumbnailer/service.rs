//! The work behind the calls. The `RequestTrace` is in the extensions of each request.

use std::io::Cursor;

use bytes::Bytes;
use futures_util::{Stream, stream};
use image::{DynamicImage, ImageError, ImageFormat, ImageReader, Limits};
use opentelemetry::KeyValue;
use tonic::{Request, Response, Status};
use tower_image_trace::{RequestTrace, attribute};

use super::api::{Picture, ResizeManyRequest, ResizeRequest};

/// Longest side of a thumbnail, in pixels.
const MAX_SIDE: u32 = 4096;
/// Most memory for decoding, in bytes. A small file can claim any size.
const MAX_DECODE_BYTES: u64 = 256 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ResizeError {
    #[error("the source is not a JPEG, PNG or WebP picture")]
    Source(#[source] ImageError),
    #[error("the width must be 1 to {MAX_SIDE} pixels, not {0}")]
    Width(u32),
    #[error("the thumbnail could not be encoded")]
    Encode(#[source] ImageError),
}

impl From<ResizeError> for Status {
    fn from(error: ResizeError) -> Self {
        match error {
            ResizeError::Encode(_) => Self::internal(error.to_string()),
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
    let thumbnail = decode(source)
        .map_err(ResizeError::Source)?
        .thumbnail(width, MAX_SIDE)
        .into_rgb8();
    let mut jpeg = Cursor::new(Vec::new());
    thumbnail
        .write_to(&mut jpeg, ImageFormat::Jpeg)
        .map_err(ResizeError::Encode)?;
    Ok(Picture {
        jpeg: jpeg.into_inner().into(),
        width: thumbnail.width(),
        height: thumbnail.height(),
    })
}

fn decode(source: &[u8]) -> Result<DynamicImage, ImageError> {
    let mut reader = ImageReader::new(Cursor::new(source)).with_guessed_format()?;
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_DECODE_BYTES);
    reader.limits(limits);
    reader.decode()
}
