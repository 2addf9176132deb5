//! Decodes, resizes and encodes a picture. This blocks, so the handler runs it off the async threads.

use std::io::Cursor;

use image::{
    DynamicImage, ImageDecoder, ImageError, ImageReader, Limits, Rgb, RgbImage, Rgba,
    codecs::{jpeg::JpegEncoder, png::PngEncoder, webp::WebPEncoder},
    imageops::FilterType,
};

use super::options::{Format, MAX_SIDE, Mode, Options};

/// Most pixels of a source. A small file can claim any size, so this is checked before pixels are allocated.
/// A pixel takes up to 24 bytes: 8 decoded, and 16 while it is resized.
const MAX_SOURCE_PIXELS: u64 = 50_000_000;
/// Most memory for decoding, in bytes: 8 for each pixel.
const MAX_DECODE_BYTES: u64 = 8 * MAX_SOURCE_PIXELS;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ProcessError {
    #[error("the source is no JPEG, PNG or WebP picture")]
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
    #[error("the result could not be encoded")]
    Encode(#[source] ImageError),
    #[cfg(feature = "libvips")]
    #[error("libvips cannot process the source: {0}")]
    Vips(String),
}

/// The result, and the format and size of its source.
#[derive(Debug)]
pub(crate) struct Processed {
    pub(crate) bytes: Vec<u8>,
    pub(crate) format: Format,
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) source_format: Format,
    pub(crate) source_width: u32,
    pub(crate) source_height: u32,
}

#[cfg_attr(feature = "libvips", allow(dead_code, reason = "libvips replaces it"))]
pub(crate) fn process(source: &[u8], options: &Options) -> Result<Processed, ProcessError> {
    let (picture, source_format) = decode(source)?;
    let (source_width, source_height) = (picture.width(), picture.height());
    let picture = resize(picture, options)?;
    let format = options.format.unwrap_or(source_format);
    Ok(Processed {
        width: picture.width(),
        height: picture.height(),
        bytes: encode(picture, format, options.quality).map_err(ProcessError::Encode)?,
        format,
        source_format,
        source_width,
        source_height,
    })
}

/// Decodes the picture and turns it upright, as its Exif orientation says.
fn decode(source: &[u8]) -> Result<(DynamicImage, Format), ProcessError> {
    let format = source_format(source)?;
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_DECODE_BYTES);
    let mut reader = ImageReader::new(Cursor::new(source));
    reader.limits(limits.clone());
    let reader = reader.with_guessed_format();
    let reader = reader.map_err(|error| ProcessError::Decode(error.into()))?;

    let mut decoder = reader.into_decoder().map_err(ProcessError::Decode)?;
    let (width, height) = decoder.dimensions();
    check_pixels(width, height)?;
    let decoded = (|| {
        limits.reserve(decoder.total_bytes())?;
        decoder.set_limits(limits)?;
        let orientation = decoder.orientation()?;
        let mut picture = DynamicImage::from_decoder(decoder)?;
        picture.apply_orientation(orientation);
        Ok(picture)
    })();
    Ok((decoded.map_err(ProcessError::Decode)?, format))
}

pub(crate) fn source_format(source: &[u8]) -> Result<Format, ProcessError> {
    let format = image::guess_format(source).ok();
    let format = format.and_then(Format::from_image);
    format.ok_or(ProcessError::NotAPicture)
}

pub(crate) fn check_pixels(width: u32, height: u32) -> Result<(), ProcessError> {
    if u64::from(width) * u64::from(height) > MAX_SOURCE_PIXELS {
        return Err(ProcessError::TooManyPixels { width, height });
    }
    Ok(())
}

/// The area that is cut out of the source, and the size that it is scaled to, in pixels.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) x: u32,
    pub(crate) y: u32,
    pub(crate) cut_width: u32,
    pub(crate) cut_height: u32,
    pub(crate) width: u32,
    pub(crate) height: u32,
}

impl Plan {
    pub(crate) fn of(source: (u32, u32), options: &Options) -> Result<Self, ProcessError> {
        let (width, height) = target(source, options);
        let same = (width, height) == source;
        if !same && (width > MAX_SIDE || height > MAX_SIDE) {
            return Err(ProcessError::ResultTooLarge { width, height });
        }
        let (cut_width, cut_height) = match options.mode {
            // Cutting before scaling saves the time and memory that the cut parts would take.
            Mode::Fill if !same => {
                let scale = scale(source, (width, height), f64::max);
                (
                    scaled(width, 1.0 / scale).min(source.0),
                    scaled(height, 1.0 / scale).min(source.1),
                )
            }
            _ => source,
        };
        Ok(Self {
            x: (source.0 - cut_width) / 2,
            y: (source.1 - cut_height) / 2,
            cut_width,
            cut_height,
            width,
            height,
        })
    }
}

fn resize(picture: DynamicImage, options: &Options) -> Result<DynamicImage, ProcessError> {
    let source = (picture.width(), picture.height());
    let plan = Plan::of(source, options)?;
    let (width, height) = (plan.width, plan.height);
    if (width, height) == source {
        return Ok(picture);
    }
    let picture = if (plan.cut_width, plan.cut_height) == source {
        picture
    } else {
        picture.crop_imm(plan.x, plan.y, plan.cut_width, plan.cut_height)
    };
    // `resize_exact` makes an intermediate picture with the source's width and the result's height. That can be larger
    // than both pictures, so the width is changed first when the height grows.
    let picture = if height > picture.height() {
        picture.resize_exact(width, picture.height(), FilterType::Lanczos3)
    } else {
        picture
    };
    Ok(picture.resize_exact(width, height, FilterType::Lanczos3))
}

/// The size of the result, in pixels.
fn target(source: (u32, u32), options: &Options) -> (u32, u32) {
    let asked = match (options.width, options.height) {
        (0, 0) => return source,
        (0, height) => (
            scaled(source.0, f64::from(height) / f64::from(source.1)),
            height,
        ),
        (width, 0) => (
            width,
            scaled(source.1, f64::from(width) / f64::from(source.0)),
        ),
        both => both,
    };
    match options.mode {
        Mode::Fit => {
            let scale = scale(source, asked, f64::min).min(1.0);
            (scaled(source.0, scale), scaled(source.1, scale))
        }
        Mode::Fill | Mode::Force => asked,
    }
}

fn scale(from: (u32, u32), to: (u32, u32), choose: fn(f64, f64) -> f64) -> f64 {
    let horizontal = f64::from(to.0) / f64::from(from.0);
    let vertical = f64::from(to.1) / f64::from(from.1);
    choose(horizontal, vertical)
}

fn scaled(side: u32, scale: f64) -> u32 {
    ((f64::from(side) * scale).round() as u32).max(1)
}

fn encode(picture: DynamicImage, format: Format, quality: u8) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::new();
    match format {
        Format::Jpeg => on_white(picture)
            .write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, quality))?,
        Format::Png => picture.write_with_encoder(PngEncoder::new(&mut bytes))?,
        Format::WebP => picture.write_with_encoder(WebPEncoder::new_lossless(&mut bytes))?,
    }
    Ok(bytes)
}

/// Blends transparent pixels with white, because JPEG has no alpha channel.
fn on_white(picture: DynamicImage) -> RgbImage {
    if !picture.color().has_alpha() {
        return picture.into_rgb8();
    }
    let picture = picture.into_rgba8();
    RgbImage::from_fn(picture.width(), picture.height(), |x, y| {
        let Rgba([red, green, blue, alpha]) = *picture.get_pixel(x, y);
        let alpha = u16::from(alpha);
        let blend =
            |channel: u8| ((u16::from(channel) * alpha + 255 * (255 - alpha) + 127) / 255) as u8;
        Rgb([blend(red), blend(green), blend(blue)])
    })
}
