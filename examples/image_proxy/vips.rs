//! [`process`](super::process::process) with libvips in place of the `image` crate (`--features libvips`).

use std::sync::LazyLock;

use rs_vips::{
    Result, Vips, VipsImage,
    enums::Size,
    voption::{Setter, VOption},
};

use super::{
    options::{Format, Options},
    process::{
        ProcessError, Processed, check_format, check_memory, check_pixels, color::Profile,
        plan::Plan, source_format,
    },
};

/// libvips' name of the profile in the metadata of a picture.
const ICC_PROFILE: &str = "icc-profile-data";

static STARTED: LazyLock<std::result::Result<(), String>> =
    LazyLock::new(|| Vips::init("image_proxy").map_err(|error| error.to_string()));

/// Must be called before any other function of libvips.
pub(crate) fn start() -> std::result::Result<(), ProcessError> {
    STARTED.clone().map_err(ProcessError::Vips)
}

pub(crate) fn process(
    source: &[u8],
    options: &Options,
    memory: u64,
) -> std::result::Result<Processed, ProcessError> {
    start()?;
    let source_format = source_format(source)?;
    let picture = open(source)?;
    check_pixels(size(&picture))?;
    check_memory(decoded_bytes(&picture), memory)?;
    let picture = picture.autorot().map_err(vips_error)?;
    let plan = Plan::of(size(&picture), options)?;
    let format = options.format_for(source_format, plan.width.max(plan.height));
    check_format(format, &plan)?;
    let animated = picture.get_n_pages() > 1;
    let (picture, profile) = to_srgb(picture);
    let bytes = carry_out(&picture, &plan)
        .and_then(|result| result.write_to_buffer(&suffix(format, options.quality)));
    let (source_width, source_height) = size(&picture);
    Ok(Processed {
        bytes: bytes.map_err(vips_error)?,
        format,
        width: plan.width,
        height: plan.height,
        source_format,
        source_width,
        source_height,
        animated,
        profile,
    })
}

fn open(source: &[u8]) -> std::result::Result<VipsImage, ProcessError> {
    VipsImage::new_from_buffer(source, "").map_err(vips_error)
}

/// libvips is lazy: it decodes when the result is written.
fn carry_out(picture: &VipsImage, plan: &Plan) -> Result<VipsImage> {
    let cut = picture.extract_area(
        plan.x as i32,
        plan.y as i32,
        plan.cut_width as i32,
        plan.cut_height as i32,
    )?;
    if (plan.width, plan.height) == (plan.cut_width, plan.cut_height) {
        return Ok(cut);
    }
    let exactly = VOption::new()
        .set("height", plan.height as i32)
        .set("size", Size::Force as i32);
    cut.thumbnail_image_with_opts(plan.width as i32, exactly)
}

fn to_srgb(picture: VipsImage) -> (VipsImage, Profile) {
    if picture.get_typeof(ICC_PROFILE).unwrap_or(0) == 0 {
        return (picture, Profile::None);
    }
    let embedded = VOption::new().set("embedded", true);
    match picture.icc_transform_with_opts("srgb", embedded) {
        Ok(converted) => (converted, Profile::Converted),
        Err(_) => (picture, Profile::Ignored),
    }
}

/// libvips works on small parts of a picture, so it takes little more than the decoded source.
fn decoded_bytes(picture: &VipsImage) -> u64 {
    let (width, height) = size(picture);
    // Four channels of 16 bits.
    u64::from(width) * u64::from(height) * 8
}

fn size(picture: &VipsImage) -> (u32, u32) {
    (picture.get_width() as u32, picture.get_height() as u32)
}

/// The format and its options, in the syntax of a libvips file name. Profile and metadata of the source stay out,
/// as with the `image` crate.
fn suffix(format: Format, quality: u8) -> String {
    match format {
        // JPEG has no alpha channel, so transparent pixels are blended with white.
        Format::Jpeg => format!(".jpg[Q={quality},background=255,strip]"),
        Format::Png => ".png[strip]".to_owned(),
        Format::WebP => ".webp[lossless,strip]".to_owned(),
    }
}

fn vips_error(error: rs_vips::error::Error) -> ProcessError {
    ProcessError::Vips(error.to_string())
}
