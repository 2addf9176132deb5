//! How much memory a picture takes, before it is taken.

use super::{super::options::Format, decode::Source, plan::Plan};

/// Bytes of a pixel while it is scaled: four channels of 32 bits, whatever the picture has.
const SCALING: u64 = 16;
/// Bytes of a pixel while transparent pixels are weighed: four channels of 16 bits.
const WEIGHED: u64 = 8;

/// Bytes of the tables that convert colours, and how many the values of a profile become in them.
const COLOR_TABLES: u64 = 4 << 20;
const COLOR_VALUE: u64 = 8;

/// The most bytes that are taken at once, from the source's to the result's. `tests/image_proxy/memory.rs`
/// holds the numbers to what is measured.
pub(super) fn needed(source: &Source<'_>, plan: &Plan, format: Format) -> u64 {
    let color = source.color();
    let pixel = u64::from(color.bytes_per_pixel());
    let (width, height) = source.size();
    let decoded = u64::from(width) * u64::from(height);
    let cut = plan.cut_pixels();
    let result = plan.pixels();

    // What a decoder takes beside the pixels.
    let decoder = match source.format() {
        // The coefficients of a progressive picture: 16 bits for each of up to four channels, one of which is
        // not among the pixels.
        Format::Jpeg => 9,
        Format::Png => 0,
        // A copy with an alpha channel, and for animations one of the frame.
        Format::WebP => 8,
    };
    let turned = if source.lies_on_its_side() { pixel } else { 0 };
    let decode = decoded * (pixel + turned.max(decoder));

    let crop = if cut == decoded {
        0
    } else {
        (decoded + cut) * pixel
    };
    let scaled = if color.has_alpha() {
        WEIGHED.max(pixel)
    } else {
        pixel
    };
    let scale = if plan.scales() {
        let weigh = cut * (pixel + scaled);
        let turn = if plan.width_first() {
            2 * cut * scaled
        } else {
            0
        };
        let scale = cut * scaled + plan.pixels_between() * SCALING + result * scaled;
        weigh.max(turn).max(scale) + result * pixel
    } else {
        0
    };

    let mut channels = u64::from(color.channel_count());
    let depth = pixel / channels;
    // A grey picture with a profile of colours gets two channels more.
    if source.icc_length() > 0 && !color.has_color() {
        channels += 2;
    }
    let pixel = channels * depth;
    // The picture and the encoder's copies of it, and what it has written of a picture that cannot be compressed, in a
    // vector that doubles.
    let encode = result
        * match format {
            Format::Jpeg => pixel + 14,
            Format::Png => pixel * (5 + depth),
            Format::WebP => pixel + channels * (depth - 1) + 4 + 3 * channels,
        };
    // The `image` crate's JPEG decoder copies the encoded source.
    let encoded = 2 * source.length();
    let profile = match source.icc_length() {
        0 => 0,
        length => length * (1 + COLOR_VALUE) + COLOR_TABLES,
    };
    encoded + profile + decode.max(crop).max(scale).max(encode)
}
