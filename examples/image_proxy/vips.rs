//! [`process`](super::process::process) with libvips in place of the `image` crate (`--features libvips`).

use std::sync::LazyLock;

use rs_vips::{
    Result, Vips, VipsImage,
    enums::Size,
    voption::{Setter, VOption},
};

use super::{
    options::{Format, Options},
    process::{Plan, ProcessError, Processed, check_pixels, source_format},
};

static STARTED: LazyLock<std::result::Result<(), String>> =
    LazyLock::new(|| Vips::init("image_proxy").map_err(|error| error.to_string()));

/// Must be called before any other function of libvips.
pub(crate) fn start() -> std::result::Result<(), ProcessError> {
    STARTED.clone().map_err(ProcessError::Vips)
}

pub(crate) fn process(
    source: &[u8],
    options: &Options,
) -> std::result::Result<Processed, ProcessError> {
    start()?;
    let source_format = source_format(source)?;
    let picture = open(source)?;
    let (width, height) = size(&picture);
    check_pixels(width, height)?;
    let picture = picture.autorot().map_err(vips_error)?;
    let plan = Plan::of(size(&picture), options)?;
    let format = options.format.unwrap_or(source_format);
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

fn size(picture: &VipsImage) -> (u32, u32) {
    (picture.get_width() as u32, picture.get_height() as u32)
}

/// The format and its options, in the syntax of a libvips file name.
fn suffix(format: Format, quality: u8) -> String {
    match format {
        // JPEG has no alpha channel, so transparent pixels are blended with white.
        Format::Jpeg => format!(".jpg[Q={quality},background=255]"),
        Format::Png => ".png".to_owned(),
        Format::WebP => ".webp[lossless]".to_owned(),
    }
}

fn vips_error(error: rs_vips::error::Error) -> ProcessError {
    ProcessError::Vips(error.to_string())
}
