//! Converts pixels from the colour space of their ICC profile to sRGB, which a picture without a profile is in.
//!
//! So the result needs no profile, and every format can have it.

use image::{ColorType, DynamicImage};
use moxcms::{CmsError, ColorProfile, DataColorSpace, Layout, TransformExecutor, TransformOptions};

/// The ICC profile of decoded pixels.
pub(super) enum Icc {
    None,
    Embedded(Vec<u8>),
    /// The pixels are in sRGB already.
    Applied,
}

/// What became of the source's ICC profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// The source has none.
    None,
    Converted,
    /// The profile is broken or is not for these pixels. The colours are as if there were none.
    Ignored,
}

impl Profile {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Profile::None => "none",
            Profile::Converted => "converted",
            Profile::Ignored => "ignored",
        }
    }
}

pub(super) fn to_srgb(mut picture: DynamicImage, icc: Icc) -> (DynamicImage, Profile) {
    let profile = match icc {
        Icc::None => Profile::None,
        Icc::Applied => Profile::Converted,
        Icc::Embedded(icc) => match convert(&mut picture, &icc) {
            Ok(()) => Profile::Converted,
            Err(_) => Profile::Ignored,
        },
    };
    (picture, profile)
}

/// An error leaves the colours as they are.
fn convert(picture: &mut DynamicImage, icc: &[u8]) -> Result<(), CmsError> {
    let profile = ColorProfile::new_from_slice(icc)?;
    let mut srgb = ColorProfile::new_srgb();
    match (profile.color_space, picture.color()) {
        // A grey picture with a profile of colours, as some editors write it.
        (DataColorSpace::Rgb, ColorType::L8) => *picture = picture.to_rgb8().into(),
        (DataColorSpace::Rgb, ColorType::La8) => *picture = picture.to_rgba8().into(),
        (DataColorSpace::Rgb, ColorType::L16) => *picture = picture.to_rgb16().into(),
        (DataColorSpace::Rgb, ColorType::La16) => *picture = picture.to_rgba16().into(),
        (DataColorSpace::Rgb, _) => {}
        (DataColorSpace::Gray, color) if !color.has_color() => {
            let curve = srgb.red_trc.take();
            srgb = ColorProfile::new_gray_with_gamma(1.0);
            srgb.gray_trc = curve;
        }
        _ => return Err(CmsError::UnsupportedProfileConnection),
    }
    let channels = picture.color().channel_count();
    let layout = match channels {
        1 => Layout::Gray,
        2 => Layout::GrayAlpha,
        3 => Layout::Rgb,
        _ => Layout::Rgba,
    };
    let row = usize::from(channels) * picture.width() as usize;
    let options = TransformOptions::default();
    let eight_bits = || profile.create_transform_8bit(layout, &srgb, layout, options);
    let sixteen_bits = || profile.create_transform_16bit(layout, &srgb, layout, options);
    match picture {
        DynamicImage::ImageLuma8(samples) => apply(&*eight_bits()?, samples, row),
        DynamicImage::ImageLumaA8(samples) => apply(&*eight_bits()?, samples, row),
        DynamicImage::ImageRgb8(samples) => apply(&*eight_bits()?, samples, row),
        DynamicImage::ImageRgba8(samples) => apply(&*eight_bits()?, samples, row),
        DynamicImage::ImageLuma16(samples) => apply(&*sixteen_bits()?, samples, row),
        DynamicImage::ImageLumaA16(samples) => apply(&*sixteen_bits()?, samples, row),
        DynamicImage::ImageRgb16(samples) => apply(&*sixteen_bits()?, samples, row),
        DynamicImage::ImageRgba16(samples) => apply(&*sixteen_bits()?, samples, row),
        _ => Err(CmsError::UnsupportedChannelConfiguration),
    }
}

/// Row by row, because a transform needs room for its result.
fn apply<T: Copy + Default>(
    transform: &dyn TransformExecutor<T>,
    samples: &mut [T],
    row: usize,
) -> Result<(), CmsError> {
    let mut before = vec![T::default(); row];
    for samples in samples.chunks_exact_mut(row) {
        before.copy_from_slice(samples);
        transform.transform(&before, samples)?;
    }
    Ok(())
}
