//! JPEG pictures for print: four inks, whose ICC profile says what colours they make.
//!
//! The `image` crate mixes such colours without the profile, so they are decoded here.

use image::RgbImage;
use moxcms::{ColorProfile, DataColorSpace, Layout, TransformOptions};
use zune_jpeg::{
    JpegDecoder,
    zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions},
};

/// The picture in sRGB. `None` if it has no four inks, or if the profile is not for them.
pub(super) fn decode(jpeg: &[u8], icc: &[u8]) -> Option<RgbImage> {
    let profile = ColorProfile::new_from_slice(icc).ok()?;
    if profile.color_space != DataColorSpace::Cmyk {
        return None;
    }
    let options = DecoderOptions::default()
        .set_strict_mode(false)
        .set_max_width(usize::MAX)
        .set_max_height(usize::MAX);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(jpeg), options);
    decoder.decode_headers().ok()?;
    let stored = decoder.input_colorspace()?;
    if !matches!(stored, ColorSpace::CMYK | ColorSpace::YCCK) {
        return None;
    }
    decoder.set_options(options.jpeg_set_out_colorspace(stored));
    let mut inks = decoder.decode().ok()?;
    for pixel in inks.as_chunks_mut().0 {
        *pixel = match stored {
            ColorSpace::YCCK => from_ycck(*pixel),
            // Adobe's programs, and all that follow them, store how much ink is missing.
            _ => pixel.map(|missing| u8::MAX - missing),
        };
    }

    let (width, height) = decoder.dimensions()?;
    let srgb = ColorProfile::new_srgb();
    let options = TransformOptions::default();
    let transform = profile.create_transform_8bit(Layout::Rgba, &srgb, Layout::Rgb, options);
    let mut picture = RgbImage::new(width.try_into().ok()?, height.try_into().ok()?);
    transform.ok()?.transform(&inks, &mut picture).ok()?;
    Some(picture)
}

/// The first three inks as luma and chroma (JFIF), and the fourth, missing.
fn from_ycck([y, cb, cr, k]: [u8; 4]) -> [u8; 4] {
    let (y, cb, cr) = (f32::from(y), f32::from(cb) - 128.0, f32::from(cr) - 128.0);
    // A conversion to `u8` saturates.
    let ink = |value: f32| value.round() as u8;
    [
        ink(y + 1.402 * cr),
        ink(y - 0.344_136 * cb - 0.714_136 * cr),
        ink(y + 1.772 * cb),
        u8::MAX - k,
    ]
}
