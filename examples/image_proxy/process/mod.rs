//! From the source's bytes to the result's: [`decode`], [`resize`], convert to sRGB ([`color`]), [`encode`].
//!
//! This blocks, so the handler runs it off the async threads. Everything that a source's header tells is
//! checked before its pixels are decoded: a file of a few bytes can claim any size.

mod cmyk;
pub(crate) mod color;
mod decode;
mod encode;
mod memory;
pub(crate) mod plan;
mod resize;

use image::ImageError;

use self::{color::Profile, decode::Source, plan::Plan};
use super::options::{Format, MAX_SIDE, Options};

/// Most pixels of a source.
const MAX_SOURCE_PIXELS: u64 = 50_000_000;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ProcessError {
    #[error("the source is not a JPEG, PNG or WebP picture")]
    NotAPicture,
    #[error(
        "the source is {width} × {height} pixels, and at most {} million are accepted",
        MAX_SOURCE_PIXELS / 1_000_000
    )]
    TooManyPixels { width: u32, height: u32 },
    #[error("the source is a broken picture")]
    Decode(#[source] ImageError),
    #[error("the result would be {width} × {height} pixels, and a side has at most {MAX_SIDE}")]
    ResultTooLarge { width: u32, height: u32 },
    #[error(
        "the result would be {width} × {height} pixels, and a side of a {} picture has at most {}: \
         ask for a smaller size or for another format",
        format.name(),
        format.max_side()
    )]
    FormatLimit {
        format: Format,
        width: u32,
        height: u32,
    },
    #[error(
        "this takes {} MiB of memory, and a worker has {}: ask for a smaller size, or send a smaller source",
        mib(*needed),
        mib(*limit)
    )]
    TooMuchMemory { needed: u64, limit: u64 },
    #[error("the result could not be encoded")]
    Encode(#[source] ImageError),
    #[cfg(feature = "libvips")]
    #[error("libvips cannot process the source: {0}")]
    Vips(String),
}

/// Rounded up.
fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

/// The result, and what its source was.
#[derive(Debug)]
pub(crate) struct Processed {
    pub(crate) bytes: Vec<u8>,
    pub(crate) format: Format,
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) source_format: Format,
    pub(crate) source_width: u32,
    pub(crate) source_height: u32,
    /// The source was an animation. The result is its first frame.
    pub(crate) animated: bool,
    pub(crate) profile: Profile,
}

/// Processes a picture within `memory` bytes.
#[cfg_attr(feature = "libvips", allow(dead_code, reason = "libvips replaces it"))]
pub(crate) fn process(
    source: &[u8],
    options: &Options,
    memory: u64,
) -> Result<Processed, ProcessError> {
    let source = Source::open(source)?;
    let (source_width, source_height) = source.size();
    let plan = Plan::of(source.size(), options)?;
    let format = options.format_for(source.format(), plan.width.max(plan.height));
    check_format(format, &plan)?;
    check_memory(memory::needed(&source, &plan, format), memory)?;
    let (source_format, animated) = (source.format(), source.animated());
    let (picture, icc) = source.decode()?;
    let picture = resize::resize(picture, &plan);
    let (picture, profile) = color::to_srgb(picture, icc);
    Ok(Processed {
        width: picture.width(),
        height: picture.height(),
        bytes: encode::encode(picture, format, options.quality).map_err(ProcessError::Encode)?,
        format,
        source_format,
        source_width,
        source_height,
        animated,
        profile,
    })
}

pub(crate) fn source_format(source: &[u8]) -> Result<Format, ProcessError> {
    let format = image::guess_format(source).ok();
    let format = format.and_then(Format::from_image);
    format.ok_or(ProcessError::NotAPicture)
}

pub(crate) fn check_pixels((width, height): (u32, u32)) -> Result<(), ProcessError> {
    if u64::from(width) * u64::from(height) > MAX_SOURCE_PIXELS {
        return Err(ProcessError::TooManyPixels { width, height });
    }
    Ok(())
}

pub(crate) fn check_memory(needed: u64, limit: u64) -> Result<(), ProcessError> {
    if needed > limit {
        return Err(ProcessError::TooMuchMemory { needed, limit });
    }
    Ok(())
}

/// A result that is not resized may have any size that the source's format allows.
pub(crate) fn check_format(format: Format, plan: &Plan) -> Result<(), ProcessError> {
    let (width, height) = (plan.width, plan.height);
    if width.max(height) > format.max_side() {
        return Err(ProcessError::FormatLimit {
            format,
            width,
            height,
        });
    }
    Ok(())
}
