//! Cuts and scales, with transparent pixels weighed by their alpha.

use image::{ColorType, DynamicImage, Pixel, imageops::FilterType};

use super::plan::Plan;

/// Full intensity.
const MAX: u32 = u16::MAX as u32;

pub(super) fn resize(mut picture: DynamicImage, plan: &Plan) -> DynamicImage {
    if (plan.cut_width, plan.cut_height) != (picture.width(), picture.height()) {
        picture = picture.crop_imm(plan.x, plan.y, plan.cut_width, plan.cut_height);
    }
    match picture.color() {
        _ if !plan.scales() => picture,
        color if color.has_alpha() && !is_opaque(&picture) => scale_weighed(picture, color, plan),
        _ => scale(picture, plan),
    }
}

/// Scales in the order that takes the least memory. The `image` crate always scales the height first.
fn scale(picture: DynamicImage, plan: &Plan) -> DynamicImage {
    let (width, height) = (plan.width, plan.height);
    if !plan.width_first() {
        return picture.resize_exact(width, height, FilterType::Lanczos3);
    }
    let turned = picture.rotate90();
    drop(picture);
    turned
        .resize_exact(height, width, FilterType::Lanczos3)
        .rotate270()
}

/// Scales with colours multiplied by alpha. Otherwise the colour of invisible pixels would show at the edges.
/// With 16 bits a channel, multiplying and dividing loses nothing that 8 bits could show.
fn scale_weighed(picture: DynamicImage, color: ColorType, plan: &Plan) -> DynamicImage {
    let mut picture = match color {
        ColorType::La8 | ColorType::La16 => picture.into_luma_alpha16().into(),
        _ => DynamicImage::from(picture.into_rgba16()),
    };
    weigh(&mut picture, multiply);
    let mut picture = scale(picture, plan);
    weigh(&mut picture, divide);
    match color {
        ColorType::La8 => picture.into_luma_alpha8().into(),
        ColorType::Rgba8 => picture.into_rgba8().into(),
        _ => picture,
    }
}

fn is_opaque(picture: &DynamicImage) -> bool {
    match picture {
        DynamicImage::ImageLumaA8(picture) => picture.pixels().all(|pixel| pixel.0[1] == u8::MAX),
        DynamicImage::ImageRgba8(picture) => picture.pixels().all(|pixel| pixel.0[3] == u8::MAX),
        _ => false,
    }
}

/// Changes each pixel's colours and alpha.
fn weigh(picture: &mut DynamicImage, change: fn(&mut [u16], &mut u16)) {
    fn each<'a, P: Pixel<Subpixel = u16> + 'a>(
        pixels: impl Iterator<Item = &'a mut P>,
        change: fn(&mut [u16], &mut u16),
    ) {
        for pixel in pixels {
            if let [colors @ .., alpha] = pixel.channels_mut() {
                change(colors, alpha);
            }
        }
    }
    match picture {
        DynamicImage::ImageLumaA16(picture) => each(picture.pixels_mut(), change),
        DynamicImage::ImageRgba16(picture) => each(picture.pixels_mut(), change),
        _ => {}
    }
}

/// Everything is halved too: the filter overshoots at hard edges, and what is cut off there would be another part of
/// the alpha than of the colours.
fn multiply(colors: &mut [u16], alpha: &mut u16) {
    for color in colors {
        let product = u32::from(*color) * u32::from(*alpha);
        *color = ((product + MAX) / (2 * MAX)) as u16;
    }
    *alpha = alpha.div_ceil(2);
}

fn divide(colors: &mut [u16], alpha: &mut u16) {
    for color in colors {
        let product = u32::from(*color) * MAX;
        let quotient = (product + u32::from(*alpha) / 2).checked_div(u32::from(*alpha));
        *color = u16::try_from(quotient.unwrap_or(0)).unwrap_or(u16::MAX);
    }
    *alpha = alpha.saturating_mul(2);
}
